"""Errors: one line for what a person can put right, however a library words it; a traceback for a fault of ours."""

import errno
import os

import pytest

from catdog.base import errors, files
from catdog.base.errors import UserError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wrapped(inner: Exception, outer: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            raise outer from error
    except Exception as error:
        return error


LACKS = {
    "a full disk": (FULL, "error: No space left on device: make room, and run it again"),
    "a full disk, with the file": (
        OSError(errno.ENOSPC, "No space left on device", "models/x"),
        "error: models/x: No space left on device: make room, and run it again",
    ),
    "quoted alone": (
        RuntimeError("HDF5: can't write (errno = 28, 'No space left on device')\nsecond line"),
        "error: No space left on device: make room, and run it again",
    ),
    "as the cause": (
        wrapped(OSError(errno.EIO, "Input/output error", "a.arrow"), ValueError("can't write")),
        "error: a.arrow: Input/output error: the disk, or the network to it, is failing: see to it, and run it again",
    ),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "error: Disk quota exceeded: make room or have"),
    "open files": (OSError(errno.EMFILE, "Too many open files"), "error: Too many open files: raise the limit"),
    "memory": (MemoryError("Unable to allocate 3 GiB"), "error: out of memory: close other programs"),
    "of another kind": (
        PermissionError(errno.EACCES, "Permission denied", "p\x1b.csv"),
        r"error: p\x1b.csv: Permission",
    ),
    "a user's": (UserError("line\r\nwith \x1b[2J"), r"error: line\r\nwith \x1b[2J"),
}


@pytest.mark.parametrize("name", LACKS)
def test_one_line(name, capsys, monkeypatch):
    monkeypatch.setattr("sys.unraisablehook", None)

    def main() -> None:
        raise LACKS[name][0]

    with pytest.raises(SystemExit) as ended:
        errors.run(main)
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.startswith(LACKS[name][1])
    assert told.count("\n") == 1
    assert told[:-1].isprintable()


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(KeyError):
        errors.run(lambda: {}["missing"])


@pytest.mark.parametrize("replacing", [files.replacing, files.replacing_folder])
def test_whoever_writes_is_told_where_there_is_no_room(replacing, tmp_path):
    with pytest.raises(OSError, match="No space left") as raised, replacing(tmp_path / "model"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
