"""Does what a run says of its origin hold? Its commit, data and source are looked up in git and dvc.lock."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import yaml

from catdog import paths

_LOCK = Path("dvc.lock")
_COMMITS = 500  # how far back a recorded dvc.lock is looked for


class Link(NamedTuple):
    """One link of the chain from a served model to its photographs."""

    name: str
    value: str
    ok: bool
    note: str = ""


def code_and_data(tags: dict[str, str], root: Path) -> list[Link]:
    """The links from a run, by its tags, to commit, data and source; `root` is the project's folder."""
    commit = tags.get("git.commit", "")
    digests = {key.removeprefix("dvc."): value for key, value in tags.items() if key.startswith("dvc.")}
    record = _record(digests, commit=commit, root=root)
    return [
        _commit(commit, tags.get("git.dirty") == "True", root),
        *_digests(digests, record, commit=commit),
        _source(tags, record, root),
    ]


def _commit(commit: str, dirty: bool, root: Path) -> Link:
    if not commit:
        return Link("git commit", "", False, "the run was not made in a git repository")
    if _git(root, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        return Link("git commit", commit, False, "not in this repository: fetch it, or look in the one it was made in")
    if dirty:
        return Link("git commit", commit, False, "code or params differed from it: what ran was never committed")
    title = _git(root, "show", "--no-patch", "--format=%s", commit) or ""
    return Link("git commit", commit, True, title.strip())


def _digests(digests: dict[str, str], record: str | None, *, commit: str) -> list[Link]:
    if not digests:
        return [Link("data", "", False, "the run has no DVC digests")]
    where = {
        None: "in no commit's dvc.lock",
        "": "in dvc.lock, which is not committed yet",
        commit: "in dvc.lock of that commit",
    }.get(record, f"in dvc.lock since commit {(record or '')[:12]}")
    return [Link(f"data {path}", md5, record is not None, where) for path, md5 in sorted(digests.items())]


def _source(tags: dict[str, str], record: str | None, root: Path) -> Link:
    said = {key.removeprefix("source."): value for key, value in tags.items() if key.startswith("source.")}
    name = said.get("address") or said.get("path") or ""
    value = " ".join(part for part in (said.get("kind", ""), name, _sha(said.get("sha256"))) if part)
    if not said:
        return Link("source", "", False, "the run does not say where its photographs came from")
    if record is None:
        return Link("source", value, False, "not checked: no dvc.lock records this run's data")
    text = _at(root, record, paths.DATA_METRICS)
    try:
        recorded = {k: str(v) for k, v in json.loads(text or "{}")["source"].items() if v is not None}
    except (ValueError, KeyError, AttributeError):
        return Link("source", value, False, f"{paths.DATA_METRICS} of that time says nothing of it")
    if recorded != said:
        return Link("source", value, False, f"{paths.DATA_METRICS} of that time names another source")
    return Link("source", value, True, f"in {paths.DATA_METRICS} of that time")


def _record(digests: dict[str, str], *, commit: str, root: Path) -> str | None:
    # The commit whose dvc.lock has all digests. DVC writes dvc.lock when a stage has run, so it is usually committed
    # after the run, not with the commit that it ran from. "" is the working tree; None: nowhere.
    log = _git(root, "log", "--all", "--format=%H", f"--max-count={_COMMITS}", "--", str(_LOCK)) or ""
    for candidate in [commit] * bool(commit) + log.split()[::-1] + [""]:
        locked = _locked(_at(root, candidate, _LOCK))
        if digests and all(md5 in locked.get(path, ()) for path, md5 in digests.items()):
            return candidate
    return None


def _locked(text: str | None) -> dict[str, set[str]]:
    # Every path of a dvc.lock, dependency or output of any stage, with its md5.
    found: dict[str, set[str]] = {}
    try:
        stages = (yaml.safe_load(text or "") or {}).get("stages", {})
        for stage in stages.values():
            for entry in stage.get("deps", []) + stage.get("outs", []):
                found.setdefault(entry["path"], set()).add(entry.get("md5", ""))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}
    return found


def _at(root: Path, commit: str, path: Path) -> str | None:
    if commit:
        return _git(root, "show", f"{commit}:./{path}")
    file = root / path
    return file.read_text() if file.exists() else None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, UnicodeDecodeError, subprocess.CalledProcessError):
        return None
    return done.stdout


def _sha(digest: str | None) -> str:
    return f"sha256 {digest[:12]}" if digest else ""
