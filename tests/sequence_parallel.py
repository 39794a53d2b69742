"""What the ranks of sequence-parallel tests run, and the attention they are compared with."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from sharpen.train.comm import Axis
from sharpen.train.sp import fpdt_attention, ring_attention, ulysses_attention, usp_attention
from sharpen.train.sp.layout import block_places
from sharpen.train.tensor_store import FileStore


@dataclass(frozen=True)
class Case:
    heads: int = 4
    kv_heads: int = 2
    tokens: int = 6
    """Of a rank."""
    batch: int = 2
    size: int = 8
    causal: bool = True
    window: int | None = None
    documents: tuple[int, ...] = ()
    """Places where a new document begins in the first row; the second row has the first of them."""
    scale: float | None = None
    local_ids: bool = False
    """Give only this rank's document ids."""
    by_positions: bool = False
    """Give positions instead of document ids."""
    layout: str = "contiguous"
    dtype: torch.dtype = torch.float64

    def document_ids(self, length: int) -> Tensor | None:
        if not self.documents:
            return None
        ids = torch.zeros(self.batch, length, dtype=torch.int64)
        for row in range(self.batch):
            for start in self.documents[: len(self.documents) if row == 0 else 1]:
                ids[row, start:] += 1
        return ids


def positions_of(ids: Tensor) -> Tensor:
    """0, 1, ... within runs of equal ids."""
    positions = torch.zeros_like(ids)
    for i in range(1, ids.shape[1]):
        positions[:, i] = torch.where(ids[:, i] == ids[:, i - 1], positions[:, i - 1] + 1, 0)
    return positions


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    scale: float | None = None,
    documents: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T scale) v of [b, s, heads, d] with one mask of the whole sequence."""
    heads, kv_heads, length = q.shape[2], k.shape[2], q.shape[1]
    index = torch.arange(heads) * kv_heads // heads
    k, v = k[:, :, index], v[:, :, index]
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (scale or 1 / math.sqrt(q.shape[3]))
    at = torch.arange(length)
    distance = at[:, None] - at
    seen = torch.ones(1, length, length, dtype=torch.bool)
    if causal:
        seen = seen & (distance >= 0)
    if window is not None:
        seen = seen & (distance.abs() < window)
    if documents is not None:
        seen = seen & (documents[:, :, None] == documents[:, None])
    weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


def whole_inputs(case: Case, length: int) -> list[Tensor]:
    """q, k, v and the weight of each output in the loss, in float64."""
    generator = torch.Generator().manual_seed(length + 100 * case.heads)
    counts = case.heads, case.kv_heads, case.kv_heads, case.heads
    shapes = [(case.batch, length, n, case.size) for n in counts]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def errors(
    case: Case,
    sp: Axis,
    ring: Axis,
    *,
    technique: str,
    chunks: int = 1,
    store: FileStore | None = None,
) -> list[float]:
    """Largest differences to one process: of the output and of the gradients of q, k and v."""
    length = case.tokens * sp.size * ring.size
    q, k, v, weight = whole_inputs(case, length)
    ids = case.document_ids(length)
    exact = [x.clone().requires_grad_() for x in (q, k, v)]
    expected = attention(
        *exact, causal=case.causal, window=case.window, scale=case.scale, documents=ids
    )
    (expected * weight).sum().backward()
    block = block_places(length, ring.size, ring.rank, case.layout)
    mine = block[sp.rank * case.tokens : (sp.rank + 1) * case.tokens]
    local = [x[:, mine].to(case.dtype).requires_grad_() for x in (q, k, v)]
    options = {"causal": case.causal, "window": case.window, "scale": case.scale}
    if ids is not None:
        given = positions_of(ids) if case.by_positions else ids
        given = given[:, mine] if case.local_ids else given
        options["positions" if case.by_positions else "doc_ids"] = given
    if technique == "ulysses":
        found = ulysses_attention(*local, group=sp, **options)
    elif technique == "ring":
        found = ring_attention(*local, group=ring, layout=case.layout, **options)
    elif technique == "fpdt":
        chunks = min(chunks, case.tokens)
        found = fpdt_attention(*local, group=sp, chunks=chunks, store=store, **options)
    else:
        found = usp_attention(*local, sp_group=sp, ring_group=ring, layout=case.layout, **options)
    assert found.dtype == case.dtype
    (found * weight[:, mine].to(case.dtype)).sum().backward()
    pairs = [(found, expected), *((a.grad, b.grad) for a, b in zip(local, exact, strict=True))]
    return [float((a.detach().double() - b.detach()[:, mine]).abs().max()) for a, b in pairs]


Plan = tuple[str, str, tuple[int, int]]
"""Technique, layout, and degrees ``(ring, sp)``."""


def check(
    plans: list[Plan], heads: list[tuple[int, int]]
) -> dict[Plan, tuple[list[list[float]], list[tuple[int, int, int, int]]]]:
    """Errors of the grid and bytes sent, for each plan."""
    found = {}
    for technique, layout, degrees in plans:
        mesh = init_device_mesh("cpu", degrees, mesh_dim_names=("ring", "sp"))
        shared = degrees != (1, 3)  # three ranks do without shared memory
        ring, sp = (
            Axis(mesh[name].get_group(), name, shared_memory=shared) for name in ("ring", "sp")
        )
        measured = [errors(case, sp, ring, technique=technique) for case in grid(layout)]
        sent = [sent_bytes(pair, technique, sp, ring) for pair in heads]
        found[technique, layout, degrees] = measured, sent
    return found


def sent_bytes(
    heads: tuple[int, int], technique: str, sp: Axis, ring: Axis
) -> tuple[int, int, int, int]:
    """Bytes sent for a row of 6 bfloat16 tokens a rank and heads of 8 numbers.

    By the exchange of heads forward and backward, by the ring forward and backward.
    """
    q, k, v = (
        torch.randn(1, 6, n, 8, dtype=torch.bfloat16, requires_grad=True)
        for n in (heads[0], heads[1], heads[1])
    )
    sp.reset()
    ring.reset()
    if technique == "ulysses":
        out = ulysses_attention(q, k, v, group=sp, causal=True)
    elif technique == "ring":
        out = ring_attention(q, k, v, group=ring, causal=True)
    else:
        out = usp_attention(q, k, v, sp_group=sp, ring_group=ring, causal=True)
    forward = sp.bytes_sent, ring.bytes_sent
    sp.reset()
    ring.reset()
    out.sum().backward()
    return forward[0], sp.bytes_sent, forward[1], ring.bytes_sent


GRID = [
    Case(heads=9, kv_heads=3),
    Case(heads=7, kv_heads=7, causal=False),
    Case(heads=40, kv_heads=8, tokens=3, size=4),
    Case(heads=8, kv_heads=2, window=5),
    Case(heads=8, kv_heads=2, window=5, causal=False),
    Case(heads=9, kv_heads=3, documents=(4, 5)),
    Case(heads=9, kv_heads=3, documents=(1, 3, 5), causal=False, local_ids=True),
    Case(heads=5, kv_heads=2, documents=(2, 4), window=3, by_positions=True),
    Case(heads=5, kv_heads=1, documents=(3,), by_positions=True, local_ids=True, batch=1),
    Case(heads=1, kv_heads=1, tokens=1, batch=1),
    Case(heads=3, kv_heads=2, scale=0.3),
    Case(heads=2, kv_heads=2, tokens=300, batch=1, size=4, window=270),
]


def grid(layout: str = "contiguous") -> list[Case]:
    """Every case in float64, and then in float32; with documents that fit the zigzag too."""
    cases = [replace(case, layout=layout) for case in GRID]
    if layout == "zigzag":
        cases = [replace(case, tokens=case.tokens + case.tokens % 2) for case in cases]
    return cases + [replace(case, dtype=torch.float32) for case in cases]
