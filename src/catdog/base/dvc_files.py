"""What a full disk or a power cut leaves of DVC's own files: its lock of readers and writers, and dvc.lock."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import yaml

from catdog.base import files
from catdog.base.errors import UserError

_PID = re.compile(r'"pid": (\d+)\D')
_SLACK = 5.0  # seconds by which the clocks of processes and of files may differ


def mend(root: Path) -> None:
    """Remove .dvc/tmp/rwlock of the project at `root` if it is damaged or all processes that it names are dead.

    DVC fails on a damaged one for good and names no remedy. While a DVC is at work, nothing is touched.
    """
    file = root / ".dvc/tmp/rwlock"
    if find_spec("dvc") is None or not _left_over(file):  # where models only answer, there is no DVC
        return
    with suppress(_AtWork), _alone(root):
        if _left_over(file):
            file.unlink()
            print(f"notice: a DVC that was cut off left {file.relative_to(root)}; it is removed", file=sys.stderr)


def mend_record(root: Path) -> None:
    """Put dvc.lock of the project at `root` back if it can't be read: as it was at the last call that found it whole.

    DVC writes it in place, so a kill or a full disk can cut it off. What the older one lacks comes back from the cache.

    Raises:
        UserError: it is in a conflict of git, or a DVC is at work.
    """
    record, kept = root / "dvc.lock", root / ".dvc/tmp/dvc.lock.kept"
    if not record.exists():
        return
    data = record.read_bytes()
    if _is_record(data):
        if kept.parent.is_dir() and not (kept.exists() and kept.read_bytes() == data):
            files.write_bytes(kept, data)
        return
    problem = "dvc.lock can't be read"
    if b"<<<<<<<" in data:
        raise UserError(f"{problem}: it holds a conflict of git; resolve it, or `git checkout dvc.lock`")
    try:
        with _alone(root):
            files.write_bytes(kept.with_name("dvc.lock.unreadable"), data)
            if kept.exists():
                files.write_bytes(record, kept.read_bytes())
            else:
                record.unlink()
    except _AtWork:
        raise UserError(f"{problem}, and a DVC is at work: wait for it, or end it, and run it again") from None
    print(f"notice: {problem}, so it is as it was before; DVC's cache has what was made since", file=sys.stderr)


class _AtWork(Exception):
    """A DVC is at work, or fails on more than this, as it will say itself."""


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.lock import make_lock  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]

    with ExitStack() as held:
        try:
            repo = Repo(str(root))
            hardlink = repo.config["core"].get("hardlink_lock", False)
            held.enter_context(repo.lock)
            lock = make_lock(f"{root}/.dvc/tmp/rwlock.lock", tmp_dir=repo.tmp_dir, hardlink_lock=hardlink)
            held.enter_context(lock)
        except (DvcException, OSError):
            raise _AtWork from None
        yield  # what fails here is no DVC at work: a full disk, say


def _is_record(data: bytes) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA as SCHEMA  # type: ignore[import-untyped]
    from voluptuous import Invalid

    try:
        SCHEMA(yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (yaml.YAMLError, ValueError, Invalid):
        return False
    return True


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
