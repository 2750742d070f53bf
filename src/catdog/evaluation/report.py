"""reports/comparison.html: the comparison of the two models, in one file that opens anywhere."""

import base64
import io
from pathlib import Path

import jinja2
import pandas as pd
from PIL import Image

from catdog.base import files
from catdog.evaluation import report_tables, spread
from catdog.pictures.style import COLOURS, NAMES
from catdog.pictures.wording import percent

TEMPLATE = Path(__file__).with_name("report.html.jinja")
_CNN_SPREAD = "evaluate.cnn_seed_deviation"
_NOT_MEASURED = {"cnn": f"{_CNN_SPREAD} is null", "xception": "one seed alone, or blocks that were fine-tuned"}


def render(
    path: Path,
    *,
    evaluation: dict,
    data: dict,
    histories: dict[str, pd.DataFrame],
    pictures: dict[str, Path],
    params: dict,
    lineage: dict,
) -> None:
    """Write the report to `path`: one HTML file without script, pictures inside, complete or not at all.

    Args:
        evaluation: as `comparison.measure` returns it.
        data: metrics/data.json.
        histories: by model, as `convergence.of` takes them.
        pictures: PNG files by the keys that the template shows; those that do not exist are left out.
        params: by section, what of params.yaml the report depends on; `base` is among it.
        lineage: as `lineage.of_report` returns it.
    """
    classes = params["base"]["classes"]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= report_tables.WRITE
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        models=[{"key": key, "name": name, "colour": COLOURS[key]} for key, name in NAMES.items()],
        classes=classes,
        evaluation=evaluation,
        difference=evaluation["difference"],
        verdict=_verdict(evaluation),
        rows=report_tables.rows,
        metrics=[evaluation[model] for model in NAMES],
        costs=report_tables.costs(evaluation, histories),
        doubts=[evaluation[model]["doubt"] for model in NAMES],
        agreements=[evaluation[model]["agreement"] for model in NAMES],
        sureness={model: _sureness(evaluation[model], params["evaluate"]) for model in NAMES},
        data=data,
        agreement=report_tables.agreement(evaluation["difference"]),
        seeds=report_tables.seeds(evaluation["spread"]["xception"]),
        spread=_spread(evaluation["spread"]),
        splits=report_tables.splits(data["counts"], classes),
        sizes=report_tables.sizes(data.get("sizes", {}), classes),
        source=report_tables.source(data["source"]),
        pictures={key: embedded(picture) for key, picture in pictures.items() if picture.is_file()},
        lineage=lineage,
        params=params,
    )
    files.write_text(path, page)


def _verdict(evaluation: dict) -> str:
    difference = evaluation["difference"]
    models = sorted(NAMES, key=lambda model: -evaluation[model]["accuracy"])
    shares = " against ".join(f"{percent(evaluation[model]['accuracy'])} ({NAMES[model]})" for model in models)
    tested = f"{evaluation[models[0]]['test_photographs']:,} test {difference['things']}"
    return f"{shares} of {tested} right: {difference['certainty']}."


def _spread(measured: dict) -> str:
    """How far another seed moves each model's accuracy, and how that is known."""
    known = []
    for model, name in NAMES.items():
        deviation = spread.of_accuracy(measured[model])
        if deviation is None:
            known.append(f"{name}, not measured ({_NOT_MEASURED[model]})")
        else:
            by = f"over {len(measured[model]['seeds'])} seeds" if "seeds" in measured[model] else _CNN_SPREAD
            known.append(f"{name}, {100 * deviation:.2f} points ({by})")
    return "; ".join(known) + "."


def _sureness(metrics: dict, knobs: dict) -> str:
    wanted = knobs["answer_accuracy"]
    if wanted is None:
        return "it answers however sure it is (evaluate.answer_accuracy is null)."
    told = f"answers that are right {percent(wanted)} of the time"
    if metrics["sureness"] is None:
        return f"the validation photographs show no level of sureness that gives {told}, so it answers every time."
    certain = f"with {100 * knobs['confidence']:g} % confidence, by the validation photographs"
    return f"a class needs a probability of {percent(metrics['sureness'])} for {told} ({certain})."


def embedded(picture: Path) -> str:
    """A picture as WebP in base64: photographs at a third of the size, plots no larger and without loss."""
    with Image.open(picture) as image:
        photographs = image.mode == "P"  # contact sheets have a palette, plots have none
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "WEBP", lossless=not photographs, quality=70, method=4)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
