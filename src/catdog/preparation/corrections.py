"""What people decided about photographs: data/corrections.csv.

Columns: `id`, sha256 of the file; `decision`, a class, `neither` or `as filed`; `by`; `when`, in UTC; `why`. The last
row of an id counts. An optional column, `collection`, names the photographs that a row is about: then these may be
elsewhere, while other photographs stand in data/raw.
"""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from catdog.base import files
from catdog.base.errors import UserError
from catdog.base.names import plain
from catdog.base.text import printable, shortened
from catdog.preparation.inspection import Finding
from catdog.preparation.sources import REVIEWED

COLUMNS = ("id", "decision", "by", "when", "why")
NEITHER, AS_FILED = "neither", "as filed"
_SET_ASIDE = "set aside"  # how the reason begins
_ID = re.compile(r"[0-9a-f]{64}")


class Decision(NamedTuple):
    """A row of the file; `decision` is one of the classes, NEITHER or AS_FILED, and `line` where it begins."""

    id: str
    decision: str
    by: str
    when: str
    why: str
    collection: str
    line: int


def load(path: Path, classes: list[str]) -> dict[str, Decision]:
    """The decision that counts for each id, in the order of their lines; none where there is no file.

    Byte order mark, kind of line end, case, and `;` or tabs in place of commas don't matter.

    Raises:
        UserError: a row has no id or no decision that is one; it names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8: save it as UTF-8") from None
    words = {plain(name): name for name in (NEITHER, AS_FILED, *classes)}
    decisions: dict[str, Decision] = {}
    for line, row in _rows(path, text):
        decision = _decision(path, line, row, words)
        decisions.pop(decision.id, None)  # the later place
        decisions[decision.id] = decision
    return decisions


def _rows(path: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    """Each row by column, with the line that it begins in. Empty rows are passed over."""
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    rows: list[tuple[int, dict[str, str]]] = []
    columns: list[str] = []
    begin = 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                pass
            elif columns:
                rows.append((begin, dict(zip(columns, cells, strict=False))))
            else:
                columns = [cell.lower() for cell in cells]
                if missing := {"id", "decision"} - {*columns}:
                    raise UserError(f"{path}, line {begin}: no column {min(missing)!r}: expected {','.join(COLUMNS)}")
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {begin}: no CSV: {error}") from None
    return rows


def _decision(path: Path, line: int, row: dict[str, str], words: dict[str, str]) -> Decision:
    identity, word = row.get("id", "").lower(), row.get("decision", "")
    if not _ID.fullmatch(identity):
        problem = f"the id should be 64 hexadecimal digits, the sha256 of a file. Received: {_shown(identity)}"
        raise UserError(f"{path}, line {line}: {problem}")
    decision = words.get(word) or words.get(plain(word))  # mostly as it is
    if decision is None:
        _, _, *classes = words.values()
        expected = f"{', '.join(classes)}, {NEITHER} or {AS_FILED}"
        problem = f"the decision should be {expected}. Received: {_shown(word)}"
        raise UserError(f"{path}, line {line}: {problem}")
    by, when, why, collection = (printable(row.get(column, "")) for column in ("by", "when", "why", "collection"))
    return Decision(identity, decision, by, when, why, collection, line)


def _shown(text: str) -> str:
    return repr(shortened(printable(text), limit=70))


def apply(findings: list[Finding], decisions: dict[str, Decision], *, classes: list[str], path: Path) -> None:
    """Give every finding the label that was decided on, before duplicates are looked for.

    Raises:
        UserError: a photograph that was decided on is not among them; it names the line of `path`.
    """
    known = {finding.id for finding in findings}
    for each in decisions.values():
        if each.id not in known and not each.collection:
            raise UserError(
                f"{path}, line {each.line}: no photograph here has the id {each.id[:12]}...: remove the line, "
                "or name, in a column `collection`, the photographs that it is about"
            )
    for finding in findings:
        decision = decisions.get(finding.id)
        if decision:
            finding.decision, finding.by = decision.decision, decision.by
            if decision.decision in classes:
                finding.filed, finding.label = finding.label, classes.index(decision.decision)
        elif finding.source.startswith(f"{REVIEWED}/") and not finding.reason:
            finding.reason = f"not reviewed: {path} has no decision on it"


def set_aside(finding: Finding) -> None:
    """Refuse a photograph that a person found to be of neither class."""
    if finding.decision == NEITHER and not finding.reason:
        finding.reason = f"{_SET_ASIDE}: {NEITHER}, decided by {finding.by or 'a person'}"


def is_set_aside(finding: Finding) -> bool:
    return finding.reason.startswith(_SET_ASIDE)


def counts(path: Path, decisions: dict[str, Decision], manifest: pd.DataFrame) -> dict[str, str | int]:
    """What the file did to the photographs: its `sha256`; how many decisions it has; how many of the photographs here
    were `relabelled` (of them in each split), `set_aside`, and confirmed `as_filed`.

    Args:
        manifest: as `manifest.table` returns it.
    """
    kept = manifest[manifest["reason"] == ""]
    relabelled = kept.loc[kept["label"] != kept["filed"], "split"]
    return {
        "sha256": files.sha256(path) if path.is_file() else "",
        "decisions": len(decisions),
        "relabelled": len(relabelled),
        **{f"relabelled_{split}": int((relabelled == split).sum()) for split in ("train", "val", "test")},
        "set_aside": int(manifest["reason"].str.startswith(_SET_ASIDE).sum()),
        "as_filed": int((kept["decision"] == AS_FILED).sum()),
    }
