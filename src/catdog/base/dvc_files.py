"""What a full disk or a power cut leaves of DVC's own files: its lock of readers and writers, and dvc.lock."""

import json
import re
import sys
from pathlib import Path

import psutil
import yaml

from catdog.base.errors import UserError

_PID = re.compile(r'"pid": (\d+)\D')
_SLACK = 5.0  # seconds by which the clocks of processes and of files may differ


def mend(root: Path) -> None:
    """Remove .dvc/tmp/rwlock of the project at `root` if it is damaged or all processes that it names are dead.

    DVC fails on a damaged one for good and names no remedy. While a DVC is at work, nothing is touched.
    """
    file = root / ".dvc/tmp/rwlock"
    if not _left_over(file):
        return
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.lock import make_lock  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]

    try:
        repo = Repo(str(root))
        hardlink = repo.config["core"].get("hardlink_lock", False)
        with repo.lock, make_lock(f"{file}.lock", tmp_dir=repo.tmp_dir, hardlink_lock=hardlink):
            if not _left_over(file):
                return
            file.unlink()
    except (DvcException, OSError):  # a DVC is at work, or fails on more than this, as it will say itself
        return
    print(f"notice: a DVC that was cut off left {file.relative_to(root)}; it is removed", file=sys.stderr)


def check(root: Path) -> None:
    """Check that DVC can read dvc.lock of the project at `root`, if there is one.

    Raises:
        UserError: it can't.
    """
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA as SCHEMA  # type: ignore[import-untyped]
    from voluptuous import Invalid

    try:
        SCHEMA(yaml.load((root / "dvc.lock").read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except FileNotFoundError:
        return
    except (yaml.YAMLError, ValueError, Invalid):
        raise UserError(
            "dvc.lock can't be read; a full disk or a merge may have left it so: `git checkout dvc.lock`, or remove it "
            "(what it names comes back from DVC's cache), and run it again"
        ) from None


def _left_over(file: Path) -> bool:
    try:
        text, written = file.read_text(encoding="utf-8", errors="replace"), file.stat().st_mtime
    except OSError:
        return False
    pids = {int(pid) for pid in _PID.findall(text)}
    if any(_lives(pid, since=written) for pid in pids):
        return False
    return bool(pids) or not _readable(text)


def _lives(pid: int, *, since: float) -> bool:
    """Whether the process has been there since then. A later one has only the same number."""
    try:
        return psutil.Process(pid).create_time() < since + _SLACK
    except (psutil.Error, OverflowError):
        return False


def _readable(text: str) -> bool:
    if text == "{}":  # as DVC leaves it; its library takes a while to import
        return True
    from dvc.rwlock import SCHEMA  # type: ignore[import-untyped]
    from voluptuous import Invalid

    try:
        SCHEMA(json.loads(text))
    except (ValueError, RecursionError, Invalid):
        return False
    return True
