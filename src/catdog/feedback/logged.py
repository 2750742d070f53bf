"""The photographs of a request log, measured: those that were kept, or what is known of those that were not."""

from pathlib import Path

import numpy as np

from catdog.base.errors import UserError
from catdog.evaluation import reference
from catdog.feedback import request_log
from catdog.feedback.measuring import MOST_KEPT, Measured


def kept(folder: Path) -> dict[str, Path]:
    """The photographs that a log kept: their paths by sha256, in the order in which they were first sent."""
    sent = dict.fromkeys(entry.sha256 for entry in request_log.entries(folder))
    found = ((sha256, request_log.photograph(folder, sha256)) for sha256 in sent)
    return {sha256: path for sha256, path in found if path is not None}


def answers(folder: Path, *, version: str) -> tuple[list[str], Measured]:
    """What a version answered to each photograph, last if it was sent several times, and the newest features.

    Args:
        version: such as catdog/3.

    Returns:
        The sha256 of each photograph, and what is known of them: no properties, and closeness is familiarity.

    Raises:
        UserError: the log has no answer of this version.
    """
    entries = list(request_log.entries(folder))
    last = {each.sha256: each for each in entries if each.version == version and each.familiarity is not None}
    if not last:
        others = ", ".join(sorted({each.version for each in entries})) or "nobody"
        raise UserError(f"{folder} has no answers of {version}, but of {others}: name that with --model models:/...")
    of_answers, features = request_log.features(folder, version, newest=MOST_KEPT)
    ids = {each.id for each in last.values()}
    known = [row for row, identity in enumerate(of_answers) if identity in ids]
    familiarity = np.array([each.familiarity for each in last.values()], np.float64)
    measured = Measured(
        places=list(range(len(last))),
        properties=None,
        probabilities=np.array([each.probability for each in last.values()], np.float64),
        familiarity=familiarity,
        closeness=familiarity,
        directions=reference.directions(features[known]),
        refused=[],
    )
    return list(last), measured
