"""Text from elsewhere (file names, values, errors), made safe to show."""

import re

# Control characters, line separators, marks that turn the direction of text, and halves of characters.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""`text` on one line and in UTF-8: what could steer a terminal or break a row becomes a visible escape.

    Such as `\n`, `\x1b` or `\u202e`; a byte of a file name that is not UTF-8 becomes `\xe9`. Backslashes stay, so that
    nothing changes the second time.
    """
    return _UNPRINTABLE.sub(_escape, text)


def shortened(text: str, *, limit: int) -> str:
    """At most `limit` characters of `text`, the last of which say so where there are more."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps such a byte
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode()
