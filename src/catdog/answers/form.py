"""The served form of a trained model: what is judged, registered and asked.

The `.keras` file; the same network for OpenVINO; a profile of what the model knows; the settings, among them what was
learnt on the validation photographs; and some of these, to tell new photographs from.
"""

import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from catdog.answers import asking, familiarity
from catdog.answers.asking import Network
from catdog.answers.classifier import Classifier
from catdog.base import files
from catdog.base.errors import UserError, causes, first_line
from catdog.engines import backend, openvino, processor

PROFILE = "profile.npz"
REFERENCE = "reference.npz"  # validation photographs, for `catdog drift`; no answer needs it
# The least and the most of each number among the settings.
_RANGES = {
    "image_size": (1, 65_500),
    "side": (0, 65_500),
    "threshold": (0, 1),
    "temperature": (1e-3, 1e3),
    "sureness": (0, 1),
    "unfamiliar": (0, 1),
}


@dataclass(frozen=True)
class Settings:
    """How a served form answers.

    Attributes:
        model_sha256: of the `.keras` file.
        bfloat16: whether it was judged in bfloat16; then it answers so wherever the processor can.
        mirrored: as `asking.Network` has it.
        digests: sha256 of the other files, by name. Without any, Keras answers, and no profile is asked.

    The others are those of `Classifier`.
    """

    classes: tuple[str, str]
    image_size: int
    threshold: float
    model_sha256: str
    side: int = 0
    temperature: float = 1.0
    sureness: float | None = None
    unfamiliar: float | None = None
    bfloat16: bool = False
    mirrored: bool = False
    digests: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"classes": list(self.classes)}


def settings(given: dict[str, Any]) -> Settings:
    """Of what `to_dict` gave; what earlier releases did not write is as it was then.

    Raises:
        LookupError, TypeError, ValueError: it is something else.
    """
    first, second = given["classes"]
    known = {each.name for each in fields(Settings)}
    read = Settings(**{key: value for key, value in given.items() if key in known} | {"classes": (first, second)})
    for name, (least, most) in _RANGES.items():
        value = getattr(read, name)
        kinds = int if name in ("image_size", "side") else int | float
        never = value is None and name in ("sureness", "unfamiliar")
        if not never and not (isinstance(value, kinds) and least <= value <= most):
            raise ValueError(f"{name} should be a number from {least:g} to {most:g}. Received: {value}")
    for name in ("bfloat16", "mirrored"):
        if not isinstance(getattr(read, name), bool):
            raise ValueError(f"{name} should be true or false. Received: {getattr(read, name)}")
    return read


def open_form(keras_file: Path, folder: Path, chosen: Settings) -> Classifier:
    """The served form whose files these are; `folder` holds all but the `.keras` file.

    Raises:
        UserError: a file is missing, is not the one that the settings name, or can't be loaded.
    """
    verify(keras_file, chosen.model_sha256)
    for name, digest in chosen.digests.items():
        if name != REFERENCE:  # what opens it verifies it
            verify(folder / name, digest)
    network, side = _network(keras_file, folder, chosen)
    profile = familiarity.load(folder / PROFILE) if PROFILE in chosen.digests else None
    return Classifier(
        network=network,
        classes=chosen.classes,
        image_size=chosen.image_size,
        side=side,
        threshold=chosen.threshold,
        temperature=chosen.temperature,
        sureness=chosen.sureness,
        unfamiliar=chosen.unfamiliar,
        profile=profile,
    )


def _network(keras_file: Path, folder: Path, chosen: Settings) -> tuple[Network, int]:
    """What answers, and the side of its input."""
    if not set(asking.FILES) <= chosen.digests.keys():
        why = "it was registered without a network for OpenVINO"
    elif not openvino.is_here():
        why = "OpenVINO is not installed here"
    else:
        try:
            bfloat16 = chosen.bfloat16 and processor.has_bfloat16()
            return asking.by_openvino(folder, bfloat16=bfloat16, mirrored=chosen.mirrored), chosen.side
        except (RuntimeError, ImportError) as error:
            for cause in causes(error):  # Ctrl-C within OpenVINO's own code comes out as its failure
                if isinstance(cause, KeyboardInterrupt | SystemExit):
                    raise cause from None
            why = f"OpenVINO can't run here ({first_line(error)})"
    print(f"notice: Keras answers, more slowly: {why}", file=sys.stderr)
    model = read(keras_file)
    return asking.by_keras(model, mirrored=chosen.mirrored), model.input_shape[1]


def read(file: Path) -> Any:
    """Load a `.keras` file in Keras's safe mode: nothing in it is run as code.

    Raises:
        UserError: the file or Keras is missing, or can't be loaded.
    """
    verify(file, None)
    backend.keep_alone()
    try:
        import keras
    except ImportError as error:
        raise UserError(f"Keras can't be loaded here, and it takes that to read {file}: {first_line(error)}") from None
    try:
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly anything on a file that is not its own
        raise UserError(f"{file} can't be loaded as a Keras model: {first_line(error)}") from None
    if not isinstance(model.input_shape[1], int):
        raise UserError(f"{file} does not say which image size it takes: save it with one")
    return model


def verify(file: Path, sha256: str | None, *, actual: str | None = None) -> None:
    """Check that a file of a served form is there and has this sha256 (None: any); `actual` is its own, if known.

    Raises:
        UserError: it is missing, or is another.
    """
    if not file.is_file():
        raise UserError(f"{file} not found: a file of the model is gone; restore the artifact store or train again")
    actual = actual or files.sha256(file) if sha256 else ""
    if sha256 is not None and actual != sha256:
        raise UserError(
            f"{file} is not what was logged: its sha256 is {actual[:12]}, not {sha256[:12]}; it was changed or "
            "damaged, so it is not used; restore the artifact store or train again"
        )
