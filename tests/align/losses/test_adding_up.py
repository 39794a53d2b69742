"""The losses of the parts of a batch, divided by the counts of the whole, add up to its loss."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from align_batches import label_batch, logp_of, pair_batch, rank_batch, rollout_batch, row_batch
from sharpen.align.batch import LabelBatch, Sequences
from sharpen.align.losses.base import Counts, LossOut, Metrics, add_metrics
from sharpen.align.losses.bcoder import BCoderConfig, bcoder_phi_loss, bcoder_theta_loss
from sharpen.align.losses.dpo import DPOConfig, dpo_loss
from sharpen.align.losses.grpo import GRPOLossConfig, grpo_loss
from sharpen.align.losses.kto import Divergence, KTOConfig, kto_divergence, kto_loss
from sharpen.align.losses.orpo import ORPOConfig, orpo_loss
from sharpen.align.losses.ppo import PPOLossConfig, ppo_loss
from sharpen.align.losses.reinforce import ReinforceConfig, reinforce_loss
from sharpen.align.losses.reward_model import RewardModelConfig, reward_model_loss
from sharpen.align.losses.rloo import RLOOConfig, rloo_loss
from sharpen.align.losses.rrhf import RRHFConfig, rrhf_loss
from sharpen.align.losses.sft import SFTLossConfig, sft_loss

Loss = Callable[[Tensor, Any, Counts, dict[str, Any]], LossOut]
Kind = Callable[..., Sequences]


def _kto(logp: Tensor, batch: Any, counts: Counts, whole: dict[str, Any]) -> LossOut:
    return kto_loss(
        logp,
        batch,
        KTOConfig(desirable_weight=1.2),
        counts,
        divergence=whole["divergence"],
    )


CASES: dict[str, tuple[Kind, Loss]] = {
    "kto": (label_batch, _kto),
    "reward model": (
        pair_batch,
        lambda logp, batch, counts, _: reward_model_loss(
            (logp * batch.attention_mask).sum(1), batch, RewardModelConfig(centering=0.01), counts
        ),
    ),
    "ppo": (
        rollout_batch,
        lambda logp, batch, counts, _: ppo_loss(
            logp,
            batch,
            PPOLossConfig(entropy_coef=0.01),
            counts,
            values=logp * 2,
            entropy=-logp * logp.exp(),
        ),
    ),
    "bcoder phi": (
        rollout_batch,
        lambda logp, batch, counts, _: bcoder_phi_loss(
            logp, batch, BCoderConfig(), counts, advantage=-batch.values.abs()
        ),
    ),
}
for _reduce in ("token", "seq", "sum", "dr"):
    CASES[f"sft {_reduce}"] = (
        row_batch,
        lambda logp, batch, counts, _, reduce=_reduce: sft_loss(
            logp, batch, SFTLossConfig(reduce=reduce), counts
        ),
    )
    CASES[f"reinforce {_reduce}"] = (
        rollout_batch,
        lambda logp, batch, counts, _, reduce=_reduce: reinforce_loss(
            logp, batch, ReinforceConfig(reduce=reduce), counts
        ),
    )
for _kind in ("sigmoid", "ipo", "robust", "hinge"):
    CASES[f"dpo {_kind}"] = (
        pair_batch,
        lambda logp, batch, counts, _, kind=_kind: dpo_loss(
            logp, batch, DPOConfig(kind=kind), counts
        ),
    )
for _aggregation in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo"):
    for _ratio in ("token", "sequence"):
        CASES[f"{_aggregation} {_ratio}"] = (
            rollout_batch,
            lambda logp, batch, counts, _, how=_aggregation, ratio=_ratio: grpo_loss(
                logp, batch, GRPOLossConfig(aggregation=how, ratio=ratio, beta=0.1), counts
            ),
        )
CASES["rloo"] = (
    rollout_batch,
    lambda logp, batch, counts, _: rloo_loss(logp, batch, RLOOConfig(), counts),
)
for _nll in ("all", "completion"):
    CASES[f"orpo {_nll}"] = (
        pair_batch,
        lambda logp, batch, counts, _, nll=_nll: orpo_loss(
            logp, batch, ORPOConfig(nll_on=nll), counts
        ),
    )
for _length in ("completion", "padded"):
    for _sft in ("mean", "sum", "padded_mean"):
        CASES[f"rrhf {_length} {_sft}"] = (
            rank_batch,
            lambda logp, batch, counts, _, length=_length, sft=_sft: rrhf_loss(
                logp, batch, RRHFConfig(length=length, sft_reduce=sft), counts
            ),
        )
for _imitation in ("seq", "sum"):
    CASES[f"bcoder theta {_imitation}"] = (
        rollout_batch,
        lambda logp, batch, counts, _, imitation=_imitation: bcoder_theta_loss(
            logp,
            batch,
            BCoderConfig(imitation_reduce=imitation),
            counts,
            advantage=logp / 2,
            raw_value=logp + 1,
            greedy_advantage=-batch.values.abs(),
        ),
    )


def _same(found: Metrics, expected: Metrics) -> None:
    assert found.keys() == expected.keys()
    for key, pair in expected.items():
        assert found[key] == pytest.approx(pair, rel=1e-9, abs=1e-9), key


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=12)
@given(
    examples=st.integers(2, 8),
    seed=st.integers(0, 999),
    longest=st.sampled_from([None, 16]),
    data=st.data(),
)
def test_parts_add_up_to_the_whole(
    name: str, examples: int, seed: int, longest: int | None, data: st.DataObject
) -> None:
    kind, loss = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    batch = kind(examples, 9, generator)
    logp = logp_of(batch.num_rows, batch.width, generator).requires_grad_()
    counts = Counts.of(batch, max_completion_length=longest)
    if data.draw(st.booleans()):
        counts = replace(counts, generation_tokens=counts.tokens / 2 + 1)
    whole: dict[str, Any] = {}
    order = torch.tensor(data.draw(st.permutations(range(examples))))
    parts = order.tensor_split(data.draw(st.integers(1, examples)))
    pieces = [batch.select(part) for part in parts]
    logps = [
        logp[batch.rows_of(part)][:, : piece.width]
        for part, piece in zip(parts, pieces, strict=True)
    ]
    if isinstance(batch, LabelBatch):
        whole["divergence"] = kto_divergence(logp, batch)
        total = Divergence(total=0.0, count=0)
        for part_logp, piece in zip(logps, pieces, strict=True):
            assert isinstance(piece, LabelBatch)
            total = total + kto_divergence(part_logp, piece)
        assert total.mean == pytest.approx(whole["divergence"].mean, rel=1e-12)
    expected = loss(logp, batch, counts, whole)
    outs = [
        loss(part_logp, piece, counts, whole)
        for part_logp, piece in zip(logps, pieces, strict=True)
    ]
    added = torch.stack([out.loss for out in outs]).sum()
    torch.testing.assert_close(added, expected.loss, rtol=1e-11, atol=1e-12)
    (ours,) = torch.autograd.grad(added, logp)
    (theirs,) = torch.autograd.grad(expected.loss, logp)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    _same(add_metrics(out.metrics for out in outs), expected.metrics)


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_learn_from_gives_zero_and_no_gradient(name: str) -> None:
    """All completions empty or masked; what lies there may be anything."""
    kind, loss = CASES[name]
    generator = torch.Generator().manual_seed(3)
    batch = kind(4, 6, generator)
    batch = replace(batch, action_mask=torch.zeros_like(batch.action_mask))
    logp = logp_of(batch.num_rows, batch.width, generator).requires_grad_()
    out = loss(logp, batch, Counts.of(batch), {"divergence": None})
    (gradient,) = torch.autograd.grad(out.loss, logp)
    assert bool(torch.isfinite(out.loss)) and bool(torch.isfinite(gradient).all())
    if name not in ("reward model", "orpo all"):  # these learn from more than actions
        assert not bool(gradient.any())


@pytest.mark.parametrize("name", [name for name in CASES if name != "reward model"])
def test_what_is_no_action_cannot_spoil_the_loss(name: str) -> None:
    """NaN and infinite log-probabilities outside the text change nothing."""
    kind, loss = CASES[name]
    generator = torch.Generator().manual_seed(5)
    batch = kind(5, 8, generator)
    logp = logp_of(batch.num_rows, batch.width, generator)
    spoilt = logp.masked_fill(~batch.attention_mask, float("nan"))
    whole = {"divergence": None}
    clean_out = loss(logp.requires_grad_(), batch, Counts.of(batch), whole)
    spoilt_out = loss(spoilt.requires_grad_(), batch, Counts.of(batch), whole)
    torch.testing.assert_close(spoilt_out.loss, clean_out.loss)
    (ours,) = torch.autograd.grad(spoilt_out.loss, spoilt)
    (theirs,) = torch.autograd.grad(clean_out.loss, logp)
    text = batch.attention_mask
    torch.testing.assert_close(ours[text], theirs[text])
    _same(spoilt_out.metrics, clean_out.metrics)
