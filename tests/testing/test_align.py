"""The suite of alignment losses fails what it should."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sharpen.align.losses.base import Counts, LossOut, measured
from sharpen.align.losses.sft import SFTLossConfig, sft_loss
from sharpen.testing.align import LossConformance, row_batch


class _Suite(LossConformance):
    make_batch = staticmethod(row_batch)
    configs = (SFTLossConfig(),)


class _OwnMean(_Suite):
    """Divides by its own tokens: a mean of means under accumulation."""

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return sft_loss(logp, batch, config)


class _Unmasked(_Suite):
    """Multiplies by the mask, where NaN stays NaN."""

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        loss = -(logp * batch.action_mask).sum() / max(1, counts.tokens)
        return LossOut(loss=loss, metrics={})


class _Prompts(_Suite):
    """Learns the prompt as well."""

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        kept = logp.masked_fill(~batch.attention_mask, 0.0)
        return LossOut(loss=-kept.sum() / max(1, counts.sequences), metrics={})


class _Meddling(_Suite):
    """Changes the batch."""

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        batch.input_ids.add_(1)
        return sft_loss(logp, batch, config, counts)


class _MeanMetric(_Suite):
    """Reports a mean where sums are asked for."""

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        out = sft_loss(logp, batch, config, counts)
        total, weight = out.metrics["nll"]
        mean = total / max(1.0, weight)
        return LossOut(loss=out.loss, metrics=measured({"nll": (torch.tensor(mean), 1.0)}))


@pytest.mark.parametrize(
    ("suite", "test"),
    [
        (_OwnMean, "test_parts_add_up_to_the_whole"),
        (_MeanMetric, "test_parts_add_up_to_the_whole"),
        (_Unmasked, "test_what_is_no_text_changes_nothing"),
        (_Prompts, "test_nothing_to_learn_from_is_no_trouble"),
        (_Meddling, "test_the_batch_is_left_as_it_was"),
    ],
)
def test_a_wrong_loss_is_found(suite: type[LossConformance], test: str) -> None:
    with pytest.raises(AssertionError):
        getattr(suite(), test)()


def test_a_suite_without_a_loss_says_so() -> None:
    with pytest.raises(NotImplementedError):
        _Suite().test_the_batch_is_left_as_it_was()
