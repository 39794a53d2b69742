"""Sharding a batch over the ranks of a sequence, and what attention must know of it.

All ranks of a sequence read the same rows, so slicing needs no collective. Labels are shifted
*before* slicing: shifting afterwards would lose the label of every shard's last token. A row whose
length does not divide is padded at its end with tokens that have no label and are a document of
their own.

The loss of a step is the sum of the cross entropies of all ranks over the number of valid labels of
the whole step. ``n_valid`` is that number for one batch; gradients are then *summed* over ranks,
and no factor of the number of ranks appears anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from sharpen.core.errors import ConfigError, DataError, did_you_mean
from sharpen.train.comm import Axis
from sharpen.train.loss import IGNORE
from sharpen.train.sp.block import InnerAttention, check_inputs
from sharpen.train.sp.fpdt import ChunkPlan, Project, attend_in_chunks, project_in_chunks
from sharpen.train.sp.heads import share_heads
from sharpen.train.sp.layout import Layout, block_places, number_documents, padding_multiple
from sharpen.train.sp.ring import inner_attention
from sharpen.train.sp.ulysses import exchange_and_attend
from sharpen.train.tensor_store import TensorStore

__all__ = ["SPContext", "SequenceAttention", "shard_sequence"]

_PADDING = -1  # document id


@dataclass(frozen=True, slots=True)
class _Batch:
    """The batch that was sharded last."""

    rows: int
    length: int
    """Tokens of a row, padding included."""
    longest: int
    """Largest position of any rank, plus one."""
    positions: Tensor
    """[B, T], this rank's."""
    doc_ids: Tensor
    """[B, T], this rank's."""
    documents: Tensor | None
    """[B, s], numbered."""
    n_valid: int
    padded: float


class SPContext:
    """The ranks that share a sequence, and the batch at hand.

    Args:
        mesh: the device mesh; an axis it lacks has one rank. None for one process.
        sp_axis: name of the axis whose ranks exchange heads.
        ring_axis: name of the axis whose ranks pass keys and values on.
        layout: of a ring's blocks; ``auto`` is zigzag when the ring has more than one rank.
        chunks: parts of a rank's tokens that exchange heads and attend one after the other
            (:mod:`sharpen.train.sp.fpdt`); without a ring.
        store: where chunks wait for the backward pass; None keeps them.

    Attributes:
        sp: the exchange's ranks, with an account of what they send.
        ring: the ring's ranks, the same.
        layout: of the ring's blocks.

    Raises:
        ConfigError: the mesh has names, and neither axis is among them; chunks and a ring.
    """

    def __init__(
        self,
        mesh: DeviceMesh | None = None,
        *,
        sp_axis: str = "sp",
        ring_axis: str = "ring",
        layout: Literal["auto", "contiguous", "zigzag"] = "auto",
        chunks: int = 1,
        store: TensorStore | None = None,
    ) -> None:
        names = () if mesh is None else mesh.mesh_dim_names or ()
        if mesh is not None and not {sp_axis, ring_axis} & set(names):
            raise ConfigError(
                f"the mesh has the axes {list(names)}, and neither '{sp_axis}' nor '{ring_axis}'. "
                "Name one of them in mesh_dim_names, or say which axis shares a sequence: sp_axis=."
            )
        self.sp, self.ring = (
            Axis(None if mesh is None or name not in names else mesh[name].get_group(), name)
            for name in (sp_axis, ring_axis)
        )
        chosen = layout
        if layout == "auto":
            chosen = "zigzag" if self.ring.size > 1 else "contiguous"
        if chosen not in ("contiguous", "zigzag"):
            raise ConfigError(f"layout={layout!r} must be 'auto', 'contiguous' or 'zigzag'.")
        self.layout: Layout = "zigzag" if chosen == "zigzag" else "contiguous"
        if chunks < 1 or (self.ring.size > 1 and chunks > 1):
            raise ConfigError(
                f"chunks={chunks} must be 1 in a ring of {self.ring.size} ranks, and at least 1 "
                "without one."
            )
        self.chunks, self.store = chunks, store
        self._batch: _Batch | None = None

    @property
    def size(self) -> int:
        """Ranks that share a sequence."""
        return self.sp.size * self.ring.size

    @property
    def multiple(self) -> int:
        """What the length of a row must be a multiple of."""
        return padding_multiple(self.sp.size, self.ring.size, self.layout)

    @property
    def positions(self) -> Tensor:
        """Positions of this rank's tokens, [b, t] int64."""
        return self._current.positions

    @property
    def doc_ids(self) -> Tensor:
        """Document of each of this rank's tokens, [b, t] int64; -1 for padding."""
        return self._current.doc_ids

    @property
    def n_valid(self) -> int:
        """Valid labels of the whole batch, all ranks of the sequence included."""
        return self._current.n_valid

    @property
    def padded(self) -> float:
        """Share of the batch's tokens that only pad it to a multiple."""
        return self._current.padded

    @property
    def longest(self) -> int:
        """Largest position in the batch, on any rank, plus one."""
        return self._current.longest

    @property
    def _current(self) -> _Batch:
        if self._batch is None:
            raise ConfigError("no batch is sharded yet: call shard_sequence(batch, ctx) first.")
        return self._batch

    def places(self, length: int) -> Tensor:
        """Places in the whole sequence of this rank's tokens, [length / size] int64.

        Args:
            length: tokens of the whole sequence.
        """
        block = block_places(length, self.ring.size, self.ring.rank, self.layout)
        if block.shape[0] % self.sp.size:
            raise ConfigError(
                f"a sequence of {length} tokens does not divide over {self.sp.size} x "
                f"{self.ring.size} ranks. Pad it to a multiple of {self.multiple}: "
                "shard_sequence(..., pad_to_multiple=True)."
            )
        return block.chunk(self.sp.size)[self.sp.rank]

    def attention(self, shape: Sequence[int]) -> SequenceAttention:
        """Attention for the batch at hand; stays right for it when another is sharded.

        Args:
            shape: rows and tokens of what the model was given, to see that it is this rank's part.

        Raises:
            ConfigError: it is not.
        """
        batch = self._current
        local = (batch.rows, batch.length // self.size)
        if tuple(shape) != local:
            raise ConfigError(
                f"the model got tokens of the shape {list(shape)}, and this rank's part of the "
                f"batch has {list(local)}. Give it what shard_sequence(batch, ctx) returned; to "
                "run it on whole sequences, take its context off first."
            )
        return SequenceAttention(
            self.sp, self.ring, self.layout, batch, min(self.chunks, local[1]), self.store
        )


class SequenceAttention:
    """Attention over the sharded rows of one batch, for all layers.

    What each layer attends to is worked out once for layers that are alike.
    """

    def __init__(
        self,
        sp: Axis,
        ring: Axis,
        layout: Layout,
        batch: _Batch,
        chunks: int = 1,
        store: TensorStore | None = None,
    ) -> None:
        self._sp, self._ring, self._layout, self._batch = sp, ring, layout, batch
        self._chunks, self._store = chunks, store
        self._known: dict[tuple[Any, ...], InnerAttention] = {}
        self._plans: dict[tuple[Any, ...], ChunkPlan] = {}

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = True,
        window: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Attention of this rank's tokens to all that they see.

        Args:
            q: [b, t, n_h, d], turned by the global positions.
            k: [b, t, n_kv, d], the same.
            v: [b, t, n_kv, d].
            causal: a token sees no later one.
            window: tokens seen at most on each side, the own one included; None for all.
            scale: of the scores; default 1 / sqrt(d).

        Returns:
            [b, t, n_h, d].
        """
        check_inputs(q, k, v, window)
        key = (q.shape[2], k.shape[2], causal, window, scale, q.device)
        if self.chunked:
            return attend_in_chunks(q, k, v, self._plan(key), self._store)
        if key not in self._known:
            shares = share_heads(q.shape[2], k.shape[2], self._sp.size)
            self._known[key] = inner_attention(
                self._ring,
                length=self._batch.length,
                rows=self._batch.rows,
                layout=self._layout,
                documents=self._batch.documents,
                causal=causal,
                window=window,
                scale=scale,
                kv_index=shares[self._sp.rank].kv_index(q.device),
            )
        return exchange_and_attend(q, k, v, self._sp, self._known[key])

    @property
    def chunked(self) -> bool:
        """Whether tokens are projected, exchanged and attended in chunks: :meth:`projected`."""
        return self._chunks > 1

    @property
    def stored(self) -> bool:
        """Whether chunks wait in a store for the backward pass."""
        return self.chunked and self._store is not None

    def projected(
        self, x: Tensor, project: Project, heads: tuple[int, int], *, window: int | None = None
    ) -> Tensor:
        """Causal attention whose queries, keys and values exist for one chunk at a time.

        Args:
            x: [b, t, H], this rank's tokens.
            project: q [b, c, n_h, d] and k, v [b, c, n_kv, d] of a chunk [b, c, H] of them, and a
                slice that says which.
            heads: n_h and n_kv.
            window: as for a call.

        Returns:
            [b, t, n_h, d].
        """
        plan = self._plan((*heads, True, window, None, x.device))
        return project_in_chunks(x, project, plan, self._store)

    def _plan(
        self, key: tuple[int, int, bool, int | None, float | None, torch.device]
    ) -> ChunkPlan:
        heads, kv_heads, causal, window, scale, device = key
        if key not in self._plans:
            self._plans[key] = ChunkPlan(
                (self._batch.rows, self._batch.length // self._sp.size, heads, kv_heads),
                self._sp,
                self._chunks,
                self._batch.documents,
                causal=causal,
                window=window,
                scale=scale,
                device=device,
            )
        return self._plans[key]


def shard_sequence(
    batch: Mapping[str, Any],
    ctx: SPContext,
    pad_to_multiple: bool = True,
    *,
    keys: Sequence[str] | None = None,
    replicate_keys: Sequence[str] = (),
) -> dict[str, Any]:
    """This rank's part of a batch, whose whole every rank of the sequence has.

    Understands ``input_ids`` (or ``inputs_embeds``), ``labels`` (of the same token, as Hugging Face
    models take them), ``shift_labels`` (of the next token already), ``position_ids``,
    ``document_ids`` and ``attention_mask`` (0 is padding); other tensors [b, s, ...] are sliced as
    they are. Position and document ids are made where they are missing; positions that start anew
    within a row begin a document.

    Args:
        batch: tensors by name.
        ctx: the ranks; learns positions, documents and the number of valid labels.
        pad_to_multiple: pad rows whose length does not divide; otherwise they are an error.
        keys: entries to slice; default all that are not replicated. Others are left out.
        replicate_keys: entries that every rank gets whole.

    Returns:
        This rank's tensors [b, t, ...]: ``position_ids`` and ``document_ids`` (-1 for padding)
        always, ``shift_labels`` in place of ``labels``, no ``attention_mask``.

    Raises:
        DataError: an entry is no tensor [b, s, ...] and not among ``replicate_keys``.
        ConfigError: the length does not divide and ``pad_to_multiple`` is off; an unknown key.
    """
    for name in (*(keys or ()), *replicate_keys):
        if name not in batch:
            raise ConfigError(f"the batch has no entry '{name}'.{did_you_mean(name, batch)}")
    chosen = [name for name in (batch if keys is None else keys) if name not in replicate_keys]
    rows = {name: batch[name] for name in chosen}
    shape = _shape(rows)
    length = shape[1]
    if pad_to_multiple:
        length = -(-length // ctx.multiple) * ctx.multiple
    places = ctx.places(length)
    documents, positions = _documents(rows, shape)
    if "labels" in rows:
        if "shift_labels" in rows:
            raise DataError("the batch has both 'labels' and 'shift_labels'. Keep one of them.")
        rows["shift_labels"] = _shifted(rows.pop("labels"), documents)
    rows.pop("attention_mask", None)
    spare = length - shape[1]
    more = torch.arange(1, spare + 1, device=positions.device)
    positions = torch.cat([positions, positions[:, -1:] + more], 1)
    documents = F.pad(documents, (0, spare), value=_PADDING)
    rows |= {"position_ids": positions, "document_ids": documents}
    n_valid = int((rows["shift_labels"] != IGNORE).sum()) if "shift_labels" in rows else 0
    local = {}
    for name, whole in rows.items():
        fill = IGNORE if name == "shift_labels" else 0
        blank = (0, 0) * (whole.ndim - 2) + (0, length - whole.shape[1])
        local[name] = F.pad(whole, blank, value=fill).index_select(1, places.to(whole.device))
    ctx._batch = _Batch(
        rows=shape[0],
        length=length,
        longest=int(positions.max()) + 1,
        positions=local["position_ids"],
        doc_ids=local["document_ids"],
        documents=number_documents(documents, None),
        n_valid=n_valid,
        padded=spare / length,
    )
    return {**local, **{name: batch[name] for name in replicate_keys}}


def _shape(rows: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and tokens, which all entries must have."""
    first = next((name for name in ("input_ids", "inputs_embeds") if name in rows), None)
    if first is None:
        raise DataError(
            f"the batch has {sorted(rows)}, and neither 'input_ids' nor 'inputs_embeds' is sliced."
        )
    shape = tuple(rows[first].shape[:2])
    for name, value in rows.items():
        if not isinstance(value, Tensor) or tuple(value.shape[:2]) != shape or len(shape) != 2:
            what = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise DataError(
                f"the batch's '{name}' is {what}; '{first}' has {shape} rows and tokens. Name what "
                "every rank needs whole: replicate_keys=[...]."
            )
    if not shape[0] or not shape[1]:
        raise DataError(f"the batch's '{first}' has the shape {list(shape)}: it holds no tokens.")
    return shape[0], shape[1]


def _documents(rows: Mapping[str, Tensor], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Document and position ids, each [b, s], given or made."""
    device = next(iter(rows.values())).device
    positions, documents = rows.get("position_ids"), rows.get("document_ids")
    if documents is None:
        numbers = number_documents(None, positions)
        documents = torch.zeros(shape, dtype=torch.int64) if numbers is None else numbers
        documents = documents.to(device)
    mask = rows.get("attention_mask")
    if mask is not None:
        documents = documents.masked_fill(mask == 0, _PADDING)
    if positions is None:
        at = torch.arange(shape[1], device=device)
        begins = F.pad(documents.diff(dim=1) != 0, (1, 0), value=True)
        positions = at - torch.where(begins, at, 0).cummax(1).values
    return documents, positions


def _shifted(labels: Tensor, documents: Tensor) -> Tensor:
    """The label of the next token, where that is of the same document."""
    following = F.pad(labels[:, 1:], (0, 1), value=IGNORE)
    same = F.pad(documents.diff(dim=1) == 0, (0, 1), value=False)
    return following.masked_fill(~same, IGNORE)
