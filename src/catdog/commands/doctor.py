"""What this machine can do, what is in this project, and what each command still needs."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from catdog.base import params, paths
from catdog.base.errors import UserError, first_line
from catdog.engines import backend, openvino, processor
from catdog.pictures.style import NAMES
from catdog.pictures.wording import megabytes

_ROOM = 5e9  # bytes of free disk that 25,000 photographs with all that is made of them take
_MEMORY = 4e9  # bytes that a training takes at most
_REMEDIES = {"tensorflow": "rm -rf .venv && make env", "jax": "make jax"}
_WITH_GPU = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda13]"}


class Check(NamedTuple):
    """One thing that was looked at: what was found, and, if it is not as it should be, what to do."""

    name: str
    found: str
    remedy: str = ""


class Need(NamedTuple):
    """A command, and what it still needs; nothing if it is ready."""

    command: str
    missing: str = ""


def run(console: Console) -> bool:
    """Look at everything and print it; whether nothing is amiss."""
    p = params.load()
    machine = list(_machine(p))
    project, has = _project(p)
    for title, checks in (("This machine", machine), ("This project", project)):
        table = Table("", "", "to do", title=title, title_justify="left", show_header=False)
        for check in checks:
            table.add_row(check.name, check.found, f"[yellow]{check.remedy}" if check.remedy else "")
        console.print(table)
    table = Table("command", "ready", title="What can be run", title_justify="left")
    for need in needs(has):
        table.add_row(need.command, f"[yellow]first: {need.missing}" if need.missing else "yes")
    console.print(table)
    return not any(check.remedy for check in (*machine, *project))


def needs(has: dict[str, bool]) -> list[Need]:
    """What each command needs first.

    Args:
        has: whether there are `models`, `versions` in the registry, a `champion`, and the extra `export`.
    """
    trained = "" if has["models"] else "dvc repro"
    registered = trained or ("" if has["versions"] else "dvc repro --force evaluate")
    deployed = registered or ("" if has["champion"] else "catdog promote")
    export = "" if has["export"] else ".venv/bin/uv pip install -e '.[export]', but for --format openvino"
    return [
        Need("dvc repro"),
        Need("catdog compare", trained),
        Need("catdog promote", registered),
        Need("catdog demo", registered),
        Need("catdog review", trained),
        *(Need(f"catdog {name}", deployed) for name in ("predict", "serve", "drift", "trace", "rollback")),
        Need("catdog export", deployed or export),
    ]


def _machine(p: params.Params) -> Iterator[Check]:
    from catdog.tracking import lineage

    yield Check("system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}")
    formats = "bfloat16" if processor.has_bfloat16() else "float32 alone"
    yield Check("processor", f"{lineage.machine()}; computes in {formats}")
    yield _gpus()
    if openvino.is_here():
        yield Check("engine of answers and features", f"OpenVINO {version('openvino')}")
    else:
        yield Check("engine of answers and features", "Keras, several times slower", "make env: OpenVINO is missing")
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    yield Check(
        "memory",
        f"{megabytes(memory.available)} free of {megabytes(memory.total)}",
        "" if memory.available >= _MEMORY else "close something: a training may take more",
    )
    yield Check(
        "disk",
        f"{megabytes(disk.free)} free",
        "" if disk.free >= _ROOM else "make room: 25,000 photographs and all that is made of them take more",
    )


def _gpus() -> Check:
    package = backend.name()
    name = {"tensorflow": "TensorFlow", "jax": "JAX"}.get(package, package)
    try:
        from catdog.training.loop import precision

        count = len(precision.gpu_capabilities())
    except ImportError as error:
        return Check(name, f"can't be imported: {first_line(error)}", _REMEDIES.get(package, "unset KERAS_BACKEND"))
    if count:
        return Check(name, f"{version(package)}, {count} GPU{'s' if count > 1 else ''}")
    idle = bool(shutil.which("nvidia-smi")) and not subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode
    install = f'.venv/bin/uv pip install "{_WITH_GPU.get(package, package)}"'
    remedy = f"{install}: there is a GPU that it does not see" if idle else ""
    return Check(name, f"{version(package)}, no GPU", remedy)


def _project(p: params.Params) -> tuple[list[Check], dict[str, bool]]:
    """What stands in the project, and what of it commands need, as `needs` takes it."""
    store, has = _store()
    has["models"] = all((paths.model(name) / paths.MODEL_FILE).is_file() for name in NAMES)
    has["export"] = all(_installed(package) for package in ("onnx", "ai-edge-litert"))
    checks = [
        _photographs(p),
        _weights(p),
        *(_model(name) for name in NAMES),
        *store,
        _remote(),
    ]
    return checks, has


def _photographs(p: params.Params) -> Check:
    from catdog.preparation import sources

    names = sources.brought(paths.RAW) if paths.RAW.is_dir() else []
    if names:
        record = sources.read_record(paths.RAW)
        kind = f", brought by catdog fetch ({record['kind']})" if "kind" in record else ""
        return Check("photographs", f"{len(names):,} file{'s' if len(names) > 1 else ''} in {paths.RAW}{kind}")
    return Check("photographs", f"none in {paths.RAW}: dvc repro brings some (prepare.source: {p.prepare.source})")


def _weights(p: params.Params) -> Check:
    from catdog.training.xception import weights

    if p.train_xception.weights != "imagenet":
        file = Path(p.train_xception.weights).expanduser()
        there = file.is_file()
        return Check(
            "weights of Xception", f"{file}{'' if there else ' is missing'}", "" if there else "bring the file"
        )
    for file in (weights.keras_file(), weights.cache_file()):
        if file.is_file():
            return Check("weights of Xception", f"ImageNet, in {file}")
    return Check("weights of Xception", "not on this machine: dvc repro fetches them once, which takes a network")


def _model(name: str) -> Check:
    file = paths.model(name) / paths.MODEL_FILE
    if file.is_file():
        return Check(NAMES[name], f"{file}, {megabytes(file.stat().st_size)}")
    return Check(NAMES[name], "not trained here: dvc repro, or dvc pull where there is a remote")


def _store() -> tuple[list[Check], dict[str, bool]]:
    from catdog.tracking import lost, store, versions
    from catdog.tracking.deployments import CHAMPION, SERVED, aliases

    has = {"versions": False, "champion": False}
    shown = store.without_secret(store.uri())
    try:
        client = store.connect()
        registered = [each for name in versions.NAMES.values() for each in versions.of(client, name)]
        champion = aliases(client).get(CHAMPION)
        gone = lost.runs(client)
    except UserError as error:
        return [Check("MLflow store", shown, str(error))], has
    has |= {"versions": bool(registered), "champion": champion is not None}
    deployed = f"champion: {SERVED}/{champion}" if champion else "no champion"
    return [Check("MLflow store", f"{shown}: {len(registered)} versions, {deployed}", gone)], has


def _remote() -> Check:
    asked = subprocess.run([sys.executable, "-m", "dvc", "remote", "list"], capture_output=True, text=True)
    names = [line.split()[0] for line in asked.stdout.splitlines() if line.strip()]
    return Check("DVC remote", ", ".join(names) if names else "none: models and data are on this machine alone")


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
