"""Keep what has drawn most attention so far, and the newest units.

Zhang et al., "H2O: heavy-hitter oracle for efficient generative inference of large language
models", NeurIPS 2023, arXiv 2306.14048, algorithm 1. Sums are over all queries i after t while t is
stored, and over the query heads of a group::

    s_t = sum_i softmax(q_i K^T / sqrt(D))_t

Half of the budget is the newest units (``recent``), half the heavy hitters.

Differs from the paper: units are dropped at borders, not with every token; scores of grouped
queries are added.

Time: the attention weights once more. Memory: 64 N S floats.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from sharpen.compress.kv.plan import EvictionConfig
from sharpen.compress.kv.policy import KVPolicy, attention_mass, keep_newest
from sharpen.core.errors import ConfigError
from sharpen.models.paged import Seen

__all__ = ["H2OPolicy"]


class H2OPolicy(KVPolicy):
    """Accumulated attention. See the module for the rule.

    Args:
        config: how much stays.
        recent: share of the budget for the newest units, at every border; the stabilizers where
            they are more.

    Raises:
        ConfigError: ``recent`` is not in [0, 1).
    """

    name: ClassVar[str] = "h2o"
    is_causal: ClassVar[bool] = False

    def __init__(self, config: EvictionConfig | None = None, *, recent: float = 0.5) -> None:
        super().__init__(config)
        if not 0 <= recent < 1:
            raise ConfigError(f"recent={recent} must be at least 0 and below 1.")
        self._recent = recent

    def score(self, past: Tensor, seen: Seen, border: int) -> Tensor:
        """Add the weights that the part's queries give."""
        return F.pad(past, (0, seen.q.shape[0])) + attention_mass(seen, 0, seen.stored)

    def ranks(self, scores: Tensor, border: int, *, last: bool) -> Tensor:
        """The newest units first."""
        recent = int(self._recent * self.config.budget)
        stabilizers = 0 if last else self.config.num_stabilizers
        return keep_newest(scores, max(recent, stabilizers))
