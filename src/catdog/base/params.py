"""params.yaml as frozen, typed objects. All validation of knobs happens here."""

import io
import reprlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent, DocumentStartEvent

from catdog.base import names, paths
from catdog.base.errors import UserError, first_line
from catdog.base.text import printable, shortened

MAX_BYTES = 32 << 10  # of params.yaml: six times what is shipped, and under a second to read
_MAX_SCALAR = 4096  # characters of one value; a path has no more, and Python's integers hardly
_MAX_DEPTH = 20  # the parser takes a quadratic time over brackets, and a call for each
_MAX_MESSAGE = 250
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=0.5)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=16, le=2048)]
Precision = Literal["auto", "float32", "mixed_bfloat16"]
Name = Annotated[str, Field(min_length=1, pattern=r"^[\w][\w -]*$")]


class _Section(BaseModel):
    # Every key is required and none is guessed: what params.yaml says is what ran.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Base(_Section):
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    classes: Annotated[list[Name], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _two_names(self) -> "Base":
        if names.alike(*self.classes):  # case, plurals, hyphens and how accents are written make no difference
            raise ValueError(f"classes should be two different names. Received: {_shown(self.classes)}")
        return self


class Prepare(_Section):
    source: Annotated[str, Field(min_length=1)]
    drawings: Annotated[int, Field(ge=40, multiple_of=2)]
    image_size: Side
    min_side: Count
    max_megapixels: Positive
    near_duplicates: Annotated[float, Field(ge=0.5, le=1)]
    val_fraction: Share
    test_fraction: Share
    shard_photographs: Count


class Transform(_Section):
    probability: Fraction


class Turn(Transform):
    degrees: Annotated[float, Field(ge=0, le=180)]


class Change(Transform):
    fraction: Below1


class Erasing(Transform):
    area: Below1


class CutMix(Transform):
    area: Fraction


class Blur(Transform):
    pixels: Annotated[float, Field(ge=0, le=50)]


class Noise(Transform):
    levels: Annotated[float, Field(ge=0, le=255)]


class Jpeg(Transform):
    quality: Annotated[int, Field(ge=1, le=95)]


class Augment(_Section):
    variants: Count
    flip: Transform
    rotation: Turn
    zoom: Change
    aspect: Change
    shift: Change
    hue: Turn
    saturation: Change
    white_balance: Change
    brightness: Change
    contrast: Change
    erasing: Erasing
    cutmix: CutMix
    blur: Blur
    noise: Noise
    jpeg: Jpeg


class Train(_Section):
    strategy: Literal["auto", "one", "mirrored"]


class TrainCnn(_Section):
    filters: Annotated[list[Count], Field(min_length=1)]
    dropout: Below1
    image_sizes: Annotated[list[Side], Field(min_length=1)]
    epochs: Annotated[list[Count], Field(min_length=1)]
    patience: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    label_smoothing: Below1
    precision: Precision

    @model_validator(mode="after")
    def _one_epoch_count_per_size(self) -> "TrainCnn":
        if len(self.epochs) != len(self.image_sizes):
            raise ValueError(
                "epochs should have one entry per image_sizes. "
                f"Received: {_shown(self.epochs)} for {_shown(self.image_sizes)}"
            )
        if sorted(set(self.image_sizes)) != self.image_sizes:
            raise ValueError(f"image_sizes should grow from one to the next. Received: {_shown(self.image_sizes)}")
        smallest = 2 ** (len(self.filters) + 1)
        if min(self.image_sizes) < smallest:
            raise ValueError(
                f"image_sizes should be at least {_shown(smallest)} for {len(self.filters)} filters. "
                f"Received: {_shown(self.image_sizes)}"
            )
        return self


class TrainXception(_Section):
    weights: Annotated[str, Field(min_length=1)]
    image_size: Annotated[int, Field(ge=71, le=2048)]
    augmented: StrictBool
    hidden: CountOrNone
    dropout: Below1
    epochs: Count
    patience: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    precision: Precision
    fine_tune_blocks: Annotated[int, Field(ge=0, le=14)]
    fine_tune_epochs: Count
    fine_tune_learning_rate: Positive
    seeds: Annotated[int, Field(ge=1, le=100)]


class Evaluate(_Section):
    threshold: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    bootstrap: Annotated[int, Field(ge=100)]
    corrupted: Annotated[int, Field(ge=1)]
    answer_accuracy: Annotated[float, Field(gt=0.5, lt=1)] | None
    unfamiliar: Annotated[float, Field(gt=0, lt=1)] | None
    cnn_seed_deviation: Annotated[float, Field(ge=0, lt=0.5)] | None
    cnn_mirrored: StrictBool


class Promote(_Section):
    min_accuracy: Fraction
    max_log_loss: Positive
    max_calibration_error: Fraction
    min_robustness: Fraction
    margin: Fraction
    max_relative_time: Positive
    max_megabytes: Positive
    max_disagreement: Fraction | None


class Params(_Section):
    base: Base
    prepare: Prepare
    augment: Augment
    train: Train
    train_cnn: TrainCnn
    train_xception: TrainXception
    evaluate: Evaluate
    promote: Promote


def load(path: Path = paths.PARAMS) -> Params:
    """Read and check params.yaml, whatever it holds; what comes out is what DVC reads.

    Anchors, aliases, tags and directives are refused: each value stands where it applies, as it is.

    Raises:
        UserError: the file is missing, is not YAML, is larger than MAX_BYTES, gives a key twice, or a key is unknown,
            missing or out of range; one printable line that names the first such key, what was expected and what was
            received.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path} not found: run from the project's root") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    try:
        if len(data) > MAX_BYTES:
            raise _Refused(f"more than {MAX_BYTES >> 10} KiB, the limit for a file of knobs")
        return Params.model_validate(_parsed(data))
    except ValidationError as error:
        problem = f": {_first(error)}"
    except _Refused as error:
        problem = f": {error}"
    except (YAMLError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        # The parser raises more than its own errors on what is not YAML, or no date.
        problem = f" is not YAML: {_yaml_problem(error)}"
    raise UserError(f"{path}{shortened(printable(problem), limit=_MAX_MESSAGE)}")


class _Refused(Exception):
    """YAML, but not as it is read here."""


def _parsed(data: bytes) -> object:
    # As a text file is read; DVC does so.
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8").read()
    # DVC's own parser (YAML 1.2): it reads 1e-5 as a number, PyYAML as text.
    depth = documents = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        documents += isinstance(event, DocumentStartEvent)
        refused = {
            "an anchor or alias (& or *): write the value itself": getattr(event, "anchor", None),
            "a tag (!): write the plain value": getattr(event, "tag", None),
            "a document after a %YAML or %TAG directive: remove that": getattr(event, "version", None)
            or getattr(event, "tags", None),
            "a second document (---): remove it": documents > 1,
            f"more than {_MAX_DEPTH} levels": depth > _MAX_DEPTH,
            f"more than {_MAX_SCALAR:,} characters in one value": len(getattr(event, "value", "")) > _MAX_SCALAR,
        }
        for problem, present in refused.items():
            if present:
                raise _Refused(f"line {event.start_mark.line + 1} has {problem}")
    return YAML(typ="safe", pure=True).load(text)


def _first(error: ValidationError) -> str:
    # A misspelt key is both unknown and missing; the unknown one is what a person has to put right.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(shortened(str(part), limit=60) for part in first["loc"])
    received = _shown(first["input"])
    match first["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"{key} is not a known key. Received: {received}"
        case "model_type":
            return f"{key or 'the file'} should hold keys and values. Received: {received}"
        case "value_error":
            return f"{key + ': ' if key else ''}{first['ctx']['error']}"
        case _:
            return f"{key} {first['msg'].removeprefix('Input ')}. Received: {received}"


class _Short(reprlib.Repr):
    maxlevel, maxdict, maxlist, maxtuple, maxstring, maxother = 2, 4, 6, 6, 60, 60

    def repr_int(self, x: int, level: int) -> str:
        # Python has a limit on the digits that it converts.
        return super().repr_int(x, level) if abs(x) < 10**60 else f"an integer of {x.bit_length():,} bits"


_shown = _Short().repr


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return where + (getattr(error, "problem", None) or first_line(error))
