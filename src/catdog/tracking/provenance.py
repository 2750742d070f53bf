"""Whether what a run says of its origin holds: commit, data and source are looked up in git and dvc.lock, and hashed
again where they are on this machine.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.preparation import sources
from catdog.tracking.lineage import run_git

_LOCK = Path("dvc.lock")
_COMMITS = 500  # how far back a recorded dvc.lock is looked for


class Link(NamedTuple):
    """One link of the chain from a served model to its photographs."""

    name: str
    value: str
    ok: bool
    note: str = ""


def code_and_data(tags: dict[str, str], root: Path) -> list[Link]:
    """The links from a run, given its tags, to commit, data and source; `root` is the project's folder."""
    commit = tags.get("git.commit", "")
    digests = {key.removeprefix("dvc."): value for key, value in tags.items() if key.startswith("dvc.")}
    record = _record(digests, commit=commit, root=root)
    return [
        _commit(commit, tags.get("git.dirty") == "True", root),
        *_digests(digests, record, commit=commit, root=root),
        _source(tags, record, root),
        *_corrections(tags, root),
    ]


def _commit(commit: str, dirty: bool, root: Path) -> Link:
    if not commit:
        return Link("git commit", "", False, "the run was not made in a git repository")
    if run_git("cat-file", "-e", f"{commit}^{{commit}}", root=root) is None:
        return Link("git commit", commit, False, "not in this repository: fetch it, or look in the one it was made in")
    if dirty:
        return Link("git commit", commit, False, "code or params differed from it: what ran was never committed")
    title = run_git("show", "--no-patch", "--format=%s", commit, root=root) or ""
    return Link("git commit", commit, True, title)


def _digests(digests: dict[str, str], record: str | None, *, commit: str, root: Path) -> list[Link]:
    if not digests:
        return [Link("data", "", False, "the run has no DVC digests")]
    if record is None:
        return [Link(f"data {path}", md5, False, "in no commit's dvc.lock") for path, md5 in sorted(digests.items())]
    where = {
        "": "in dvc.lock, which is not committed yet",
        commit: "in dvc.lock of that commit",
    }.get(record, f"in dvc.lock since commit {record[:12]}")
    links = []
    for path, md5 in sorted(digests.items()):
        ok, note = _file(path, md5, root)
        links.append(Link(f"data {path}", md5, ok, f"{where}; {note}" if ok else note))
    return links


def _file(path: str, md5: str, root: Path) -> tuple[bool, str]:
    # Whether the file here, or in DVC's cache, is what the run read. Neither has to be here.
    file = root / path
    actual = files.md5(file) if file.exists() else ""
    if actual == md5:
        return True, "the file here agrees (md5)"
    if actual and md5 in _locked(_at(root, "", _LOCK)).get(path, ()):
        return False, f"the file here was changed: its md5 is {actual[:12]}, dvc.lock says {md5[:12]}; `dvc checkout`"
    cached = _cache(root) / "files/md5" / md5[:2] / md5[2:]
    if not cached.is_file():
        return True, f"{'another one is' if actual else 'not'} here; `dvc pull` brings it"
    if (actual := files.md5(cached)) != md5.removesuffix(".dir"):  # of a folder it is the list of its files
        return False, f"damaged in DVC's cache: its md5 is {actual[:12]}, not {md5[:12]}; delete it and `dvc pull`"
    return True, "the file in DVC's cache agrees (md5)"


def _cache(root: Path) -> Path:
    # DVC knows where it is: several projects may share one.
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return root / (done.stdout.strip() if done.returncode == 0 else ".dvc/cache")


def _source(tags: dict[str, str], record: str | None, root: Path) -> Link:
    source = {key.removeprefix("source."): value for key, value in tags.items() if key.startswith("source.")}
    name = source.get("address") or source.get("path") or ""
    sha256 = source.get("sha256", "")
    digest = f"sha256 {sha256[:12]}" if sha256 else ""
    value = " ".join(part for part in (source.get("kind", ""), name, digest) if part)
    if not source:
        return Link("source", "", False, "the run does not say where its photographs came from")
    if record is None:
        return Link("source", value, False, "not checked: no dvc.lock records this run's data")
    recorded = _recorded(root, record)
    if not recorded:
        return Link("source", value, False, f"{paths.DATA_METRICS} of that time says nothing of it")
    if recorded != source:
        return Link("source", value, False, f"{paths.DATA_METRICS} of that time names another source")
    ok, note = _raw(sha256, root)
    return Link("source", value, ok, f"in {paths.DATA_METRICS} of that time; {note}" if ok else note)


def _corrections(tags: dict[str, str], root: Path) -> list[Link]:
    # What people had decided about the photographs when the run began, if anything.
    count, sha256 = tags.get("corrections.decisions", "0"), tags.get("corrections.sha256", "")
    if count == "0":
        return []
    value, path = f"{count} decisions, sha256 {sha256[:12]}", paths.CORRECTIONS.as_posix()
    file = root / path
    if file.is_file() and files.sha256(file) == sha256:
        return [Link("corrections", value, True, f"{path} here agrees (sha256)")]
    log = run_git("log", "--all", "--format=%H", f"--max-count={_COMMITS}", "--", path, root=root) or ""
    for commit in log.split():
        shown = subprocess.run(["git", "show", f"{commit}:./{path}"], cwd=root, capture_output=True, check=False)
        if hashlib.sha256(shown.stdout).hexdigest() == sha256:
            return [Link("corrections", value, True, f"{path} of commit {commit[:12]}")]
    return [Link("corrections", value, False, f"{path} was another one: in no commit, and not here")]


def _raw(sha256: str, root: Path) -> tuple[bool, str]:
    # Whether data/raw holds the run's photographs. By now it may hold others, or none.
    raw = root / paths.RAW
    try:
        if not raw.is_dir() or not sources.visible(raw):
            return True, f"{paths.RAW} is empty here"
        actual = sources.describe(raw)["sha256"]
    except (UserError, OSError) as error:
        return False, f"{paths.RAW} can't be checked: {error}"
    if actual == sha256:
        return True, f"{paths.RAW} agrees (sha256)"
    if _recorded(root, "").get("sha256") == sha256:
        return False, f"{paths.RAW} was changed since: its sha256 is {actual[:12]}, not {sha256[:12]}"
    return True, f"{paths.RAW} holds others now"


def _recorded(root: Path, commit: str) -> dict[str, str]:
    # The source that metrics/data.json names, or nothing.
    try:
        source = json.loads(_at(root, commit, paths.DATA_METRICS) or "{}")["source"]
        return {key: str(value) for key, value in source.items() if value is not None}
    except (ValueError, KeyError, AttributeError):
        return {}


def _record(digests: dict[str, str], *, commit: str, root: Path) -> str | None:
    # The commit whose dvc.lock has all these digests; "" for the working tree, None for nowhere. It is rarely the
    # commit that the run started from: DVC writes dvc.lock when a stage has run, and people commit it afterwards.
    log = run_git("log", "--all", "--format=%H", f"--max-count={_COMMITS}", "--", str(_LOCK), root=root) or ""
    for candidate in [commit] * bool(commit) + log.split()[::-1] + [""]:
        locked = _locked(_at(root, candidate, _LOCK))
        if digests and all(md5 in locked.get(path, ()) for path, md5 in digests.items()):
            return candidate
    return None


def _locked(text: str | None) -> dict[str, set[str]]:
    # Every path of a dvc.lock, dependency or output of any stage, with its md5.
    locked: dict[str, set[str]] = {}
    try:
        stages = (yaml.safe_load(text or "") or {}).get("stages", {})
        for stage in stages.values():
            for entry in stage.get("deps", []) + stage.get("outs", []):
                locked.setdefault(entry["path"], set()).add(entry.get("md5", ""))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}
    return locked


def _at(root: Path, commit: str, path: Path) -> str | None:
    if commit:
        return run_git("show", f"{commit}:./{path}", root=root)
    file = root / path
    return file.read_text() if file.exists() else None
