"""The page: both models' own answers, one champion, refusals that tell nothing of this machine; and in a browser."""

import base64
import dataclasses
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from conftest import jpeg, listening, photograph
from starlette.testclient import TestClient
from training_fixtures import params

from catdog.answers import asking, familiarity, gradcam
from catdog.answers.classifier import Classifier
from catdog.base.errors import UserError
from catdog.commands import demo, verdicts
from catdog.commands.verdicts import Judge
from catdog.photographs import photos, shards
from catdog.training.cnn import network

pytest_plugins = ["registry_fixtures"]
CLASSES = ("cat", "dog")
SIDE, IMAGE_SIZE = 24, 64


def judge(kind: str, *, champion: bool = False, drawn: bool = False, **doubt: object) -> Judge:
    keras.utils.set_random_seed(len(kind))
    model = network.cnn(params().train_cnn, image_size=SIDE)
    # An untrained one says nearly the same of everything.
    model.get_layer("probability").set_weights([w * 3 for w in model.get_layer("probability").get_weights()])
    found = Classifier(asking.by_keras(model), CLASSES, IMAGE_SIZE, SIDE, 0.5, profile=profile(), **doubt)
    name = "catdog/2" if champion else f"catdog-{kind}/1"
    return Judge(kind, name, champion, 0.969, drawn, found)


def profile(*, closeness: float = -1.0) -> familiarity.Profile:
    """Of six training photographs; a photograph that is less close than this is unfamiliar."""
    directions = np.random.default_rng(0).random((6, 6)).astype(np.float16)
    ids = np.array([f"id{number}" for number in range(6)])
    nothing = np.zeros((2, 0, 6), np.float16)
    return familiarity.Profile(directions, ids, np.zeros((2, 6), np.float32), nothing, np.array([closeness]))


@pytest.fixture(scope="module")
def judges() -> list[Judge]:
    return [judge("cnn"), judge("xception", champion=True)]


SAMPLES = [demo.Sample(jpeg(seed), CLASSES[seed % 2]) for seed in range(4)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A shard of the training photographs that the models' profile names."""
    path = tmp_path_factory.mktemp("trained") / "train.arrow"
    shards.write(path, [shards.Row(f"id{n}", f"{n}.jpg", n % 2, jpeg(n), f"g{n}") for n in range(6)])
    return path


@pytest.fixture(scope="module")
def page(judges, trained) -> TestClient:
    application = demo.create(judges, SAMPLES, hosts=["127.0.0.1", "localhost"], trained=trained)
    return TestClient(application, base_url="http://127.0.0.1", raise_server_exceptions=False)


def test_the_answers_are_the_networks_own(page, judges):
    data = jpeg(5, size=(150, 110))
    answer = page.post("/verdicts", content=data).json()
    photo = photos.standardise(data, image_size=IMAGE_SIZE)
    pixels = photos.pixels(photo.jpeg, SIDE)[None]
    for judge, verdict in zip(judges, answer["verdicts"], strict=True):
        asked = judge.classifier.ask(pixels)
        probability = float(judge.classifier.probabilities(asked)[0])
        assert verdict["probability"] == pytest.approx(probability, abs=1e-6)
        assert verdict["label"] == CLASSES[probability >= 0.5]
        assert verdict["sure"] == f"{100 * max(probability, 1 - probability):.1f} %"
        assert verdict["version"] == judge.version
        heat = gradcam.heat(asked.evidence, second=np.array([probability >= 0.5]))[0]
        assert verdict["overlay"] == demo._address(gradcam.overlay(photo.image, heat))
        assert verdict["nearest"] == judge.classifier.profile.nearest(asked.features[0], 4)
        assert page.get(f"/trained/{verdict['nearest'][0]}").headers["content-type"] == "image/jpeg"
    kind, _, encoded = answer["photograph"].partition(",")
    assert kind == "data:image/jpeg;base64"
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == photo.image.shape


def fields(judge: Judge, label: str, leans: str, probability: float, familiarity: float | None = 0.5) -> dict:
    nothing = np.zeros((4, 4, 3), np.uint8)
    return demo._verdict_fields(
        judge, verdicts.Verdict(label, leans, probability, familiarity, nothing, nothing, [], 1.0)
    )


def test_nothing_is_called_certain(judges):
    told = [("dog", 0.9996), ("dog", 0.9994), ("cat", 0.0), ("cat", 0.25)]
    said = [fields(judges[0], label, label, probability)["sure"] for label, probability in told]
    assert said == ["over 99.9 %", "99.9 %", "over 99.9 %", "75.0 %"]


def test_doubt_is_told_with_what_made_it():
    doubtful = judge("cnn", sureness=0.95, unfamiliar=0.01)
    unsure, neither, familiar = (
        fields(doubtful, *verdict)
        for verdict in (("unsure", "cat", 0.3), ("neither", "dog", 0.9, 0.0), ("dog", "dog", 0.99, 0.4))
    )
    assert unsure["sure"] == neither["sure"] == ""
    assert unsure["why"] == "It leans to cat, with 70.0 %; to answer it needs 95.0 %."
    assert neither["why"] == (
        "Too strange: none of the photographs that it was tuned on looked as strange, or more. "
        "It would have to say dog."
    )
    assert familiar["why"] == "Familiar: 40.0 % of the photographs that it was tuned on looked as strange, or more."


def test_a_photograph_in_doubt_is_shown_so(trained):
    strange = judge("cnn", unfamiliar=0.01)
    strange = dataclasses.replace(
        strange, classifier=dataclasses.replace(strange.classifier, profile=profile(closeness=1.0))
    )
    application = demo.create([strange, judge("xception", sureness=0.9999999)], [], hosts=["*"], trained=trained)
    verdicts_ = TestClient(application).post("/verdicts", content=jpeg(5)).json()["verdicts"]
    assert [verdict["label"] for verdict in verdicts_] == ["neither", "unsure"]
    assert all(len(verdict["nearest"]) == 4 for verdict in verdicts_)


def test_the_page_says_what_is_what(page):
    text = page.get("/").text
    assert text.count(">champion<") == 1
    assert "catdog/2, 96.9 % right in its test" in text
    assert text.count('data-number="') == len(SAMPLES)
    assert "promote" not in text
    assert "trained on drawings" not in text


def test_without_a_champion_and_of_drawings_it_says_so():
    application = demo.create([judge("cnn"), judge("xception", drawn=True)], [], hosts=["*"])
    text = TestClient(application).get("/").text
    assert "<code>catdog promote</code>" in text
    assert "trained on drawings" in text
    assert "Or one of the test photographs" not in text


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "empty"), (b"nothing", "not an image"), (jpeg(1)[:-300], "truncated")]
)
def test_what_is_no_photograph_is_a_400_that_says_why(page, data, said):
    answer = page.post("/verdicts", content=data)
    assert answer.status_code == 400
    assert answer.json()["message"] == f"That is no photograph that can be read: {said}."


def test_too_large_a_photograph_is_refused(page):
    assert page.post("/verdicts", content=bytes(demo.LIMITS.body + 1)).status_code == 413
    bomb = cv2.imencode(".png", np.zeros((9000, 9000), np.uint8))[1].tobytes()
    assert "the limit is 64 megapixels" in page.post("/verdicts", content=bomb).json()["message"]


def test_an_error_of_ours_tells_nothing_of_this_machine(page, judges, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError(f"secret in {__file__}")

    monkeypatch.setattr(gradcam, "heat", broken)
    answer = page.post("/verdicts", content=jpeg(1))
    assert answer.status_code == 500
    assert "Something went wrong here" in answer.json()["message"]
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_only_known_names_samples_and_ways_are_answered(page):
    assert page.get("/", headers={"host": "evil.example"}).status_code == 400
    assert page.get("/samples/0").content == SAMPLES[0].jpeg
    assert page.get("/samples/99").status_code == 404
    assert page.get("/trained/nobody").status_code == 404
    assert page.get("/trained/../params.yaml").status_code == 404
    assert page.get("/samples/../params.yaml").status_code == 404
    assert page.get("/verdicts").status_code == 405


def test_samples_show_both_classes_and_the_hard_ones_first(make_shard, tmp_path):
    shard = make_shard(range(20), name="test")
    mistakes = tmp_path / "mistakes.csv"
    mistakes.write_text("id,wrong\nid3,cnn\nid4,cnn xception\nid6,xception\ngone,cnn\n")
    found = demo.samples(tmp_path / "test.arrow", mistakes, classes=[*CLASSES])
    assert [sample.jpeg for sample in found[:2]] == [shard.jpeg(3), shard.jpeg(6)]
    assert len({sample.jpeg for sample in found}) == len(found) == 8
    assert sorted(sample.label for sample in found) == ["cat"] * 4 + ["dog"] * 4
    assert len(demo.samples(tmp_path / "test.arrow", tmp_path / "none.csv", classes=[*CLASSES])) == 8
    assert demo.samples(tmp_path / "nowhere.arrow", mistakes, classes=[*CLASSES]) == []


def test_the_champion_and_the_newest_of_the_other_are_asked(store):
    with pytest.raises(UserError, match="catdog-cnn has no version here"):
        verdicts.judges(store.client)
    for model in ("cnn", "xception", "xception"):
        store.register(model)
    assert [judge.version for judge in verdicts.judges(store.client)] == ["catdog-cnn/1", "catdog-xception/2"]
    store.promote("catdog-xception/1")
    found = verdicts.judges(store.client)
    assert [(judge.version, judge.champion) for judge in found] == [("catdog-cnn/1", False), ("catdog/1", True)]
    assert found[0].accuracy == pytest.approx(0.9)
    assert not found[0].drawn


def test_a_model_that_was_changed_is_not_shown(store):
    store.register("cnn", model_sha256="0" * 64)
    store.register("xception")
    with pytest.raises(UserError, match="is not what was logged"):
        verdicts.judges(store.client)


# ---- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(judges, trained):
    """Where the page runs, on loopback."""
    with listening(demo.create(judges, SAMPLES, hosts=["127.0.0.1"], trained=trained)) as found:
        yield found


@pytest.mark.parametrize("width", [390, 1280])
def test_a_person_clicks_a_sample_and_gives_files(browser, address, width, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.click("[data-number='1']")
    page.wait_for_selector("#summary:has-text('labelled dog')")
    assert all("%" in text for text in page.locator(".verdict").all_inner_texts())
    assert page.locator(".card > img:visible").count() == 3
    assert page.locator(".nearest img:visible").count() == 8
    assert page.locator(".card .none:visible").count() == 0
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    given = Path(tmp_path / "given.png")
    given.write_bytes(cv2.imencode(".png", photograph(9))[1].tobytes())
    before = page.get_attribute("#photograph", "src")
    page.set_input_files("#file", given)
    page.wait_for_function("before => document.querySelector('#photograph').src !== before", arg=before)
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []

    given.write_text("no photograph")
    page.set_input_files("#file", given)
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem") == "That is no photograph that can be read: not an image."
    page.close()
