"""A network asked about a whole shard, while threads decode ahead."""

from collections.abc import Iterator

import numpy as np

from catdog.answers import asking
from catdog.base import parallel
from catdog.base.progress import track
from catdog.photographs import photos, shards


def on_shard(
    shard: shards.Shard,
    network: asking.Network,
    *,
    side: int,
    rows: list[int] | None = None,
    what: str = "predicting",
) -> asking.Asked:
    """What a network says of the photographs of a shard, or of `rows` of it, at least one.

    Args:
        side: of the network's square input (pixels).
        what: shown with the progress.
    """
    return asking.joined(network.stream(batches(shard, side=side, rows=rows, what=what)))


def batches(shard: shards.Shard, *, side: int, rows: list[int] | None = None, what: str) -> Iterator[np.ndarray]:
    """Batches of what a network gets of these photographs: uint8 (at most `asking.BATCH`, side, side, 3)."""
    wanted = range(len(shard)) if rows is None else rows

    def decode(index: int) -> np.ndarray:
        return photos.pixels(shard.jpeg(index), side)

    decoded = parallel.threaded(decode, wanted, ahead=4 * asking.BATCH)
    return map(np.stack, parallel.chunks(track(decoded, total=len(wanted), what=what), asking.BATCH))
