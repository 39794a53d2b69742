"""Keep what the last queries before a border attend to, and their own units.

Li et al., "SnapKV: LLM knows what you are looking for before generation", NeurIPS 2024, arXiv
2404.14469, section 4. With the last ``window`` queries i before the border, over the query heads of
a group::

    a_t = sum_i softmax(q_i K^T / sqrt(D))_t       t before the window
    s_t = mean of a over ``kernel`` neighbours

Differs from the paper: it looks at the end of a whole prompt once, here each border looks at the
last tokens before it, and the question may come after; scores of grouped queries are added.

Memory: 64 N S floats.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.compress.kv.plan import EvictionConfig
from sharpen.compress.kv.policy import KVPolicy, attention_mass, keep_newest
from sharpen.core.errors import ConfigError
from sharpen.models.paged import Seen

__all__ = ["SnapKVPolicy"]


class SnapKVPolicy(KVPolicy):
    """A window of observation. See the module for the rule.

    Args:
        config: how much stays.
        window: queries before a border that vote; their units stay.
        kernel: neighbours whose votes are averaged, odd.

    Raises:
        ConfigError: the window does not fit the budget or the chunk, or the kernel is even.
    """

    name: ClassVar[str] = "snapkv"
    is_causal: ClassVar[bool] = False

    def __init__(
        self, config: EvictionConfig | None = None, *, window: int = 64, kernel: int = 5
    ) -> None:
        super().__init__(config)
        most = min(self.config.budget - 1, self.config.chunk_tokens)
        if not 1 <= window <= most:
            raise ConfigError(f"window={window} must be from 1 to {most} with this budget.")
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"kernel={kernel} must be odd, such as 5.")
        self._window = window
        self._kernel = kernel

    def score(self, past: Tensor, seen: Seen, border: int) -> Tensor:
        """Add the votes of those queries of the part that lie in the window."""
        count = seen.q.shape[0]
        scores = F.pad(past, (0, count))
        first = max(0, border - self._window - seen.start)
        if first < count:
            before = min(seen.stored, seen.slot + border - self._window - seen.start)
            scores[:, :before] += attention_mass(seen, first, before)
        return scores

    def ranks(self, scores: Tensor, border: int, *, last: bool) -> Tensor:
        """Averaged over neighbours; the window and the stabilizers first."""
        votes = scores[:, : -self._window]
        pooled = F.avg_pool1d(votes, self._kernel, stride=1, padding=self._kernel // 2)
        ranks = torch.cat((pooled, scores[:, -self._window :]), 1)
        stabilizers = 0 if last else self.config.num_stabilizers
        return keep_newest(ranks, max(self._window, stabilizers))

    def carried(self, scores: Tensor) -> Tensor:
        """Every border votes anew."""
        return torch.zeros_like(scores)
