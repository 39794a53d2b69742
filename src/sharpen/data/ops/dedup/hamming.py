"""Rows whose hashes of 64 bits differ in few places.

Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007. The bits are
parted into b blocks; hashes that differ in at most d < b bits agree in some b - d blocks whole, so
that pairs which meet in one of the choices of b - d blocks are all candidates there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError
from sharpen.data.ops.barrier import Copies
from sharpen.data.ops.dedup.joining import Cluster, groups_of, meeting

__all__ = ["check_blocks", "close_hashes"]

Integers = npt.NDArray[np.int64]
_BITS = 64


def check_blocks(distance: int, blocks: int) -> None:
    """Refuse what cannot find all pairs.

    Raises:
        ConfigError: the distance is not less than the blocks.
    """
    if not 0 <= distance < blocks <= _BITS:
        raise ConfigError(
            f"distance={distance} must be less than blocks={blocks}, and those at most {_BITS}."
        )


def close_hashes(
    hashes: npt.NDArray[np.uint64],
    *,
    distance: int,
    blocks: int,
    order: Integers,
    cluster: Cluster,
) -> Copies:
    """Which rows are copies of which; those with hash 0 are of none.

    Args:
        hashes: [n] of all rows.
        distance: bits in which copies may differ.
        blocks: of bits, more than ``distance``.
        order: [n] rows, the one that would rather stay first.
        cluster: see :func:`~sharpen.data.ops.dedup.joining.groups_of`.
    """
    known = np.nonzero(hashes)[0]

    def differ(one: Integers, other: Integers) -> Integers:
        bits: Integers = np.bitwise_count(hashes[one] ^ hashes[other]).astype(np.int64)
        return bits

    def meetings() -> Iterator[tuple[Integers, Integers]]:
        for mask in _masks(distance, blocks):
            yield meeting(hashes[known] & mask, known)

    def alike(one: Integers, other: Integers) -> npt.NDArray[np.bool_]:
        return differ(one, other) <= distance

    of = groups_of(len(hashes), meetings(), alike, order, cluster)
    least = f"min={1 - distance / _BITS:g}"
    return Copies(of, lambda one, other: 1 - differ(one, other) / _BITS, least)


def _masks(distance: int, blocks: int) -> Iterator[np.uint64]:
    """All choices of as many whole blocks as close hashes must share."""
    edges = [_BITS * k // blocks for k in range(blocks + 1)]
    for chosen in itertools.combinations(range(blocks), blocks - distance):
        yield np.uint64(sum((1 << edges[k + 1]) - (1 << edges[k]) for k in chosen))
