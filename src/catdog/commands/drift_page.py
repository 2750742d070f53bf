"""The page of `catdog drift`: one HTML file that opens anywhere, without script, with what it shows inside."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from catdog.base import files
from catdog.evaluation import report
from catdog.evaluation.reference import Reference
from catdog.feedback import drift, drift_words
from catdog.feedback.drift import Difference, Findings
from catdog.feedback.measuring import Measured

TEMPLATE = Path(__file__).with_name("drift.html.jinja")
WIDTH, HEIGHT = 120, 32  # of the small pictures, in their own units
_BINS = 24
_LOGARITHMIC = ("short side", "aspect")
_LISTED = 20  # files that can't be read


@dataclass(frozen=True)
class About:
    """What the page says of model and photographs.

    Attributes:
        version: of the model, such as catdog/3.
        source: what the photographs are called.
        when: UTC.
        drawn: whether the model was made of drawings.
        refused: files that can't be read, and why.
        copies: how many files were copies of others.
        notes: whatever else there is to say, in sentences.
    """

    version: str
    source: str
    when: str
    drawn: bool
    refused: list[tuple[str, str]]
    copies: int
    notes: list[str]


def render(
    path: Path,
    *,
    findings: Findings,
    about: About,
    old: Reference,
    new: Measured,
    sheet: Path | None,
    strangest: list[dict[str, Any]],
) -> None:
    """Write the page to `path`, complete or not at all.

    Args:
        sheet: a PNG of the strangest photographs; None: there are none to show, and `strangest` is listed.
        strangest: path, label, probability and familiarity of each.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        verdict=drift_words.verdict(findings),
        findings=findings,
        about=about,
        accuracy=drift_words.accuracy(findings),
        apart=[drift_words.apart(each) for each in findings.differences if each.kind == drift.APART],
        rows=[_row(each, old, new) for each in findings.differences],
        size=(WIDTH, HEIGHT),
        level=f"{100 * drift.LEVEL:g} %",
        sheet=report.embedded(sheet) if sheet else "",
        strangest=strangest,
        listed=_LISTED,
    )
    files.write_text(path, page)


def _row(difference: Difference, old: Reference, new: Measured) -> dict[str, Any]:
    """A row of the page's table."""
    paths: tuple[str, ...] = ()
    if difference.kind == drift.ORDER:
        both = [drift.values(difference.name, each) for each in (old, new)]
        paths = outlines(*map(np.asarray, both), logarithmic=difference.name in _LOGARITHMIC)
    return {
        "name": difference.name,
        "kind": difference.kind,
        "meaning": drift_words.MEANINGS.get(difference.name, "share that gets this label"),
        "old": drift_words.middle(difference, difference.old),
        "new": drift_words.middle(difference, difference.new),
        "shares": (difference.old, difference.new),
        "effect": drift_words.effect(difference),
        "counts": difference.counts,
        "outlines": paths,
    }


def outlines(old: np.ndarray, new: np.ndarray, *, logarithmic: bool = False) -> tuple[str, str]:
    """How two samples are spread, as outlines of histograms on common axes: paths of SVG, WIDTH by HEIGHT.

    Args:
        logarithmic: bins are of equal width in the logarithm.
    """
    both = [np.log(np.maximum(each, 1e-9)) if logarithmic else each.astype(np.float64) for each in (old, new)]
    # What is far out would leave no room for the others; it counts at the end.
    low, high = np.quantile(np.concatenate(both), [0.005, 0.995])
    edges = np.linspace(low, high, _BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, _BINS + 1)
    heights = [np.histogram(np.clip(each, edges[0], edges[-1]), edges)[0] / len(each) for each in both]
    highest = max(each.max() for each in heights)
    first, second = (_outline(each / highest) for each in heights)
    return first, second


def _outline(heights: np.ndarray) -> str:
    step = WIDTH / len(heights)
    points = [f"M0 {HEIGHT}"]
    for place, height in enumerate(heights):
        points.append(f"V{HEIGHT - (HEIGHT - 2) * height:.1f}H{(place + 1) * step:.1f}")
    return "".join([*points, f"V{HEIGHT}Z"])
