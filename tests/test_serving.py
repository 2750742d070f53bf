"""What is registered is what is served: the Keras model's own answers, over HTTP too, and nothing tampered with."""

import base64
import http.client
import json
import os
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

import cv2
import keras
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from registry_fixtures import log_served

from catdog.answers import classifier
from catdog.base import files
from catdog.base.errors import UserError
from catdog.commands import scoring_server
from catdog.photographs import photos
from catdog.tracking import served_form, serving, versions

SIDE, IMAGE_SIZE = 32, 64
ANY = dict.fromkeys(versions.DIGESTS)  # whatever the digests are


def photograph(seed: int, *, width: int = 150, height: int = 110, kind: str = ".jpg") -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return cv2.imencode(kind, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


PHOTOGRAPHS = [photograph(seed) for seed in range(40)] + [photograph(99, kind=".png"), photograph(98, width=40)]


def tiny_model() -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.RandomNormal(stddev=4)),
        ]
    )


def log(keras_file: Path) -> str:
    return f"models:/{log_served(keras_file, image_size=IMAGE_SIZE)[0]}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A tracking store with one logged model: its folder, the model's URI and its Keras file."""
    folder = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("tiny", artifact_location=str(folder / "artifacts"))
    keras_file = folder / "model.keras"
    tiny_model().save(keras_file)
    with pytest.MonkeyPatch.context() as patch:
        # Not by `set_experiment`, which holds for the rest of the process and refuses runs of every other experiment.
        patch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        yield folder, log(keras_file), keras_file
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def expected(store) -> np.ndarray:
    """What the Keras model itself says of the standardised photographs."""
    pixels = [photos.pixels(photos.standardise(d, image_size=IMAGE_SIZE).jpeg, SIDE) for d in PHOTOGRAPHS]
    return keras.saving.load_model(store[2]).predict(np.stack(pixels).astype(np.float32), verbose=0)[:, 0]


def test_served_answers_are_the_models_own(store, expected):
    answers = mlflow.pyfunc.load_model(store[1]).predict(pd.DataFrame({"image": PHOTOGRAPHS}))
    assert list(answers.columns) == ["label", "probability", "model_version"]
    assert set(answers["model_version"]) == {store[1].removeprefix("models:/")}  # loaded as no version of anything
    assert np.ptp(expected) > 0.1  # otherwise any answer would do
    assert np.abs(answers["probability"] - expected).max() < 1e-6
    assert answers["label"].tolist() == ["dog" if p >= 0.5 else "cat" for p in expected]


def test_the_command_line_answers_alike(store, expected):
    _, model = served_form.load(store[1], **ANY)
    pixels = np.stack([model.pixels(data) for data in PHOTOGRAPHS])
    assert np.abs(model.probabilities(pixels) - expected).max() < 1e-6
    assert (model.classes, model.side, model.threshold) == (("cat", "dog"), SIDE, 0.5)


def test_one_trace_serves_every_batch_size(store):
    traced = []

    class Counting(keras.layers.Layer):
        def call(self, inputs):
            traced.append(inputs.shape)
            return keras.ops.mean(inputs, axis=(1, 2, 3))[:, None]

    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), Counting()])
    answer = classifier.in_batches(model)
    traced.clear()
    sizes = (1, 5, classifier.BATCH, 3 * classifier.BATCH + 1, 0)
    assert [len(answer(np.zeros((n, SIDE, SIDE, 3), np.uint8))) for n in sizes] == list(sizes)
    assert len(traced) == 1


def test_dropout_and_normalization_stand_still():
    layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.9), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers, keras.layers.Dense(1)])
    answer = classifier.in_batches(model)
    pixels = np.random.default_rng(0).integers(0, 255, (8, SIDE, SIDE, 3), dtype=np.uint8)
    assert np.array_equal(answer(pixels), answer(pixels))


def test_the_threshold_is_a_parameter(store, expected):
    served = mlflow.pyfunc.load_model(store[1])
    few = pd.DataFrame({"image": PHOTOGRAPHS[:3]})
    assert served.predict(few, params={"threshold": 0.0})["label"].tolist() == ["dog"] * 3
    assert served.predict(few, params={"threshold": 1.0})["label"].tolist() == ["cat"] * 3
    for wrong in (2.0, -0.1, float("nan"), float("inf"), None, "high", [0.5], {}):
        with pytest.raises(MlflowException, match="threshold") as refused:
            served.predict(few, params={"threshold": wrong})
        assert refused.value.get_http_status_code() == 400


def test_bad_rows_are_named(store):
    served = mlflow.pyfunc.load_model(store[1])
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
    version = mlflow.register_model(store[1], "some")
    for reference in (f"models:/some/{version.version}", f"models:/some/{version.version}"):
        answers = mlflow.pyfunc.load_model(reference).predict(pd.DataFrame({"image": PHOTOGRAPHS[:2]}))
        assert answers["model_version"].tolist() == [f"some/{version.version}"] * 2
    MlflowClient().delete_registered_model("some")


def test_a_request_of_too_many_photographs_is_refused_before_any_is_read(store, monkeypatch):
    served = mlflow.pyfunc.load_model(store[1])
    images = [b"unread"] * (serving.MOST_PHOTOGRAPHS + 1)
    with pytest.raises(MlflowException, match=r"at most 256 photographs\. Received: 257") as refused:
        served.predict(pd.DataFrame({"image": images}))
    assert refused.value.get_http_status_code() == 400


def test_no_pickle_and_exact_versions_are_logged(store):
    folder = Path(mlflow.artifacts.download_artifacts(store[1]))
    suffixes = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".joblib"}
    wanted = folder.joinpath("requirements.txt").read_text().split()
    assert all("==" in line for line in wanted)
    assert {line.split("==")[0] for line in wanted} >= {"mlflow", "tensorflow", "keras", "opencv-python-headless"}


def test_logging_takes_little_time(store):
    # MLflow takes half a minute to find out the requirements by itself; so they are named.
    started = time.perf_counter()
    log(store[2])
    assert time.perf_counter() - started < 2


def test_a_tampered_file_is_refused_by_server_and_command_line(store, tmp_path):
    other = tiny_model()
    other.layers[-1].set_weights([-w for w in other.layers[-1].get_weights()])
    uri = log(store[2])
    file = Path(mlflow.artifacts.download_artifacts(uri)) / "artifacts" / "model.keras"
    other.save(file)
    with pytest.raises(UserError, match="is not the model that was logged"):
        served_form.load(uri, **ANY)
    with pytest.raises(UserError, match="is not the model that was logged"):
        served_form.verify(uri, **ANY)
    with pytest.raises(MlflowException, match="is not the model that was logged"):
        mlflow.pyfunc.load_model(uri)


@pytest.mark.parametrize("part", ["code/catdog/tracking/serving.py", "MLmodel", "code/catdog/planted.py"])
def test_code_and_settings_of_a_logged_model_can_not_be_exchanged(store, tmp_path, part):
    uri = log(store[2])
    logged = Path(mlflow.artifacts.download_artifacts(uri))
    known = served_form.digest(logged)
    mlflow.pyfunc.load_model(uri)  # compiles the code where it lies
    served_form.verify(uri, **ANY | {"served_sha256": known})
    with (logged / part).open("a") as file:
        file.write("\n# exchanged\n")
    served_form.verify(uri, **ANY)  # the model itself is what it was
    with pytest.raises(UserError, match="code or settings were changed"):
        served_form.load(uri, **ANY | {"served_sha256": known})


def test_compiled_code_is_left_behind(store, tmp_path):
    uri = log(store[2])
    planted = (
        Path(mlflow.artifacts.download_artifacts(uri)) / "code/catdog/tracking/__pycache__/serving.cpython-311.pyc"
    )
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(b"planted")
    fetched = served_form.fetch(uri, tmp_path, **ANY)
    assert (fetched / "code/catdog/tracking/serving.py").exists()
    assert not list(fetched.rglob("*.pyc"))


def test_a_file_exchanged_together_with_its_description_is_refused_by_the_registry_digest(store):
    logged = files.sha256(store[2])
    assert served_form.load(store[1], served_sha256=None, model_sha256=logged)[1].side == SIDE
    with pytest.raises(UserError, match=f"{logged[:12]}, not 0000"):
        served_form.load(store[1], served_sha256=None, model_sha256="0" * 64)


def test_a_file_that_is_gone_and_a_model_that_never_was(store):
    uri = log(store[2])
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
        classifier.load(file, classes=["cat", "dog"], image_size=IMAGE_SIZE, threshold=0.5)
    assert not ran.exists()


def test_a_file_that_is_no_model(tmp_path):
    file = tmp_path / "model.keras"
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="can't be loaded as a Keras model"):
        classifier.load(file, classes=["cat", "dog"], image_size=IMAGE_SIZE, threshold=0.5)


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
    served = served_form.digest(Path(mlflow.artifacts.download_artifacts(uri)))
    return {"model_sha256": files.sha256(keras_file), "served_sha256": served}


@pytest.fixture(scope="module", params=["mlflow", "catdog"])
def server(request, store) -> Iterator[str]:
    """MLflow's own command, and ours."""
    name = f"served-{request.param}"
    mlflow.register_model(store[1], name, tags=digests(store[1], store[2]))
    command = {
        "mlflow": ["mlflow", "models", "serve", "-m", f"models:/{name}/1", "--env-manager", "local", "-h", "127.0.0.1"],
        "catdog": ["catdog", "serve", "--model", f"models:/{name}/1"],
    }
    with running(store[0], *command[request.param]) as address:
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
        assert said["model_version"].str.fullmatch("served-(mlflow|catdog)/1").all()
        assert np.abs(said["probability"] - expected).max() < 1e-6
        assert said["label"].tolist() == ["dog" if p >= 0.5 else "cat" for p in expected]
    status, answer = ask(server, {"dataframe_records": records["dataframe_records"][:2], "params": {"threshold": 1}})
    assert (status, [row["label"] for row in answer["predictions"]]) == (200, ["cat", "cat"])


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
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, 600, 200):
            assert all(pool.map(one, range(start, start + 200)))
            memory.append(process.memory_info().rss)
    assert memory[-1] - memory[0] < 20e6


@pytest.mark.slow
def test_our_server_does_not_start_on_a_model_whose_code_was_exchanged(store):
    uri = log(store[2])
    logged = Path(mlflow.artifacts.download_artifacts(uri))
    mlflow.register_model(uri, "exchanged", tags=digests(uri, store[2]))
    (logged / "code/catdog/tracking/serving.py").write_text("raise SystemExit('this ran')")
    done = subprocess.run(
        [sys.executable, "-m", "catdog", "serve", "--model", "models:/exchanged/1", "--port", "5999"],
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "code or settings were changed" in done.stderr
    assert "this ran" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["changed", "gone", "no model"])
def test_a_refusal_names_the_version_and_not_the_folder_of_its_copy(store, fault):
    uri = log(store[2])
    logged = Path(mlflow.artifacts.download_artifacts(uri))
    tags, file = digests(uri, store[2]), logged / "artifacts/model.keras"
    if fault == "gone":
        file.unlink()
    else:
        file.write_bytes(b"nothing")
    if fault == "no model":  # whoever can write to both store and registry
        description = (logged / "MLmodel").read_text().replace(tags["model_sha256"], files.sha256(file))
        (logged / "MLmodel").write_text(description)
        tags = {"model_sha256": files.sha256(file), "served_sha256": served_form.digest(logged)}
    mlflow.register_model(uri, f"faulty-{fault[:2]}", tags=tags)
    done = subprocess.run(
        [sys.executable, "-m", "catdog", "serve", "--model", f"models:/faulty-{fault[:2]}/1", "--port", "5999"],
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()},
        capture_output=True,
        text=True,
    )
    said = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (1, "")  # it does not say that it serves
    assert said.startswith(f"error: models:/faulty-{fault[:2]}/1: artifacts/model.keras ")
    assert tempfile.gettempdir() not in said
