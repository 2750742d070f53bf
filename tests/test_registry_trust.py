"""What is opened was registered by us: a version without digests is refused by whatever would open it, and its own code
never runs.
"""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
from conftest import jpeg
from registry_fixtures import BETTER, GOOD, LABELS, answers, check_consistent, deployed_twice

from catdog.base.errors import UserError
from catdog.commands import cli, listening, verdicts
from catdog.tracking import candidates, gates, promotion, registry, served_form, trace, versions

pytest_plugins = ["registry_fixtures"]
REFUSED = "was not registered by catdog .* so it is not opened"


@pytest.fixture
def trap(store, tmp_path) -> Path:
    """A served model whose code leaves a mark wherever it is run; the mark is the folder's neighbour `ran`."""
    model_id, _ = store.models[4]
    folder = Path(shutil.copytree(mlflow.artifacts.download_artifacts(f"models:/{model_id}"), tmp_path / "trap"))
    for file in [*folder.rglob("*.py"), folder / "code/mlflow/__init__.py", folder / "code/sitecustomize.py"]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    return folder


def ran(trap: Path) -> bool:
    return trap.with_name("ran").exists()


def register_by_hand(store, name: str, source: str, **tags: str) -> str:
    """By MLflow's own API: the number of the new version."""
    if not store.client.search_registered_models(f"name='{name}'"):
        store.client.create_registered_model(name)
    return str(store.client.create_model_version(name, source, tags=tags).version)


def sources(store, trap: Path) -> dict[str, str]:
    return {"a folder": str(trap), "a logged model": f"models:/{store.models[4][0]}", "a version": "models:/catdog/1"}


def test_the_trap_works(store, trap):
    number = register_by_hand(store, "catdog-cnn", str(trap))
    with suppress(Exception):  # it is no model, but by then it has run
        mlflow.pyfunc.load_model(f"models:/catdog-cnn/{number}")
    assert ran(trap)


@pytest.mark.parametrize("kind", ["a folder", "a logged model", "a version"])
@pytest.mark.parametrize("name", ["catdog", "catdog-cnn", "other"])
def test_every_opener_refuses_what_catdog_did_not_register(store, trap, tmp_path, kind, name):
    deployed_twice(store)
    number = register_by_hand(store, name, sources(store, trap)[kind])
    reference = f"models:/{name}/{number}"
    for opened in (
        lambda: registry.load(store.client, reference),
        lambda: registry.fetch(store.client, reference, tmp_path / "fetched"),
    ):
        with pytest.raises(UserError, match=f"^{name}/{number} {REFUSED}"):
            opened()
    link = trace.trace(store.client, reference)[0]
    assert (link.name, link.ok) == ("model version", False)
    assert REFUSED.split()[0] in link.note
    if name != "catdog":
        with pytest.raises(UserError, match=REFUSED if name == "catdog-cnn" else "is no candidate"):
            store.promote(f"{name}/{number}")
    assert not ran(trap)
    check_consistent(store)


@pytest.mark.parametrize("tags", [{"model_sha256": "0" * 64}, {"served_sha256": "0" * 64}, {"served_sha256": ""}])
def test_half_of_the_digests_is_none(store, trap, tags):
    store.register()
    register_by_hand(store, "catdog-cnn", str(trap), **tags)
    with pytest.raises(UserError, match=REFUSED):
        registry.load(store.client, "models:/catdog-cnn/2")


def test_a_champion_by_hand_is_opened_by_nothing_and_holds_up_nothing(store, trap, capsys):
    deployed_twice(store)
    store.register("xception", GOOD)
    number = register_by_hand(store, "catdog", str(trap))
    store.client.set_registered_model_alias("catdog", "champion", number)
    with pytest.raises(UserError, match=f"^catdog/{number} {REFUSED}"):
        registry.load(store.client, "models:/catdog@champion")
    assert not trace.trace(store.client, "catdog@champion")[0].ok
    assert promotion.history(store.client)[0].event.action == "by hand"  # so in the log, where rollback looks
    store.rollback(to=2)
    with pytest.raises(UserError, match=REFUSED):
        store.rollback(to=int(number))
    store.client.set_registered_model_alias("catdog", "champion", number)

    # The page shows the newest of ours of each kind.
    shown = verdicts.judges(store.client)
    assert [(judge.version, judge.champion) for judge in shown] == [
        ("catdog-cnn/2", False),
        ("catdog-xception/1", False),
    ]

    # A candidate is compared with the last champion that was ours, so this is no way around the gates.
    capsys.readouterr()
    asked = []
    outcome = store.promote(rescore=asked.append)
    assert "not worse" in [gate.name for gate in outcome.assessments[-1].gates if not gate.passed]
    assert asked == []
    told = capsys.readouterr().err
    assert told.count(f"notice: catdog/{number}: not registered by catdog, so passed over\n") == 1
    store.register("cnn", answers(wrong=range(2), sure=0.97))
    event = store.promote().event
    assert (event.source, event.over) == ("catdog-cnn/3", int(number))
    assert store.rollback(to=2).version == 2
    assert store.aliases() == {"champion": 2, "previous": 4}
    assert not ran(trap)


def test_without_any_champion_of_ours_the_first_promotion_goes_its_way(store, trap):
    store.client.create_registered_model("catdog")
    store.client.set_registered_model_alias("catdog", "champion", register_by_hand(store, "catdog", str(trap)))
    store.register()
    outcome = store.promote(rescore=lambda uri: registry.load(store.client, uri))
    assert (outcome.event.version, outcome.event.over) == (2, 1)
    assert registry.load(store.client, "catdog@champion").side == 32
    assert not ran(trap)


def test_a_champion_is_scored_again_only_if_its_digests_hold(store):
    store.register(probabilities=GOOD, digest="test-one")
    store.promote()
    store.client.set_model_version_tag("catdog", "1", "served_sha256", "0" * 64)
    store.register(probabilities=BETTER, digest="test-two")

    def rescore(uri: str) -> gates.Scored:
        registry.load(store.client, uri)
        return gates.scored("test-two", ids=[], labels=LABELS[:0], probabilities=LABELS[:0])

    with pytest.raises(UserError, match="is not what was logged"):
        store.promote(rescore=rescore)
    store.client.delete_model_version_tag("catdog", "1", "served_sha256")
    # Not ours any more: nothing is compared with it.
    assert store.promote(rescore=lambda uri: pytest.fail("opened")).event.version == 2


def test_versions_by_hand_hold_up_no_promotion_and_come_on_no_page(store, trap, capsys):
    store.register("cnn", GOOD)
    store.register("xception", BETTER)
    for name in versions.NAMES.values():
        for source in sources(store, trap).values():
            if source != "models:/catdog/1":
                register_by_hand(store, name, source)
    capsys.readouterr()
    assert [versions.name(each) for each in candidates.of(store.client, wanted=None, champion=None, current=None)] == [
        "catdog-xception/1",
        "catdog-cnn/1",
    ]
    told = capsys.readouterr().err
    assert told == (
        "notice: catdog-cnn/3, catdog-cnn/2, catdog-xception/3, catdog-xception/2: "
        "not registered by catdog, so passed over\n"
    )
    assert store.promote().event.source == "catdog-xception/1"
    assert [judge.version for judge in verdicts.judges(store.client)] == ["catdog-cnn/1", "catdog/1"]
    assert not ran(trap)


def test_a_logged_model_that_was_registered_twice_is_found_as_ours(store):
    register_by_hand(store, "catdog-cnn", f"models:/{store.models[1][0]}")
    register_by_hand(store, "catdog-xception", f"models:/{store.models[0][0]}")
    store.register("xception", index=0)
    register_by_hand(store, "catdog-xception", f"models:/{store.models[0][0]}")
    assert registry.load(store.client, f"models:/{store.models[0][0]}").side == 32


# ---- nevertheless ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["catdog-cnn", "catdog"])
def test_unverified_it_is_answered_by_our_code_with_a_warning(store, trap, tmp_path, capsys, name):
    number = register_by_hand(store, name, str(trap))
    reference = f"models:/{name}/{number}"
    capsys.readouterr()
    assert registry.load(store.client, reference, unverified=True).side == 32
    warning = f"warning: {name}/{number} was not registered by catdog: it is used unverified\n"
    assert capsys.readouterr().err.startswith(warning)
    fetched = registry.fetch(store.client, reference, tmp_path / "fetched", unverified=True)
    [answer] = served_form.answering(fetched).answer([jpeg(1)])
    assert answer["model_version"] == f"{name}/{number}"
    assert not ran(trap)


def test_unverified_is_no_way_around_the_digests_of_what_is_ours(store):
    deployed_twice(store)
    store.client.set_model_version_tag("catdog", "2", "model_sha256", "0" * 64)
    with pytest.raises(UserError, match="is not what was logged"):
        registry.load(store.client, "catdog@champion", unverified=True)


@pytest.mark.parametrize(
    ("replaced", "by"),
    [
        ("path: artifacts/model.keras", "path: ../outside.keras"),
        ("path: artifacts/model.keras", "path: /etc/hostname"),
        ("path: artifacts/answers", "path: ../outside"),
        ("trunk.bin:", "../../../outside.keras:"),
        ("model_sha256:", "other:"),
        ("image_size: 64", "image_size: large"),
        ("- dog", "- dog\n      - cow"),
        ("image_size: 64", "image_size: 0"),
        ("side: 32", "side: 64.5"),
        ("threshold: 0.5", "other: 0.5"),
        ("threshold: 0.5", "threshold: 7"),
        ("temperature: 1.0", "temperature: 0"),
        ("temperature: 1.0", "temperature: hot"),
        ("temperature: 1.0", "temperature: .nan"),
        ("sureness: null", "sureness: much"),
        ("unfamiliar: null", "unfamiliar: [0.01]"),
        ("bfloat16: false", "bfloat16: perhaps"),
        ("flavors:", "flavors: [\n"),
        ("flavors:", "flavors: 3\nothers:"),
    ],
)
def test_what_is_no_served_model_is_told_in_one_line(store, trap, replaced, by):
    settings = trap / "MLmodel"
    text = settings.read_text()
    assert replaced in text
    settings.write_text(text.replace(replaced, by, 1))
    trap.with_name("outside.keras").write_bytes((trap / "artifacts/model.keras").read_bytes())
    register_by_hand(store, "catdog-cnn", str(trap))
    with pytest.raises(UserError, match="can't be loaded as a served model") as told:
        registry.load(store.client, "models:/catdog-cnn/1", unverified=True)
    assert "\n" not in str(told.value)
    assert not ran(trap)


@pytest.mark.parametrize("flags", [[], ["--unverified"]])
def test_the_commands(store, trap, tmp_path, monkeypatch, capsys, flags):
    register_by_hand(store, "catdog-cnn", str(trap))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    started = []
    monkeypatch.setattr(listening, "end_on_signals", lambda: None)
    monkeypatch.setattr(listening, "run", lambda *_, **told: started.append(told))
    Path("cat.jpg").write_bytes(jpeg(1))
    (tmp_path / "params.yaml").write_text((Path(__file__).parents[1] / "params.yaml").read_text())
    for command in (["predict", "cat.jpg"], ["serve"]):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["catdog", *command, "--model", "models:/catdog-cnn/1", *flags])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == (0 if flags else 1), said.err
        if flags:
            assert "warning: catdog-cnn/1 was not registered by catdog: it is used unverified\n" in said.err
        else:
            assert said.err.startswith("error: catdog-cnn/1 was not registered by catdog")
            assert said.err.count("\n") == 1
    assert bool(started) == bool(flags)
    assert not ran(trap)


def test_the_fixture_registers_as_evaluate_does(store):
    """Else these tests would be of a registry that does not exist."""
    store.register()
    version = store.client.get_model_version("catdog-cnn", "1")
    assert versions.is_ours(version)
    assert (registry.fetch(store.client, "models:/catdog-cnn/1", Path("fetched")) / "artifacts/model.keras").is_file()
