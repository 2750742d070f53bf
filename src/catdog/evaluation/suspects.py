"""Photographs whose label is probably wrong: a suspicion for a person to decide on. Nothing is changed by it alone.

Ranked by self-confidence, the probability that a model which never saw a photograph gives to its label (Northcutt et
al. 2021, https://arxiv.org/abs/1911.00068).
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from catdog.base import files, params, paths
from catdog.evaluation import corrected
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.pictures import sheets
from catdog.training.xception import features, weights

_FOLDS = 5
_COMPONENTS = 128  # of the features, all that a linear model needs of them
_C = 0.01
_SHOWN = 24
_CELL = 120  # pixels
SURE = 0.5  # less than that for its own label, and a photograph is a suspect


def find(
    p: params.Params, splits: dict[str, Shard], *, of_test: np.ndarray | None, manifest: pd.DataFrame, note: str
) -> Path:
    """Rank the photographs of all splits by the features that Xception has of them; write the table and draw the sheet.

    Features that the training of Xception left are not computed again.

    Args:
        of_test: those of the test photographs, float32 (n, k), if they are known.
        manifest: with the decisions of people: what they decided on is in doubt no more.
        note: stands under the title of the sheet, in red.

    Returns:
        The sheet.
    """
    t = p.train_xception
    shards = [*splits.values()]
    base, origin = weights.load_xception(t.weights, image_size=t.image_size)
    extracted = features.extract(
        shards if of_test is None else [shard for split, shard in splits.items() if split != "test"],
        model=base,
        weights_digest=origin["sha256"],
        image_size=t.image_size,
        precision=t.precision,
        keep=False,  # they are what the training of Xception has put out
    )
    labels = np.concatenate([shard.labels for shard in shards])
    groups = [group for shard in shards for group in shard.groups]
    rows = extracted.rows if of_test is None else np.concatenate([extracted.rows, of_test])
    sure = confidence(rows, labels, groups, seed=p.base.seed)
    ranked = table(splits, sure, classes=p.base.classes, decided=corrected.decided(manifest))
    files.write_text(paths.SUSPECTS, ranked.drop(columns=["shard", "row"]).to_csv(index=False))
    draw(ranked, shards, paths.SUSPECTS_SHEET, note=note)
    return paths.SUSPECTS_SHEET


def confidence(features: np.ndarray, labels: np.ndarray, groups: list[str], *, seed: int) -> np.ndarray:
    """The probability of each photograph's own label, float64 (n,), by a model trained on others.

    Args:
        features: float32 (n, features), none negative.
        groups: near copies share one, and are never on both sides.
    """
    # The projection knows nothing of labels, so it may be fitted on all of them, once.
    components = min(_COMPONENTS, *features.shape)
    small = PCA(components, svd_solver="randomized", random_state=seed).fit_transform(np.sqrt(features))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_C, max_iter=500))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    out_of_fold = cross_val_predict(model, small, labels, groups=groups, cv=folds, method="predict_proba")
    return out_of_fold[np.arange(len(labels)), labels.astype(int)]


def table(
    splits: dict[str, Shard], confidence: np.ndarray, *, classes: list[str], decided: Collection[str] = ()
) -> pd.DataFrame:
    """Columns id, source, split, label, confidence, of all with less than half for their own label, the least first;
    and shard and row, where each is found. Those `decided` on are left out."""
    names, shards = [*splits], [*splits.values()]
    place = [(number, row) for number, shard in enumerate(shards) for row in range(len(shard))]
    order = [int(i) for i in np.argsort(confidence, kind="stable") if confidence[i] < SURE]
    rows = []
    for i in order:
        number, row = place[i]
        shard = shards[number]
        if shard.ids[row] not in decided:
            label = classes[shard.labels[row]]
            rows.append((shard.ids[row], shard.sources[row], names[number], label, confidence[i], number, row))
    return pd.DataFrame(rows, columns=["id", "source", "split", "label", "confidence", "shard", "row"])


def draw(table: pd.DataFrame, shards: list[Shard], path: Path, *, note: str = "") -> None:
    """A sheet of the photographs at the head of the table."""
    shown = table.head(_SHOWN)
    pictures: list[np.ndarray | str] = [
        photos.decode(shards[number].jpeg(row)) for number, row in zip(shown["shard"], shown["row"], strict=True)
    ]
    captions = [
        f"{sheets.tail(source)}\nlabelled {label}, {100 * sure:.1f} % sure"
        for source, label, sure in zip(shown["source"], shown["label"], shown["confidence"], strict=True)
    ]
    title = f"Labels to look at: {len(shown)} of {len(table):,} in doubt, of {sum(map(len, shards)):,}"
    blocks = [sheets.Block(pictures, captions)] if pictures else []
    sheets.block_sheet(blocks, path, title=title, note=note, cell=_CELL)
