"""A deterministic, resumable, shardable stream of batches over token shards.

Sample g of the endless stream is row ``permutation(seed, g // n)[g % n]`` of n rows, where the
permutation of each epoch comes from a generator seeded by the hash of (seed, epoch). So the stream
does not depend on the batch size or the number of ranks, and a position in it is one number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpen.core.errors import ConfigError, DataError
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
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world = world
        self.index = 0
        self._epoch = -1
        self._order = np.arange(len(dataset))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        start = self.index + self.rank * self.batch_size
        rows = [self.dataset[self._row(start + i)] for i in range(self.batch_size)]
        self.index += self.batch_size * self.world
        return Batch(
            *(
                np.stack([getattr(row, name) for row in rows])
                for name in ("input_ids", "labels", "position_ids", "document_ids")
            )
        )

    def _row(self, sample: int) -> int:
        epoch, place = divmod(sample, len(self.dataset))
        if not self.shuffle:
            return place
        if epoch != self._epoch:
            # Philox(key=seed, counter=epoch) would repeat an epoch's numbers four draws later.
            generator = np.random.default_rng((self.seed, epoch))
            self._order = generator.permutation(len(self.dataset))
            self._epoch = epoch
        return int(self._order[place])

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream, for all ranks, batch sizes and world sizes alike."""
        return {"index": self.index, "seed": self.seed, "rows": len(self.dataset)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored position.

        Raises:
            ConfigError: the stream was another (other seed or number of rows).
        """
        if state["seed"] != self.seed or state["rows"] != len(self.dataset):
            raise ConfigError(
                f"the stored data position is of seed {state['seed']} and {state['rows']} rows; "
                f"this is seed {self.seed} and {len(self.dataset)} rows."
            )
        self.index = int(state["index"])
