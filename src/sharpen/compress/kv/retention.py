"""One sequence's scores, and the moves in its blocks when units are dropped.

What every head keeps is moved to the front of the sequence's blocks, in place: kept units lie
behind the places they go to, so a few hundred at a time are read and then written.

Memory: a score and a position, 8 bytes, for each unit; a move holds 256 units of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpen.compress.kv.plan import EvictionPlan
from sharpen.compress.kv.policy import KVPolicy, select
from sharpen.models.paged import PagedCache, Seen

__all__ = ["Retention", "compact"]

_STEP = 256


class Retention:
    """Watches a sequence for a policy (:class:`~sharpen.models.paged.Watcher`).

    Attributes:
        plan: when it drops units.

    Args:
        policy: decides.
        prompt_tokens: of the sequence.
        num_layers: of the model.
    """

    def __init__(self, policy: KVPolicy, prompt_tokens: int, num_layers: int) -> None:
        self.plan: EvictionPlan = policy.plan(prompt_tokens)
        self._policy = policy
        self._scores: list[Tensor | None] = [None] * num_layers
        self._positions: list[Tensor | None] = [None] * num_layers

    def watches(self, start: int) -> bool:
        """Whether a part from this position on matters to what is dropped later."""
        return start < self.plan.last_border

    def __call__(self, seen: Seen) -> None:
        """Score a part in one layer."""
        border = self.plan.next_border(seen.start)
        assert border is not None
        scores, positions = self._scores[seen.layer], self._positions[seen.layer]
        kv_heads = seen.buffers[0].shape[1]
        if scores is None or positions is None:
            device = seen.q.device
            scores = torch.empty((kv_heads, 0), device=device)
            positions = torch.empty((kv_heads, 0), dtype=torch.int32, device=device)
        new = torch.arange(seen.start, seen.start + seen.q.shape[0], device=positions.device)
        self._positions[seen.layer] = torch.cat((positions, new.int().expand(kv_heads, -1)), 1)
        self._scores[seen.layer] = self._policy.score(scores, seen, border)

    def drop(self, cache: PagedCache, blocks: Sequence[int], computed: int) -> bool:
        """Drop units if ``computed`` tokens end at a border; returns whether they did.

        Args:
            cache: where the sequence's units lie.
            blocks: its blocks.
            computed: tokens whose keys and values have been stored so far.
        """
        if not 0 < computed <= self.plan.last_border:
            return False
        if self.plan.next_border(computed - 1) != computed:
            return False
        last = computed == self.plan.last_border
        table = torch.tensor(blocks, device=cache.device)
        for layer, (scores, positions) in enumerate(
            zip(self._scores, self._positions, strict=True)
        ):
            assert scores is not None
            assert positions is not None
            ranks = self._policy.ranks(scores, computed, last=last)
            kept = select(ranks, self.plan.config.budget)
            compact(cache.buffers(layer), table, kept)
            self._scores[layer] = self._policy.carried(scores.gather(1, kept))
            self._positions[layer] = positions.gather(1, kept)
        return True

    def positions(self, layer: int) -> Tensor:
        """[K, S] int32: positions of the units that were scored and are kept.

        Units of the tokens after the last border follow them.
        """
        found = self._positions[layer]
        assert found is not None
        return found


def compact(buffers: tuple[Tensor, Tensor], table: Tensor, kept: Tensor) -> None:
    """Move kept units of a sequence to its first slots.

    Args:
        buffers: keys and values [blocks, K, B, D] of a layer.
        table: [W] int64, the sequence's blocks.
        kept: [K, M] int64, slots of each head, rising.
    """
    kv_heads, count = kept.shape
    size = buffers[0].shape[2]
    heads = torch.arange(kv_heads, device=kept.device)[:, None]
    slots = torch.arange(count, device=kept.device)
    moved = (kept != slots).any(0).nonzero()
    first = int(moved[0]) if moved.numel() else count
    for start in range(first, count, _STEP):
        source, target = kept[:, start : start + _STEP], slots[start : start + _STEP]
        for buffer in buffers:
            units = buffer[table[source // size], heads, source % size]
            buffer[table[target // size], heads, target % size] = units
