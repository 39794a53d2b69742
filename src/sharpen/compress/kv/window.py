"""Keep the newest units, or the newest and the first few (attention sinks).

Xiao et al., "Efficient streaming language models with attention sinks" (StreamingLLM), ICLR 2024,
arXiv 2309.17453, section 3.2. With position t of a unit::

    window    s_t = t
    sinks     s_t = infinity for t < sinks (4), else t

Differs from the paper: units keep their positions in the text, where the paper counts positions
within the cache, so that texts beyond the model's context are out of reach; units are dropped at
borders, not with every token.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sharpen.compress.kv.plan import EvictionConfig
from sharpen.compress.kv.policy import KVPolicy
from sharpen.core.errors import ConfigError
from sharpen.models.paged import Seen

__all__ = ["SinksPolicy", "WindowPolicy"]


class WindowPolicy(KVPolicy):
    """The newest units. See the module for the rule."""

    name: ClassVar[str] = "window"
    _sinks = 0

    def score(self, past: Tensor, seen: Seen, border: int) -> Tensor:
        """Positions, and infinity for sinks."""
        count = seen.q.shape[0]
        new = torch.arange(seen.start, seen.start + count, dtype=torch.float32, device=past.device)
        new[new < self._sinks] = torch.inf
        return torch.cat((past, new.expand(past.shape[0], -1)), 1)


class SinksPolicy(WindowPolicy):
    """The first units and the newest ones.

    Args:
        config: how much stays.
        sinks: first units.

    Raises:
        ConfigError: sinks and stabilizers do not fit the budget together.
    """

    name: ClassVar[str] = "sinks"

    def __init__(self, config: EvictionConfig | None = None, *, sinks: int = 4) -> None:
        super().__init__(config)
        room = self.config.budget - self.config.num_stabilizers
        if not 1 <= sinks <= room:
            raise ConfigError(
                f"sinks={sinks} must be from 1 to {room}: budget {self.config.budget} less "
                f"{self.config.num_stabilizers} stabilizers."
            )
        self._sinks = sinks
