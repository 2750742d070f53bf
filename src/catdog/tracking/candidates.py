"""The versions that may become champion, and the gates' verdicts on them."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from catdog.base import params
from catdog.base.errors import UserError
from catdog.evaluation import scoring
from catdog.tracking import deployments, gates, served_form, versions
from catdog.tracking import replay as replay_
from catdog.tracking.gates import Contender, Gate, Scored
from catdog.tracking.registry import PREDICTIONS
from catdog.tracking.replay import Replay
from catdog.tracking.versions import NAMES


@dataclass(frozen=True)
class Assessment:
    """The gates' verdicts on one candidate, such as catdog-cnn/3."""

    candidate: str
    gates: list[Gate]

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


def of(
    client: MlflowClient, *, wanted: str | None, champion: ModelVersion | None, current: int | None
) -> list[ModelVersion]:
    """The version `wanted`, or the best new version of each registered model, the better one first.

    New are those never deployed and scored on the newest test photographs. The best has the lowest log loss. What
    catdog did not register is passed over.

    Args:
        current: the version that is champion now; `champion` is the one to be compared with.

    Raises:
        UserError: nothing is new, `wanted` is no candidate, or it is the champion.
    """
    if wanted is not None:
        version = versions.resolve(client, wanted)
        if not isinstance(version, ModelVersion) or version.name not in NAMES.values():
            raise UserError(f"{wanted} is no candidate: expected one such as {NAMES['cnn']}/3")
        versions.digests(version)
        is_champion = champion is not None and int(champion.version) == current
        if champion is not None and is_champion and versions.source(champion) == versions.name(version):
            raise UserError(f"{wanted} is the champion already, as {versions.name(champion)}")
        return [version]
    deployed = {event.source for event in deployments.events(client)}
    every = versions.ours(client, *NAMES.values())
    if not every:
        raise UserError("nothing new to promote: no model is registered here; run the pipeline first (`dvc repro`)")
    new = [each for each in every if versions.name(each) not in deployed]
    if not new:
        raise UserError(
            f"nothing new to promote: every version of {' and '.join(NAMES.values())} has been deployed before; train "
            f"another (`dvc repro`), or name one: `catdog promote {versions.name(every[0])}`"
        )
    newest = max(new, key=lambda v: v.creation_timestamp).tags.get("test_digest")
    best: dict[str, ModelVersion] = {}
    for version in sorted(new, key=lambda version: number(version, "log_loss", missing=math.inf)):
        if version.tags.get("test_digest") == newest:
            best.setdefault(version.name, version)
    return list(best.values())


def assess(
    client: MlflowClient,
    version: ModelVersion,
    champion: ModelVersion | None,
    *,
    p: params.Params,
    rescore: Callable[[str], Scored] | None,
    replay: Callable[[str, str], Replay] | None = None,
) -> Assessment:
    """Ask every gate about `version`.

    Args:
        rescore: scores the model at a URI on the present test photographs; called for a champion scored on others.
        replay: asks the models at two URIs, champion and candidate, about photographs that were served.

    Raises:
        UserError: it was never evaluated.
    """
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
    intact = _intact(version)
    limit = p.promote.max_disagreement
    if champion is not None and (replay or limit is not None):
        replayed = replay(versions.uri(champion), versions.uri(version)) if replay and intact.passed else None
        judged.append(replay_.gate(replayed, limit=limit))
    return Assessment(versions.name(version), [intact, *judged])


def _contender(version: ModelVersion, scored: Scored, threshold: float) -> Contender:
    metrics: dict[str, float] = {}
    if len(scored.frame):
        labels, probabilities = scored.frame["label"].to_numpy(), scored.frame["probability"].to_numpy()
        metrics = scoring.score(labels, probabilities, threshold=threshold)
    return Contender(
        name=versions.name(version),
        accuracy=metrics.get("accuracy", math.nan),
        log_loss=metrics.get("log_loss", math.nan),
        calibration_error=metrics.get("calibration_error", math.nan),
        robustness=number(version, "robustness"),
        relative_time=number(version, "relative_time"),
        size=number(version, "file_bytes"),
        source_kind=_kind(version),
        scored=scored,
    )


def _scored(client: MlflowClient, version: ModelVersion) -> Scored | None:
    run_id, column = version.tags.get("evaluation_run_id"), version.tags.get("model")
    if not run_id or not column:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(run_id, PREDICTIONS, folder)
            frame = pd.read_parquet(path, page_checksum_verification=True)
        ids, labels, probabilities = (frame[name].to_numpy() for name in ("id", "label", column))
    except (MlflowException, OSError, KeyError):
        return None
    return gates.scored(
        version.tags.get("test_digest", ""), ids=ids.tolist(), labels=labels, probabilities=probabilities
    )


def _intact(version: ModelVersion) -> Gate:
    limit = "there, and as it was logged (sha256)"
    try:
        digests = versions.digests(version)
        served_form.verify(versions.uri(version), **digests)
    except UserError as error:
        return Gate("model file", False, str(error), limit)
    return Gate("model file", True, f"sha256 {digests['model_sha256'][:12]}", limit)


def note_gates(client: MlflowClient, version: ModelVersion, assessment: Assessment) -> None:
    """Write the gates' verdicts as tags of the version."""
    # `copy_model_version` copies these tags in the same step.
    verdicts = {f"gate.{gate.name.replace(' ', '_')}": str(gate) for gate in assessment.gates}
    for key in version.tags:
        if key.startswith("gate.") and key not in verdicts:
            client.delete_model_version_tag(version.name, version.version, key)
    for key, value in verdicts.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def _kind(version: ModelVersion) -> str:
    return version.tags.get("source_kind", "")


def number(version: ModelVersion, key: str, *, missing: float = math.nan) -> float:
    """A metric among a version's tags, or `missing`."""
    try:
        return float(version.tags[key])
    except (KeyError, ValueError):
        return missing
