"""Registered models: new versions, the gates before `champion`, and the way back."""

import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from catdog.answers.classifier import Classifier
from catdog.base import params
from catdog.base.errors import UserError
from catdog.evaluation import scoring
from catdog.tracking import deployments, gates, serving, versions
from catdog.tracking.deployments import CHAMPION, PREVIOUS, SERVED, Event
from catdog.tracking.gates import Contender, Gate, Scored
from catdog.tracking.versions import NAMES

CHALLENGER = "challenger"
PREDICTIONS = "predictions.parquet"  # artifact of an evaluation: columns id, label, and one per model
_MAX_WHY = 1000
_CLASH = re.compile(r"IntegrityError|unique constraint|duplicate entry", re.IGNORECASE)  # as databases word it


@dataclass(frozen=True)
class Verdict:
    """What the gates say of one candidate, such as catdog-cnn/3."""

    candidate: str
    gates: list[Gate]

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class Promotion:
    """The outcome of `promote`: a verdict on every candidate that was judged, and the event if one was promoted."""

    verdicts: list[Verdict]
    event: Event | None

    @property
    def passed(self) -> bool:
        return self.verdicts[-1].passed


@dataclass(frozen=True)
class Deployment:
    """One line of the history: an event, and the alias that its version has now."""

    event: Event
    alias: str


def register(
    client: MlflowClient, model: str, *, model_id: str, run_id: str, tags: dict[str, str], metrics: dict[str, float]
) -> int:
    """The version of a logged model among the registered ones: a new one, or the one it has, with its tags renewed.

    Args:
        model: cnn or xception.
        tags: at least test_digest, evaluation_run_id, source_kind, model_sha256 and served_sha256,
            which the gates read.
        metrics: figures for a person; milliseconds_per_photograph, file_bytes and robustness are read by the gates too.

    Raises:
        UserError: the logged model is not in this store.
    """
    name, source = NAMES[model], f"models:/{model_id}"
    said = {**tags, **{key: str(value) for key, value in metrics.items()}, "run_id": run_id, "model": model}
    with _alone(client):
        known = next((version for version in versions.of(client, name) if version.source == source), None)
        if known is None:
            try:
                return int(mlflow.register_model(source, name, tags=said).version)
            except MlflowException as error:
                raise UserError(f"{model_id} can't be registered as {name}: {_first_line(error)}") from None
        for key, value in said.items():
            if known.tags.get(key) != value:
                client.set_model_version_tag(name, known.version, key, value)
        return int(known.version)


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
    with _alone(client):
        if not dry_run:
            deployments.repair(client)
        after, number = deployments.latest(client), deployments.aliases(client).get(CHAMPION)
        champion = client.get_model_version(SERVED, str(number)) if number else None
        verdicts: list[Verdict] = []
        for version in _candidates(client, wanted=candidate, champion=champion):
            verdict = Verdict(versions.name(version), _judge(client, version, champion, p=p, rescore=rescore))
            verdicts.append(verdict)
            if not dry_run:
                _note_gates(client, version, verdict)
            if verdict.passed:
                if dry_run:
                    return Promotion(verdicts, None)
                event = _deploy(client, version, after=after, over=number, why=why, who=who, experiment=experiment)
                return Promotion(verdicts, event)
            if not dry_run:
                client.set_registered_model_alias(version.name, CHALLENGER, version.version)
        return Promotion(verdicts, None)


def rollback(
    client: MlflowClient, *, experiment: str, why: str, who: str | None = None, to: int | None = None
) -> Event:
    """Make version `to` of `catdog` champion again, or the previous champion.

    Raises:
        UserError: there is no such version, it was deleted, never deployed, is the champion, or its file is damaged.
    """
    _check_why(why)
    with _alone(client):
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
        serving.verify(versions.uri(version), **versions.digests(version))
        return deployments.commit(
            client,
            action="rollback",
            after=after,
            version=target,
            over=aliases.get(CHAMPION),
            source=versions.source(version),
            when=deployments.now(),
            who=who or deployments.user(),
            why=why,
            figures=_figures(version),
            experiment=experiment,
        )


def history(client: MlflowClient) -> list[Deployment]:
    """Every deployment, newest first, after finishing one that was interrupted."""
    with _alone(client):
        deployments.repair(client)
        aliases = {version: alias for alias, version in deployments.aliases(client).items()}
        there = {int(version.version) for version in versions.of(client, SERVED)}
        rows = []
        for event in reversed(deployments.events(client)):
            # The alias stands beside the latest deployment of its version alone.
            alias = aliases.pop(event.version, "") if event.version in there else "deleted"
            rows.append(Deployment(event, alias))
        return rows


def load(client: MlflowClient, reference: str) -> Classifier:
    """The classifier of a reference such as models:/catdog@champion, checked against the registry's digests.

    Raises:
        UserError: there is none, or it was changed.
    """
    found = _model(client, reference)
    return serving.load(versions.uri(found), **versions.digests(found))


def fetch(client: MlflowClient, reference: str, folder: Path) -> Path:
    """A copy in `folder` of the logged model of a reference, checked likewise, and where it is.

    Raises:
        UserError: there is none, or it was changed.
    """
    found = _model(client, reference)
    return serving.fetch(versions.uri(found), folder, **versions.digests(found))


def _model(client: MlflowClient, reference: str) -> ModelVersion:
    found = versions.resolve(client, reference)
    if isinstance(found, ModelVersion):
        return found
    raise UserError(f"{reference} is a run: name a model, such as models:/{SERVED}@{CHAMPION}")


@contextmanager
def _alone(client: MlflowClient) -> Iterator[None]:
    """One change of the registry at a time on this machine; of two machines, the one that is told so tries again.

    MLflow refuses the second of two that set the same tag or alias for the first time at once.
    """
    with deployments.exclusive(client):
        try:
            yield
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS" and not _CLASH.search(str(error)):
                raise
            raise UserError(
                "somebody else changed the registry at this very moment: run the command again; a deployment that had "
                "begun is finished then"
            ) from None


# ---- promotion ------------------------------------------------------------------------------------------------------


def _candidates(client: MlflowClient, *, wanted: str | None, champion: ModelVersion | None) -> list[ModelVersion]:
    if wanted is not None:
        version = versions.resolve(client, wanted)
        if not isinstance(version, ModelVersion) or version.name not in NAMES.values():
            raise UserError(f"{wanted} is no candidate: expected one such as {NAMES['cnn']}/3")
        if champion is not None and versions.source(champion) == versions.name(version):
            raise UserError(f"{wanted} is the champion already, as {versions.name(champion)}")
        return [version]
    deployed = {event.source for event in deployments.events(client)}
    new = [v for name in NAMES.values() for v in versions.of(client, name) if versions.name(v) not in deployed]
    if not new:
        raise UserError(
            f"nothing new to promote: every version of {' and '.join(NAMES.values())} has been deployed before; train "
            f"another (`dvc repro`), or name one: `catdog promote {NAMES['cnn']}/1`"
        )
    newest = max(new, key=lambda v: v.creation_timestamp).tags.get("test_digest")
    best: dict[str, ModelVersion] = {}
    for version in sorted(new, key=_log_loss):
        if version.tags.get("test_digest") == newest:
            best.setdefault(version.name, version)
    return list(best.values())


def _judge(
    client: MlflowClient,
    version: ModelVersion,
    champion: ModelVersion | None,
    *,
    p: params.Params,
    rescore: Callable[[str], Scored] | None,
) -> list[Gate]:
    ours = _scored(client, version)
    if ours is None:
        raise UserError(
            f"{versions.name(version)} has no predictions for the test photographs ({PREDICTIONS} of run "
            f"{version.tags.get('evaluation_run_id', 'unknown')}): run `dvc repro -f -s evaluate`"
        )
    other = None
    if champion is not None:
        theirs = _scored(client, champion)
        allowed = gates.no_drawings(_kind(version), _kind(champion)).passed
        if (theirs is None or theirs.digest != ours.digest) and rescore is not None and allowed:
            theirs = rescore(versions.uri(champion))
        nothing = Scored("", pd.DataFrame(columns=["id", "label", "probability"]))
        other = _contender(champion, theirs or nothing, p.evaluate.threshold)
    candidate = _contender(version, ours, p.evaluate.threshold)
    judged = gates.judge(candidate, other, limits=p.promote, evaluate=p.evaluate, seed=p.base.seed)
    return [_intact(version), *judged]


def _contender(version: ModelVersion, scored: Scored, threshold: float) -> Contender:
    figures: dict[str, float] = {}
    if len(scored.frame):
        labels, probabilities = scored.frame["label"].to_numpy(), scored.frame["probability"].to_numpy()
        figures = scoring.score(labels, probabilities, threshold=threshold)
    return Contender(
        name=versions.name(version),
        accuracy=figures.get("accuracy", math.nan),
        log_loss=figures.get("log_loss", math.nan),
        calibration_error=figures.get("calibration_error", math.nan),
        robustness=_number(version, "robustness"),
        milliseconds=_number(version, "milliseconds_per_photograph"),
        size=_number(version, "file_bytes"),
        source_kind=_kind(version),
        scored=scored,
    )


def _scored(client: MlflowClient, version: ModelVersion) -> Scored | None:
    run_id, column = version.tags.get("evaluation_run_id"), version.tags.get("model")
    if not run_id or not column:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            frame = pd.read_parquet(client.download_artifacts(run_id, PREDICTIONS, folder))
        frame = frame[["id", "label", column]].rename(columns={column: "probability"})
    except (MlflowException, OSError, KeyError):
        return None
    return Scored(version.tags.get("test_digest", ""), frame)


def _intact(version: ModelVersion) -> Gate:
    digest = version.tags.get("model_sha256")
    limit = "there, and as it was logged (sha256)"
    try:
        serving.verify(versions.uri(version), **versions.digests(version))
    except UserError as error:
        return Gate("model file", False, str(error), limit)
    return Gate("model file", digest is not None, f"sha256 {digest[:12] if digest else 'unknown'}", limit)


def _note_gates(client: MlflowClient, version: ModelVersion, verdict: Verdict) -> None:
    # On the candidate, whence `copy_model_version` takes them along in the same step that makes the copy.
    said = {f"gate.{gate.name.replace(' ', '_')}": str(gate) for gate in verdict.gates}
    for key in version.tags:
        if key.startswith("gate.") and key not in said:
            client.delete_model_version_tag(version.name, version.version, key)
    for key, value in said.items():
        client.set_model_version_tag(version.name, version.version, key, value)


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
    when, who = deployments.now(), who or deployments.user()
    said = {
        "deployed.from": versions.name(version),
        "deployed.over": f"{SERVED}/{over}" if over else "nothing",
        "deployed.when": when,
        "deployed.by": who,
        "deployed.why": why,
    }
    for key, value in said.items():
        client.set_model_version_tag(SERVED, copy.version, key, value)
    event = deployments.commit(
        client,
        action="promote",
        after=after,
        version=int(copy.version),
        over=over,
        source=versions.name(version),
        when=when,
        who=who,
        why=why,
        figures=_figures(version),
        experiment=experiment,
    )
    if CHALLENGER in versions.aliases(client, version):
        client.delete_registered_model_alias(version.name, CHALLENGER)
    return event


# ---- what a version says of itself ----------------------------------------------------------------------------------


def _kind(version: ModelVersion) -> str:
    return version.tags.get("source_kind", "")


def _number(version: ModelVersion, key: str) -> float:
    try:
        return float(version.tags[key])
    except (KeyError, ValueError):
        return math.nan


def _log_loss(version: ModelVersion) -> float:
    figure = _number(version, "log_loss")
    return math.inf if math.isnan(figure) else figure


def _figures(version: ModelVersion) -> dict[str, float]:
    figures = {key: _number(version, key) for key in ("accuracy", "log_loss")}
    return {key: value for key, value in figures.items() if not math.isnan(value)}


def _check_why(why: str) -> None:
    if not why.strip():
        raise UserError('say why, for those who read the history: --reason "..."')
    if len(why) > _MAX_WHY:
        raise UserError(f"the reason has {len(why):,} characters; {_MAX_WHY:,} is the most that the log takes")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
