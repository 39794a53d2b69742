"""The work of B-Coder: of each query a right program and another, half and half.

Rows are queries with candidates and their rewards. The right ones are those that the key
``ground_truth`` names by number or, without it, the best candidate where its reward is the most
there is. The other candidate of a step is drawn anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.loop.objective import sums_of_counts
from sharpen.align.loop.rows import RowWork
from sharpen.align.losses.base import Counts
from sharpen.align.methods import Method, Policy
from sharpen.align.methods.bcoder import THETA, BCoderOptions, Programs, dueling_of
from sharpen.align.rows.batches import pad_rows
from sharpen.align.rows.tokens import TokenRow
from sharpen.align.scoring import action_scores, values_of
from sharpen.core.errors import DataError
from sharpen.train import StepWork, Trainer

__all__ = ["ProgramWork", "program_batch"]


class ProgramWork(RowWork):
    """See the module.

    Args:
        rows: tokenized, of the kind ``ranked``.
        method: B-Coder.
        options: its options.
        stage: ``phi`` or ``theta``.
        dtype: in which products are computed.
        pad_id: what stands in padding.

    Raises:
        DataError: a row names right programs that it has not, or no row has one.
    """

    def __init__(
        self,
        rows: Sequence[TokenRow],
        method: Method,
        options: BCoderOptions,
        stage: str,
        *,
        dtype: torch.dtype = torch.float32,
        pad_id: int = 0,
    ) -> None:
        if stage == "theta":
            method = replace(method, loss=THETA)
        super().__init__(rows, method, options, dtype=dtype, pad_id=pad_id)
        self._stage = stage
        self._right = [_right(row, options.max_return) for row in rows]
        if not any(self._right):
            raise DataError(
                'no query has a right program. Mark some: "ground_truth": [0], the number of the '
                f"candidate, or give them the reward {options.max_return:g}."
            )
        self._frozen: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @property
    def fingerprint(self) -> Any:
        """Of rows, options and stage."""
        return {**super().fingerprint, "stage": self._stage}

    def prepare(self, trainer: Trainer) -> None:
        """In stage theta, take what the frozen model says of all candidates."""
        super().prepare(trainer)
        if self._stage == "theta":
            candidates = [(i, c) for i, row in enumerate(self.rows) for c in range(len(row.masks))]
            size = trainer.config.micro_batch
            policy = Policy(trainer.model, self._dtype)  # type: ignore[arg-type]
            for at in range(0, len(candidates), size):
                self._freeze(policy, candidates[at : at + size])

    def take(self) -> StepWork:
        """The next queries, two programs of each."""
        config, parallel = self._trainer.config, self._trainer.parallel
        first = self._order.index
        chosen: list[tuple[int, int]] = []
        for offset, i in enumerate(self._order.take(config.global_batch)):
            draw = np.random.default_rng((self._trainer.seed, first + offset))
            chosen += [(i, c) for c in self._two(i, draw)]
        share = len(chosen) // parallel.layout.data_ranks
        mine = chosen[parallel.data_rank * share : (parallel.data_rank + 1) * share]
        size = 2 * config.micro_batch
        parts = [self._programs(mine[at : at + size]) for at in range(0, len(mine), size)]
        counts = [Counts.of(part.rollouts, max_completion_length=self._longest) for part in parts]
        total = counts[0]
        for one in counts[1:]:
            total = total + one
        return StepWork(
            parts,
            labels=total.tokens,
            tokens=sum(int(part.rollouts.attention_mask.sum()) for part in parts),
            counts=sums_of_counts(total),
        )

    def _two(self, row: int, draw: np.random.Generator) -> list[int]:
        """A right program, if there is one, and another candidate."""
        right, count = self._right[row], len(self.rows[row].masks)
        first = int(draw.choice(right)) if right else int(draw.integers(count))
        others = [c for c in range(count) if c != first]
        return [first, int(draw.choice(others))]

    def _programs(self, chosen: Sequence[tuple[int, int]]) -> Programs:
        batch = program_batch(
            [(self.rows[i], c, c in self._right[i]) for i, c in chosen], self._pad_id
        ).to(self._trainer.device)
        if self._stage == "phi":
            return Programs(batch)
        greedy = torch.zeros_like(batch.input_ids)
        values = torch.zeros(greedy.shape, device=greedy.device)
        for row, key in enumerate(chosen):
            mask = batch.action_mask[row]
            tokens, raw = self._frozen[key]
            greedy[row, mask] = tokens.to(greedy.device)
            values[row, mask] = raw.to(greedy.device)
        return Programs(replace(batch, values=values), greedy)

    @torch.no_grad()
    def _freeze(self, policy: Policy, candidates: Sequence[tuple[int, int]]) -> None:
        batch = program_batch([(self.rows[i], c, False) for i, c in candidates], self._pad_id)
        batch = batch.to(self._trainer.device)
        states = policy.states(batch)
        found = action_scores(policy.model, states, batch, dtype=policy.dtype)
        raw = values_of(dueling_of(policy).phi, states, batch.action_mask)
        for row, key in enumerate(candidates):
            mask = batch.action_mask[row]
            self._frozen[key] = found.greedy[row, mask].cpu(), raw[row, mask].cpu()


def program_batch(
    candidates: Sequence[tuple[TokenRow, int, bool]], pad_id: int = 0
) -> RolloutBatch:
    """Candidates of queries as rollouts.

    Args:
        candidates: a query, which of its candidates, and whether that is known to be right.
        pad_id: what stands in padding.
    """
    ids, text, actions = pad_rows(
        [(row.prompt, row.completions[c], row.masks[c]) for row, c, _ in candidates], pad_id
    )
    scores = [row.row.scores[c] for row, c, _ in candidates]
    return RolloutBatch(
        input_ids=ids,
        attention_mask=text,
        action_mask=actions,
        logp_old=torch.zeros(ids.shape),
        reward=torch.tensor(scores, dtype=torch.float32),
        group_id=torch.arange(len(candidates)),
        finish_reason=["stop"] * len(candidates),
        meta=[{"ground_truth": right} for _, _, right in candidates],
        version=torch.zeros(len(candidates), dtype=torch.int64),
    )


def _right(row: TokenRow, most: float) -> list[int]:
    """Numbers of the candidates known to be right."""
    count = len(row.masks)
    given = row.row.meta.get("ground_truth")
    if given is None:
        scores = row.row.scores
        best = max(range(count), key=scores.__getitem__)
        return [best] if scores[best] >= most else []
    numbers = given if isinstance(given, list) else [given]
    for number in numbers:
        if type(number) is not int or not 0 <= number < count:
            raise DataError(
                f"{row.row.where}: 'ground_truth' names candidate {number!r:.60}, but there are "
                f"0 to {count - 1}."
            )
    return list(numbers)
