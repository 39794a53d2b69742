"""A deterministic, resumable, shardable stream of batches over token shards.

The stream (:class:`~sharpen.data.sample_order.SampleOrder`) does not depend on the batch size or
the number of ranks, and a position in it is one number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.sample_order import SampleOrder
from sharpen.data.shards import TokenDataset

__all__ = ["Batch", "TokenLoader"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows stacked; every array is int64 [B, T]. Fields as of :class:`Sequence`."""

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    document_ids: NDArray[np.int64]


class TokenLoader:
    """Endless batches of a data set.

    Args:
        dataset: the rows.
        batch_size: rows a batch and rank.
        seed: of the order.
        shuffle: a new random order each epoch; otherwise the stored order.
        rank: which of ``world`` readers this is; each batch of the stream's next
            ``world * batch_size`` samples goes to one rank.
        world: number of readers.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if len(dataset) == 0:
            raise DataError(f"the split '{dataset.split}' of {dataset.folder} has no rows.")
        if batch_size < 1 or not 0 <= rank < world:
            raise ConfigError(f"batch_size={batch_size}, rank={rank}, world={world} do not fit.")
        self.dataset = dataset
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self.order = SampleOrder(len(dataset), seed, shuffle=shuffle)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        order = self.order
        start = order.index + self.rank * self.batch_size
        rows = [self.dataset[order.at(start + i)] for i in range(self.batch_size)]
        order.index += self.batch_size * self.world
        return Batch(
            *(
                np.stack([getattr(row, name) for row in rows])
                for name in ("input_ids", "labels", "position_ids", "document_ids")
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`SampleOrder.state_dict`."""
        return self.order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`SampleOrder.load_state_dict`."""
        self.order.load_state_dict(state)
