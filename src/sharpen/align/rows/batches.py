"""Batches of tokenized rows, one function a kind of batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sharpen.align.batch import LabelBatch, PairBatch, RankBatch, RowBatch
from sharpen.align.rows.parse import Kind
from sharpen.align.rows.tokens import TokenRow
from sharpen.core.errors import DataError

__all__ = ["label_batch", "pad_rows", "pair_batch", "rank_batch", "row_batch"]

_Sequence = tuple[list[int], list[int], list[bool]]
"""A prompt, a completion, and which of the completion's tokens are actions."""


def pad_rows(rows: Sequence[_Sequence], pad_id: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences side by side, padded on the right.

    Args:
        rows: a prompt, a completion, and which of the completion's tokens are actions.
        pad_id: what stands in the padding.

    Returns:
        ``input_ids`` int64, ``attention_mask`` bool and ``action_mask`` bool, all [N, T]. A first
        token is no action, since nothing comes before it.

    Raises:
        DataError: there are no rows, or one has no tokens.
    """
    if not rows:
        raise DataError("a batch needs at least one row.")
    width = max(len(prompt) + len(completion) for prompt, completion, _ in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    text = torch.zeros((len(rows), width), dtype=torch.bool)
    actions = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, (prompt, completion, mask) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(completion)
        if not end:
            raise DataError(f"row {i} of the batch has no tokens.")
        ids[i, :end] = torch.tensor([*prompt, *completion])
        text[i, :end] = True
        actions[i, start:end] = torch.tensor(mask, dtype=torch.bool)
    actions[:, 0] = False
    return ids, text, actions


def row_batch(rows: Sequence[TokenRow], pad_id: int = 0) -> RowBatch:
    """[B] rows of the kinds ``completion``, ``messages`` and ``trajectory``."""
    _check(rows, "completion", "messages", "label", "trajectory")
    ids, text, actions = pad_rows([_of(row, 0) for row in rows], pad_id)
    return RowBatch(input_ids=ids, attention_mask=text, action_mask=actions)


def pair_batch(
    rows: Sequence[TokenRow], pad_id: int = 0, *, ref_logp: Tensor | None = None
) -> PairBatch:
    """[2B] rows of the kind ``preference``: first what was chosen.

    Args:
        rows: B of them. Where each has the key ``margin``, by how much the first is better, a
            number, so has the batch.
        pad_id: what stands in the padding.
        ref_logp: [2B] of the reference.

    Raises:
        DataError: a row is of another kind, or its margin is no number.
    """
    _check(rows, "preference")
    halves = [[_of(row, index) for row in rows] for index in (0, 1)]
    ids, text, actions = pad_rows([*halves[0], *halves[1]], pad_id)
    return PairBatch(
        input_ids=ids,
        attention_mask=text,
        action_mask=actions,
        ref_logp=ref_logp,
        margin=_margins(rows),
    )


def label_batch(
    rows: Sequence[TokenRow], pad_id: int = 0, *, ref_logp: Tensor | None = None
) -> LabelBatch:
    """[2B] rows of the kind ``label``, then each prompt with the completion of the row before.

    The rows must be a whole batch, of all accumulation steps and ranks; split it afterwards.

    Args:
        rows: B of them, at least 2.
        pad_id: what stands in the padding.
        ref_logp: [2B] of the reference.

    Raises:
        DataError: a row is of another kind, or there is only one.
    """
    _check(rows, "label")
    if len(rows) < 2:
        raise DataError("labelled rows need a batch of at least 2: the mismatched pairs tell zero.")
    own = [_of(row, 0) for row in rows]
    others = [(own[i][0], *own[i - 1][1:]) for i in range(len(own))]
    ids, text, actions = pad_rows([*own, *others], pad_id)
    return LabelBatch(
        input_ids=ids,
        attention_mask=text,
        action_mask=actions,
        desirable=torch.tensor([bool(row.row.label) for row in rows]),
        ref_logp=ref_logp,
    )


def rank_batch(rows: Sequence[TokenRow], pad_id: int = 0, *, first_query: int = 0) -> RankBatch:
    """All candidates of rows of the kind ``ranked``, those of a query side by side.

    Args:
        rows: one for each query.
        pad_id: what stands in the padding.
        first_query: the id of the first query; the others count on.

    Raises:
        DataError: a row is of another kind.
    """
    _check(rows, "ranked")
    sequences: list[_Sequence] = []
    scores: list[float] = []
    queries: list[int] = []
    for number, row in enumerate(rows, first_query):
        sequences += [_of(row, i) for i in range(len(row.completions))]
        scores += row.row.scores
        queries += [number] * len(row.completions)
    ids, text, actions = pad_rows(sequences, pad_id)
    return RankBatch(
        input_ids=ids,
        attention_mask=text,
        action_mask=actions,
        scores=torch.tensor(scores, dtype=torch.float32),
        query_id=torch.tensor(queries, dtype=torch.int64),
    )


def _of(row: TokenRow, index: int) -> _Sequence:
    return row.prompt, row.completions[index], row.masks[index]


def _check(rows: Iterable[TokenRow], *kinds: Kind) -> None:
    for one in rows:
        if one.row.kind not in kinds:
            raise DataError(
                f"{one.row.where}: this batch needs rows of the format '{kinds[0]}', got"
                f" '{one.row.kind}'. Read them with kind='{kinds[0]}'."
            )


def _margins(rows: Sequence[TokenRow]) -> Tensor | None:
    if not all("margin" in row.row.meta for row in rows):
        return None
    margins = [row.row.meta["margin"] for row in rows]
    for row, margin in zip(rows, margins, strict=True):
        if type(margin) not in (int, float):
            raise DataError(f"{row.row.where}: 'margin' must be a number, got {margin!r:.60}.")
    return torch.tensor(margins, dtype=torch.float32)
