"""What a person can cause is told in one line, without a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something a person can put right. The message is one line: what is wrong, where, what to do."""


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
