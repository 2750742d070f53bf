"""The log of deployments, and the aliases that follow from it: which version of `catdog` was champion when, and why.

A write-ahead log: an event is one tag of the run `deployments`, set in one step before any alias moves. So if a
deployment is interrupted, the next command finds the event and finishes it.
"""

import getpass
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow.utils.credentials import read_mlflow_creds
from rich.console import Console

from catdog.base.errors import UserError
from catdog.tracking import local_store, store
from catdog.tracking.address import database as database_of

SERVED = "catdog"
CHAMPION, PREVIOUS = "champion", "previous"
# Of the log alone: on a server, whoever may not change it may not promote.
EXPERIMENT = "catdog-deployments"
_POINTER = "deployments_run_id"  # tag of the registered model: where its log is
_EVENT, _APPLIED = "deployment.", "deployments.applied"


@dataclass(frozen=True)
class Event:
    """One move of the alias `champion`.

    Attributes:
        number: 1, 2, ...
        action: `promote`, `rollback`, or `by hand` where the alias was moved without these commands.
        version: of `catdog`, the new champion.
        over: the champion before, if any.
        source: the registered model and version it is a copy of, such as catdog-cnn/3.
        when: UTC, ISO 8601.
        figures: test metrics of the version, such as accuracy and log loss.
    """

    number: int
    action: str
    version: int
    over: int | None
    source: str
    when: str
    who: str
    why: str
    figures: dict[str, float]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def key(self) -> str:
        return f"{_EVENT}{self.number:06d}.{self.id[:8]}"

    @property
    def line(self) -> str:
        return json.dumps(asdict(self))


@contextmanager
def exclusive(address: str, *, wait: bool = True) -> Iterator[None]:
    """One deployment at a time in the store at `address` on this machine. The lock ends with the process that holds it,
    even if killed.

    Other machines may use the same server; against them `commit` checks for itself.

    Raises:
        UserError: another holds it, and this one is not to `wait`.
    """
    lock = FileLock(_lock_file(address))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise UserError("another catdog command changes the registry now: try again when it is done") from None
        notice("waiting for another catdog command that changes the registry")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def user() -> str:
    """The name of the user who runs this: the one by which an MLflow server knows them, else that of the machine."""
    try:
        return read_mlflow_creds().username or getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run under a user id without a name
        return "unknown"


def aliases(client: Any) -> dict[str, int]:
    """The aliases of `catdog` and their versions."""
    if not client.search_registered_models(f"name='{SERVED}'"):
        return {}
    return {alias: int(version) for alias, version in client.get_registered_model(SERVED).aliases.items()}


def events(client: Any) -> list[Event]:
    """The log, oldest first."""
    run_id = _run_id(client)
    return _events(client, run_id) if run_id else []


def latest(client: Any) -> int:
    """The number of the newest event, or 0. Read it before the champion that `commit` is to replace."""
    return max((event.number for event in events(client)), default=0)


def commit(client: Any, event: Event) -> None:
    """Make `event.version` the champion in place of `event.over`, and log it.

    Args:
        event: its number is one more than `latest`, which was read before `over`. So any later event is somebody
            else's, even if its alias has not moved yet.

    Raises:
        UserError: the champion is no longer `over`, or somebody else deploys at this moment; nothing has changed.
    """
    run_id = _run_id(client) or _new_log(client)
    # Claim first, then compare: of two that claim the same number at once, at least one sees the other and gives up.
    client.set_tag(run_id, event.key, event.line)
    rivals = [e for e in _events(client, run_id) if e.number >= event.number and e.id != event.id]
    champion = aliases(client).get(CHAMPION)
    if rivals or champion != event.over:
        client.delete_tag(run_id, event.key)
        raise UserError(
            f"the champion changed meanwhile (it was {SERVED}/{event.over}, now {SERVED}/{champion}) or is being "
            "changed by somebody else; nothing was deployed: see `catdog history` and try again"
        )
    _apply(client, run_id, event)


def repair(client: Any) -> None:
    """Finish an interrupted deployment, and log a champion that was set by hand."""
    run_id = _run_id(client)
    if run_id is None or not (logged := _events(client, run_id)):
        return
    last, champion = logged[-1], aliases(client).get(CHAMPION)
    tags = client.get_run(run_id).data.tags
    if tags.get(_APPLIED) != last.key and champion in (last.over, last.version) and last.version in _versions(client):
        notice(f"finishing the interrupted {last.action} of {SERVED}/{last.version}, begun {last.when} by {last.who}")
        _apply(client, run_id, last)
    elif champion is not None and champion != last.version:
        source = client.get_model_version(SERVED, str(champion)).source.removeprefix("models:/")
        why = "the alias was moved by other means than catdog"
        event = Event(last.number + 1, "by hand", champion, last.version, source, now(), "unknown", why, {})
        client.set_tag(run_id, event.key, event.line)
        _apply(client, run_id, event)


def _apply(client: Any, run_id: str, event: Event) -> None:
    # Every step may run twice: `repair` starts again from the first.
    client.set_registered_model_alias(SERVED, CHAMPION, str(event.version))
    if event.over in _versions(client):
        client.set_registered_model_alias(SERVED, PREVIOUS, str(event.over))
    elif PREVIOUS in aliases(client):
        client.delete_registered_model_alias(SERVED, PREVIOUS)
    client.set_tag(run_id, _APPLIED, event.key)


def _events(client: Any, run_id: str) -> list[Event]:
    tags = client.get_run(run_id).data.tags
    return [Event(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_EVENT)]


def _run_id(client: Any) -> str | None:
    if not client.search_registered_models(f"name='{SERVED}'"):
        return None
    run_id = client.get_registered_model(SERVED).tags.get(_POINTER)
    # Most likely deleted by accident among other runs. MLflow keeps such a run until `mlflow gc`.
    if run_id and client.get_run(run_id).info.lifecycle_stage == "deleted":
        client.restore_run(run_id)
    return run_id


def _new_log(client: Any) -> str:
    run = client.create_run(store.named_experiment(client, EXPERIMENT), run_name="deployments")
    client.set_terminated(run.info.run_id)
    client.set_registered_model_tag(SERVED, _POINTER, run.info.run_id)
    return run.info.run_id


def _versions(client: Any) -> set[int]:
    return {int(version.version) for version in client.search_model_versions(f"name='{SERVED}'")}


def _lock_file(address: str) -> Path:
    if database := database_of(address):
        return local_store.lock_file(database)
    mine = os.getuid() if hasattr(os, "getuid") else user()  # Windows has names alone
    name = f"catdog-{mine}-{hashlib.sha256(address.encode()).hexdigest()[:16]}.lock"
    return Path(tempfile.gettempdir()) / name


def notice(text: str) -> None:
    """Tell a person something on stderr, in one line."""
    Console(stderr=True).print(f"notice: {text}", highlight=False, soft_wrap=True)
