"""Drift: effect sizes of known shifts, alarms that are rare without any, and the command on a tiny store."""

import dataclasses
import json
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import jpeg, photograph
from registry_fixtures import log_served
from scipy import stats
from served_fixtures import IMAGE_SIZE, SIDE, Made, make, tiny_model
from training_fixtures import tracked

from catdog.answers import asking, familiarity, form
from catdog.answers.classifier import Classifier
from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.commands import drifting, feedback
from catdog.evaluation import properties, reference
from catdog.feedback import drift, drift_statistics, drift_words, measuring
from catdog.feedback.log_writer import Writer
from catdog.feedback.measuring import Measured
from catdog.photographs import photos, shards
from catdog.tracking import drift_run, opening, registry

VERSION, WITHOUT = "models:/catdog-cnn/1", "models:/catdog-cnn/2"  # the second keeps no reference
WIDTH = 12  # made-up features

# ---- effect sizes ---------------------------------------------------------------------------------------------------


def test_cliffs_delta_by_hand():
    old, new = np.array([1, 2, 3, 4]), np.array([3, 3, 5])
    above = sum(np.sign(b - a) for a in old for b in new)
    assert drift_statistics.order(old, new, confidence=0.95).size == pytest.approx(above / 12)
    alike = drift_statistics.order(np.full(500, 180.0), np.full(40, 180.0), confidence=0.95)
    assert (alike.size, alike.p_value) == (0, 1)
    assert -0.25 < alike.low < 0 < alike.high < 0.25
    apart = drift_statistics.order(np.arange(50), np.arange(100, 130), confidence=0.95)
    assert (apart.size, apart.high) == (1, 1)
    assert 0.8 < apart.low < 1
    assert apart.p_value < 1e-9


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_the_interval_of_a_known_shift_holds_it(shift):
    true = 2 * stats.norm.cdf(shift / np.sqrt(2)) - 1
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        effect = drift_statistics.order(rng.normal(size=300), rng.normal(shift, size=60), confidence=0.95)
        assert effect.low <= effect.size <= effect.high
        held += effect.low <= true <= effect.high
    assert held >= 184  # of 190 expected


def test_a_difference_of_shares_as_it_was_published():
    new, old = np.arange(70) < 56, np.arange(80) < 48
    effect = drift_statistics.share(old, new, confidence=0.95)
    assert effect[:3] == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)  # Newcombe 1998, table II (a)
    assert effect.p_value == stats.fisher_exact([[56, 14], [48, 32]]).pvalue
    assert drift_statistics.distance(0.5, 0.5) == 0
    assert drift_statistics.distance(0.01, 0.05) == pytest.approx(drift_statistics.distance(0.5, 0.62), abs=0.02)


def test_holm_by_hand():
    p_values = [0.001, 0.04, 0.012, 0.9]
    # 0.001 <= 0.05 / 4, 0.012 <= 0.05 / 3, 0.04 > 0.05 / 2
    assert drift_statistics.rejected(p_values, level=0.05).tolist() == [True, False, True, False]
    assert drift_statistics.rejected([0.001, 0.002], level=0.05).all()
    assert not drift_statistics.rejected([0.02, 0.04, 0.03], level=0.05).any()


def test_a_classifier_of_old_and_new_guesses_where_nothing_differs_and_tells_a_shift():
    rng = np.random.default_rng(2)
    shift = np.zeros(WIDTH)
    shift[0] = 1.5
    areas, false_alarms = [], 0
    for _ in range(20):
        effect = drift_statistics.told_apart(
            rng.normal(size=(200, WIDTH)), rng.normal(size=(80, WIDTH)), confidence=0.95
        )
        areas.append(effect.size)
        false_alarms += effect.p_value < 0.05
    assert np.mean(areas) == pytest.approx(0.5, abs=0.03)
    assert false_alarms <= 2
    told = drift_statistics.told_apart(
        rng.normal(size=(300, WIDTH)), rng.normal(size=(300, WIDTH)) + shift, confidence=0.95
    )
    best = stats.norm.cdf(1.5 / np.sqrt(2))
    assert told.low < best < told.high
    assert told.size == pytest.approx(best, abs=0.05)
    assert told.p_value < 1e-6


# ---- the accuracy to expect -----------------------------------------------------------------------------------------


def made_up(rng: np.random.Generator, count: int, *, least: float, overconfident: float = 0.0):
    """How sure a model is of photographs, and whether it is right; it is too sure by a constant."""
    sure = rng.uniform(least, 1, count)
    return sure, rng.random(count) < sure - overconfident


@pytest.mark.parametrize(("least", "overconfident"), [(0.9, 0.0), (0.6, 0.0), (0.6, 0.05)])
def test_the_accuracy_to_expect_is_that_which_comes(least, overconfident):
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(100):
        known_sure, known_right = made_up(rng, 1000, least=0.8, overconfident=overconfident)
        sure, right = made_up(rng, 200, least=least, overconfident=overconfident)
        found = drift_statistics.expected_accuracy(
            sure, known_sure=known_sure, known_right=known_right, confidence=0.95, seed=seed
        )
        held += found.low <= right.mean() <= found.high
        assert found.accuracy == pytest.approx((1 + least) / 2 - overconfident, abs=0.07)
    assert held >= 90


def test_where_nothing_was_wrong_something_may_be():
    sure, right = np.full(400, 0.9999), np.ones(400, bool)
    found = drift_statistics.expected_accuracy(sure[:50], known_sure=sure, known_right=right, confidence=0.95)
    assert found.accuracy == pytest.approx(1)
    assert found.low < 0.998
    assert found.high == 1


# ---- verdicts on tables with a known shift --------------------------------------------------------------------------


def tables(
    seed: int, count: int, *, light: float = 0.0, strange: float = 0.0, features: float = 0.0, unsure: float = 0.0
):
    """Columns of `Measured`, of photographs of one kind; the shifts, and the share that is strange, are added."""
    rng = np.random.default_rng(seed)
    rulers = rng.normal(size=(count, len(properties.NAMES))) * 20 + 120
    rulers[:, 4:] = 180, 1  # as photographs of one size and shape
    rulers[:, 0] += light
    sure = np.clip(1 - rng.exponential(0.02 + unsure, count), 0.5, 1)
    familiar = np.where(rng.random(count) < strange, 0, rng.random(count))
    raw = np.abs(rng.normal(1, 0.3, (count, WIDTH)))
    raw[:, 0] += features
    return {
        "properties": rulers.astype(np.float32),
        "probabilities": np.where(rng.random(count) < 0.5, sure, 1 - sure),
        "familiarity": familiar,
        "directions": reference.directions(raw),
    }


def known(seed: int = 0, count: int = 1000) -> reference.Reference:
    rng = np.random.default_rng(seed)
    columns = tables(seed, count)
    sure = np.maximum(columns["probabilities"], 1 - columns["probabilities"])
    return reference.Reference(
        ids=np.array([f"id{n}" for n in range(count)]), right=rng.random(count) < sure, **columns
    )


def new(seed: int, count: int = 200, **shifts: float) -> Measured:
    columns = tables(seed, count, **shifts)
    return Measured(places=[*range(count)], closeness=columns["familiarity"], refused=[], **columns)


def knobs(**changed: float | None) -> Classifier:
    network = asking.Network(iter, iter, engine="none")
    doubt = {"sureness": 0.9, "unfamiliar": 0.01} | changed
    return Classifier(network, ("cat", "dog"), IMAGE_SIZE, SIDE, 0.5, **doubt)


def compared(measured: Measured, *, old: reference.Reference | None = None, **changed: float | None) -> drift.Findings:
    return drift.compare(old or known(), measured, knobs(**changed), confidence=0.95)


def counted(findings: drift.Findings) -> set[str]:
    return {each.name for each in findings.differences if each.counts}


def test_photographs_of_the_same_kind_rarely_alarm():
    old = known()
    found = [compared(new(seed, 100), old=old) for seed in range(1, 26)]
    assert sum(bool(each.drift) for each in found) <= 2
    assert all(each.drift is not None for each in found)
    verdict = drift_words.verdict(found[0])
    assert verdict.startswith("These 100 photographs look like those that the model was tuned on; expect 9")
    assert "instead of" not in verdict
    names = [each.name for each in found[0].differences]
    assert names == [*properties.NAMES, "sureness", "familiarity", "cat", "dog", "unsure", "neither", "features"]


def test_a_known_shift_of_light_is_found_and_said():
    found = compared(new(1, light=-20))
    assert found.drift
    assert counted(found) == {"light"}
    [light] = [each for each in found.differences if each.name == "light"]
    true = 2 * stats.norm.cdf(-1 / np.sqrt(2)) - 1  # by a standard deviation
    assert light.effect.low < true < light.effect.high
    assert light.effect.size == pytest.approx(true, abs=0.08)
    assert light.old - light.new == pytest.approx(20, abs=4)
    verdict = drift_words.verdict(found)
    assert verdict.startswith(
        f"These 200 photographs differ: darker ({light.new:.0f} instead of {light.old:.0f} of 255); expect"
    )
    assert verdict.endswith(f"right instead of {100 * found.usual:.1f} %.")
    assert "differ" not in drift_words.verdict(compared(new(1, light=-2)))


@pytest.mark.parametrize(
    ("shift", "names", "words"),
    [
        ({"strange": 0.3}, {"neither", "familiarity"}, "the model finds 3"),
        ({"features": 1.0}, {"features"}, "the model sees them otherwise"),
        ({"unsure": 0.2}, {"unsure", "sureness"}, "the model is unsure of"),
    ],
)
def test_what_differs_is_what_is_said_to_differ(shift, names, words):
    found = compared(new(5, **shift))
    assert names <= counted(found)
    assert counted(found) <= names | {"cat", "dog"}  # of which there are fewer where others are unsure
    assert words in drift_words.verdict(found)
    json.dumps(found.to_dict(), allow_nan=False)


def test_what_is_neither_is_counted_apart_from_the_accuracy():
    measured = new(6, strange=0.3)
    strange = measured.familiarity < 0.01
    surer = dataclasses.replace(measured, probabilities=np.where(strange, 1.0, measured.probabilities))
    of_both = [compared(each) for each in (measured, surer)]
    assert of_both[0].accuracy == of_both[1].accuracy
    assert of_both[0].neither == strange.sum() > 40
    assert f"{strange.sum()} are unfamiliar (neither)" in drift_words.accuracy(of_both[0])
    assert f"] of the other {200 - strange.sum()} right instead of" in drift_words.verdict(of_both[0])
    everything = compared(new(6, strange=1.0))
    assert everything.drift
    assert everything.accuracy is None
    assert "can't be said" in drift_words.accuracy(everything)


def test_of_few_photographs_nothing_is_said():
    found = compared(new(7, drift.FEWEST - 1, light=-100))
    assert (found.drift, found.differences) == (None, [])
    assert drift_words.verdict(found) == "These 29 photographs are too few to say whether they differ: it takes 30."
    assert compared(new(7, drift.FEWEST, light=-100)).drift
    few = compared(new(7), old=known(count=20))
    assert few.drift is None
    assert (
        drift_words.verdict(few) == "The model keeps 20 validation photographs, too few to compare with: it takes 30."
    )
    assert drift_words.verdict(compared(new(7, 1))).startswith("This photograph is too few")


def test_labels_that_a_model_never_gives_are_not_compared():
    found = compared(new(8), sureness=None, unfamiliar=None)
    names = [each.name for each in found.differences]
    assert not {"unsure", "neither"} & {*names}
    assert found.neither == 0


# ---- properties and the reference -----------------------------------------------------------------------------------


def ruled(image: np.ndarray) -> dict[str, float]:
    standard = photos.standardise(photos.encode(image), image_size=IMAGE_SIZE).jpeg
    height, width = image.shape[:2]
    numbers = properties.measure(standard, width=width, height=height)
    assert numbers.dtype == np.float32
    return dict(zip(properties.NAMES, numbers.tolist(), strict=True))


def test_each_property_follows_what_it_is_called_by():
    plain = photograph(3, (200, 150))
    grain = np.random.default_rng(0).normal(0, 20, plain.shape)
    plain = np.clip(plain.astype(float) * 0.6 + 50 + grain, 0, 255).astype(np.uint8)
    before = ruled(plain)
    assert before["short side"] == 150
    assert before["aspect"] == pytest.approx(4 / 3)
    mirrored = ruled(np.ascontiguousarray(plain[:, ::-1]))
    assert mirrored == pytest.approx(before, rel=0.02)
    dark = ruled((plain * 0.5).astype(np.uint8))
    assert dark["light"] == pytest.approx(before["light"] / 2, rel=0.05)
    assert dark["contrast"] < 0.6 * before["contrast"]
    assert ruled(cv2.GaussianBlur(plain, (0, 0), 3))["sharpness"] < before["sharpness"] - 1
    grey = cv2.cvtColor(cv2.cvtColor(plain, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    assert ruled(grey)["colour"] < 2 < before["colour"]
    assert ruled(grey)["light"] == pytest.approx(before["light"], rel=0.02)


def test_a_reference_is_kept_whole_and_within_its_size(tmp_path, make_shard):
    val = make_shard(range(40))
    rows = val.sample(30)
    rng = np.random.default_rng(0)
    probabilities = rng.random(30)
    made = reference.make(
        val,
        rows,
        np.ones((30, 6), np.float32),
        features=rng.random((30, 2048), np.float32),
        probabilities=probabilities,
        familiarity=rng.random(30),
        threshold=0.3,
    )
    assert made.ids.tolist() == sorted(val.ids)[:30]
    assert made.right.tolist() == [(p >= 0.3) == val.labels[row] for p, row in zip(probabilities, rows, strict=True)]
    assert np.linalg.norm(made.directions.astype(float), axis=1) == pytest.approx(1, abs=1e-3)
    made.save(tmp_path / "reference.npz")
    again = reference.load(tmp_path / "reference.npz")
    for name, array in dataclasses.asdict(made).items():
        assert getattr(again, name).dtype == array.dtype
        assert (getattr(again, name) == array).all()

    large = reference.Reference(
        ids=np.array(["f" * 64] * reference.MOST),
        directions=np.zeros((reference.MOST, 2048), np.float16),
        probabilities=np.zeros(reference.MOST),
        familiarity=np.zeros(reference.MOST),
        right=np.zeros(reference.MOST, bool),
        properties=np.zeros((reference.MOST, 6), np.float32),
    )
    large.save(tmp_path / "large.npz")
    assert 4_300_000 < (tmp_path / "large.npz").stat().st_size < reference.MOST_BYTES
    wide = reference.make(
        val,
        rows,
        np.ones((30, 6), np.float32),
        features=np.ones((30, 200_000), np.float32),
        probabilities=probabilities,
        familiarity=probabilities,
        threshold=0.5,
    )
    wide.save(tmp_path / "wide.npz")
    assert len(wide.ids) == 12
    assert (tmp_path / "wide.npz").stat().st_size < reference.MOST_BYTES


def test_a_damaged_reference_is_told(tmp_path):
    path = tmp_path / "reference.npz"
    known(count=40).save(path)
    whole = path.read_bytes()
    for data in (b"", b"PK nothing", whole[: len(whole) // 2], whole[:200] + b"\0" * 60 + whole[260:]):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"reference\.npz is damaged"):
            reference.load(path)
    dataclasses.replace(known(count=40), right=np.ones(3, bool)).save(path)
    with pytest.raises(UserError, match="do not fit together"):
        reference.load(path)
    np.savez(path, *[np.array([{}], object)])
    with pytest.raises(UserError, match=r"reference\.npz is damaged"):
        reference.load(path)


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Iterator[mlflow.MlflowClient]:
    """A project with two versions of a tiny model: one with 200 validation photographs, one of an earlier release."""
    with tracked(tmp_path_factory.mktemp("project")) as client:
        tiny_model().save("model.keras")
        made = make(Path("model.keras"), Path("answers"), unfamiliar=0.01)
        for each in (referring(made), make(Path("model.keras"), Path("earlier"))):
            model_id, run_id = log_served(each)
            tags = {"model_sha256": each.settings.model_sha256, "source_kind": "folder"}
            tags["served_sha256"] = client.get_logged_model(model_id).tags["served_sha256"]
            registry.register(client, "cnn", model_id=model_id, run_id=run_id, tags=tags, metrics={}, description="")
        yield client


def referring(made: Made) -> Made:
    """With a profile of photographs, and other photographs as its reference, labelled as the model itself says."""
    classifier = form.open_form(*made)
    standard = [photos.standardise(jpeg(n), image_size=IMAGE_SIZE).jpeg for n in range(400)]
    rows = [shards.Row(f"id{n:03}", f"{n}.jpg", n % 2, data, f"{n}") for n, data in enumerate(standard)]
    shards.write(Path("known.arrow"), rows)
    shard = shards.Shard(Path("known.arrow"))
    asked = classifier.ask(np.stack([photos.pixels(shard.jpeg(row), SIDE) for row in range(400)]))
    train, val = np.arange(200), [*range(200, 400)]
    features = asked.features
    profile = familiarity.profile(features[train], shard.ids[:200], shard.labels[train], val=features[val])
    profile.save(made.folder / form.PROFILE)
    sizes = pd.DataFrame({"id": shard.ids, "width": 96, "height": 72})
    reference.make(
        shard,
        val,
        properties.of_rows(shard, val, sizes),
        features=features[val],
        probabilities=classifier.probabilities(asked)[val],
        familiarity=profile.familiarity(features[val]),
        threshold=0.5,
    ).save(made.folder / form.REFERENCE)
    digests = {file.name: files.sha256(file) for file in sorted(made.folder.iterdir())}
    return made._replace(settings=dataclasses.replace(made.settings, digests=digests))


@pytest.fixture
def folder(project, tmp_path) -> Path:
    """Sixty photographs of the same kind as those that the model knows."""
    return drawn(tmp_path / "photographs", range(1000, 1060))


def drawn(folder: Path, seeds: range, *, light: float = 1) -> Path:
    folder.mkdir()
    for seed in seeds:
        (folder / f"{seed}.jpg").write_bytes(photos.encode((photograph(seed) * light).astype(np.uint8)))
    return folder


def run(*given: Path, model: str = VERSION, out: Path = paths.DRIFT) -> dict:
    """The figures that the command leaves."""
    feedback.drift([*given], model=model, out=out)
    return files.read_json(out.with_suffix(".json"))


def test_photographs_of_the_same_kind_are_no_drift(project, folder, capsys):
    told = run(folder)
    assert told["drift"] is False
    assert (told["photographs"], told["known"], told["model"]) == (60, 200, "catdog-cnn/1")
    assert told["verdict"].startswith("These 60 photographs look like those that the model was tuned on")
    said = capsys.readouterr().out
    assert told["verdict"] in " ".join(said.split())
    assert "the page: reports/drift.html" in said
    assert len(told["strangest"]) == 24
    shares = [each["familiarity"] for each in told["strangest"]]
    assert shares == sorted(shares)
    model = opening.load(VERSION)
    answers = {
        path.name: model.answers(model.ask(model.pixels(path.read_bytes())[None]))[0] for path in folder.iterdir()
    }
    for each in told["strangest"]:
        answer = answers[Path(each["path"]).name]
        assert (each["label"], each["familiarity"]) == (answer.label, answer.familiarity)
        assert each["probability"] == pytest.approx(answer.probability, abs=1e-6)
    assert max(shares) <= sorted(answer.familiarity for answer in answers.values())[24]


def test_darker_ones_are_and_a_run_says_so(project, folder, tmp_path):
    dark = drawn(tmp_path / "dark", range(1000, 1060), light=0.4)
    told = run(dark, out=tmp_path / "page.html")
    assert told["drift"] is True
    assert "darker (" in told["verdict"]
    experiment = project.get_experiment_by_name(drift_run.EXPERIMENT)
    [newest] = project.search_runs([experiment.experiment_id], max_results=1)
    assert newest.info.status == "FINISHED"
    tags = newest.data.tags
    assert (tags["drift"], tags["verdict"], tags["model_version"]) == ("true", told["verdict"], "catdog-cnn/1")
    assert (tags["source"], newest.info.run_name) == ("dark", "dark")
    assert {file.path for file in project.list_artifacts(newest.info.run_id)} == {"page.html", "page.json"}
    [light] = [each for each in told["differences"] if each["name"] == "light"]
    assert newest.data.metrics["effect.light"] == light["effect"]["size"] < -0.8
    assert newest.data.metrics["photographs"] == 60
    assert newest.data.metrics["effect.short_side.low"] <= 0
    shown = (tmp_path / "page.html").read_text()
    assert shown.count('class="mark"') == sum(each["counts"] for each in told["differences"])


def test_few_and_unreadable_ones_and_copies(project, tmp_path, capsys):
    few = drawn(tmp_path / "few", range(2000, 2010))
    (few / "copy.jpg").write_bytes((few / "2000.jpg").read_bytes())
    (few / "note.txt").write_text("not a photograph")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("a/1.jpg", jpeg(2011))
        archive.writestr("a/<b>.jpg", b"")
    told = run(few, tmp_path / "more.zip", tmp_path / "nowhere.jpg")
    assert told["drift"] is None
    assert (told["photographs"], told["copies"], told["unreadable"]) == (11, 1, 3)
    assert told["verdict"] == "These 11 photographs are too few to say whether they differ: it takes 30."
    assert [each["reason"] for each in told["unreadable_files"]] == ["not an image", "empty", "not found"]
    assert len(told["strangest"]) == 11
    page = paths.DRIFT.read_text()
    assert "1 file is a copy of another" in page
    assert "a/&lt;b&gt;.jpg" in page
    assert told["source"] == "few, more.zip, nowhere.jpg"
    assert "3 files could not be read" in capsys.readouterr().out


def test_what_a_person_can_put_right_is_one_line(project, folder, tmp_path):
    def words(*given: Path, **options) -> str:
        with pytest.raises(UserError) as refused:
            run(*given, **options)
        return str(refused.value)

    assert words(folder, model=WITHOUT).startswith("catdog-cnn/2 keeps no validation photographs to compare with: run")
    assert words(folder, out=Path("page.txt")) == "page.txt should end in .html"
    (tmp_path / "empty").mkdir()
    assert words(tmp_path / "empty") == "there is no file in what was named"
    (tmp_path / "note.txt").write_text("none")
    assert words(tmp_path / "note.txt") == "no file of 1 could be read as a photograph: not an image"
    assert "has no version" in words(folder, model="models:/catdog@champion")


def test_no_answer_needs_the_reference(project, tmp_path):
    fetched = opening.fetch(VERSION, tmp_path)
    [file] = fetched.rglob(form.REFERENCE)
    whole = file.read_bytes()
    settings = form.settings(json.loads(json.dumps(drifting.served_files._parts(fetched)[2].to_dict())))
    file.unlink()
    [keras_file] = fetched.rglob("model.keras")
    assert form.open_form(keras_file, file.parent, settings).profile is not None
    file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(UserError, match=r"reference\.npz is not what was logged"):
        drifting.served_files.reference_file(fetched)


def test_features_of_many_are_those_of_some_evenly_among_all(project, folder, monkeypatch):
    monkeypatch.setattr(measuring, "MOST_KEPT", 31)
    model = opening.load(VERSION)
    inputs = sorted(folder.iterdir())
    some = measuring.ask(inputs, model, read=Path.read_bytes)
    assert (some.directions.shape[0], len(some.places)) == (31, 60)
    monkeypatch.undo()
    everything = measuring.ask(inputs, model, read=Path.read_bytes)
    even = np.linspace(0, 59, 31).astype(int)
    assert (some.directions == everything.directions[even]).all()
    assert (some.probabilities == everything.probabilities).all()


# ---- a log of answers -----------------------------------------------------------------------------------------------


def logged(folder: Path, seeds: range, *, keep: bool, light: float = 1, version: str = "catdog-cnn/1") -> Path:
    """A log of what a version answers to photographs."""
    model = opening.load(VERSION)
    writer = Writer(folder, version=version, classes=model.classes, photographs=keep)
    for seed in seeds:
        data = photos.encode((photograph(seed) * light).astype(np.uint8))
        asked = model.ask(model.pixels(data)[None])
        [answer] = model.answers(asked)
        answers = [answer._asdict() | {"model_version": version, "id": uuid.uuid4().hex}]
        writer.put([data], answers, asked.features, milliseconds=3)
    assert writer.flush(20)
    writer.close()
    return folder


def test_a_log_that_kept_photographs_is_compared_by_them(project, tmp_path):
    told = run(logged(tmp_path / "log", range(1000, 1040), keep=True))
    assert (told["photographs"], told["drift"]) == (40, False)
    assert {"light", "short side", "features"} <= {each["name"] for each in told["differences"]}
    assert "that log kept are asked about again" in told["notes"][0]
    assert all(len(each["path"]) == 64 for each in told["strangest"])


def test_a_log_without_photographs_is_compared_by_its_answers(project, tmp_path, capsys):
    log = logged(tmp_path / "log", range(1000, 1040), keep=False)
    logged(log, range(1000, 1010), keep=False)  # asked again
    logged(log, range(1500, 1540), keep=False, version="catdog-cnn/7")
    told = run(log)
    assert (told["photographs"], told["drift"], told["model"]) == (40, False, "catdog-cnn/1")
    names = {each["name"] for each in told["differences"]}
    assert names == {"sureness", "familiarity", "cat", "dog", "neither", "features"}
    assert "log kept no photographs" in " ".join(capsys.readouterr().out.split())
    page = paths.DRIFT.read_text()
    assert "log kept no photographs" in page
    assert told["strangest"][0]["path"] in page
    again = run(logged(tmp_path / "dark", range(1000, 1040), keep=False, light=0.1))
    assert again["drift"] is True


def test_a_log_by_itself_and_of_this_version(project, folder, tmp_path):
    log = logged(tmp_path / "log", range(1000, 1002), keep=False, version="catdog-cnn/7")
    with pytest.raises(UserError, match=r"log has no answers of catdog-cnn/1, but of catdog-cnn/7: name that with"):
        run(log)
    with pytest.raises(UserError, match="log is a log of answers: name it by itself"):
        run(folder, log)


# ---- the page in a browser ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_loads_whole_by_itself_and_fits_the_screen(project, folder, browser, width, scheme):
    (folder / "note.txt").write_text("not a photograph")
    run(folder)
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(paths.DRIFT.resolve().as_uri(), wait_until="load")
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 300)))") == [
        True
    ]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg").count() == 8 + 3  # a small picture for each median and each share
    assert "look like those" in page.locator("h1").inner_text()
    page.close()
