"""What every alignment loss must keep, as a class of tests, and random batches to try it on.

Subclass it in a test file; pytest runs every ``test_`` method under every config::

    class TestMine(LossConformance):
        make_batch = staticmethod(rollout_batch)
        configs = (MyConfig(), MyConfig(beta=0.1))

        def loss(self, logp, batch, config, counts, statistic):
            return my_loss(logp, batch, config, counts)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sharpen.align.batch import (
    LabelBatch,
    PairBatch,
    RankBatch,
    RolloutBatch,
    RowBatch,
    Sequences,
)
from sharpen.align.losses.base import Counts, LossOut, Metrics, add_metrics

__all__ = [
    "VOCAB",
    "LossConformance",
    "label_batch",
    "logp_of",
    "pair_batch",
    "rank_batch",
    "rollout_batch",
    "row_batch",
    "sequences",
]

VOCAB = 11
"""Token ids of random batches are below this."""
_SEEDS = range(12)
_WIDTH = 9


def sequences(rows: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Ids, text and action masks: a prompt, then a completion that may be empty, then padding."""
    columns = torch.arange(width)
    prompt = torch.randint(1, max(2, width // 2), (rows, 1), generator=generator)
    length = torch.randint(0, width, (rows, 1), generator=generator)
    length[0] = width  # one row fills the width
    text = columns < (prompt + length).clamp(max=width)
    ids = torch.randint(1, VOCAB, (rows, width), generator=generator) * text
    return {"input_ids": ids, "attention_mask": text, "action_mask": text & (columns >= prompt)}


def logp_of(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """[rows, width] log-probabilities, float64; the first column is 0."""
    found = -torch.rand(rows, width, generator=generator, dtype=torch.float64) * 2
    return found * (torch.arange(width) > 0)


def row_batch(rows: int, width: int, generator: torch.Generator) -> RowBatch:
    """Texts to learn."""
    return RowBatch(**sequences(rows, width, generator))


def pair_batch(pairs: int, width: int, generator: torch.Generator) -> PairBatch:
    """Pairs, with a reference and margins."""
    return PairBatch(
        **sequences(2 * pairs, width, generator),
        ref_logp=-5 * torch.rand(2 * pairs, generator=generator, dtype=torch.float64),
        margin=torch.rand(pairs, generator=generator, dtype=torch.float64),
    )


def label_batch(examples: int, width: int, generator: torch.Generator) -> LabelBatch:
    """Good and bad completions, with a reference."""
    return LabelBatch(
        **sequences(2 * examples, width, generator),
        desirable=torch.rand(examples, generator=generator) < 0.6,
        ref_logp=-5 * torch.rand(2 * examples, generator=generator, dtype=torch.float64),
    )


def rank_batch(queries: int, width: int, generator: torch.Generator) -> RankBatch:
    """Queries of one to four candidates, some of equal score."""
    sizes = torch.randint(1, 5, (queries,), generator=generator)
    rows = int(sizes.sum())
    return RankBatch(
        **sequences(rows, width, generator),
        # few values, so that some scores are equal
        scores=torch.randint(0, 4, (rows,), generator=generator).double() / 3,
        query_id=torch.arange(queries).repeat_interleave(sizes) + 7,
    )


def rollout_batch(
    rows: int, width: int, generator: torch.Generator, *, group: int = 2, **changes: Any
) -> RolloutBatch:
    """Rollouts whose log-probabilities, values and advantages are random."""
    shared = sequences(rows, width, generator)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn if len(shape) == 1 else drawn * shared["attention_mask"]

    fields: dict[str, Any] = {
        **shared,
        "logp_old": logp_of(rows, width, generator) * shared["attention_mask"],
        "ref_logp": logp_of(rows, width, generator) * shared["attention_mask"],
        "reward": normal(rows),
        "group_id": torch.arange(rows) // group,
        "finish_reason": [
            "length" if i % 3 == 1 or not bool(shared["action_mask"][i].any()) else "stop"
            for i in range(rows)
        ],
        "meta": [{"ground_truth": i % 2 == 0, "name": f"row {i}"} for i in range(rows)],
        "version": torch.zeros(rows, dtype=torch.int64),
        "values": normal(rows, width),
        "token_reward": normal(rows, width),
        "baseline_reward": normal(rows),
        "advantage": normal(rows, width),
        "returns": normal(rows, width),
    }
    return RolloutBatch(**{**fields, **changes})


class LossConformance:
    """Tests of one loss."""

    make_batch: ClassVar[Callable[..., Sequences]]
    """``make_batch(examples, width, generator)``: one of this module's, or yours."""

    configs: ClassVar[Sequence[Any]]
    """The options to test, so that each branch is met."""

    actions_alone: ClassVar[bool] = True
    """Whether only actions teach: False where prompts or whole texts do, too."""

    def loss(
        self, logp: Tensor, batch: Any, config: Any, counts: Counts, statistic: Any
    ) -> LossOut:
        """Call the loss; what else it needs may be made of ``logp``."""
        raise NotImplementedError

    def statistic(self, parts: Sequence[tuple[Tensor, Any]]) -> Any:
        """What the loss must know of the whole batch first, from log-probabilities and parts."""

    def test_parts_add_up_to_the_whole(self) -> None:
        """Loss, gradient and metrics, however the batch is cut and in whatever order."""
        for config in self.configs:
            for seed in _SEEDS:
                generator = torch.Generator().manual_seed(seed)
                examples = 2 + seed % 7
                batch, logp = self._case(examples, generator)
                counts = Counts.of(batch, max_completion_length=16 if seed % 2 else None)
                if seed % 3 == 0:
                    counts = replace(counts, generation_tokens=counts.tokens / 2 + 1)
                order = torch.randperm(examples, generator=generator)
                cut = int(torch.randint(1, examples + 1, (), generator=generator))
                parts = [
                    (logp[batch.rows_of(part)][:, : batch.select(part).width], batch.select(part))
                    for part in order.tensor_split(cut)
                ]
                found = self.statistic(parts)
                outs = [self.loss(*part, config, counts, found) for part in parts]
                whole = self.loss(logp, batch, config, counts, self.statistic([(logp, batch)]))
                added = torch.stack([out.loss for out in outs]).sum()
                _close(added, whole.loss)
                _close(*(torch.autograd.grad(one, logp)[0] for one in (added, whole.loss)))
                _same_metrics(add_metrics(out.metrics for out in outs), whole.metrics)

    def test_what_is_no_text_changes_nothing(self) -> None:
        """Not even where log-probabilities of padding are not numbers."""
        for config in self.configs:
            batch, logp = self._case(5, torch.Generator().manual_seed(5))
            text, counts = batch.attention_mask, Counts.of(batch)
            spoilt = logp.detach().masked_fill(~text, math.nan).requires_grad_()
            outs = [
                self.loss(one, batch, config, counts, self.statistic([(one, batch)]))
                for one in (logp, spoilt)
            ]
            _close(outs[1].loss, outs[0].loss)
            ours, theirs = (
                torch.autograd.grad(out.loss, one)[0]
                for out, one in zip(outs, (logp, spoilt), strict=True)
            )
            _close(theirs[text], ours[text])
            _same_metrics(outs[1].metrics, outs[0].metrics)

    def test_nothing_to_learn_from_is_no_trouble(self) -> None:
        """Where no token is an action the loss is finite, and sends no gradient."""
        for config in self.configs:
            batch, logp = self._case(4, torch.Generator().manual_seed(3))
            batch = replace(batch, action_mask=torch.zeros_like(batch.action_mask))
            statistic = self.statistic([(logp, batch)])
            out = self.loss(logp, batch, config, Counts.of(batch), statistic)
            (gradient,) = torch.autograd.grad(out.loss, logp)
            assert bool(torch.isfinite(out.loss))
            assert bool(torch.isfinite(gradient).all())
            assert not self.actions_alone or not bool(gradient.any())

    def test_the_batch_is_left_as_it_was(self) -> None:
        """And the loss is a scalar."""
        for config in self.configs:
            batch, logp = self._case(4, torch.Generator().manual_seed(2))
            again, same = self._case(4, torch.Generator().manual_seed(2))
            statistic = self.statistic([(logp, batch)])
            out = self.loss(logp, batch, config, Counts.of(batch), statistic)
            assert out.loss.shape == ()
            assert torch.equal(logp, same)
            for one in fields(batch):
                value, before = getattr(batch, one.name), getattr(again, one.name)
                equal = torch.equal if isinstance(value, Tensor) else lambda a, b: a == b
                assert equal(value, before), one.name

    def _case(self, examples: int, generator: torch.Generator) -> tuple[Any, Tensor]:
        batch = type(self).make_batch(examples, _WIDTH, generator)
        return batch, logp_of(batch.num_rows, batch.width, generator).requires_grad_()


def _close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def _same_metrics(found: Metrics, expected: Metrics) -> None:
    assert found.keys() == expected.keys()
    for name, pair in expected.items():
        for ours, theirs in zip(found[name], pair, strict=True):
            assert math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9), (name, ours, theirs)
