"""What a kill or damage costs: `dvc repro` killed at random moments and started again, and files with changed bytes.

kills: the pipeline of a small project is killed with all its children, and started again as `make run` does, up to
eight times; then it goes to its end. What it leaves is compared with what an undisturbed one left. There are as many
such projects as it takes.

damage: eight bytes change at a random place of a random file, its size and times as they were, so that DVC does not see
it; then what reads the file reads it. That is told if it ends with one line that names the file, or says that it is
damaged and gives the right result; harmless if it says nothing and the result is right (bytes that nobody reads);
unclear if it ends otherwise, with a traceback; silent if the result is wrong.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import common
import machine
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from small_project import Ended, Project, make

from catdog.base import files, paths
from catdog.base.errors import UserError, run

COUNTS = {"kills": 30, "damage": 100}
PER_PROJECT = 8
EDGE = 3.0  # seconds; one kill in five falls into the first or the last of what remains
STARTING = "while DVC starts"
STAGES = (STARTING, "prepare", "augment", "train_cnn", "train_xception", "evaluate")
MODELS = ("cnn", "xception")
TIMES = ("seconds", "memory", "relative_time")  # what is never the same twice, by its name
OUTCOMES = ("told", "harmless", "unclear", "silent")


def main() -> None:
    given = parse()
    if given.trials:  # a process in the project's folder, with the project's own copy of the code
        import damaged

        damaged.trials(given.trials, count=given.count, seed=given.seed)
        return
    bad = 0
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as folder:
        template = make(Path(folder))
        finished = template.copy(Path(folder) / "finished")
        whole = finished.repro()
        for what in [given.what] if given.what else COUNTS:
            count = given.count or COUNTS[what]
            if what == "kills":
                figures = kills(template, finished, whole, count=count, seed=given.seed)
            else:
                figures = damage(finished, count=count, seed=given.seed)
            described = {"date": date.today().isoformat(), **machine.describe(*common.PACKAGES), "seed": given.seed}
            files.write_json(given.out / f"faults_{what}.json", {**described, **figures})
            bad += figures["bad"]
    if bad:
        raise UserError(f"{bad} of these did not end as they should: see above")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=COUNTS, help="by default both")
    parser.add_argument("--count", type=common.positive, help="kills, or files damaged (30 and 100)")
    parser.add_argument("--seed", type=int, default=0, help="of moments, files and bytes (%(default)s)")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder for figures as JSON (%(default)s)")
    parser.add_argument("--trials", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# Kills


def kills(template: Project, undisturbed: Project, whole: Ended, *, count: int, seed: int) -> dict:
    """Kill copies of `template` until there were `count` kills; print and return what came of it.

    Args:
        undisturbed: the same, come to its end as `whole` says.
    """
    rng = np.random.default_rng(seed)
    expected = state(undisturbed)
    expected.pop("repeated")
    if expected["unfinished"]:
        raise UserError(f"an undisturbed pipeline leaves more than it should: {expected['unfinished']}")
    fell: list[str] = []
    differed: list[str] = []
    projects = repeated = 0
    while len(fell) < count:
        projects += 1
        # A name of its own: MLflow keeps a database open by its name, even one that is gone.
        project = template.copy(template.folder.with_name(f"killed-{projects}"))
        try:
            whole = survive(project, whole, fell, kills=min(PER_PROJECT, count - len(fell)), rng=rng)
            found = state(project)
            repeated += found.pop("repeated")
            differed += [f"project {projects}: {key}: {found[key]}" for key in expected if found[key] != expected[key]]
        except UserError as error:
            differed.append(f"project {projects}, killed in {fell[-1] if fell else 'no stage'}: {error}")
        print(f"{len(fell)} kills; differences: {differed or 'none'}", file=sys.stderr)
        project.remove()
    by_stage = {stage: Counter(fell)[stage] for stage in STAGES}
    table = Table("killed in", "times", title=f"dvc repro, undisturbed {whole.seconds:.0f} s", title_justify="left")
    for stage, times in by_stage.items():
        table.add_row(stage, str(times))
    print_table(table)
    print(f"{len(fell)} kills in {projects} projects; trainings repeated: {repeated}; what differed: {len(differed)}")
    print("".join(f"- {line[:600]}\n" for line in differed), end="")
    came = {"kills": len(fell), "projects": projects, "by_stage": by_stage}
    return {**came, "repeated": repeated, "differed": differed, "bad": len(differed)}


def survive(project: Project, whole: Ended, fell: list[str], *, kills: int, rng: np.random.Generator) -> Ended:
    """Kill a project so often, unless it comes to its end before, then let it end.

    Args:
        whole: the undisturbed pipeline, by which the time that remains is known.
        fell: the stages in which the kills fall are added to it.

    Returns:
        What to go by from now on: this one, if it came to its end before it could be killed.

    Raises:
        UserError: started again, it fails.
    """
    reached = 0.0
    for number in range(kills):
        ended = project.repro(kill_after=moment(whole.seconds - reached, rng, left=kills - number))
        if not ended.killed:
            return whole if number else ended
        fell.append([STARTING, *ended.begun][-1])
        reached = max(reached, whole.begun.get(fell[-1], 0.0))
    project.repro()
    return whole


def moment(remaining: float, rng: np.random.Generator, *, left: int) -> float:
    """Seconds from the start to the next of the kills that are `left`, which are to be spread over all that remains."""
    first, last = (0.0, min(EDGE, remaining)), (max(0.0, remaining - EDGE), remaining)
    even = remaining * (1 - rng.random() ** (1 / left))  # the first of so many random moments
    low, high = [first, last, *[(even, even)] * 8][rng.integers(10)]
    return float(rng.uniform(low, high))


def state(project: Project) -> dict[str, Any]:
    """What a finished project holds, but for times and random names; `unfinished` is what should not be there."""
    folder = project.folder
    tables = [*folder.glob("data/prepared/*"), *folder.glob("data/augmented/*")]
    histories = {name: pd.read_csv(folder / paths.history(name)) for name in MODELS}
    found = {
        "data": {str(path.relative_to(folder)): files.sha256(path) for path in sorted(tables)},
        "histories": {name: timeless(history.to_dict("list")) for name, history in histories.items()},
        "weights": {name: weights(folder / paths.model(name) / paths.MODEL_FILE) for name in MODELS},
        "evaluation": timeless(files.read_json(folder / paths.EVALUATION)),
        "files": left(folder),
    }
    return found | tracked(project, histories)


def tracked(project: Project, histories: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """What of `state` is in the store, and whether all of it is whole."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments)
    statuses: dict[str, list[str]] = {name: [] for name in (*MODELS, "comparison")}
    for each in runs:
        statuses[each.info.run_name].append(each.info.status)
    unfinished: list[str] = []
    for name, history in histories.items():
        # Killed between its end and DVC's record of it, a training is repeated, in a run of its own.
        unfinished += [f"{name}: {statuses[name]}"] * (set(statuses[name]) != {"FINISHED"})
        run_id = files.read_json(project.folder / paths.model(name) / paths.RUN_FILE)["run_id"]
        for key in ("train_loss", "val_loss", "val_accuracy", "learning_rate"):
            logged = [(point.step, point.value) for point in client.get_metric_history(run_id, key)]
            if logged != list(zip(history["epoch"], history[key], strict=True)):
                unfinished.append(f"{name}: the run has other epochs than the history: {logged}")
        try:
            project.run(sys.executable, "-m", "catdog", "trace", f"models:/catdog-{name}/1")
        except UserError as error:
            unfinished.append(str(error))
    # An evaluation that was killed is repeated in a run of its own, so there may be several comparisons.
    unfinished += [f"comparison: {statuses['comparison']}"] * ("FINISHED" not in statuses["comparison"])
    unfinished += [f"comparison: {each}" for each in set(statuses["comparison"]) - {"FINISHED", "KILLED"}]
    unfinished += [str(path.relative_to(project.folder)) for path in project.folder.rglob("*.part")]
    status = project.run(sys.executable, "-m", "dvc", "status")
    unfinished += [status] * ("up to date" not in status)
    return {
        "versions": sorted(f"{each.name}/{each.version}" for each in client.search_model_versions()),
        "logged models": sorted(f"{each.name}: {each.status}" for each in client.search_logged_models(experiments)),
        "unfinished": unfinished,
        "repeated": sum(len(statuses[name]) - 1 for name in MODELS),
    }


def timeless(values: Any) -> Any:
    """The same without what is a time or follows from one."""
    if isinstance(values, dict):
        return {
            key: timeless(value)
            for key, value in values.items()
            if key != "photographs_per_second" and not any(word in key for word in TIMES)
        }
    return values


def weights(file: Path) -> str:
    """sha256 of the weights in a .keras file, the rest of which has its time."""
    with zipfile.ZipFile(file) as archive:
        return files.sha256(Path(archive.extract("model.weights.h5", file.parents[2].parent / "temporary")))


def left(folder: Path) -> list[str]:
    """The names of all files but those of git, of DVC and of the store."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    own = {".git", ".dvc", "mlruns", "__pycache__", "mlflow.db"}
    return sorted(str(name) for name in names if not own & set(name.parts))


# Damage


def damage(project: Project, *, count: int, seed: int) -> dict:
    """Damage files of a finished project, one at a time; print and return what their readers said."""
    out = project.folder.with_name("trials.json")
    command = [sys.executable, __file__, "--trials", str(out), "--count", str(count), "--seed", str(seed)]
    ended = subprocess.run(command, cwd=project.folder, env=project.env)
    if ended.returncode:
        raise UserError(f"the trials failed with exit status {ended.returncode}: see above")
    tried = files.read_json(out)["tried"]
    found = {kind: Counter(each["outcome"] for each in tried if each["kind"] == kind) for kind in kinds(tried)}
    table = Table("eight bytes changed in", *OUTCOMES)
    for kind, outcomes in found.items():
        table.add_row(kind, *(str(outcomes[outcome]) for outcome in OUTCOMES))
    totals = {outcome: sum(each[outcome] for each in found.values()) for outcome in OUTCOMES}
    table.add_section()
    table.add_row(f"{len(tried)} times", *map(str, totals.values()))
    print_table(table)
    bad = [each for each in tried if each["outcome"] in ("unclear", "silent")]
    for each in bad:
        print(f"- {each['outcome']}: {each['file']}, byte {each['place']:,}: {each['said'][-300:] or 'nothing said'}")
    return {"trials": len(tried), **totals, "by_kind": found, "bad": len(bad)}


def kinds(tried: list[dict]) -> list[str]:
    return list(dict.fromkeys(each["kind"] for each in tried))


def print_table(table: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


if __name__ == "__main__":
    run(main)
