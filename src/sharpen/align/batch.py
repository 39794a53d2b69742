"""What every loss takes: token sequences side by side, and what is known of each.

All sequences are padded on the right to one width. N rows, T tokens, B examples::

    input_ids      int64 [N, T]
    attention_mask bool  [N, T]   true on text, false on padding; a prefix of each row
    action_mask    bool  [N, T]   true on what the policy generated, or must learn to: completion
                                  tokens, the end of the text included when it was generated

A log-probability at column t is that of token t given the tokens before it, so it lines up with
``action_mask``; the first column has none. A value at column t is that of the state before token t.
Floats are float32 (float64 in tests of formulas). Batches are never changed, only replaced
(``dataclasses.replace``).

An *example* is what must stay together: a row, a pair (:class:`PairBatch`), a completion with its
mismatched twin (:class:`LabelBatch`), all candidates of a query (:class:`RankBatch`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sharpen.align.sequences import (
    EXAMPLE_BOOL,
    EXAMPLE_FLOAT,
    ROW_FLOAT,
    ROW_INT,
    ROW_LIST,
    TOKEN_FLOAT,
    Sequences,
)
from sharpen.core.errors import DataError

__all__ = ["LabelBatch", "PairBatch", "RankBatch", "RolloutBatch", "RowBatch", "Sequences"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowBatch(Sequences):
    """Texts to learn by heart (supervised fine-tuning)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairBatch(Sequences):
    """B preferred completions in the first B rows, and the B they are preferred to after them."""

    ref_logp: Tensor | None = field(default=None, metadata=ROW_FLOAT)
    """[2B] log-probability of each completion, summed over its actions, by the reference."""
    margin: Tensor | None = field(default=None, metadata=EXAMPLE_FLOAT)
    """[B] by how much the first is better, in units of the reward model's output."""

    in_halves: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelBatch(Sequences):
    """B completions called good or bad, then B completions under a prompt that is not theirs.

    Row i is prompt i with completion i. Row B + i is prompt i with completion i - 1 of the *global*
    batch (the first gets the last): what the method takes its zero from.
    """

    desirable: Tensor = field(metadata=EXAMPLE_BOOL)
    """[B] whether completion i is good."""
    ref_logp: Tensor | None = field(default=None, metadata=ROW_FLOAT)
    """[2B] log-probability of each completion, summed over its actions, by the reference."""

    in_halves: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RankBatch(Sequences):
    """Several candidates a query, each with a score."""

    scores: Tensor = field(metadata=ROW_FLOAT)
    """[N] higher is better."""
    query_id: Tensor = field(metadata=ROW_INT)
    """[N] rows of one query are neighbours and have one id."""

    def __len__(self) -> int:
        """Number of queries."""
        return int(_query_starts(self.query_id).sum())

    def query_index(self) -> Tensor:
        """int64 [N]: which query, from 0, a row belongs to."""
        return _query_starts(self.query_id).cumsum(0) - 1

    def rows_of(self, examples: Tensor) -> Tensor:
        """All candidates of the queries."""
        index = self.query_index()
        found = [(index == example).nonzero().squeeze(1) for example in examples]
        return torch.cat(found) if found else index[:0]

    def _check_examples(self) -> None:
        starts = self.query_id[_query_starts(self.query_id)].tolist()
        seen: set[int] = set()
        for query in starts:
            if query in seen:
                raise DataError(
                    f"query_id {query} is in two places: rows of one query must be neighbours, and "
                    "no two queries share an id."
                )
            seen.add(query)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RolloutBatch(Sequences):
    """Completions that some version of the policy generated, and what they earned."""

    logp_old: Tensor = field(metadata=TOKEN_FLOAT)
    """[N, T] by the weights that generated the completion; 0 where no action is."""
    reward: Tensor = field(metadata=ROW_FLOAT)
    """[N] of the whole completion."""
    group_id: Tensor = field(metadata=ROW_INT)
    """[N] completions of one prompt share an id."""
    finish_reason: list[str] = field(metadata=ROW_LIST)
    """[N] ``stop`` (the end of the text was generated), ``length`` (cut off), or another word."""
    meta: list[dict[str, Any]] = field(metadata=ROW_LIST)
    """[N] what else is known of a row; plain data."""
    version: Tensor = field(metadata=ROW_INT)
    """[N] of the weights that generated it."""
    ref_logp: Tensor | None = field(default=None, metadata=TOKEN_FLOAT)
    """[N, T] by the reference."""
    values: Tensor | None = field(default=None, metadata=TOKEN_FLOAT)
    """[N, T] by the critic, when the completion was generated."""
    token_reward: Tensor | None = field(default=None, metadata=TOKEN_FLOAT)
    """[N, T] earned at each token, beside ``reward``."""
    baseline_reward: Tensor | None = field(default=None, metadata=ROW_FLOAT)
    """[N] of the greedy completion of the same prompt."""
    advantage: Tensor | None = field(default=None, metadata=TOKEN_FLOAT)
    """[N, T] how much better each action was than expected."""
    returns: Tensor | None = field(default=None, metadata=TOKEN_FLOAT)
    """[N, T] what the critic should have expected."""

    @property
    def ground_truth(self) -> Tensor:
        """Boolean [N]: known to be right (``meta["ground_truth"]``), not generated."""
        known = [bool(one.get("ground_truth")) for one in self.meta]
        return torch.tensor(known, dtype=torch.bool, device=self.input_ids.device)

    @property
    def truncated(self) -> Tensor:
        """Boolean [N]: cut off before its end, so that its reward is not that of a whole answer."""
        cut = [reason == "length" for reason in self.finish_reason]
        return torch.tensor(cut, dtype=torch.bool, device=self.input_ids.device)

    def without_truncated(self) -> Self:
        """The same batch in which no token of a truncated completion counts as an action."""
        return replace(self, action_mask=self.action_mask & ~self.truncated[:, None])

    def validate(
        self,
        vocab_size: int | None = None,
        *,
        eos_ids: Collection[int] | None = None,
        group_size: int | None = None,
    ) -> Self:
        """As in all batches, and the end of each text and the groups.

        Args:
            vocab_size: see there.
            eos_ids: the tokens that end a text. A completion that says ``stop`` must end in one of
                them, and one that says ``length`` must not; None checks only that a completion that
                stopped has an action.
            group_size: rows that every group must have; None does not check.

        Raises:
            DataError: something is wrong; the message names the field and the row.
        """
        Sequences.validate(self, vocab_size)
        self._check_ends(eos_ids)
        if group_size is not None:
            for group, size in Counter(self.group_id.tolist()).items():
                if size != group_size:
                    raise DataError(f"group {group} has {size} rows, but must have {group_size}.")
        return self

    def _check_ends(self, eos_ids: Collection[int] | None) -> None:
        columns = torch.arange(self.width, device=self.input_ids.device)
        last = torch.where(self.action_mask, columns, -1).amax(1)
        ends = self.input_ids.gather(1, last.clamp(min=0)[:, None]).squeeze(1).tolist()
        for row, (reason, at, end) in enumerate(
            zip(self.finish_reason, last.tolist(), ends, strict=True)
        ):
            if not reason:
                raise DataError(f"finish_reason of row {row} is {reason!r}, but must be a word.")
            ended = at >= 0 and (eos_ids is None or end in eos_ids)
            if reason == "stop" and not ended:
                raise DataError(
                    f"row {row} says it stopped, but its last action is no end of text: keep the "
                    "end token in action_mask, or the policy never learns to stop."
                )
            if reason == "length" and at >= 0 and eos_ids is not None and end in eos_ids:
                raise DataError(
                    f"row {row} says it was cut off, but its last action ends the text."
                )


def _query_starts(query_id: Tensor) -> Tensor:
    """Boolean [N]: rows whose query is not that of the row before."""
    starts = torch.ones_like(query_id, dtype=torch.bool)
    starts[1:] = query_id[1:] != query_id[:-1]
    return starts
