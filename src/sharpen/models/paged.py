"""Keys and values in blocks, and a forward pass over parts of any sequences.

A cache is one tensor [blocks, K, B, D] of keys and one of values a layer. A sequence has a table of
the blocks that hold its tokens, B each (Kwon et al., PagedAttention, SOSP 2023, arXiv 2309.06180).
A batch is a list of parts: the next tokens of a sequence, one or many, after those that are stored.
All rows of all parts go through the products together, without padding. So they go through
attention in bfloat16 where the processor multiplies it; elsewhere parts of a few tokens go by rows
and longer ones by part.

A sequence may have dropped keys and values of tokens, as many in every layer and head: those left
lie together at the front of its blocks, in order, and the next ones follow them. A token keeps its
position in the text, by which queries and keys are turned, while its slot is by ``dropped`` less.

Memory: 2 L B K D e bytes a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models.adapters import Adapter, AdapterRows
from sharpen.models.huge_tensors import huge_zeros
from sharpen.models.rope import Rope
from sharpen.models.step import Rows, Span, TorchStep, gathered

__all__ = ["PagedCache", "PagedContext", "PagedPart", "Seen", "Watcher"]

_FEW = 8  # tokens of a part up to which each row attends for itself


class PagedCache:
    """Keys and values [blocks, K, B, D] of every layer.

    Args:
        spec: the model's shape.
        num_blocks: blocks.
        block_size: B, tokens a block.
        dtype: of keys and values.
        device: where they lie.
    """

    def __init__(
        self,
        spec: ModelSpec,
        num_blocks: int,
        block_size: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.device = torch.device(device)
        shape = (num_blocks, spec.num_kv_heads, block_size, spec.head_dim)
        self._buffers = [
            (_zeros(shape, dtype, self.device), _zeros(shape, dtype, self.device))
            for _ in range(spec.num_layers)
        ]

    @staticmethod
    def block_bytes(spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
        """Bytes of a block in all layers."""
        return 2 * spec.num_layers * block_size * spec.kv_size * dtype.itemsize

    def buffers(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, to be written in place."""
        return self._buffers[layer]

    def copy(self, source: int, target: int) -> None:
        """Copy what one block holds to another."""
        for pair in self._buffers:
            for buffer in pair:
                buffer[target] = buffer[source]


def _zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return huge_zeros(shape, dtype)
    return torch.zeros(shape, dtype=dtype, device=device)


@dataclass(frozen=True, slots=True)
class Seen:
    """What attention of one layer had before it, for one part of C tokens."""

    layer: int

    start: int
    """Position of the part's first token."""

    slot: int
    """Its slot: keys and values stored before it."""

    qkv: Tensor
    """[C, (N + 2 K) D]: the projections, neither normed nor turned."""

    q: Tensor
    """[C, N, D]: queries, normed and turned."""

    table: Tensor
    """[W] int32: the sequence's blocks."""

    buffers: tuple[Tensor, Tensor]
    """Keys and values [blocks, K, B, D]; those of the part are stored."""

    @property
    def stored(self) -> int:
        """S, slots in use, the part's included."""
        return self.slot + self.q.shape[0]

    def keys(self) -> Tensor:
        """[K, S, D]: all that are stored, normed and turned."""
        size = self.buffers[0].shape[2]
        tables = self.table[None, : -(-self.stored // size)]
        return gathered(self.buffers[0], tables)[0, :, : self.stored]


class Watcher(Protocol):
    """Is shown what every layer does for a part, in the order of the layers."""

    def __call__(self, seen: Seen) -> None:
        """One layer; the tensors are only valid during the call."""


@dataclass(frozen=True, slots=True)
class PagedPart:
    """The next tokens of a sequence."""

    ids: Sequence[int]
    """At least one."""

    start: int
    """Position of the first one: tokens before it."""

    blocks: Sequence[int]
    """The sequence's blocks, those of these tokens included."""

    wanted: int = 1
    """Of the last so many tokens, logits are wanted."""

    dropped: int = 0
    """Of the tokens before it, those whose keys and values are no longer stored."""

    watcher: Watcher | None = None
    """Is shown what the layers do for it."""

    adapter: Adapter | None = None
    """What is added to the model for it."""


@dataclass(frozen=True, slots=True)
class PagedContext:
    """What every block of the model needs in one pass over T rows."""

    ids: Tensor
    """[T] int64."""
    wanted: Tensor
    """[M] int64: rows whose logits are wanted, in the order of the parts."""
    cos: Tensor
    """[T, 1, D/2] float32."""
    sin: Tensor
    cache: PagedCache
    rows: Rows
    """Of all rows; those of short parts come first."""
    few: Rows
    """Of the short parts alone."""
    spans: tuple[Span, ...]
    """The long parts."""
    watched: tuple[tuple[Span, Watcher], ...]
    """Parts of any length that somebody watches."""
    adapted: tuple[AdapterRows, ...]
    """Rows of adapters; those of one are together, short parts and long ones apart."""

    @classmethod
    def of(cls, parts: Sequence[PagedPart], cache: PagedCache, rope: Rope) -> PagedContext:
        """Lay parts out."""
        order = sorted(
            range(len(parts)), key=lambda i: (len(parts[i].ids) > _FEW, id(parts[i].adapter))
        )
        width, size = max(len(part.blocks) for part in parts), cache.block_size
        ids: list[int] = []
        places: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        sequences: list[int] = []
        padded = [[*parts[i].blocks, *[0] * (width - len(parts[i].blocks))] for i in order]
        device = cache.device
        tables = torch.tensor(padded, dtype=torch.int32, device=device)
        wanted: list[list[int]] = [[] for _ in parts]
        spans = []
        watched = []
        num_few = 0
        for number, i in enumerate(order):
            part = parts[i]
            count, first, blocks = len(part.ids), len(ids), part.blocks
            ids += part.ids
            slot = part.start - part.dropped
            span = range(slot, slot + count)
            positions += range(part.start, part.start + count)
            slots += span
            places += [blocks[p // size] * size + p % size for p in span]
            sequences += [number] * count
            wanted[i] = list(range(first + count - part.wanted, first + count))
            one = Span(first, count, part.start, slot, tables[number])
            if count > _FEW:
                spans.append(one)
            else:
                num_few = len(ids)
            if part.watcher is not None:
                watched.append((one, part.watcher))
        at = torch.tensor(positions, device=device)
        cos, sin = rope(at[None], max(positions) + 1, torch.float32)
        rows = Rows(
            places=torch.tensor(places, device=device),
            tables=tables,
            sequences=torch.tensor(sequences, dtype=torch.int32, device=device),
            positions=torch.tensor(slots, dtype=torch.int32, device=device),
        )
        few = Rows(
            rows.places[:num_few], tables, rows.sequences[:num_few], rows.positions[:num_few]
        )
        return cls(
            ids=torch.tensor(ids, device=device),
            wanted=torch.tensor(
                [row for one in wanted for row in one], dtype=torch.int64, device=device
            ),
            cos=cos[0],
            sin=sin[0],
            cache=cache,
            rows=rows,
            few=few,
            spans=tuple(spans),
            watched=tuple(watched),
            adapted=_adapted([parts[i] for i in order]),
        )

    def is_plain(self, fused: TorchStep) -> bool:
        """Whether a pass is the same for all rows, and nobody watches or adds to it."""
        plain = not self.spans or fused.rows_are_enough
        return plain and not self.watched and not self.adapted

    def attend(
        self,
        fused: TorchStep,
        qkv: Tensor,
        norms: tuple[Tensor, Tensor] | None,
        layer: int,
        window: int | None,
    ) -> Tensor:
        """[T, (N + 2 K) D] -> [T, N D]; keys and values go into the cache."""
        buffers = self.cache.buffers(layer)
        q = fused.turn_rows(qkv, norms, self.cos, self.sin, buffers, self.rows)
        for one, watcher in self.watched:
            at = slice(one.first, one.first + one.count)
            watcher(Seen(layer, one.start, one.slot, qkv[at], q[at], one.table, buffers))
        num_few = self.few.places.shape[0]
        if not self.spans or fused.rows_are_enough:
            return fused.attend_rows(q, buffers, self.rows, window)
        out = fused.attend_spans(q[num_few:], buffers, self.spans, window)
        if not num_few:
            return out
        return torch.cat((fused.attend_rows(q[:num_few], buffers, self.few, window), out))


def _adapted(parts: Sequence[PagedPart]) -> tuple[AdapterRows, ...]:
    """Runs of rows with the same adapter."""
    found: list[AdapterRows] = []
    first = 0
    for part in parts:
        end = first + len(part.ids)
        if part.adapter is not None:
            last = found[-1] if found else None
            if last is not None and last.adapter is part.adapter and last.rows.stop == first:
                found[-1] = AdapterRows(part.adapter, slice(last.rows.start, end))
            else:
                found.append(AdapterRows(part.adapter, slice(first, end)))
        first = end
    return tuple(found)
