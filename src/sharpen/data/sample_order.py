"""The endless, seeded order of examples; a position in it is one number."""

from __future__ import annotations

from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError

__all__ = ["SampleOrder"]


class SampleOrder:
    """Sample g of the stream is ``permutation(seed, g // n)[g % n]``, an order for each epoch.

    Attributes:
        index: the next sample.

    Args:
        count: n, the number of examples.
        seed: of the order.
        shuffle: otherwise the examples' own order, again and again.
    """

    def __init__(self, count: int, seed: int, *, shuffle: bool = True) -> None:
        self.index = 0
        self._count, self._seed, self._shuffle = count, seed, shuffle
        self._epoch = -1
        self._permutation = np.arange(count)

    def take(self, number: int) -> list[int]:
        """The next examples."""
        first, self.index = self.index, self.index + number
        return [self.at(sample) for sample in range(first, self.index)]

    def at(self, sample: int) -> int:
        """Which example a sample is."""
        epoch, place = divmod(sample, self._count)
        if not self._shuffle:
            return place
        if epoch != self._epoch:
            # Philox(key=seed, counter=epoch) would repeat an epoch's numbers four draws later.
            self._permutation = np.random.default_rng((self._seed, epoch)).permutation(self._count)
            self._epoch = epoch
        return int(self._permutation[place])

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream, for all ranks, batch sizes and world sizes alike."""
        return {"index": self.index, "seed": self._seed, "rows": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored position.

        Raises:
            ConfigError: the stream was another (other seed or number of examples).
        """
        if state["seed"] != self._seed or state["rows"] != self._count:
            raise ConfigError(
                f"the stored data position is of seed {state['seed']} and {state['rows']} rows; "
                f"this is seed {self._seed} and {self._count} rows."
            )
        self.index = int(state["index"])
