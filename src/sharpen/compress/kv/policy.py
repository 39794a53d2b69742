"""The contract of a policy: a score for every stored key and value, by which some are kept.

A sequence is computed in parts. For each part, layer by layer, a policy is shown what attention
sees (:class:`~sharpen.models.paged.Seen`) and brings the scores [K, S] of all units up to date. At
a border (``plan.py``) every head keeps its ``budget`` units of highest rank, in their order.

Legend: K key/value heads, S stored units, C tokens of a part, N query heads, D head size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from sharpen.compress.kv.plan import EvictionConfig, EvictionPlan
from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import ModelSpec
from sharpen.models.paged import Seen

__all__ = ["KVPolicy", "attention_mass", "keep_newest", "on_grid", "select"]

_ROWS = 64  # queries whose attention is held at once
_GRID = 1024


class KVPolicy(ABC):
    """Decides what stays in the cache. One policy serves any number of sequences.

    Args:
        config: how much stays.
    """

    name: ClassVar[str]
    """Short name, as in ``kv_policy="snapkv"``."""

    is_causal: ClassVar[bool] = True
    """Whether the score of a token never changes with those after it."""

    def __init__(self, config: EvictionConfig | None = None) -> None:
        self.config = config or EvictionConfig()

    def check(self, spec: ModelSpec) -> None:
        """Refuse a model that the policy cannot serve.

        Raises:
            ConfigError: some layers have a sliding window, whose reach is counted in slots.
        """
        if any(spec.slides(layer) for layer in range(spec.num_layers)):
            raise ConfigError(
                f"the KV policy '{self.name}' drops units, and this model has layers with a "
                "sliding window, which already bounds them. Take kv_policy='full'."
            )

    def plan(self, prompt_tokens: int) -> EvictionPlan:
        """When a prompt of so many tokens drops units."""
        return self.config.plan(prompt_tokens)

    @abstractmethod
    def score(self, past: Tensor, seen: Seen, border: int) -> Tensor:
        """Scores after a part.

        Args:
            past: [K, S - C] float32, those before it.
            seen: the part, C tokens.
            border: next position at which units are dropped.

        Returns:
            [K, S] float32; higher is kept.
        """

    def ranks(self, scores: Tensor, border: int, *, last: bool) -> Tensor:
        """[K, S] by which units are kept at a border; ``last`` is the prompt's last one."""
        stabilizers = 0 if last else self.config.num_stabilizers
        return keep_newest(scores, stabilizers)

    def carried(self, scores: Tensor) -> Tensor:
        """Scores of kept units [K, budget] as they go on after a border."""
        return scores


def keep_newest(scores: Tensor, count: int) -> Tensor:
    """Scores in which the newest ``count`` units are above all others."""
    if not count:
        return scores
    ranks = scores.clone()
    ranks[:, -count:] = torch.inf
    return ranks


def on_grid(scores: Tensor) -> Tensor:
    """Scores rounded to 1/1024, for those that depend on a token alone in the first layer.

    There the same word has the same score everywhere, but for the rounding of products, which
    depends on how many rows are multiplied at once. On a grid they are equal, so that the newest is
    kept however the text was cut into parts.
    """
    return (scores * _GRID).round() / _GRID


def select(ranks: Tensor, budget: int) -> Tensor:
    """The units that each head keeps.

    Args:
        ranks: [K, S]; of equal ones the newer is kept.
        budget: units a head, at most S.

    Returns:
        [K, budget] int64, rising: the order of time stays.

    Examples:
        >>> import torch
        >>> from sharpen.compress.kv import select
        >>> select(torch.tensor([[3.0, 1.0, 2.0, 5.0]]), 2)
        tensor([[0, 3]])
    """
    units = ranks.shape[1]
    order = ranks.flip(1).argsort(dim=1, descending=True, stable=True)[:, :budget]
    return (units - 1 - order).sort(dim=1).values


def attention_mass(seen: Seen, first: int, units: int) -> Tensor:
    """What the queries of a part give to stored units: sums of softmax weights.

    Args:
        seen: the part.
        first: queries from this row of the part on.
        units: only the first so many units are counted; all take part in the softmax.

    Returns:
        [K, units] float32, summed over queries and over the query heads of a group. Memory:
        64 N S floats.
    """
    keys = seen.keys().float()
    kv_heads, stored, size = keys.shape
    count = seen.q.shape[0]
    queries = seen.q[first:].float().view(count - first, kv_heads, -1, size).transpose(0, 1)
    slots = torch.arange(stored, device=keys.device)
    total = keys.new_zeros((kv_heads, units))
    for start in range(0, count - first, _ROWS):
        q = queries[:, start : start + _ROWS]
        logits = torch.einsum("krgd,ksd->krgs", q, keys) / size**0.5
        own = seen.slot + first + start + torch.arange(q.shape[1], device=keys.device)
        hidden = slots[None] > own[:, None]
        weights = logits.masked_fill_(hidden[None, :, None], -torch.inf).softmax(-1)
        total += weights[..., :units].sum((1, 2))
    return total
