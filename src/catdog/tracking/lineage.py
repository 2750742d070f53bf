"""What a result was made from: code, data, machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from catdog.base import files
from catdog.engines import backend

_CODE = ("src", "params.yaml", "dvc.yaml", "requirements.lock")


def tags(inputs: list[Path]) -> dict[str, str]:
    """Git commit and dirty flag, DVC digests of `inputs`, the DVC experiment's name and the versions at work."""
    return {
        **git(),
        **{f"dvc.{path.as_posix()}": files.md5(path) for path in inputs},
        **{f"version.{package}": version(package) for package in (backend.name(), "keras", "opencv-python-headless")},
        **({"DVC_EXP_NAME": os.environ["DVC_EXP_NAME"]} if os.environ.get("DVC_EXP_NAME") else {}),
    }


def git() -> dict[str, str]:
    """`git.commit`, and `git.dirty`: whether code or params differ from it. Results of stages do not count."""
    commit = run_git("rev-parse", "HEAD")
    changes = run_git("status", "--porcelain", "--", *_CODE)
    return {"git.commit": commit, "git.dirty": str(bool(changes))} if commit else {}


def machine() -> str:
    """Processor and number of cores, as text."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


def run_git(*arguments: str, root: Path | None = None) -> str | None:
    """What a git command prints in the folder `root`, by default the current one; None if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, UnicodeDecodeError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def of_report(*, runs: dict[str, dict[str, str]], inputs: list[Path]) -> dict:
    """The report's section on lineage."""
    code = git()
    return {
        "commit": code.get("git.commit", ""),
        "dirty": code.get("git.dirty") == "True",
        "digests": {path.as_posix(): files.md5(path) for path in inputs},
        "runs": runs,
        "versions": {package: version(package) for package in (backend.name(), "keras", "mlflow", "dvc", "numpy")},
        "machine": {"processor": machine(), "python": platform.python_version()},
    }
