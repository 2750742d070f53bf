"""The comparison as a table, in the terminal or for a README, and what to do next."""

from rich.console import Console
from rich.table import Table

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.pictures import style, wording

_SHARES = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1"}
_NUMBERS = {"roc_auc": "ROC AUC", "log_loss": "Log loss (nats)"}


def read() -> tuple[dict, dict]:
    """reports/comparison.json, what evaluate found, and metrics/data.json.

    Raises:
        UserError: the pipeline has not run.
    """
    try:
        return files.read_json(paths.FINDINGS), files.read_json(paths.DATA_METRICS)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} not found: run `dvc repro`") from None


def show(console: Console) -> None:
    """Print the comparison with intervals, and the next commands."""
    found, data = read()
    table = Table(title=_title(found, data), title_justify="left")
    table.add_column(f"{found['difference']['confidence']:.0%} intervals in brackets")
    for name in _models(found):
        table.add_column(style.NAMES[name], justify="right")
    for row in _rows(found):
        table.add_row(*row)
    console.print(table)
    console.print(found["difference"]["words"], highlight=False)
    console.print("\nNext:", highlight=False)
    for command, purpose in (
        ("make ui", "compare the runs in MLflow"),
        ("make report", f"open {paths.REPORT}"),
        ("make promote", "put the better model into use, if it passes the gates"),
    ):
        console.print(f"  {command:<14}{purpose}", highlight=False, markup=False)


def markdown() -> str:
    """The same table for a README."""
    found, data = read()
    heads = [_title(found, data), *(style.NAMES[name] for name in _models(found))]
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1), *_rows(found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _models(found: dict) -> list[str]:
    return [name for name in style.NAMES if name in found]


def _title(found: dict, data: dict) -> str:
    source = data["source"]
    where = source.get("address") or source.get("path") or source["kind"]
    tested = found[_models(found)[0]]["test_photographs"]
    return f"{where.rsplit('/', 1)[-1]}: {tested:,} test {found['difference']['things']}"


def _rows(found: dict) -> list[list[str]]:
    models = [found[name] for name in _models(found)]
    return [
        *([title, *(_share(model, key) for model in models)] for key, title in _SHARES.items()),
        *([title, *(_number(model, key) for model in models)] for key, title in _NUMBERS.items()),
        ["Training", *(wording.duration(model["train_seconds"]) for model in models)],
        ["Epochs, the best", *(f"{model['epochs']}, {model['best_epoch']}" for model in models)],
        ["Parameters", *(f"{model['parameters']:,}" for model in models)],
        ["Size of the file", *(f"{model['file_bytes'] / 1e6:.1f} MB" for model in models)],
        ["Time per photograph", *(f"{model['milliseconds_per_photograph']:.0f} ms" for model in models)],
    ]


def _share(found: dict, key: str) -> str:
    low, high = found["intervals"][key]
    return f"{100 * found[key]:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _number(found: dict, key: str) -> str:
    low, high = found["intervals"][key]
    return f"{found[key]:.4f} [{low:.4f}, {high:.4f}]"
