"""What is registered is what is served: the Keras model's own answers, over HTTP too, and nothing tampered with."""

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import keras
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from registry_fixtures import log_served
from scipy import special
from served_fixtures import SIDE, Made, make, tiny_model
from served_fixtures import expected as expected_of
from test_photos import WARNED_OF, reason

from catdog.answers import classifier, form
from catdog.base import files
from catdog.base.errors import UserError
from catdog.commands import scoring_server
from catdog.tracking import served_files, served_form, serving, versions

TEMPERATURE = 1.7
ANY = dict.fromkeys(versions.DIGESTS)  # whatever the digests are


def photograph(seed: int, *, width: int = 150, height: int = 110, kind: str = ".jpg") -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return cv2.imencode(kind, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


PHOTOGRAPHS = [photograph(seed) for seed in range(40)] + [photograph(99, kind=".png"), photograph(98, width=40)]


class Logged(NamedTuple):
    """A tracking store with one logged model."""

    folder: Path
    uri: str
    made: Made

    def again(self) -> str:
        """The URI of another logged model of the same files."""
        return f"models:/{log_served(self.made)[0]}"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("tiny", artifact_location=str(folder / "artifacts"))
    tiny_model().save(folder / "model.keras")
    made = make(folder / "model.keras", folder / "answers", temperature=TEMPERATURE)
    with pytest.MonkeyPatch.context() as patch:
        # Not by `set_experiment`, which holds for the rest of the process and refuses runs of every other experiment.
        patch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        yield Logged(folder, f"models:/{log_served(made)[0]}", made)
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def expected(store) -> np.ndarray:
    """What the Keras model itself says of the standardised photographs, divided by the temperature."""
    return special.expit(special.logit(expected_of(store.made.keras_file, PHOTOGRAPHS)) / TEMPERATURE)


def test_served_answers_are_the_models_own(store, expected):
    answers = mlflow.pyfunc.load_model(store.uri).predict(pd.DataFrame({"image": PHOTOGRAPHS}))
    assert list(answers.columns) == ["label", "probability", "familiarity", "model_version", "id"]
    assert set(answers["model_version"]) == {store.uri.removeprefix("models:/")}  # loaded as no version of anything
    assert 0.2 < (expected >= 0.5).mean() < 0.8  # otherwise any answer would do
    assert np.abs(answers["probability"] - expected).max() < 1e-6
    assert answers["label"].tolist() == ["dog" if p >= 0.5 else "cat" for p in expected]
    assert answers["familiarity"].between(0, 1).all()


def test_the_command_line_answers_alike(store, expected):
    model = served_form.load(store.uri, **ANY)
    asked = model.ask(np.stack([model.pixels(data) for data in PHOTOGRAPHS]))
    assert np.abs(model.probabilities(asked) - expected).max() < 1e-6
    assert (model.classes, model.side, model.threshold) == (("cat", "dog"), SIDE, 0.5)
    rows = mlflow.pyfunc.load_model(store.uri).predict(pd.DataFrame({"image": PHOTOGRAPHS}))
    # To six places: the last digit of a feature depends on how many are asked about at once.
    assert [each.label for each in model.answers(asked)] == rows["label"].tolist()
    assert model.judge(asked).familiarity == pytest.approx(rows["familiarity"].to_numpy(), abs=1e-6)


def test_doubt_is_served(store, tmp_path, expected):
    model = served_form.load(store.uri, **ANY)
    familiarity = model.judge(model.ask(np.stack([model.pixels(data) for data in PHOTOGRAPHS]))).familiarity
    assert familiarity is not None
    unfamiliar, sureness = float(np.median(familiarity)), float(np.median(np.maximum(expected, 1 - expected)))
    made = make(
        store.made.keras_file, tmp_path / "answers", temperature=TEMPERATURE, sureness=sureness, unfamiliar=unfamiliar
    )
    uri = f"models:/{log_served(made)[0]}"
    labels = classifier.decide(expected, familiarity, threshold=0.5, sureness=sureness, unfamiliar=unfamiliar)
    assert set(labels) == {0, 1, 2, 3}
    names = [("cat", "dog", "unsure", "neither")[label] for label in labels]
    assert mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"image": PHOTOGRAPHS}))["label"].tolist() == names
    served = served_form.answering(served_form.fetch(uri, tmp_path, **ANY))
    assert [row["label"] for row in served.answer(PHOTOGRAPHS)] == names


@pytest.mark.parametrize("count", [0, 1, 16, 17, 256])
def test_so_many_photographs_get_as_many_answers_in_their_order(store, tmp_path, expected, count):
    images = (PHOTOGRAPHS * 7)[:count]
    ours = served_form.answering(served_form.fetch(store.uri, tmp_path, **ANY)).answer(images)
    theirs = mlflow.pyfunc.load_model(store.uri).predict(pd.DataFrame({"image": images}, dtype=object))
    for rows in (ours, theirs.to_dict("records")):
        assert [row["probability"] for row in rows] == pytest.approx(np.resize(expected, count), abs=1e-6)
        assert all(list(row) == list(serving.COLUMNS) for row in rows)
    assert len({row["id"] for row in [*ours, *theirs.to_dict("records")]}) == 2 * count


def test_who_asks_at_the_same_time_gets_the_own_answer(store, tmp_path, expected):
    served = served_form.answering(served_form.fetch(store.uri, tmp_path, **ANY))
    with ThreadPoolExecutor(12) as pool:
        rows = pool.map(lambda turn: served.answer([PHOTOGRAPHS[turn % 42], PHOTOGRAPHS[-1]]), range(126))
    assert [row[0]["probability"] for row in rows] == pytest.approx(np.resize(expected, 126), abs=1e-6)


@pytest.mark.parametrize("name", WARNED_OF)
def test_what_prepare_refuses_as_damaged_is_refused(store, tmp_path, name):
    data, why = WARNED_OF[name]
    served = served_form.answering(served_form.fetch(store.uri, tmp_path, **ANY))
    expected = reason(data)
    assert why in (None, expected)
    if expected:
        with pytest.raises(MlflowException, match=r"^not a photograph: row 1: ") as refused:
            served.answer([PHOTOGRAPHS[0], data])
        assert refused.value.message.startswith(f"not a photograph: row 1: {expected}")
    else:
        assert len(served.answer([PHOTOGRAPHS[0], data])) == 2


def test_the_threshold_is_a_parameter(store, tmp_path):
    served = mlflow.pyfunc.load_model(store.uri)
    few = pd.DataFrame({"image": PHOTOGRAPHS[:3]})
    assert served.predict(few, params={"threshold": 0.0})["label"].tolist() == ["dog"] * 3
    assert served.predict(few, params={"threshold": 1.0})["label"].tolist() == ["cat"] * 3
    ours = served_form.answering(served_form.fetch(store.uri, tmp_path, **ANY))
    assert [row["label"] for row in ours.answer(PHOTOGRAPHS[:3], {"threshold": 1})] == ["cat"] * 3
    for wrong in (2.0, -0.1, float("nan"), float("inf"), None, "high", [0.5], {}, "\ud800" * 5000):
        for asks in (lambda params: served.predict(few, params), lambda params: ours.answer(PHOTOGRAPHS[:3], params)):
            with pytest.raises(MlflowException, match="threshold") as refused:
                asks({"threshold": wrong})
            assert refused.value.get_http_status_code() == 400
    with pytest.raises(MlflowException, match=r"threshold should be between 0 and 1\. Received: True"):
        ours.answer(PHOTOGRAPHS[:3], {"threshold": True})


def test_bad_rows_are_named(store):
    served = mlflow.pyfunc.load_model(store.uri)
    images = [*PHOTOGRAPHS[:2], b"GIF89a", b"", *PHOTOGRAPHS]
    with pytest.raises(MlflowException, match=r"row 2: .*; row 3: empty") as refused:
        served.predict(pd.DataFrame({"image": images}))
    assert refused.value.get_http_status_code() == 400
    assert f"The others ({2 + len(PHOTOGRAPHS)}) were not answered" in str(refused.value)
    with pytest.raises(MlflowException, match=r"row 0: empty; row 41: not an image\. The others .40."):
        served.predict(pd.DataFrame({"image": [b"", *PHOTOGRAPHS[:40], b"nothing"]}))
    with pytest.raises(MlflowException, match=r"row 4: empty; and 35 more$"):
        served.predict(pd.DataFrame({"image": [b""] * 40}))


def test_a_version_says_which_one_it_is(store):
    version = mlflow.register_model(store.uri, "some")
    for reference in (f"models:/some/{version.version}", f"models:/some/{version.version}"):
        answers = mlflow.pyfunc.load_model(reference).predict(pd.DataFrame({"image": PHOTOGRAPHS[:2]}))
        assert answers["model_version"].tolist() == [f"some/{version.version}"] * 2
    MlflowClient().delete_registered_model("some")


def test_a_request_of_too_many_photographs_is_refused_before_any_is_read(store, monkeypatch):
    served = mlflow.pyfunc.load_model(store.uri)
    images = [b"unread"] * (serving.MOST_PHOTOGRAPHS + 1)
    with pytest.raises(MlflowException, match=r"at most 256 photographs\. Received: 257") as refused:
        served.predict(pd.DataFrame({"image": images}))
    assert refused.value.get_http_status_code() == 400


def test_no_pickle_and_exact_versions_are_logged(store):
    folder = Path(mlflow.artifacts.download_artifacts(store.uri))
    suffixes = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".joblib"}
    wanted = folder.joinpath("requirements.txt").read_text().split()
    assert all("==" in line for line in wanted)
    assert {line.split("==")[0] for line in wanted} >= {"mlflow", "tensorflow", "keras", "openvino", "simplejpeg"}


def test_logging_takes_little_time(store):
    # MLflow takes half a minute to find out the requirements by itself; so they are named.
    started = time.perf_counter()
    store.again()
    assert time.perf_counter() - started < 2


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> dict[str, Path]:
    """The files of another served form, by name."""
    folder = tmp_path_factory.mktemp("other")
    tiny_model(filters=5).save(folder / "model.keras")
    made = make(folder / "model.keras", folder / "answers")
    return {file.name: file for file in [made.keras_file, *made.folder.iterdir()]}


@pytest.mark.parametrize("name", ["model.keras", "trunk.xml", "trunk.bin", "head.xml", "head.bin", "profile.npz"])
@pytest.mark.parametrize("harm", ["another model's", "damaged", "gone"])
def test_a_tampered_file_is_refused_by_server_and_command_line(store, other, name, harm):
    uri = store.again()
    known = digests(uri, store.made.keras_file)
    [file] = Path(mlflow.artifacts.download_artifacts(uri)).rglob(name)
    data = file.read_bytes()
    if harm == "gone":
        file.unlink()
    else:
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        file.write_bytes(other[name].read_bytes() if harm == "another model's" else changed)
        assert file.read_bytes() != data
    for refusing in (lambda: served_form.load(uri, **ANY), lambda: served_form.verify(uri, **known)):
        with pytest.raises(UserError, match=r"is not what was logged|not found"):
            refusing()
    with pytest.raises(MlflowException, match=r"is not what was logged|not found"):
        mlflow.pyfunc.load_model(uri)


def test_a_temperature_that_was_changed_is_refused(store):
    uri = store.again()
    known = digests(uri, store.made.keras_file)
    settings = Path(mlflow.artifacts.download_artifacts(uri)) / "MLmodel"
    text = settings.read_text()
    settings.write_text(text.replace(f"temperature: {TEMPERATURE}", "temperature: 0.1"))
    assert settings.read_text() != text
    assert served_form.load(uri, **ANY).temperature == 0.1  # without the registry's digest nothing would tell
    with pytest.raises(UserError, match="code or settings were changed"):
        served_form.load(uri, **known)


def test_a_form_of_an_earlier_release_is_answered_by_keras_with_one_notice(store, tmp_path, expected, capsys):
    """Those had the `.keras` file alone, and settings without temperature, doubt and digests."""
    fetched = served_form.fetch(store.uri, tmp_path, **ANY)
    description = yaml.safe_load((fetched / "MLmodel").read_text())
    flavor = description["flavors"]["python_function"]
    shutil.rmtree(fetched / flavor["artifacts"].pop("answers")["path"])
    known = ("classes", "image_size", "threshold", "model_sha256")
    flavor["config"] = {key: flavor["config"][key] for key in known}
    (fetched / "MLmodel").write_text(yaml.safe_dump(description))

    capsys.readouterr()
    sha256 = {"model_sha256": files.sha256(store.made.keras_file), "served_sha256": served_files.digest(fetched)}
    served_files.check(fetched, "models:/old/1", **sha256)
    served = served_form.answering(fetched)
    rows = served.answer(PHOTOGRAPHS)
    notice = "notice: Keras answers, more slowly: it was registered without a network for OpenVINO\n"
    assert capsys.readouterr().err == notice
    plain = expected_of(store.made.keras_file, PHOTOGRAPHS)
    assert [row["probability"] for row in rows] == pytest.approx(plain, abs=1e-6)
    assert [row["label"] for row in rows] == ["dog" if p >= 0.5 else "cat" for p in plain]
    assert {row["familiarity"] for row in rows} == {None}
    with (fetched / "artifacts/model.keras").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"old/1: artifacts/model\.keras is not what was logged"):
        served_files.check(fetched, "models:/old/1", model_sha256=None, served_sha256=None)


@pytest.mark.parametrize("part", ["code/catdog/tracking/serving.py", "MLmodel", "code/catdog/planted.py"])
def test_code_and_settings_of_a_logged_model_can_not_be_exchanged(store, tmp_path, part):
    uri = store.again()
    logged = Path(mlflow.artifacts.download_artifacts(uri))
    known = served_files.digest(logged)
    mlflow.pyfunc.load_model(uri)  # compiles the code where it lies
    served_form.verify(uri, **ANY | {"served_sha256": known})
    with (logged / part).open("a") as file:
        file.write("\n# exchanged\n")
    served_form.verify(uri, **ANY)  # the model itself is what it was
    with pytest.raises(UserError, match="code or settings were changed"):
        served_form.load(uri, **ANY | {"served_sha256": known})


def test_compiled_code_is_left_behind(store, tmp_path):
    uri = store.again()
    planted = (
        Path(mlflow.artifacts.download_artifacts(uri)) / "code/catdog/tracking/__pycache__/serving.cpython-311.pyc"
    )
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(b"planted")
    fetched = served_form.fetch(uri, tmp_path, **ANY)
    assert (fetched / "code/catdog/tracking/serving.py").exists()
    assert not list(fetched.rglob("*.pyc"))


def test_a_file_exchanged_together_with_its_description_is_refused_by_the_registry_digest(store):
    logged = files.sha256(store.made.keras_file)
    assert served_form.load(store.uri, served_sha256=None, model_sha256=logged).side == SIDE
    with pytest.raises(UserError, match=f"{logged[:12]}, not 0000"):
        served_form.load(store.uri, served_sha256=None, model_sha256="0" * 64)


def test_a_file_that_is_gone_and_a_model_that_never_was(store):
    uri = store.again()
    (Path(mlflow.artifacts.download_artifacts(uri)) / "artifacts" / "model.keras").unlink()
    with pytest.raises(UserError, match=r"model\.keras not found"):
        served_form.load(uri, **ANY)
    with pytest.raises(UserError, match="can't be loaded as a served model"):
        served_form.load("models:/m-00000000000000000000000000000000", **ANY)


def test_code_hidden_in_a_model_is_not_run(tmp_path):
    ran, file = tmp_path / "ran", tmp_path / "model.keras"
    hidden = keras.layers.Lambda(lambda x, path=str(ran): open(path, "w").close() or x)  # noqa: PTH123
    keras.Sequential([keras.Input((SIDE, SIDE, 3)), hidden]).save(file)
    assert ran.exists()
    ran.unlink()
    with pytest.raises(UserError, match="can't be loaded as a Keras model"):
        form.read(file)
    assert not ran.exists()


def test_a_file_that_is_no_model(tmp_path):
    file = tmp_path / "model.keras"
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="can't be loaded as a Keras model"):
        form.read(file)


# ---- the scoring server ---------------------------------------------------------------------------------------------


@contextmanager
def running(folder: Path, *command: str) -> Iterator[str]:
    """A scoring server on loopback, from when it answers: its address. `command` follows `python -m`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = folder / f"server-{port}.log"
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            env={
                **os.environ,
                "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
                # MLflow calls `uvicorn` by its bare name.
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            },
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                time.sleep(0.5)
                assert process.poll() is None, said.read_text()
                with suppress(OSError):
                    urllib.request.urlopen(f"{address}/ping", timeout=5)
                    break
            yield address
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 15)
                process.wait(timeout=30)


def digests(uri: str, keras_file: Path) -> dict[str, str]:
    """What the registry knows of a version that catdog registered."""
    served = served_files.digest(Path(mlflow.artifacts.download_artifacts(uri)))
    return {"model_sha256": files.sha256(keras_file), "served_sha256": served}


@pytest.fixture(scope="module", params=["mlflow", "catdog"])
def server(request, store) -> Iterator[str]:
    """MLflow's own command, and ours."""
    name = f"served-{request.param}"
    mlflow.register_model(store.uri, name, tags=digests(store.uri, store.made.keras_file))
    command = {
        "mlflow": ["mlflow", "models", "serve", "-m", f"models:/{name}/1", "--env-manager", "local", "-h", "127.0.0.1"],
        "catdog": ["catdog", "serve", "--model", f"models:/{name}/1"],
    }
    with running(store.folder, *command[request.param]) as address:
        yield address


def ask(address: str, body: dict) -> tuple[int, dict]:
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.slow
def test_photographs_over_http(server, expected):
    images = [encoded(data) for data in PHOTOGRAPHS]
    split = {"dataframe_split": {"columns": ["image"], "data": [[image] for image in images]}}
    records = {"dataframe_records": [{"image": image} for image in images]}
    for body in (split, records):
        status, answer = ask(server, body)
        assert status == 200, answer
        said = pd.DataFrame(answer["predictions"])
        assert set(said.columns) == set(serving.COLUMNS)
        assert said["id"].is_unique
        assert said["familiarity"].between(0, 1).all()
        assert said["model_version"].str.fullmatch("served-(mlflow|catdog)/1").all()
        assert np.abs(said["probability"] - expected).max() < 1e-6
        assert said["label"].tolist() == ["dog" if p >= 0.5 else "cat" for p in expected]
    status, answer = ask(server, {"dataframe_records": records["dataframe_records"][:2], "params": {"threshold": 1}})
    assert (status, [row["label"] for row in answer["predictions"]]) == (200, ["cat", "cat"])


@pytest.mark.slow
def test_the_server_answers_without_tensorflow(server):
    assert ask(server, {"dataframe_records": [{"image": encoded(PHOTOGRAPHS[0])}]})[0] == 200
    port = server.rpartition(":")[2]
    processes = [each for each in psutil.process_iter(["cmdline"]) if port in (each.info["cmdline"] or [])]
    loaded = "".join(Path(f"/proc/{each.pid}/maps").read_text() for each in processes)
    assert "/site-packages/openvino/" in loaded
    assert "/site-packages/tensorflow/" not in loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([encoded(PHOTOGRAPHS[0]), encoded(b"not a photograph")], "row 1: not an image"),
        ([encoded(PHOTOGRAPHS[0]), ""], "row 1: empty"),
        ([encoded(PHOTOGRAPHS[0]), encoded(PHOTOGRAPHS[1][:-400])], "row 1: truncated"),
        ([encoded(PHOTOGRAPHS[0]), "*** no base64 ***"], "row 1"),
        ([encoded(PHOTOGRAPHS[0]), None], ""),
        ([7], ""),
        ([], ""),
    ],
)
def test_bad_rows_over_http_are_a_400_that_names_them(server, rows, said):
    status, answer = ask(server, {"dataframe_records": [{"image": row} for row in rows]})
    assert status == 400
    assert said in answer["message"]


@pytest.mark.slow
def test_a_wrong_parameter_or_column_over_http_is_a_400(server):
    rows = [{"image": encoded(PHOTOGRAPHS[0])}]
    status, answer = ask(server, {"dataframe_records": rows, "params": {"threshold": 3}})
    assert (status, "threshold should be between 0 and 1" in answer["message"]) == (400, True)
    assert ask(server, {"dataframe_records": [{"photo": encoded(PHOTOGRAPHS[0])}]})[0] == 400


@pytest.mark.slow
@pytest.mark.parametrize("server", ["catdog"], indirect=True)
def test_a_request_beyond_the_limit_is_refused_whatever_it_says_of_its_length(server):
    host, port = server.removeprefix("http://").split(":")
    most = scoring_server.LIMITS.body
    said = http.client.HTTPConnection(host, int(port), timeout=30)
    said.putrequest("POST", "/invocations")
    said.putheader("Content-Length", str(most + 1))
    said.endheaders()
    assert said.getresponse().status == 413
    chunk = bytes(1 << 20)
    silent = http.client.HTTPConnection(host, int(port), timeout=30)
    with suppress(ConnectionError):  # it answers, and hangs up, before all is there
        silent.request("POST", "/invocations", iter([chunk] * (most // len(chunk) + 1)), encode_chunked=True)
    assert silent.getresponse().status == 413
    assert ask(server, {"dataframe_records": [{"image": encoded(PHOTOGRAPHS[0])}]})[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize("server", ["catdog"], indirect=True)
def test_under_load_every_answer_is_the_right_one_and_memory_stays_flat(server, expected):
    port = server.rpartition(":")[2]
    running = psutil.process_iter(["cmdline"])
    [process] = [each for each in running if {"catdog", port} <= set(each.info["cmdline"] or [])]

    def one(number: int) -> bool:
        row = number % len(PHOTOGRAPHS)
        images = [encoded(PHOTOGRAPHS[row])] + [encoded(b"nothing")] * (number % 10 == 0)
        status, answer = ask(server, {"dataframe_records": [{"image": image} for image in images]})
        if len(images) == 2:
            return status == 400 and "row 1: not an image. The others (1) were not answered" in answer["message"]
        return status == 200 and abs(answer["predictions"][0]["probability"] - expected[row]) < 1e-6

    memory = []
    with ThreadPoolExecutor(16) as pool:
        for start in range(0, 600, 200):
            assert all(pool.map(one, range(start, start + 200)))
            memory.append(process.memory_info().rss)
    assert memory[-1] - memory[0] < 20e6


@pytest.mark.slow
def test_our_server_does_not_start_on_a_model_whose_code_was_exchanged(store):
    uri = store.again()
    logged = Path(mlflow.artifacts.download_artifacts(uri))
    mlflow.register_model(uri, "exchanged", tags=digests(uri, store.made.keras_file))
    (logged / "code/catdog/tracking/serving.py").write_text("raise SystemExit('this ran')")
    done = subprocess.run(
        [sys.executable, "-m", "catdog", "serve", "--model", "models:/exchanged/1", "--port", "5999"],
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "code or settings were changed" in done.stderr
    assert "this ran" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["changed", "gone", "no profile"])
def test_a_refusal_names_the_version_and_not_the_folder_of_its_copy(store, fault):
    uri = store.again()
    logged = Path(mlflow.artifacts.download_artifacts(uri))
    name = "answers/profile.npz" if fault == "no profile" else "model.keras"
    tags, file = digests(uri, store.made.keras_file), logged / "artifacts" / name
    before = files.sha256(file)
    if fault == "gone":
        file.unlink()
    else:
        file.write_bytes(b"nothing")
    if fault == "no profile":  # whoever can write to both store and registry
        description = (logged / "MLmodel").read_text().replace(before, files.sha256(file))
        (logged / "MLmodel").write_text(description)
        tags |= {"served_sha256": served_files.digest(logged)}
    mlflow.register_model(uri, f"faulty-{fault[:2]}", tags=tags)
    done = subprocess.run(
        [sys.executable, "-m", "catdog", "serve", "--model", f"models:/faulty-{fault[:2]}/1", "--port", "5999"],
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (1, "")  # it does not say that it serves
    assert said.startswith(f"error: models:/faulty-{fault[:2]}/1: artifacts/{name} ")
    assert tempfile.gettempdir() not in said
