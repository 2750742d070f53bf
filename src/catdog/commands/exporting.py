"""A model written for use elsewhere, in one network from pixels to probability; judged before it is written."""

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from catdog.answers import form, inference, network
from catdog.answers.classifier import Classifier
from catdog.base import files, parallel, params, paths
from catdog.base.errors import UserError
from catdog.engines import backend, openvino
from catdog.photographs.shards import Shard
from catdog.tracking import opening, served_files

SAME_CLASS = 0.999  # of the test photographs, at least
_INPUT = "image"

Probabilities = Callable[[np.ndarray], np.ndarray]  # uint8 (n, side, side, 3) to (n, 1)


class Format(NamedTuple):
    """How a network is written and run: its packages beside those of every installation, and its file's ending."""

    ending: str
    packages: tuple[str, ...]
    write: Callable[[Any, Path], None]
    run: Callable[[Path], Probabilities]


def export(p: params.Params, reference: str, kind: str, out: Path | None) -> str:
    """Write the model of a reference such as models:/catdog@champion to `out`; returns what was done, in words.

    Raises:
        UserError: packages are missing, there is no such model, Keras computes with another library than TensorFlow,
            or the network answers otherwise than the model. Then nothing is written.
    """
    chosen = FORMATS[kind]
    out = out or Path(f"model{chosen.ending}")
    if out.suffix != chosen.ending:
        raise UserError(f"{out} should end in {chosen.ending}")
    if missing := [name for name in chosen.packages if not importlib.util.find_spec(name)]:
        raise UserError(
            f"{kind} needs {', '.join(missing)}: install the extra `export` (.venv/bin/uv pip install -e '.[export]')"
        )
    if not backend.is_tensorflow():
        raise UserError("Keras exports by way of TensorFlow: set KERAS_BACKEND=tensorflow for this command")
    test = Shard(paths.TEST)
    with tempfile.TemporaryDirectory() as folder:
        fetched = opening.fetch(reference, Path(folder) / "served")
        model, keras_file = served_files.opened(fetched, reference), served_files.keras_file(fetched)
        written = Path(folder) / f"model{chosen.ending}"
        chosen.write(_whole(form.read(keras_file), model), written)
        judged = _judge(p, model, chosen.run(written), test, kind=kind)
        settings = {
            "model": served_files.version(fetched),
            "input": {"name": _INPUT, "type": "uint8", "shape": ["n", model.side, model.side, 3], "colours": "RGB"},
            "output": f"probability of {model.classes[1]}, (n, 1)",
            "classes": list(model.classes),
            "threshold": model.threshold,
            "sureness": model.sureness,
            "test": judged,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        for file in sorted(written.parent.glob("model.*")):  # OpenVINO's weights stand in a file of their own
            with files.replacing(out.with_suffix(file.suffix)) as part:
                shutil.copyfile(file, part)
        files.write_text(out.with_suffix(".json"), json.dumps(settings, indent=2) + "\n")
    return (
        f"{out}: {judged['same_class']:,} of {judged['photographs']:,} test photographs get the same class, "
        f"probabilities differ by {judged['largest_difference']:.2g} at most; how to use it: {out.with_suffix('.json')}"
    )


def _whole(model: Any, served: Classifier) -> Any:
    """A Keras model from uint8 pixels to the probability that is served."""
    import keras

    trunk, head = network.parts(model)
    pixels = keras.Input((served.side, served.side, 3), dtype="uint8", name=_INPUT)
    # Each without its second output, of which nothing is asked here.
    features = keras.Model(trunk.inputs, trunk.outputs[0])(keras.ops.cast(pixels, "float32"))
    logit = keras.Model(head.inputs, head.outputs[0])(features)
    whole = keras.Model(pixels, keras.ops.sigmoid(logit / served.temperature))
    whole(np.zeros((1, served.side, served.side, 3), np.uint8))  # ONNX wants a model that was called
    return whole


def _judge(p: params.Params, model: Classifier, run: Probabilities, test: Shard, *, kind: str) -> dict[str, Any]:
    """How the network answers the test photographs, against the model that was registered.

    Raises:
        UserError: too many get another class, or too few the right one.
    """
    served = model.probabilities(inference.on_shard(test, model.network, side=model.side, what="test, as served"))
    batches = inference.batches(test, side=model.side, what=f"test, {kind}")
    exported = np.concatenate([run(batch)[:, 0] for batch in batches])
    same = (exported >= model.threshold) == (served >= model.threshold)
    labels = test.labels == 1
    right = [float(((each >= model.threshold) == labels).mean()) for each in (exported, served)]
    if same.mean() < SAME_CLASS or right[0] < right[1] - p.promote.margin:
        raise UserError(
            f"the network for {kind} answers otherwise than the model: {(~same).sum():,} of {len(same):,} test "
            f"photographs get another class, and {right[0]:.4f} are right, not {right[1]:.4f}; nothing was written"
        )
    return {
        "photographs": len(test),
        "same_class": int(same.sum()),
        "accuracy": right[0],
        "largest_difference": float(np.abs(exported - served).max()),
    }


def _write_openvino(model: Any, path: Path) -> None:
    openvino.export(model, path, dtype="uint8")


def _run_openvino(path: Path) -> Probabilities:
    run = openvino.Program(openvino.read(path), bfloat16=False)
    return lambda pixels: next(iter(run([pixels])))[0]


def _write_onnx(model: Any, path: Path) -> None:
    model.export(str(path), format="onnx", verbose=False)


def _run_onnx(path: Path) -> Probabilities:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    return lambda pixels: session.run(None, {given.name: pixels})[0]


def _write_litert(model: Any, path: Path) -> None:
    model.export(str(path), format="litert", verbose=False)


def _run_litert(path: Path) -> Probabilities:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=parallel.cores())

    def run(pixels: np.ndarray) -> np.ndarray:
        [given], [out] = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(given["index"], pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(out["index"])

    return run


FORMATS = {
    "openvino": Format(".xml", ("openvino",), _write_openvino, _run_openvino),
    "onnx": Format(".onnx", ("tf2onnx", "onnx", "onnxruntime"), _write_onnx, _run_onnx),
    "litert": Format(".tflite", ("ai_edge_litert",), _write_litert, _run_litert),
}
