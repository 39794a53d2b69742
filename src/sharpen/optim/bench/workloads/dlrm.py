"""What workloads of clicks share: a recommendation model and its loss.

Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems,
2019 (arXiv 1906.00091): a vector for each category, one made of the numbers by an MLP, their inner
products in pairs, and an MLP over these.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.optim.bench.workload import Batch, Workload

__all__ = ["DLRM", "ClickWorkload"]


class ClickWorkload(Workload):
    """Whether somebody clicks; splits have categories [B, F], numbers [B, D] and clicks [B]."""

    metric = "cross entropy"
    batch_size = 512
    steps = 400
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "layer-norm": {"norm": True},
        "wide-embedding": {"width": 32},
    }

    @abc.abstractmethod
    def sizes(self) -> tuple[Sequence[int], int]:
        """How many categories each field has, and how many numbers there are."""

    def make_model(self) -> nn.Module:
        """See :meth:`Workload.make_model`."""
        fields, dense = self.sizes()
        width, norm = self.options.get("width", 16), self.options.get("norm", False)
        return DLRM(fields, dense, width=width, norm=norm)

    def loss(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Binary cross entropy; smoothing draws labels to one half."""
        fields, dense, clicks = batch
        soft = clicks * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(model(fields, dense), soft)

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum of the cross entropies."""
        fields, dense, clicks = batch
        return F.binary_cross_entropy_with_logits(model(fields, dense), clicks, reduction="sum")


class DLRM(nn.Module):
    """Embeddings of categories, their products, and an MLP.

    Args:
        fields: categories of each field.
        dense: numbers beside them.
        width: of a vector.
        norm: normalize the products.
    """

    def __init__(self, fields: Sequence[int], dense: int, *, width: int, norm: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sum(fields), width)
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.bottom = nn.Sequential(nn.Linear(dense, 32), nn.ReLU(), nn.Linear(32, width))
        vectors = len(fields) + 1
        pairs = vectors * (vectors - 1) // 2
        self.top = nn.Sequential(
            nn.LayerNorm(pairs + width) if norm else nn.Identity(),
            *(nn.Linear(pairs + width, 64), nn.ReLU(), nn.Linear(64, 1)),
        )
        self.starts = torch.tensor([0, *accumulate(fields)][:-1])
        self.upper = torch.triu_indices(vectors, vectors, 1)

    def forward(self, fields: Tensor, dense: Tensor) -> Tensor:
        """Logits [B] of categories [B, F] and numbers [B, D]."""
        low = self.bottom(dense)
        vectors = torch.cat([self.embedding(fields + self.starts), low.unsqueeze(1)], 1)
        products = vectors @ vectors.transpose(1, 2)
        pairs = products[:, self.upper[0], self.upper[1]]
        out: Tensor = self.top(torch.cat([low, pairs], 1)).squeeze(1)
        return out
