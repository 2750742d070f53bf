"""Small files written whole or not at all."""

import json
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write beside and rename, so that whoever reads `path` finds the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, newline="\n")
    part.replace(path)


def write_json(path: Path, value: dict) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())
