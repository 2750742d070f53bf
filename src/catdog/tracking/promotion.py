"""A model's way into use and back: promotion past the gates, rollback, and the history of both."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from catdog.base import params
from catdog.base.errors import UserError
from catdog.tracking import candidates, deployments, registry, served_form, versions
from catdog.tracking.candidates import Assessment
from catdog.tracking.deployments import CHAMPION, PREVIOUS, SERVED, Event
from catdog.tracking.gates import Scored

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
    experiment: str,
    why: str,
    who: str | None = None,
    candidate: str | None = None,
    rescore: Callable[[str], Scored] | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Make the best new model champion if it passes every gate.

    Without a `candidate` (such as catdog-cnn/3), the one of each registered model with the lowest log loss, among those
    never deployed and scored on the newest test photographs, is judged, the better first, until one passes.
    One that fails gets the alias `challenger` in its own registered model; `champion` stays where it is.

    Args:
        experiment: of the run that holds the log of deployments.
        rescore: gives what the model at a URI says of the present test photographs; called for a champion that was
            scored on others.
        dry_run: judge, and change nothing.

    Raises:
        UserError: nothing new to promote, no such candidate, or it was never evaluated.
    """
    _check_why(why)
    with registry.alone(client):
        if not dry_run:
            deployments.repair(client)
        after, number = deployments.latest(client), deployments.aliases(client).get(CHAMPION)
        champion = client.get_model_version(SERVED, str(number)) if number else None
        assessments: list[Assessment] = []
        for version in candidates.of(client, wanted=candidate, champion=champion):
            assessment = candidates.assess(client, version, champion, p=p, rescore=rescore)
            assessments.append(assessment)
            if not dry_run:
                candidates.note_gates(client, version, assessment)
            if assessment.passed:
                if dry_run:
                    return Promotion(assessments, None)
                event = _deploy(client, version, after=after, over=number, why=why, who=who, experiment=experiment)
                return Promotion(assessments, event)
            if not dry_run:
                client.set_registered_model_alias(version.name, CHALLENGER, version.version)
        return Promotion(assessments, None)


def rollback(
    client: MlflowClient, *, experiment: str, why: str, who: str | None = None, to: int | None = None
) -> Event:
    """Make version `to` of `catdog` champion again, or the previous champion.

    Raises:
        UserError: there is no such version, it was deleted, never deployed, is the champion, or its file is damaged.
    """
    _check_why(why)
    with registry.alone(client):
        deployments.repair(client)
        after, aliases = deployments.latest(client), deployments.aliases(client)
        target = to if to is not None else aliases.get(PREVIOUS)
        if target is None:
            raise UserError("there is no previous champion to go back to: see `catdog history`")
        if target == aliases.get(CHAMPION):
            raise UserError(f"{SERVED}/{target} is the champion already")
        version = versions.version(client, SERVED, str(target))
        deployed = [event for event in deployments.events(client) if event.version == target]
        if not deployed:
            raise UserError(f"{SERVED}/{target} was never deployed: see `catdog history` for those that were")
        served_form.verify(versions.uri(version), **versions.digests(version))
        event = Event(
            number=after + 1,
            action="rollback",
            version=target,
            over=aliases.get(CHAMPION),
            source=versions.source(version),
            when=deployments.now(),
            who=who or deployments.user(),
            why=why,
            figures=_metrics(version),
        )
        deployments.commit(client, event, experiment=experiment)
        return event


def history(client: MlflowClient) -> list[Deployment]:
    """Every deployment, newest first, after finishing one that was interrupted."""
    with registry.alone(client):
        deployments.repair(client)
        aliases = {version: alias for alias, version in deployments.aliases(client).items()}
        there = {int(version.version) for version in versions.of(client, SERVED)}
        rows = []
        for event in reversed(deployments.events(client)):
            # The alias stands beside the latest deployment of its version alone.
            alias = aliases.pop(event.version, "") if event.version in there else "deleted"
            rows.append(Deployment(event, alias))
        return rows


def _deploy(
    client: MlflowClient,
    version: ModelVersion,
    *,
    after: int,
    over: int | None,
    why: str,
    who: str | None,
    experiment: str,
) -> Event:
    # Until the log has the event, an interruption leaves a version of `catdog` that no alias and no event names.
    copy = client.copy_model_version(versions.uri(version), SERVED)
    event = Event(
        number=after + 1,
        action="promote",
        version=int(copy.version),
        over=over,
        source=versions.name(version),
        when=deployments.now(),
        who=who or deployments.user(),
        why=why,
        figures=_metrics(version),
    )
    tags = {
        "deployed.from": event.source,
        "deployed.over": f"{SERVED}/{over}" if over else "nothing",
        "deployed.when": event.when,
        "deployed.by": event.who,
        "deployed.why": why,
    }
    for key, value in tags.items():
        client.set_model_version_tag(SERVED, copy.version, key, value)
    deployments.commit(client, event, experiment=experiment)
    if CHALLENGER in versions.aliases(client, version):
        client.delete_registered_model_alias(version.name, CHALLENGER)
    return event


def _metrics(version: ModelVersion) -> dict[str, float]:
    metrics = {key: candidates.number(version, key) for key in ("accuracy", "log_loss")}
    return {key: value for key, value in metrics.items() if not math.isnan(value)}


def _check_why(why: str) -> None:
    if not why.strip():
        raise UserError('say why, for those who read the history: --why "..."')
    if len(why) > _MAX_WHY:
        raise UserError(f"the reason has {len(why):,} characters; {_MAX_WHY:,} is the most that the log takes")
