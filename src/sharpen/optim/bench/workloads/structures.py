"""Workloads on generated data with a known best: clicks on ads, and motifs in graphs.

Clicks: a user and an item of many categories each have hidden vectors and biases; a click happens
with probability sigmoid(u . i + b). No model is better in the mean than the entropy of these
probabilities. Graphs: random graphs of equally many edges, half of them with a planted clique of
five nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.optim.bench.workload import Batch, Workload
from sharpen.optim.bench.workloads.dlrm import ClickWorkload

__all__ = ["WORKLOADS", "best_click_loss"]

_CATEGORIES, _FIELDS, _DENSE = 100, 6, 4
_NODES, _EDGES, _CLIQUE = 20, 44, 5
_COUNTS = {"train": 100_000, "validation": 3_000, "test": 3_000}


@lru_cache(maxsize=1)
def _clicks() -> tuple[dict[str, Batch], float]:
    """The splits, and the least mean loss on the validation split."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(_FIELDS, _CATEGORIES, 4, generator=generator) * 0.8
    bias = torch.randn(_FIELDS, _CATEGORIES, generator=generator) * 0.5
    weight = torch.randn(_DENSE, generator=generator) * 0.5
    splits: dict[str, Batch] = {}
    least = 0.0
    for name, count in _COUNTS.items():
        # Some categories are common and most are rare.
        share = torch.rand(count, _FIELDS, generator=generator).pow(3)
        fields = (share * _CATEGORIES).long()
        dense = torch.randn(count, _DENSE, generator=generator)
        vectors = torch.stack([hidden[j, fields[:, j]] for j in range(_FIELDS)])
        pairs = (vectors.sum(0).square() - vectors.square().sum(0)).sum(1) / 2
        logits = pairs * 0.3 + sum(bias[j, fields[:, j]] for j in range(_FIELDS)) + dense @ weight
        chance = logits.sigmoid()
        clicks = (torch.rand(count, generator=generator) < chance).float()
        splits[name] = fields, dense, clicks
        if name == "validation":
            least = float(F.binary_cross_entropy(chance, chance))
    return splits, least


def best_click_loss() -> float:
    """Entropy of the validation split's clicks, in nats: no model's expected loss is lower."""
    return _clicks()[1]


class Clicks(ClickWorkload):
    """A recommendation model: embeddings of categories, their products, and an MLP."""

    name = "clicks-dlrm"

    def sizes(self) -> tuple[Sequence[int], int]:
        """See :meth:`ClickWorkload.sizes`."""
        return [_CATEGORIES] * _FIELDS, _DENSE

    def splits(self) -> dict[str, Batch]:
        """See :meth:`Workload.splits`."""
        return _clicks()[0]


@lru_cache(maxsize=1)
def _graphs() -> dict[str, Batch]:
    generator = torch.Generator().manual_seed(0)
    upper = torch.triu_indices(_NODES, _NODES, 1)
    out: dict[str, Batch] = {}
    for name, count in {"train": 2400, "validation": 600, "test": 600}.items():
        adjacency = torch.zeros(count, _NODES, _NODES)
        labels = torch.arange(count) % 2
        for i in range(count):
            edges = torch.zeros(_NODES, _NODES)
            if labels[i]:
                members = torch.randperm(_NODES, generator=generator)[:_CLIQUE]
                edges[members.unsqueeze(1), members] = 1
            edges = edges.triu(1)
            free = (edges[upper[0], upper[1]] == 0).nonzero().squeeze(1)
            rest = free[torch.randperm(len(free), generator=generator)]
            rest = rest[: _EDGES - int(edges.sum())]
            edges[upper[0][rest], upper[1][rest]] = 1
            adjacency[i] = edges + edges.T
        out[name] = adjacency, labels
    return out


class Graphs(Workload):
    """A message-passing network that tells whether a clique was planted."""

    name = "graphs-gnn"
    metric = "error"
    batch_size = 64
    steps = 300
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "layer-norm": {"norm": True},
        "gelu": {"activation": "gelu"},
    }

    def make_model(self) -> nn.Module:
        """See :meth:`Workload.make_model`."""
        gelu = self.options.get("activation") == "gelu"
        return _GNN(self.options.get("norm", False), nn.GELU if gelu else nn.ReLU)

    def splits(self) -> dict[str, Batch]:
        """See :meth:`Workload.splits`."""
        return _graphs()

    def loss(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=label_smoothing)

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Number of wrong answers."""
        wrong: Tensor = (model(batch[0]).argmax(1) != batch[1]).sum()
        return wrong


class _GNN(nn.Module):
    """Nodes know their degree and triangles; three rounds of messages; mean and maximum."""

    def __init__(self, norm: bool, activation: type[nn.Module]) -> None:
        super().__init__()
        width = 32
        self.first = nn.Linear(2, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.other = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(3))
        self.activation = activation()
        self.head = nn.Linear(2 * width, 2)

    def forward(self, adjacency: Tensor) -> Tensor:
        """Logits [B, 2] of adjacency matrices [B, 20, 20]."""
        degree = adjacency.sum(2)
        triangles = (adjacency @ adjacency * adjacency).sum(2) / 2
        x = self.first(torch.stack([degree, triangles], 2) / 5)
        for own, other, norm in zip(self.own, self.other, self.norms, strict=True):
            x = x + self.activation(norm(own(x) + other(adjacency @ x) / 5))
        out: Tensor = self.head(torch.cat([x.mean(1), x.amax(1)], 1))
        return out


WORKLOADS: list[type[Workload]] = [Clicks, Graphs]
