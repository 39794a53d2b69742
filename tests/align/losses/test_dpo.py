import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.losses.base import mean_metrics
from sharpen.align.losses.dpo import DPOConfig, dpo_loss
from sharpen.core.errors import ConfigError
from sharpen.testing.align import logp_of, pair_batch

Kind = Literal["sigmoid", "ipo", "robust", "hinge"]


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["sigmoid", "ipo", "robust", "hinge"]),
    smoothing=st.sampled_from([0.0, 0.1, 0.4]),
    beta=st.sampled_from([0.1, 1.0]),
)
def test_every_variant_is_its_formula(seed: int, kind: Kind, smoothing: float, beta: float) -> None:
    e = smoothing if kind in ("sigmoid", "robust") else 0.0
    generator = torch.Generator().manual_seed(seed)
    batch = pair_batch(4, 7, generator)
    logp = logp_of(8, 7, generator)
    assert batch.ref_logp is not None
    ratios = [float(logp[i][batch.action_mask[i]].sum() - batch.ref_logp[i]) for i in range(8)]
    lengths = batch.action_mask.sum(1).clamp(min=1).tolist()
    losses = []
    for w in range(4):
        l = w + 4  # noqa: E741 - the paper's name
        z = beta * (ratios[w] - ratios[l])
        losses.append(
            {
                "sigmoid": -(1 - e) * _log_sigmoid(z) - e * _log_sigmoid(-z),
                "robust": -((1 - e) * _log_sigmoid(z) - e * _log_sigmoid(-z)) / (1 - 2 * e),
                "hinge": max(0.0, 1 - z),
                "ipo": (ratios[w] / lengths[w] - ratios[l] / lengths[l] - 1 / (2 * beta)) ** 2,
            }[kind]
        )
    found = dpo_loss(logp, batch, DPOConfig(kind=kind, beta=beta, label_smoothing=e))
    assert found.loss.item() == pytest.approx(float(np.mean(losses)), rel=1e-9)


def test_the_policy_equal_to_the_reference_has_the_loss_log_two() -> None:
    generator = torch.Generator().manual_seed(1)
    batch = pair_batch(3, 6, generator)
    logp = logp_of(6, 6, generator)
    same = replace(batch, ref_logp=(logp * batch.action_mask).sum(1))
    out = dpo_loss(logp, same)
    assert out.loss.item() == pytest.approx(math.log(2))
    assert mean_metrics(out.metrics)["margin"] == 0


def test_bad_options_and_a_missing_reference_are_refused() -> None:
    for wrong in (
        {"kind": "dpo"},
        {"beta": 0.0},
        {"label_smoothing": 0.5},
        {"kind": "ipo", "label_smoothing": 0.1},
    ):
        with pytest.raises(ConfigError, match="DPOConfig"):
            DPOConfig(**wrong)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    batch = replace(pair_batch(2, 6, generator), ref_logp=None)
    with pytest.raises(ConfigError, match="ref_logp of the pairs"):
        dpo_loss(logp_of(4, 6, generator), batch)
