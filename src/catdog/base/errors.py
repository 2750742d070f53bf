"""Errors that a person can put right: one line each, without a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something a person can put right. The message is one line: what is wrong, where, what to do."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def run(main: Callable[[], None]) -> None:
    """Call a stage's `main`; a `UserError` becomes one line on stderr and exit status 1."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
