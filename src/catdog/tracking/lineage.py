"""What a result was made from: code, data, machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from catdog.base import files

_CODE = ("src", "params.yaml", "dvc.yaml", "requirements.lock")


def tags(inputs: list[Path]) -> dict[str, str]:
    """Git commit and dirty flag, DVC digests of `inputs`, the DVC experiment's name and the versions at work."""
    return {
        **git(),
        **{f"dvc.{path.as_posix()}": files.md5(path) for path in inputs},
        **{f"version.{package}": version(package) for package in ("tensorflow", "keras", "opencv-python-headless")},
        **({"DVC_EXP_NAME": os.environ["DVC_EXP_NAME"]} if os.environ.get("DVC_EXP_NAME") else {}),
    }


def git() -> dict[str, str]:
    """`git.commit`, and `git.dirty`: whether code or knobs differ from it. Results that stages write do not count."""
    commit = _git("rev-parse", "HEAD")
    return {"git.commit": commit, "git.dirty": str(bool(_git("status", "--porcelain", "--", *_CODE)))} if commit else {}


def machine() -> str:
    """Processor and cores in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def of_report(*, runs: dict[str, dict[str, str]], inputs: list[Path]) -> dict:
    """The report's section on lineage."""
    found = git()
    return {
        "commit": found.get("git.commit", ""),
        "dirty": found.get("git.dirty") == "True",
        "digests": {path.as_posix(): files.md5(path) for path in inputs},
        "runs": runs,
        "versions": {package: version(package) for package in ("tensorflow", "keras", "mlflow", "dvc", "numpy")},
        "machine": {"processor": machine(), "python": platform.python_version()},
    }
