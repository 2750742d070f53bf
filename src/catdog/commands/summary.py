"""The comparison as a table, in the terminal or for a README, and what to do next."""

from rich.console import Console
from rich.table import Table

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.pictures import style, wording

_SHARES = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1"}
_NUMBERS = {"roc_auc": "ROC AUC", "log_loss": "Log loss (nats)"}


def read() -> tuple[dict, dict]:
    """reports/comparison.json, the findings of evaluate, and metrics/data.json.

    Raises:
        UserError: the pipeline has not run.
    """
    try:
        return files.read_json(paths.FINDINGS), files.read_json(paths.DATA_METRICS)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} not found: run `dvc repro`") from None


def show(console: Console) -> None:
    """Print the comparison with intervals, and the next commands."""
    findings, data = read()
    table = Table(title=_title(findings, data), title_justify="left")
    table.add_column(f"{findings['difference']['confidence']:.0%} intervals in brackets")
    for name in style.NAMES.values():
        table.add_column(name, justify="right")
    for row in _rows(findings):
        table.add_row(*row)
    console.print(table)
    console.print(findings["difference"]["words"], highlight=False)
    console.print("\nNext:", highlight=False)
    for command, purpose in (
        ("make ui", "compare the runs in MLflow"),
        ("make report", f"open {paths.REPORT}"),
        ("make promote", "put the better model into use, if it passes the gates"),
    ):
        console.print(f"  {command:<14}{purpose}", highlight=False, markup=False)


def markdown() -> str:
    """The same table for a README."""
    findings, data = read()
    heads = [_title(findings, data), *style.NAMES.values()]
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1), *_rows(findings)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _title(findings: dict, data: dict) -> str:
    source = data["source"]
    where = source.get("address") or source.get("path") or source["kind"]
    tested = findings[next(iter(style.NAMES))]["test_photographs"]
    return f"{where.rsplit('/', 1)[-1]}: {tested:,} test {findings['difference']['things']}"


def _rows(findings: dict) -> list[list[str]]:
    models = [findings[name] for name in style.NAMES]
    return [
        *([title, *(_interval(model, key, 100, 1, " %") for model in models)] for key, title in _SHARES.items()),
        *([title, *(_interval(model, key, 1, 4) for model in models)] for key, title in _NUMBERS.items()),
        ["Training", *(wording.duration(model["train_seconds"]) for model in models)],
        ["Epochs, the best", *(f"{model['epochs']}, {model['best_epoch']}" for model in models)],
        ["Parameters", *(f"{model['parameters']:,}" for model in models)],
        ["Size of the file", *(f"{model['file_bytes'] / 1e6:.1f} MB" for model in models)],
        ["Time per photograph", *(f"{model['milliseconds_per_photograph']:.0f} ms" for model in models)],
    ]


def _interval(metrics: dict, key: str, times: int, places: int, unit: str = "") -> str:
    value, low, high = (f"{times * number:.{places}f}" for number in (metrics[key], *metrics["intervals"][key]))
    return f"{value}{unit} [{low}, {high}]"
