"""Errors that a person can put right: one line each, without a traceback."""

import errno
import os
import sys
from collections.abc import Callable, Iterator

from catdog.base.text import printable

# What the machine may run out of, and what to do then. Libraries wrap these errors, or only quote their words.
_REMEDIES = {
    errno.ENOSPC: "make room, and run it again",
    errno.EDQUOT: "make room or have the quota raised, and run it again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), and run it again",
    errno.EROFS: "make it writable, and run it again",
    errno.EIO: "the disk, or the network to it, is failing: see to it, and run it again",
    errno.ESTALE: "the network file system went away: see to it, and run it again",
    errno.ENFILE: "close other programs, and run it again",
    errno.EMFILE: "raise the limit on open files (ulimit -n 4096), and run it again",
    errno.EAGAIN: "too many processes or threads: close other programs, and run it again",
}
_OUT_OF_MEMORY = "out of memory: close other programs, or lower batch_size or image_size in params.yaml"


class UserError(Exception):
    """Something a person can put right. The message is one line: what is wrong, where, what to do."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def of_the_machine(error: BaseException) -> str | None:
    """In one line, the lack of something that the machine should have; None if the error is of another kind."""
    for cause in causes(error):
        # The latter two are TensorFlow's and JAX's.
        if (
            isinstance(cause, MemoryError)
            or type(cause).__name__ == "ResourceExhaustedError"
            or str(cause).startswith("RESOURCE_EXHAUSTED")
        ):
            return _OUT_OF_MEMORY
        for code, remedy in _REMEDIES.items():
            if getattr(cause, "errno", None) == code or os.strerror(code) in str(cause):
                return f"{_where(error)}{os.strerror(code)}: {remedy}"
    if isinstance(error, OSError) and error.strerror:
        return f"{_where(error)}{error.strerror}"
    return None


def _where(error: BaseException) -> str:
    names = (getattr(cause, "filename", None) for cause in causes(error))
    return next((f"{name}: " for name in names if name), "")


def run(main: Callable[[], None]) -> None:
    """Call a stage's `main`. What a person can put right becomes one line on stderr, and exit status 1."""
    try:
        main()
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted", status=130)
    except Exception as error:
        message = of_the_machine(error)
        if message is None:  # a fault of ours: the traceback helps to find it
            raise
        _fail(message)


def _fail(message: str, *, status: int = 1) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    # Files that were being written fail once more when they are closed, which Python would tell with a traceback each.
    sys.unraisablehook = lambda unraisable: None
    raise SystemExit(status) from None
