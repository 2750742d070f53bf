"""A model's way into use and back: promotion past the gates, rollback, and the history of both."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import logging_utils

from catdog.base import params
from catdog.base.errors import UserError
from catdog.tracking import candidates, deployments, lost, registry, served_form, versions
from catdog.tracking.candidates import Assessment
from catdog.tracking.deployments import CHAMPION, PREVIOUS, SERVED, Event
from catdog.tracking.gates import Scored
from catdog.tracking.replay import Replay

CHALLENGER = "challenger"
_MAX_WHY = 1000


@dataclass(frozen=True)
class Promotion:
    """The outcome of `promote`: every candidate that was judged, and the event if one was promoted."""

    assessments: list[Assessment]
    event: Event | None

    @property
    def passed(self) -> bool:
        return self.assessments[-1].passed


@dataclass(frozen=True)
class Deployment:
    """One line of the history: an event, and the alias that its version has now."""

    event: Event
    alias: str


def promote(
    client: MlflowClient,
    *,
    p: params.Params,
    why: str,
    candidate: str | None = None,
    rescore: Callable[[str], Scored] | None = None,
    replay: Callable[[str, str], Replay] | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Make the best new model champion if it passes every gate.

    Without a `candidate` (such as catdog-cnn/3), those of `candidates.of` are judged until one passes. One that fails
    gets the alias `challenger` in its own registered model; `champion` stays where it is.

    Args:
        rescore: scores the model at a URI on the present test photographs; called for a champion scored on others.
        replay: asks the models at two URIs, champion and candidate, about photographs that were served.
        dry_run: judge, and change nothing.

    Raises:
        UserError: nothing new to promote, no such candidate, or it was never evaluated.
    """
    _check_why(why)
    lost.notice(client)
    with registry.alone(client):
        if not dry_run:
            deployments.repair(client)
        last, current = deployments.latest(client), deployments.aliases(client).get(CHAMPION)
        champion = _comparable(client, current)
        assessments: list[Assessment] = []
        for version in candidates.of(client, wanted=candidate, champion=champion, current=current):
            assessment = candidates.assess(client, version, champion, p=p, rescore=rescore, replay=replay)
            assessments.append(assessment)
            if not dry_run:
                candidates.note_gates(client, version, assessment)
            if assessment.passed:
                event = None if dry_run else _deploy(client, version, number=last + 1, over=current, why=why)
                return Promotion(assessments, event)
            if not dry_run:
                client.set_registered_model_alias(version.name, CHALLENGER, version.version)
        return Promotion(assessments, None)


def rollback(client: MlflowClient, *, why: str, to: int | None = None) -> Event:
    """Make version `to` of `catdog` champion again, or the previous champion.

    Raises:
        UserError: there is no such version, it was deleted, never deployed, is the champion, or its file is damaged.
    """
    _check_why(why)
    lost.notice(client)
    with registry.alone(client):
        deployments.repair(client)
        last, aliases = deployments.latest(client), deployments.aliases(client)
        target = to if to is not None else aliases.get(PREVIOUS)
        if target is None:
            raise UserError("there is no previous champion to go back to: see `catdog history`")
        if target == aliases.get(CHAMPION):
            raise UserError(f"{SERVED}/{target} is the champion already")
        version = versions.version(client, SERVED, str(target))
        if all(event.version != target for event in deployments.events(client)):
            raise UserError(f"{SERVED}/{target} was never deployed: see `catdog history` for those that were")
        served_form.verify(versions.uri(version), **versions.digests(version))
        event = _event("rollback", version, number=last + 1, over=aliases.get(CHAMPION), why=why)
        deployments.commit(client, event)
        return event


def history(client: MlflowClient) -> list[Deployment]:
    """Every deployment, newest first. An interrupted one is finished before."""
    lost.notice(client)
    with registry.alone(client):
        deployments.repair(client)
        aliases = {version: alias for alias, version in deployments.aliases(client).items()}
        existing = {int(version.version) for version in versions.of(client, SERVED)}
        rows = []
        for event in reversed(deployments.events(client)):
            # The alias stands only beside the latest deployment of its version.
            alias = aliases.pop(event.version, "") if event.version in existing else "deleted"
            rows.append(Deployment(event, alias))
        return rows


def _comparable(client: MlflowClient, current: int | None) -> ModelVersion | None:
    """The champion that a candidate is compared with: the present one, or, if catdog did not register that, the latest
    before it that it did. So moving the alias by hand is no way around the gates.
    """
    if current is None:
        return None
    known = {int(version.version): version for version in versions.ours(client, SERVED)}
    latest = [current, *(event.version for event in reversed(deployments.events(client)))]
    return next((known[number] for number in latest if number in known), None)


def _deploy(client: MlflowClient, version: ModelVersion, *, number: int, over: int | None, why: str) -> Event:
    # An interruption before the event is logged leaves a version of `catdog` that no alias and no event names.
    with _silent():
        copy = client.copy_model_version(versions.uri(version), SERVED)
    event = _event("promote", copy, number=number, over=over, why=why)
    tags = {
        "deployed.from": event.source,
        "deployed.over": f"{SERVED}/{over}" if over else "nothing",
        "deployed.when": event.when,
        "deployed.by": event.who,
        "deployed.why": why,
    }
    for key, value in tags.items():
        client.set_model_version_tag(SERVED, copy.version, key, value)
    deployments.commit(client, event)
    if CHALLENGER in versions.aliases(client, version):
        client.delete_registered_model_alias(version.name, CHALLENGER)
    return event


@contextmanager
def _silent() -> Iterator[None]:
    # MLflow tells of the copy in two lines of its own, the first even where the copy is then refused.
    logging_utils.disable_logging()
    try:
        yield
    finally:
        logging_utils.enable_logging()


def _event(action: str, version: ModelVersion, *, number: int, over: int | None, why: str) -> Event:
    metrics = {key: candidates.number(version, key) for key in ("accuracy", "log_loss")}
    return Event(
        number=number,
        action=action,
        version=int(version.version),
        over=over,
        source=versions.source(version),
        when=deployments.now(),
        who=deployments.user(),
        why=why,
        figures={key: value for key, value in metrics.items() if not math.isnan(value)},
    )


def _check_why(why: str) -> None:
    if not why.strip():
        raise UserError('say why, for those who read the history: --why "..."')
    if len(why) > _MAX_WHY:
        raise UserError(f"the reason has {len(why):,} characters; {_MAX_WHY:,} is the most that the log takes")
