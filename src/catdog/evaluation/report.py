"""reports/comparison.html: everything that is said about the two models, in one file that opens anywhere."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from PIL import Image

from catdog.base import files
from catdog.evaluation.plots import COLOURS, NAMES, duration, percent
from catdog.training.loop import convergence

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = Path(__file__).with_name("report.html.jinja")

_BESIDE = (
    "The surest come first. Beside each photograph: what spoke for the verdict of each model (Grad-CAM), "
    "the redder the more."
)

# Key of `pictures`: section it belongs to, heading, what is to be seen. Any other key is shown among the failures.
PICTURES = {
    "curves": ("first", "Training", "Accuracy and loss by epoch: training photographs dashed, validation solid."),
    "confusions": ("errors", "Confusion", "Counts, and percentages of the actual class."),
    "roc": ("errors", "ROC", "Every possible threshold: what share of one class is found, at what false alarms."),
    "precision_recall": ("errors", "Precision and recall", "Every possible threshold, as precision against recall."),
    "reliability": (
        "errors",
        "Calibration",
        "On the dotted line, 80 % means that 80 of 100 are; bars: 95 % intervals.",
    ),
    "mistakes_cnn": ("failures", "Mistakes of the CNN", _BESIDE),
    "mistakes_xception": ("failures", "Mistakes of Xception", _BESIDE),
    "disagreements": ("failures", "Disagreements", _BESIDE),
    "suspects": (
        "failures",
        "Labels to look at",
        "Training and validation photographs that a model trained on the others takes for the other class, the surest "
        "first. Some are mislabelled, some hard; nothing is changed by this list.",
    ),
    "slices": ("failures", "By kind of photograph", "Accuracy on parts of the test photographs, with intervals."),
    "corruptions": (
        "failures",
        "On photographs made worse",
        "Blur, noise, darkness, compression and cropping at three strengths; bands are intervals.",
    ),
    "cost": ("cost", "Accuracy against time", "Dotted: time before the first epoch is over, features included."),
    "comparison": ("cost", "All in one picture", "The figure of the README."),
    "sizes": ("data", "Sizes and shapes", "As in the files. A square is darker the more photographs are of its size."),
    "photographs_0": ("data", "Training photographs: {0}", "An even sample, with the sizes of the files."),
    "photographs_1": ("data", "Training photographs: {1}", "An even sample, with the sizes of the files."),
    "refused": ("data", "Refused", "Some files of every reason; as a picture where the file holds one."),
    "near_duplicates": (
        "data",
        "Near duplicates",
        "Photographs that look alike. Those filed under both classes come first, and are set aside.",
    ),
    "augmented": ("data", "Variants", "What augmentation makes of training photographs."),
    "transforms": ("data", "Transforms", "Each of augmentation's transforms by itself, as far as it goes."),
}

# What the categories of reasons in metrics/data.json mean.
REASONS = {
    "a single flat colour": "one colour from edge to edge",
    "archive inside an archive": "only the outer one is looked into",
    "archive of an unknown kind": "zip and tar are read",
    "conflicting labels": "one photograph under both classes: which is right is unknown, so none is used",
    "damaged": "begins like an image and cannot be decoded",
    "duplicate": "byte by byte a photograph that is kept",
    "empty": "a file of no bytes",
    "not a file": "a link or a device inside an archive",
    "not an image": "none of the formats that are read, whatever its name says",
    "replaced": "its archive holds a later file of the same name",
    "too large": "more pixels or bytes than the limit",
    "too long": "a strip that no JPEG can hold",
    "too small": "a short side under the limit",
    "truncated": "the end of the file is missing",
    "unknown class": "no folder above it is named after a class",
    "unknown compression": "packed in a way that is not read",
    "unsafe name": "it would lead out of its archive",
}

# What the figures under `groups` in metrics/data.json are called, and what they mean.
GROUPS = {
    "near_duplicates": (
        "Groups of near duplicates",
        "each in one split, so that no test is of what was learnt by heart",
    ),
    "photographs_in_them": ("Photographs in them", ""),
    "largest": ("Photographs in the largest", ""),
    "set_aside": ("Groups set aside", "filed under both classes"),
    "straddling_if_split_alone": ("Groups kept from straddling splits", "where each photograph alone would have gone"),
    "kept": ("Groups in all", "most are of one photograph"),
}


def render(
    path: Path,
    *,
    evaluation: dict,
    data: dict,
    histories: "dict[str, pd.DataFrame]",
    pictures: dict[str, Path],
    params: dict,
    lineage: dict,
) -> None:
    """Write the report to `path`: one HTML file without script, pictures inside, complete or not at all.

    Args:
        evaluation: metrics/evaluation.json: each model with the metrics of `scoring.score`, `intervals`,
            and whichever of `train_seconds`, `parameters`, `file_bytes`, `milliseconds_per_photograph`, `temperature`
            are known; `difference` as `scoring.compare` returns it.
        data: metrics/data.json: `source`, `counts` (split, then class), `reasons`, `files`, `kept`, and `sizes` (of
            `sizes.figures`) and `groups` (of near duplicates) if they are known.
        histories: as `convergence.of` takes them.
        pictures: PNG files by the keys of `PICTURES`, or any other; those that do not exist are left out.
        params: params.yaml as plain dicts.
        lineage: any of `commit`, `dirty`, `digests` {path: digest}, `runs` {name: {`run_id`, `link`}}, `versions`
            {package: version}, `machine` {what: value}.
    """
    models = list(histories)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        models=[{"name": NAMES.get(m, m), "colour": COLOURS.get(m, "inherit")} for m in models],
        difference=evaluation["difference"],
        verdict=_verdict(evaluation, models),
        price=_price(evaluation, models),
        metrics=_metric_rows(evaluation, histories, positive=params["base"]["classes"][1]),
        costs=_cost_rows(evaluation, histories),
        source=_source(data),
        drawn=data["source"].get("kind") == "drawn",
        data=data,
        classes=params["base"]["classes"],
        refused=data["files"] - data["kept"],
        totals=[sum(counts.get(name, 0) for counts in data["counts"].values()) for name in params["base"]["classes"]],
        origin=_origin(data["source"]),
        reasons=[(reason, REASONS.get(reason, ""), count) for reason, count in data["reasons"].items()],
        sizes=_size_rows(data, params["base"]["classes"]),
        groups=_group_rows(data.get("groups", {})),
        pictures=_embedded(pictures, params["base"]["classes"]),
        lineage=lineage,
        params=params,
        link=_web_address,
    )
    files.write_text(path, page)


def _verdict(evaluation: dict, models: list[str]) -> str:
    difference = evaluation["difference"]
    shares = " against ".join(
        f"{percent(evaluation[m]['accuracy'])} ({NAMES.get(m, m)})"
        for m in sorted(models, key=lambda m: -evaluation[m]["accuracy"])
    )
    tested = f"{evaluation[models[0]]['test_photographs']:,} test {difference['things']}"
    if difference["better"] != "not distinguishable":
        sure = "that is beyond chance"
    else:
        sure = "a difference that chance alone can make" if difference["accuracy"]["difference"] else "no difference"
    return f"{shares} of {tested} right: {sure}."


def _price(evaluation: dict, models: list[str]) -> str:
    said = []
    for model in models:
        found = evaluation[model]
        parts = [f"{duration(found['train_seconds'])} to train"] if "train_seconds" in found else []
        if "milliseconds_per_photograph" in found:
            parts.append(f"{_milliseconds(found['milliseconds_per_photograph'])} for each photograph")
        if "file_bytes" in found:
            parts.append(f"a file of {_megabytes(found['file_bytes'])}")
        if parts:
            said.append(f"{NAMES.get(model, model)} takes {_listed(parts)}")
    return "; ".join(said) + "." if said else ""


def _metric_rows(evaluation: dict, histories: dict, *, positive: str) -> list[dict]:
    nats, area = "{:.3f}".format, "{:.4f}".format
    shown: list[tuple[str, str, str, Callable[[float], str]]] = [
        ("accuracy", "Accuracy", "verdicts that are right", percent),
        ("precision", "Precision", f"of those called {positive}, how many are", percent),
        ("recall", "Recall", f"of every {positive}, how many are called so", percent),
        ("f1", "F1", "precision and recall in one (harmonic mean)", percent),
        ("roc_auc", "ROC AUC", f"how often a {positive} ranks above one that is none; 1 is best", area),
        ("brier", "Brier score", "squared error of the probability; 0.25 is guessing", area),
        ("calibrated_brier", "Brier score, calibrated", "probabilities divided by the temperature", area),
        ("log_loss", "Log loss", "punishes being surely wrong, nats; 0 is best, 0.693 is guessing", nats),
        ("calibrated_log_loss", "Log loss, calibrated", "likewise", nats),
        ("calibration_error", "Calibration error", "how far probabilities are off, on average; 0 is best", percent),
        ("calibrated_calibration_error", "Calibration error, calibrated", "likewise", percent),
        ("robustness", "Robustness", "mean accuracy on photographs made worse", percent),
    ]
    rows = []
    for key, name, meaning, write in shown:
        if not any(key in evaluation[model] for model in histories):
            continue
        cells = []
        for model in histories:
            found = evaluation[model]
            low, high = found["intervals"].get(key, (None, None))
            interval = "\u00a0" if low is None else f"{_bare(write(low))}–{_bare(write(high))}"
            cells.append({"value": write(found[key]) if key in found else "–", "interval": interval})
        rows.append({"name": name, "meaning": meaning, "cells": cells})
    return rows


def _cost_rows(evaluation: dict, histories: "dict[str, pd.DataFrame]") -> list[dict]:
    arrived = {}
    for model, history in histories.items():
        seconds = evaluation[model].get("train_seconds", 0.0)
        before = max(0.0, seconds - float(history["seconds"].sum()))
        rate = {}
        if "photographs_per_second" in history:
            rate["rate"] = float(history["photographs_per_second"].median())
        arrived[model] = rate | convergence.of(history, seconds_before=before) | evaluation[model]
    shown: list[tuple[str, str, str, Callable[[Any], str]]] = [
        ("train_seconds", "Training time", "from photographs to the last epoch, features included", duration),
        ("seconds_data", "Data", "of it: decoding photographs for each size, and checkpoints", duration),
        ("seconds_features", "Features", "of it: one pass of the frozen network over all photographs", duration),
        ("seconds_training", "Epochs", "of it: from the first to the last, validation included", duration),
        ("rate", "Photographs per second", "in the median epoch; of Xception, of features kept", "{:,.0f}".format),
        ("seconds_to_95", "Time to 95 % of its best", "until validation accuracy was that far", duration),
        ("best_epoch", "Epochs to the best", "the epoch that was kept", "{:,}".format),
        ("epochs", "Epochs trained", "", "{:,}".format),
        ("parameters", "Parameters", "", "{:,}".format),
        ("file_bytes", "File size", "of the saved model", _megabytes),
        (
            "peak_memory_bytes",
            "Memory",
            "the most in training, mapped files apart",
            _megabytes,
        ),
        ("milliseconds_per_photograph", "Time per photograph", "one verdict", _milliseconds),
        ("milliseconds_per_photograph_of_32", "the same, of 32 at once", "each", _milliseconds),
        (
            "temperature",
            "Temperature",
            "fitted on validation; above 1: was too sure, below: not enough",
            "{:.2f}".format,
        ),
    ]
    return [
        {
            "name": name,
            "meaning": meaning,
            "cells": [
                {"value": write(found[key]) if key in found else "–", "interval": ""} for found in arrived.values()
            ],
        }
        for key, name, meaning, write in shown
        if any(key in found for found in arrived.values())
    ]


def _source(data: dict) -> dict[str, str]:
    source = data["source"]
    return {
        "kind": str(source.get("kind", "unknown")),
        "place": str(source.get("address") or source.get("path") or ""),
        "sha256": str(source.get("sha256") or "")[:12],
        "kept": f"{data['kept']:,}",
    }


def _origin(source: dict) -> dict[str, str]:
    told = {"kind": source.get("kind"), "address": source.get("address"), "path": source.get("path")}
    told |= {"sha256": source.get("sha256")}
    if "size" in source:
        told["size"] = _megabytes(source["size"])
    if "files" in source:
        told["files"] = f"{source['files']:,}"
    return {key: str(value) for key, value in told.items() if value}


def _group_rows(groups: dict) -> list[dict]:
    named = {key: GROUPS.get(key, (key.replace("_", " "), "")) for key in [*GROUPS, *groups]}
    return [
        {"name": name, "meaning": meaning, "cells": [{"value": f"{groups[key]:,}", "interval": ""}]}
        for key, (name, meaning) in named.items()
        if key in groups
    ]


def _size_rows(data: dict, classes: list[str]) -> list[dict]:
    measured = [data.get("sizes", {}).get(name, {}) for name in classes]
    if not any(found.get("photographs") for found in measured):
        return []
    pixels, ratio = "{:,.0f}".format, "{:.2f}".format
    shown: list[tuple[str, str, str, Callable[[float], str]]] = [
        ("width", "Width", "pixels: median, then least to greatest", pixels),
        ("height", "Height", "", pixels),
        ("aspect", "Width : height", "above 1 is landscape", ratio),
    ]
    rows = [
        {
            "name": "Photographs measured",
            "meaning": "refused copies included",
            "cells": [{"value": f"{found.get('photographs', 0):,}", "interval": ""} for found in measured],
        }
    ]
    for key, name, meaning, write in shown:
        cells = []
        for found in measured:
            least, median, greatest = found.get(key) or [None, None, None]
            cells.append(
                {"value": "–", "interval": ""}
                if median is None
                else {"value": write(median), "interval": f"{write(least)}–{write(greatest)}"}
            )
        rows.append({"name": name, "meaning": meaning, "cells": cells})
    return rows


def _embedded(pictures: dict[str, Path], classes: list[str]) -> list[dict[str, str]]:
    found = []
    for key, path in pictures.items():
        if path.is_file():
            section, heading, caption = PICTURES.get(key, ("failures", key.replace("_", " ").capitalize(), ""))
            heading = heading.format(*classes) if key in PICTURES else heading
            encoded = base64.b64encode(_smaller(path)).decode("ascii")
            found.append({"section": section, "heading": heading, "caption": caption, "webp": encoded})
    return found


def _smaller(picture: Path) -> bytes:
    """As WebP: photographs a third of the size, drawn lines no larger and without loss."""
    with Image.open(picture) as image:
        photographs = image.mode == "P"  # as contact sheets have it, drawn plots do not
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "WEBP", lossless=not photographs, quality=70, method=4)
    return buffer.getvalue()


def _web_address(text: object) -> str:
    """`text` if it is one that a browser may follow, else nothing: `javascript:` is an address too."""
    return str(text) if str(text).startswith(("http://", "https://")) else ""


def _bare(text: str) -> str:
    return text.removesuffix(" %")


def _megabytes(size: float) -> str:
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e6:.0f} MB"


def _milliseconds(value: float) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
