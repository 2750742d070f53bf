"""docs/reference.md, from the code: every command with its options, every knob with what it may be.

`python -m catdog.commands.reference_page docs/reference.md` writes it anew.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from catdog.base import files, params, paths
from catdog.base.errors import run
from catdog.commands import cli

_SECTION = re.compile(r"(\w+):(?: +# (.*))?")
_KNOB = re.compile(r"  (\w+): (.+?)(?: +# (.*))?")
_NOTE = re.compile(r"  # (.*)")


def main() -> None:
    """Write the page to the path that is given on the command line."""
    files.write_text(Path(sys.argv[1]), markdown())


def markdown() -> str:
    """The page."""
    lines = [
        "# Reference",
        "",
        "Made from the code by `python -m catdog.commands.reference_page docs/reference.md`.",
        "",
        "## Commands",
        "",
        *_commands(),
        "## Knobs",
        "",
        "All of them stand in `params.yaml`, each with a comment; there are no others.",
        "",
        *_knobs(paths.PARAMS.read_text(encoding="utf-8")),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _commands() -> Iterator[str]:
    group = typer.main.get_command(cli.everything())
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if command.hidden:
            continue
        yield from (f"### `catdog {name}`", "", inspect.cleandoc(command.help), "")
        parameters = [each for each in command.params if each.name != "help"]
        if parameters:
            yield from ("| | | default |", "|---|---|---|")
            yield from (f"| `{_name(each)}` | {each.help or ''} | {_default(each)} |" for each in parameters)
            yield ""


def _name(parameter: Any) -> str:
    return ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default in (None, "") or getattr(parameter, "is_flag", False):
        return ""
    return f"`{parameter.default}`"


def _knobs(text: str) -> Iterator[str]:
    """A table for each section of params.yaml, with the comments that stand there."""
    schema = params.Params.model_json_schema()
    section = ""
    notes: list[str] = []
    for line in text.splitlines():
        if found := _SECTION.fullmatch(line):
            section = found[1]
            yield from (f"### `{section}`", "", *([_sentence(found[2]), ""] if found[2] else []))
            yield from ("| knob | shipped | may be | |", "|---|---|---|---|")
        elif section and (found := _KNOB.fullmatch(line)):
            if notes:
                yield f"| | | | *{' '.join(notes)}* |"
                notes = []
            knob = _resolved(schema, _resolved(schema, schema["properties"][section])["properties"][found[1]])
            yield f"| `{found[1]}` | `{found[2]}` | {_allowed(schema, knob)} | {found[3] or ''} |"
        elif section and (found := _NOTE.fullmatch(line)):
            notes.append(found[1])
        elif section and not line:
            yield ""
            section = ""
    yield ""


def _sentence(comment: str) -> str:
    return comment[0].upper() + comment[1:] + "."


def _resolved(schema: dict, part: dict) -> dict:
    return schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def _allowed(schema: dict, knob: dict) -> str:
    """What a knob may be, in words, from its JSON schema."""
    if "enum" in knob:
        return ", ".join(f"`{value}`" for value in knob["enum"])
    if "anyOf" in knob:
        return " or ".join(_allowed(schema, _resolved(schema, each)) for each in knob["anyOf"])
    match knob.get("type"):
        case "null":
            return "`null`"
        case "boolean":
            return "`true`, `false`"
        case "array":
            return f"list: {_allowed(schema, knob['items'])}"
        case "object":
            parts = (
                f"{name}: {_allowed(schema, _resolved(schema, each))}" for name, each in knob["properties"].items()
            )
            return "; ".join(parts)
        case "string":
            return "text"
    return _number(knob)


def _number(knob: dict) -> str:
    kind = "whole number" if knob.get("type") == "integer" else "number"
    if "minimum" in knob and "maximum" in knob:
        return f"{kind}, {knob['minimum']:,} to {knob['maximum']:,}"
    words = {"minimum": "from {:,}", "exclusiveMinimum": "above {:,}", "exclusiveMaximum": "below {:,}"}
    return ", ".join([kind, *(word.format(knob[key]) for key, word in words.items() if key in knob)])


if __name__ == "__main__":
    run(main)
