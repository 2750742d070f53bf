"""Names of classes, as folders are compared with them: without case, number, or kind of space."""

import re
import unicodedata


def plain(name: str) -> str:
    """`name` without what doesn't count: case, how accents are composed, spaces against hyphens and underscores."""
    return " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFKC", name).casefold())).strip()


def forms(name: str) -> set[str]:
    """A plain name, its plurals, and what it may be the plural of."""
    plurals = {name + "s", name + "es"} | ({name[:-1] + "ies"} if name.endswith("y") else set())
    singulars = {name.removesuffix("s"), name.removesuffix("es")}
    if name.endswith("ies"):
        singulars.add(name[:-3] + "y")
    return {name} | plurals | singulars


def alike(first: str, second: str) -> bool:
    """Whether a folder could be named after both classes, so that its photographs would belong to either."""
    return not forms(plain(first)).isdisjoint(forms(plain(second)))
