"""The work of methods that learn from rows that are there.

A step takes the next ``global_batch`` examples of their endless order; each rank learns from its
share, in micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from sharpen.align.batch import LabelBatch, PairBatch
from sharpen.align.loop.objective import Objective, counts_of_sums, sums_of_counts
from sharpen.align.loop.reference import Reference, load_reference
from sharpen.align.losses.base import Counts
from sharpen.align.losses.kto import Divergence, kto_divergence
from sharpen.align.methods import Method, Policy, Scale
from sharpen.align.methods.offline import good_half
from sharpen.align.rows.tokens import TokenRow
from sharpen.align.sequences import Sequences
from sharpen.core.config import digest, to_dict
from sharpen.core.errors import ConfigError
from sharpen.data.sample_order import SampleOrder
from sharpen.models.decoder import DecoderLM
from sharpen.train import StepWork, Trainer

__all__ = ["RowWork"]


class RowWork:
    """See the module.

    Args:
        rows: tokenized, of the method's kind.
        method: an offline one.
        options: its options.
        dtype: in which products are computed.
        pad_id: what stands in padding.
        reference: ``start``, or a path.
        shuffle: a new random order each epoch; otherwise the rows' own.
    """

    objective: Objective
    _order: SampleOrder
    _trainer: Trainer

    def __init__(
        self,
        rows: Sequence[TokenRow],
        method: Method,
        options: Any,
        *,
        dtype: torch.dtype = torch.float32,
        pad_id: int = 0,
        reference: str = "start",
        shuffle: bool = True,
    ) -> None:
        self.rows = list(rows)
        self._shuffle = shuffle
        self.method = method
        self.options = options
        self._dtype = dtype
        self._pad_id = pad_id
        self._reference_ref = reference
        self._needs_reference = method.reference(options)
        self._reference: Reference | None = None
        self._ref_sums: list[torch.Tensor] | None = None
        self._longest = max(len(mask) for row in self.rows for mask in row.masks)

    def __len__(self) -> int:
        """Rows."""
        return len(self.rows)

    @property
    def max_tokens(self) -> int:
        """Of the longest sequence."""
        return max(map(len, self.rows))

    @property
    def fingerprint(self) -> Any:
        """Of rows, method and reference."""
        parts = [[row.prompt, row.completions, row.row.scores, row.row.label] for row in self.rows]
        return {
            "rows": digest(parts),
            "method": self.method.name,
            "options": to_dict(self.options),
            "reference": self._reference_ref if self._needs_reference else None,
        }

    @property
    def at_boundary(self) -> bool:
        """A position in the rows is all there is to know."""
        return True

    def module(self, model: nn.Module) -> nn.Module:
        """The method's loss."""
        assert isinstance(model, DecoderLM)
        self.objective = Objective(model, self.method, self.options, dtype=self._dtype)
        return self.objective

    def prepare(self, trainer: Trainer) -> None:
        """Take the reference's log-probabilities while the model still is the start."""
        self._trainer = trainer
        if trainer.parallel.sequence_ranks > 1:
            raise ConfigError("alignment shares no sequence over ranks: leave parallel.sp at 1.")
        if self.method.name == "kto" and trainer.config.global_batch < 2:
            raise ConfigError(f"kto needs batch=2 or more, got {trainer.config.global_batch}.")
        self._order = SampleOrder(len(self.rows), trainer.seed, shuffle=self._shuffle)
        if not self._needs_reference:
            return
        policy = Policy(trainer.model, self._dtype)  # type: ignore[arg-type]
        if self._reference_ref != "start":
            self._reference = load_reference(self._reference_ref, policy)
        elif self.method.kind == "label":  # mismatched pairs differ from step to step
            self._reference = Reference.of_start(policy, adapts=trainer.config.adapts)
        if self.method.kind != "label":
            start = Reference(policy) if self._reference is None else self._reference
            self._ref_sums = self._summed(start, trainer.config.micro_batch)
            self._reference = None

    def take(self) -> StepWork:
        """The next examples."""
        config, parallel = self._trainer.config, self._trainer.parallel
        indices = self._order.take(config.global_batch)
        assert self.method.build is not None
        batch = self.method.build([self.rows[i] for i in indices], self._pad_id)
        if self._ref_sums is not None:
            assert isinstance(batch, PairBatch)
            sums = torch.stack([self._ref_sums[i] for i in indices])
            batch = replace(batch, ref_logp=sums.T.reshape(-1))
        share = len(indices) // parallel.layout.data_ranks
        first = parallel.data_rank * share
        mine = batch.select(range(first, first + share)).to(self._trainer.device)
        number = share // config.micro_batch
        parts: Sequence[Sequences] = mine.split(number)
        divergence = None
        if isinstance(mine, LabelBatch):
            parts, divergence = self._with_divergence(mine.split(number))
        counts = Counts.of(mine, max_completion_length=self._longest)
        return StepWork(
            parts,
            labels=counts.tokens,
            tokens=int(mine.attention_mask.sum()),
            counts=sums_of_counts(counts, divergence),
        )

    def scale(self, labels: float, counts: Sequence[float]) -> Scale:
        """Counts of the global batch."""
        return counts_of_sums(counts, self._longest)

    def metrics(self) -> Mapping[str, tuple[float, float]]:
        """Of the losses."""
        return self.objective.take_metrics()

    def state_dict(self) -> dict[str, Any]:
        """The position in the rows."""
        return self._order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._order.load_state_dict(state)

    def _summed(self, reference: Reference, size: int) -> list[torch.Tensor]:
        """Of each pair, the reference's log-probability of both completions."""
        found: list[torch.Tensor] = []
        assert self.method.build is not None
        for first in range(0, len(self.rows), size):
            batch = self.method.build(self.rows[first : first + size], self._pad_id)
            batch = batch.to(self._trainer.device)
            sums = reference.logp(batch).sum(1).cpu()
            found += list(sums.view(2, -1).T)
        return found

    def _with_divergence(self, parts: Sequence[LabelBatch]) -> tuple[list[LabelBatch], Divergence]:
        """Micro-batches with the reference's log-probabilities, and KTO's divergence."""
        assert self._reference is not None
        policy, total, found = self.objective.policy, Divergence(total=0.0, count=0), []
        for part in parts:
            part = replace(part, ref_logp=self._reference.logp(part).sum(1))
            with torch.no_grad():
                others = policy.logp(good_half(part, mismatched=True))
            total = total + kto_divergence(torch.cat([torch.zeros_like(others), others]), part)
            found.append(part)
        return found, total
