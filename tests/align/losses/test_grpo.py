import math
import warnings
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.align.advantages import grpo as grpo_advantages
from sharpen.align.advantages import spread
from sharpen.align.batch import RolloutBatch
from sharpen.align.losses.base import Counts
from sharpen.align.losses.grpo import Aggregation, GRPOLossConfig, SmallCapWarning, grpo_loss
from sharpen.align.losses.reinforce import ReinforceConfig, reinforce_loss
from sharpen.core.errors import ConfigError
from sharpen.testing.align import rollout_batch


def _case(seed: int) -> tuple[RolloutBatch, torch.Tensor]:
    """Rollouts whose ratios lie on both sides of the clip."""
    generator = torch.Generator().manual_seed(seed)
    batch = rollout_batch(6, 8, generator)
    assert batch.ref_logp is not None
    shift = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    return batch, (batch.logp_old + 0.4 * shift).requires_grad_()


def _token_loss(
    config: GRPOLossConfig, ratio: float, logp: float, ref: float, advantage: float
) -> float:
    if config.aggregation == "cispo":
        found = -min(ratio, 5.0 if config.eps_high is None else config.eps_high) * advantage * logp
    else:
        high = 1 + (config.eps_low if config.eps_high is None else config.eps_high)
        bounded = ratio if config.delta is None else min(ratio, config.delta)
        clipped = min(max(ratio, 1 - config.eps_low), high)
        found = -min(bounded * advantage, clipped * advantage)
    gap = ref - logp
    weight = ratio if config.kl_weight == "ratio" else 1.0
    return found + config.beta * weight * (math.exp(gap) - gap - 1)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    aggregation=st.sampled_from(["grpo", "bnpo", "dr_grpo", "dapo", "cispo"]),
    level=st.sampled_from(["token", "sequence"]),
    beta=st.sampled_from([0.0, 0.1]),
    kl_weight=st.sampled_from(["ratio", "none"]),
    delta=st.sampled_from([None, 1.5]),
    tokens=st.sampled_from([None, 11.5]),
)
def test_the_loss_is_a_loop_over_tokens(
    seed: int,
    aggregation: Aggregation,
    level: Literal["token", "sequence"],
    beta: float,
    kl_weight: Literal["ratio", "none"],
    delta: float | None,
    tokens: float | None,
) -> None:
    batch, now = _case(seed)
    logp = now.detach()
    config = GRPOLossConfig(
        aggregation=aggregation,
        ratio=level,
        beta=beta,
        kl_weight=kl_weight,
        delta=None if aggregation == "cispo" else delta,
        eps_high=None if aggregation == "cispo" else 0.28,
    )
    assert batch.advantage is not None and batch.ref_logp is not None
    rows = []
    for i in range(6):
        at = np.flatnonzero(batch.action_mask[i].numpy())
        logs = [float(logp[i, t] - batch.logp_old[i, t]) for t in at]
        mean = sum(logs) / max(1, len(logs))
        rows.append(
            [
                _token_loss(
                    config,
                    math.exp(log if level == "token" else mean),
                    float(logp[i, t]),
                    float(batch.ref_logp[i, t]),
                    float(batch.advantage[i, t]),
                )
                for t, log in zip(at, logs, strict=True)
            ]
        )
    total, count = sum(map(sum, rows)), sum(map(len, rows))
    expected = {
        "grpo": sum(sum(row) / max(1, len(row)) for row in rows) / 6,
        "bnpo": total / count,
        "dr_grpo": total / (6 * 20),
        "dapo": total / (tokens or count),
        "cispo": total / (tokens or count),
    }[aggregation]
    counts = replace(Counts.of(batch, max_completion_length=20), generation_tokens=tokens)
    found = grpo_loss(logp, batch, config, counts).loss.item()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_on_policy_gradients_are_those_of_reinforce() -> None:
    """Without a step, ratio 1: every aggregation is the policy gradient with its denominator."""
    batch, _ = _case(1)
    counts = Counts.of(batch, max_completion_length=20)
    for aggregation, reduce in (("grpo", "seq"), ("dapo", "token"), ("dr_grpo", "dr")):
        logp = batch.logp_old.clone().requires_grad_()
        ours = grpo_loss(
            logp,
            batch,
            GRPOLossConfig(aggregation=aggregation),  # type: ignore[arg-type]
            counts,
        )
        plain = reinforce_loss(
            logp,
            batch,
            ReinforceConfig(reduce=reduce),  # type: ignore[arg-type]
            counts,
        )
        (a,) = torch.autograd.grad(ours.loss, logp)
        (b,) = torch.autograd.grad(plain.loss, logp)
        torch.testing.assert_close(a, b)


def test_the_value_of_the_loss_is_zero_on_policy_only_where_sequences_weigh_the_same() -> None:
    """Advantages of a group add up to 0; where long answers weigh more, the loss is not 0."""
    batch, _ = _case(5)
    mask = batch.attention_mask & (torch.arange(8) > 0)
    batch = replace(batch, action_mask=mask, reward=torch.arange(6).double())
    advantage = spread(grpo_advantages(batch.reward, batch.group_id, scale="none"), mask)
    batch = replace(batch, advantage=advantage)
    values = {
        name: grpo_loss(batch.logp_old, batch, GRPOLossConfig(aggregation=name)).loss.item()
        for name in ("grpo", "dapo", "dr_grpo")
    }
    assert values["grpo"] == pytest.approx(0, abs=1e-12)
    assert abs(values["dapo"]) > 1e-3 and abs(values["dr_grpo"]) > 1e-3


def test_groups_without_variance_send_no_gradient() -> None:
    batch, logp = _case(2)
    equal = replace(batch, reward=torch.ones(6, dtype=torch.float64))
    advantage = spread(grpo_advantages(equal.reward, equal.group_id), equal.action_mask)
    out = grpo_loss(logp, replace(equal, advantage=advantage))
    (gradient,) = torch.autograd.grad(out.loss, logp)
    assert out.loss.item() == 0 and not bool(gradient.any())


def test_truncated_completions_are_left_out_of_loss_and_counts() -> None:
    batch, logp = _case(3)
    kept = batch.without_truncated()
    out = grpo_loss(logp, kept, GRPOLossConfig(aggregation="dapo"))
    (gradient,) = torch.autograd.grad(out.loss, logp)
    assert not bool(gradient[batch.truncated].any())
    rows = (~batch.truncated).nonzero().squeeze(1)
    alone = batch.select(rows)
    expected = grpo_loss(
        logp[rows][:, : alone.width], alone, GRPOLossConfig(aggregation="dapo")
    ).loss
    torch.testing.assert_close(out.loss, expected)


def test_a_long_bad_answer_weighs_less_only_where_its_own_length_divides() -> None:
    """The length bias of Dr. GRPO's authors: gradient of a token of a wrong answer, 2 or 8 long."""
    sizes: dict[str, list[float]] = {}
    for length in (2, 8):
        mask = torch.zeros(2, 10, dtype=torch.bool)
        mask[0, 1:3] = True
        mask[1, 1 : 1 + length] = True
        base = rollout_batch(2, 10, torch.Generator().manual_seed(0))
        advantage = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) * mask
        batch = replace(base, action_mask=mask, advantage=advantage)
        counts = Counts.of(batch, max_completion_length=10)
        for name in ("grpo", "dr_grpo"):
            logp = base.logp_old.clone().requires_grad_()
            config = GRPOLossConfig(aggregation=name)  # type: ignore[arg-type]
            (gradient,) = torch.autograd.grad(grpo_loss(logp, batch, config, counts).loss, logp)
            sizes.setdefault(name, []).append(float(gradient[1, 1]))
    assert sizes["grpo"][0] == pytest.approx(4 * sizes["grpo"][1])
    assert sizes["dr_grpo"][0] == pytest.approx(sizes["dr_grpo"][1])


def test_a_small_cap_of_cispo_is_warned_about() -> None:
    with pytest.warns(SmallCapWarning, match="largest ratio itself"):
        GRPOLossConfig(aggregation="cispo", eps_high=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert GRPOLossConfig(aggregation="cispo").high == 5.0


def test_bad_options_and_missing_numbers_are_refused() -> None:
    for wrong in (
        {"aggregation": "mean"},
        {"ratio": "batch"},
        {"kl_weight": "k3"},
        {"eps_low": 0.0},
        {"beta": -0.1},
        {"delta": 1.1},
    ):
        with pytest.raises(ConfigError, match="GRPOLossConfig"):
            GRPOLossConfig(**wrong)  # type: ignore[arg-type]
    batch, logp = _case(4)
    with pytest.raises(ConfigError, match="no advantages"):
        grpo_loss(logp, replace(batch, advantage=None))
    with pytest.raises(ConfigError, match="needs the reference"):
        grpo_loss(logp, replace(batch, ref_logp=None), GRPOLossConfig(beta=0.1))
