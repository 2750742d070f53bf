"""Photographs in a zip: the argument that names it, and files made of its members."""

import argparse
import os
import zipfile
from pathlib import Path

import common

from catdog.base import paths
from catdog.base.errors import UserError


def arguments(description: str, *, default: str, rounds: int) -> argparse.Namespace:
    """`common.arguments`, and before them `zip`, which defaults to a file beside the project."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = paths.root().parent / "shared/data" / default
    parser.add_argument("zip", nargs="?", type=Path, default=beside, help=f"photographs in class folders ({default})")
    parser.add_argument("--rounds", type=common.positive, default=rounds, help="the median counts (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of few photographs, to try it; nothing is kept")
    given = parser.parse_args()
    given.zip = given.zip.absolute()
    if not zipfile.is_zipfile(given.zip):
        raise UserError(f"{given.zip} is not a zip: name one of photographs in class folders")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before anything imports TensorFlow
    os.chdir(paths.root())
    if given.quick:
        given.rounds = 1
    return given


def unpack(archive: Path, folder: Path, *, count: int) -> None:
    """`count` files under `folder`: the archive's, over and over, a number after the end of each for its own bytes."""
    with zipfile.ZipFile(archive) as opened:
        names = sorted(info.filename for info in opened.infolist() if not info.is_dir())
        for number in range(count):
            turn, index = divmod(number, len(names))
            name = Path(names[index])
            path = folder / name.parent.name / f"{turn:03}-{name.name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(opened.read(names[index]) + b"%03d" % turn)


def thin_out(archive: Path, thinner: Path, *, every: int) -> int:
    """Every `every`-th file of `archive` as a zip at `thinner`; returns how many."""
    thinner.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as opened, zipfile.ZipFile(thinner, "w") as written:
        names = sorted(info.filename for info in opened.infolist() if not info.is_dir())[::every]
        for name in names:
            written.writestr(name, opened.read(name))
    return len(names)
