"""USP: an exchange of heads inside, a ring outside.

Fang & Zhao, *USP: a unified sequence parallelism approach for long context generative AI*, 2024,
arXiv 2405.07719. P x R ranks share a sequence. The ring cuts it into R blocks, and the P ranks of
an exchange hold equal parts of a block, in order::

    q, k, v [b, s/(PR), all heads, d] -> exchange: [b, s/R, own heads, d] -> ring -> exchange back

The number of heads limits P only; keys and values cross the ring with the rank's own heads, so the
slow links carry 1/P of what a ring of P R ranks would send.

Differs from the paper: as :mod:`sharpen.train.sp.ulysses` and :mod:`sharpen.train.sp.ring`.

Bytes: those of Ulysses over P with T = s/(P R), and of a ring over R with T = s/R and the rank's
g_r key heads.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from sharpen.train.comm import Axis
from sharpen.train.sp.block import check_inputs
from sharpen.train.sp.heads import share_heads
from sharpen.train.sp.layout import Layout, gather_documents
from sharpen.train.sp.ring import inner_attention
from sharpen.train.sp.ulysses import exchange_and_attend

__all__ = ["auto", "usp_attention"]


def usp_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    sp_group: dist.ProcessGroup | Axis | None,
    ring_group: dist.ProcessGroup | Axis | None,
    causal: bool,
    layout: Layout = "contiguous",
    window: int | None = None,
    scale: float | None = None,
    positions: Tensor | None = None,
    doc_ids: Tensor | None = None,
) -> Tensor:
    """Attention over a sequence whose tokens lie on the ranks of a ring of exchanges.

    Args:
        q: [b, s/(P R), n_h, d], this rank's tokens; the same shape on every rank.
        k: [b, s/(P R), n_kv, d]; any number of heads up to n_h. Query head i uses key head
            i n_kv // n_h.
        v: [b, s/(P R), n_kv, d].
        sp_group: the P ranks that exchange heads; an :class:`~sharpen.train.comm.Axis` keeps
            account of what is sent.
        ring_group: the R ranks that pass keys and values on; the same.
        causal: a token sees no later one.
        layout: how the ring cuts the sequence. ``zigzag`` gives every rank equal causal work.
        window: tokens seen at most on each side, the own one included; None for all.
        scale: of the scores; default 1 / sqrt(d).
        positions: [b, s/(P R)] or [b, s], position ids; where they do not grow by one a new
            document begins. Only when ``doc_ids`` is not given.
        doc_ids: [b, s/(P R)], or [b, s] in order, which saves collectives: equal within a
            document. A token sees its own document only.

    Returns:
        [b, s/(P R), n_h, d] in the type of ``q``. First derivatives only.

    Raises:
        ConfigError: shapes, types or options do not fit.
        ExecutionError: another rank failed.

    References:
        Fang & Zhao, 2024, arXiv 2405.07719.
    """
    check_inputs(q, k, v, window)
    sp, ring = Axis.of(sp_group, "sp"), Axis.of(ring_group, "ring")
    documents = gather_documents(doc_ids, positions, q.shape[1], sp, ring, layout)
    shares = share_heads(q.shape[2], k.shape[2], sp.size)
    inner = inner_attention(
        ring,
        length=q.shape[1] * sp.size * ring.size,
        rows=q.shape[0],
        layout=layout,
        documents=documents,
        causal=causal,
        window=window,
        scale=scale,
        kv_index=shares[sp.rank].kv_index(q.device),
    )
    return exchange_and_attend(q, k, v, sp, inner)


def auto(num_heads: int, num_kv_heads: int, world: int, intra_node: int) -> tuple[int, int]:
    """How many ranks should exchange heads, and how many rings these form.

    The largest divisor of ``world`` that fits a machine and splits the heads evenly; the rest is
    the ring.

    Args:
        num_heads: query heads.
        num_kv_heads: key/value heads.
        world: ranks that share a sequence.
        intra_node: ranks with fast links, usually those of one machine.

    Returns:
        Degrees ``(sp, ring)`` whose product is ``world``.
    """
    even = [
        n
        for n in range(1, min(world, intra_node) + 1)
        if world % n == 0
        and num_heads % n == 0
        and (num_kv_heads % n == 0 or n % num_kv_heads == 0)
    ]
    sp = max(even)
    return sp, world // sp
