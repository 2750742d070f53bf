"""The model card of a version: what it is, on what it was tested, where it is weak; from recorded facts alone.

Markdown with Hugging Face's front matter, https://huggingface.co/docs/hub/model-cards.
"""

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from catdog.base import files, params, paths
from catdog.base.text import printable
from catdog.evaluation import spread
from catdog.evaluation.served import Served
from catdog.pictures.style import NAMES
from catdog.pictures.wording import duration, megabytes, percent
from catdog.tracking import lineage

_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_METRICS = {
    "accuracy": ("Accuracy", percent),
    "precision": ("Precision", percent),
    "recall": ("Recall", percent),
    "f1": ("F1", percent),
    "roc_auc": ("ROC AUC", "{:.4f}".format),
    "log_loss": ("Log loss (nats)", "{:.4f}".format),
    "robustness": ("Accuracy on corrupted ones", percent),
}
_SLICES, _CORRUPTIONS = paths.PLOTS / "slices.csv", paths.PLOTS / "corruptions.csv"


def markdown(
    p: params.Params, name: str, served: Served, *, evaluation: dict, run_id: str, test_digest: str, registered: str
) -> str:
    """The card of one model.

    Args:
        name: cnn or xception.
        evaluation: as `comparison.measure` returns it.
        test_digest: sha256 of the test shard.
        registered: the name of the registered model.
    """
    data, trained = files.read_json(paths.DATA_METRICS), files.read_json(paths.train_metrics(name))
    metrics = evaluation[name]
    drawn = data["source"]["kind"] == "drawn"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        name=name,
        title=NAMES[name],
        registered=registered,
        classes=p.base.classes,
        params=p,
        settings=served.settings,
        side=served.settings.side,
        weights="ImageNet" if p.train_xception.weights == "imagenet" else printable(p.train_xception.weights),
        metrics=metrics,
        table=_table(metrics),
        seeds=_seeds(evaluation, name),
        weak=_weak(name),
        data=data,
        corrections={"relabelled": 0, "set_aside": 0} | data.get("corrections", {}),
        trained=trained,
        photographs={split: sum(counts.values()) for split, counts in data["counts"].items()},
        refused=", ".join(f"{reason} ({count:,})" for reason, count in data["reasons"].items()),
        source=_source(data["source"]),
        drawn=drawn,
        things="drawings" if drawn else "photographs",
        run_id=run_id,
        commit=lineage.git().get("git.commit", ""),
        test_digest=test_digest,
        front_matter=yaml.safe_dump(_front_matter(p, name, metrics, data), sort_keys=False, allow_unicode=True),
        count="{:,}".format,
        percent=percent,
        duration=duration,
        megabytes=megabytes,
    )


def description(card: str) -> str:
    """A card without its front matter: what the MLflow UI shows of a version."""
    return card.partition("\n---\n")[2].strip()


def _table(metrics: dict) -> list[tuple[str, str, str]]:
    """Name, value and interval of each metric, as texts."""
    return [
        (label, write(metrics[key]), " to ".join(write(end) for end in metrics["intervals"][key]))
        for key, (label, write) in _METRICS.items()
    ]


def _seeds(evaluation: dict, name: str) -> str:
    deviation = spread.of_accuracy(evaluation["spread"][name])
    return "" if deviation is None else f"{100 * deviation:.2f}"


def _weak(name: str) -> list[str]:
    """The slice and the kinds of corruption on which the model is right the least often, in words."""
    return [
        *(
            f"Hardest by {row['property']} are those that are {row['slice']}: {_accuracy(row)} right."
            for row in _worst(_SLICES, name, rows=1)
        ),
        *(
            f"Of those corrupted most strongly ({row['corruption']}): {_accuracy(row)} right."
            for row in _worst(_CORRUPTIONS, name, rows=2)
        ),
    ]


def _worst(path: Path, name: str, *, rows: int) -> list[dict]:
    """The rows of a table of evaluate on which the model is right the least often; of strengths, the highest alone."""
    if not path.exists():
        return []
    table = pd.read_csv(path)
    table = table[table["model"] == name]
    if "strength" in table:
        table = table[table["strength"] == table["strength"].max()]
    return table.sort_values("accuracy").head(rows).to_dict("records")


def _accuracy(row: Any) -> str:
    return f"{percent(row['accuracy'])} ({percent(row['low'])} to {percent(row['high'])})"


def _source(source: dict) -> str:
    """Where the photographs came from, and how to know them again."""
    name = printable(Path(source.get("path", "")).name) or source["kind"]
    sha256 = source.get("sha256", "")
    return f"{name} (sha256 `{sha256[:12]}…`)" if sha256 else name


def _front_matter(p: params.Params, name: str, metrics: dict, data: dict) -> dict:
    dataset = printable(Path(data["source"].get("path", "")).name) or data["source"]["kind"]
    measured = [{"type": key, "name": label, "value": round(metrics[key], 4)} for key, (label, _) in _METRICS.items()]
    task = {"type": "image-classification", "name": f"{p.base.classes[0]} against {p.base.classes[1]}"}
    return {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "catdog", name],
        "metrics": list(_METRICS),
        "model-index": [
            {
                "name": f"catdog-{name}",
                "results": [{"task": task, "dataset": {"type": "images", "name": dataset}, "metrics": measured}],
            }
        ],
    }
