"""The comparison as a table in the terminal, and what to do next."""

from rich.console import Console
from rich.table import Table

from catdog import files, params, paths, plots
from catdog.errors import UserError

_SHARES = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1"}


def show(console: Console, *, p: params.Params) -> None:
    """Print metrics/evaluation.json as a table with intervals.

    Raises:
        UserError: the pipeline has not run.
    """
    try:
        found, data = files.read_json(paths.EVALUATION), files.read_json(paths.DATA_METRICS)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} not found: run `dvc repro`") from None
    models = [name for name in plots.NAMES if name in found]
    difference, source = found["difference"], data["source"]
    tested = f"{found[models[0]]['test_photographs']:,} test {difference['things']}"
    where = source.get("address") or source.get("path") or source["kind"]
    table = Table(title=f"{where}: {tested}", title_justify="left", caption_justify="left")
    table.add_column(f"{difference['confidence']:.0%} intervals in brackets")
    for name in models:
        table.add_column(plots.NAMES[name], justify="right")
    for key, title in _SHARES.items():
        table.add_row(title, *(_share(found[name], key) for name in models))
    table.add_row("ROC AUC", *(_number(found[name], "roc_auc") for name in models))
    table.add_row("Log loss (nats)", *(_number(found[name], "log_loss") for name in models))
    table.add_row("Training", *(plots.duration(found[name]["train_seconds"]) for name in models))
    table.add_row("Epochs, best", *(f"{found[name]['epochs']}, {found[name]['best_epoch']}" for name in models))
    console.print(table)
    console.print(difference["words"], highlight=False)
    console.print("\nNext:", highlight=False)
    for command, purpose in (
        ("make ui", "compare the runs in MLflow"),
        ("make report", f"open {paths.REPORT}"),
        ('catdog promote --why "..."', "put the better model into use (in .venv/bin)"),
    ):
        console.print(f"  {command:<28}{purpose}", highlight=False, markup=False)


def _share(found: dict, key: str) -> str:
    low, high = found["intervals"][key]
    return f"{100 * found[key]:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _number(found: dict, key: str) -> str:
    low, high = found["intervals"][key]
    return f"{found[key]:.4f} [{low:.4f}, {high:.4f}]"
