"""Where the tokens of a sharded sequence lie, and which documents they belong to.

A *place* is a token's index in the whole sequence of s tokens. A ring of R ranks cuts it into
blocks, and the P ranks of an exchange of heads cut each block into equal parts, in order::

    contiguous   block r holds the places [r s/R, (r+1) s/R)
    zigzag       the sequence is cut into 2R chunks and block r holds the chunks r and 2R-1-r,
                 so that causal attention is the same work for every block

Places within a block grow in both layouts. Documents are numbered by runs in the whole sequence, so
the number grows with the place too.

Legend: B batch, s tokens of the whole sequence, T tokens of a rank.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.train.comm import Axis

__all__ = [
    "Layout",
    "block_places",
    "gather_documents",
    "number_documents",
    "padding_multiple",
]

Layout = Literal["contiguous", "zigzag"]


def padding_multiple(sp: int, ring: int, layout: Layout) -> int:
    """What the length of a sequence must be a multiple of.

    Args:
        sp: ranks that exchange heads.
        ring: ranks of the ring.
        layout: of the ring's blocks.
    """
    return sp * ring if layout == "contiguous" else ring * (sp if sp % 2 == 0 else 2 * sp)


def block_places(length: int, ring: int, rank: int, layout: Layout) -> Tensor:
    """Places of one block, growing: [length / ring] int64.

    Raises:
        ConfigError: the length does not divide, or the layout is unknown.
    """
    if layout not in ("contiguous", "zigzag"):
        raise ConfigError(f"layout={layout!r} must be 'contiguous' or 'zigzag'.")
    chunks = ring if layout == "contiguous" else 2 * ring
    if length % chunks:
        raise ConfigError(
            f"a sequence of {length} tokens does not divide into {chunks} chunks ({layout} over "
            f"{ring} ranks). Pad it to a multiple: shard_sequence(..., pad_to_multiple=True)."
        )
    size = length // chunks
    own = [rank] if layout == "contiguous" else [rank, chunks - 1 - rank]
    return torch.cat([torch.arange(c * size, (c + 1) * size) for c in own])


def gather_documents(
    doc_ids: Tensor | None,
    positions: Tensor | None,
    tokens: int,
    sp: Axis,
    ring: Axis,
    layout: Layout,
) -> Tensor | None:
    """Number the documents of rows whose tokens lie on several ranks.

    Args:
        doc_ids: [B, T] of this rank's tokens, which are gathered; or [B, s] already, in order.
        positions: the same, used when there are no ids.
        tokens: T.
        sp: ranks that exchange heads.
        ring: ranks of the ring.
        layout: of the ring's blocks.

    Returns:
        As :func:`number_documents`.

    Raises:
        ConfigError: the values are of another number of tokens.
    """
    given = ((doc_ids, "doc_ids"), (positions, "positions"))
    return number_documents(
        *(None if x is None else _whole_rows(x, tokens, sp, ring, layout, n) for x, n in given)
    )


def _whole_rows(
    local: Tensor, tokens: int, sp: Axis, ring: Axis, layout: Layout, name: str
) -> Tensor:
    """Per-token values of the whole sequence, [B, s], in order of places."""
    length = tokens * sp.size * ring.size
    if local.ndim != 2 or local.shape[1] not in (tokens, length):
        raise ConfigError(
            f"{name} has the shape {list(local.shape)}; give [b, {tokens}] for this rank's tokens "
            f"or [b, {length}] for the whole sequence in order."
        )
    if local.shape[1] == length:
        return local
    parts = ring.all_gather(sp.all_gather(local))  # [ring, sp, B, T]
    in_blocks = parts.permute(2, 0, 1, 3).reshape(local.shape[0], length)
    places = torch.cat([block_places(length, ring.size, r, layout) for r in range(ring.size)])
    whole = torch.empty_like(in_blocks)
    whole[:, places.to(whole.device)] = in_blocks
    return whole


def number_documents(doc_ids: Tensor | None, positions: Tensor | None) -> Tensor | None:
    """Number the documents of whole rows in order; None when every row is one document.

    Args:
        doc_ids: [B, s], equal within a document.
        positions: [B, s], growing by one within a document; used when there are no ids.

    Returns:
        [B, s] int64 on the CPU, from 0 and growing by one at each new document of a row.
    """
    given = doc_ids if doc_ids is not None else positions
    if given is None or given.shape[1] == 0:
        return None
    border = given.diff(dim=1) != (0 if doc_ids is not None else 1)
    numbers = torch.nn.functional.pad(border.cumsum(1), (1, 0)).cpu()
    return numbers if bool(border.any()) else None
