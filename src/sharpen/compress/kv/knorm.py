"""Keep the keys of smallest norm.

Devoto et al., "A simple and effective L2 norm-based strategy for KV cache compression", EMNLP
2024, arXiv 2406.11430::

    s_t = -||k_t||_2

Differs from the paper: norms are rounded to 1/1024 (:func:`~sharpen.compress.kv.policy.on_grid`);
every layer drops units, where the paper leaves the first ones whole; units
are dropped at borders.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sharpen.compress.kv.policy import KVPolicy, on_grid
from sharpen.models.paged import Seen

__all__ = ["KnormPolicy"]


class KnormPolicy(KVPolicy):
    """Keys of small norm stay. See the module for the rule."""

    name: ClassVar[str] = "knorm"

    def score(self, past: Tensor, seen: Seen, border: int) -> Tensor:
        """Negative norms of the part's keys; turning them changes no norm."""
        new = -seen.keys()[:, seen.slot :].float().norm(dim=-1)
        return torch.cat((past, on_grid(new)), 1)
