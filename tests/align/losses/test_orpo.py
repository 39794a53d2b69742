import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.losses.base import log1mexp
from sharpen.align.losses.orpo import ORPOConfig, orpo_loss
from sharpen.core.errors import ConfigError
from sharpen.testing.align import logp_of, pair_batch


def _log_odds(mean: float) -> float:
    chance = math.exp(mean)
    return math.log(chance / (1 - chance))


@given(
    seed=st.integers(0, 10_000),
    nll_on=st.sampled_from(["all", "completion"]),
    weight=st.sampled_from([0.1, 1.0]),
)
def test_the_loss_is_its_formula(
    seed: int, nll_on: Literal["all", "completion"], weight: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = pair_batch(4, 7, generator)
    logp = logp_of(8, 7, generator)
    odds = nll = 0.0
    tokens = 0
    for w in range(4):
        kept, lost = batch.action_mask[w], batch.action_mask[4 + w]
        if bool(kept.any()) and bool(lost.any()):
            better = _log_odds(float(logp[w][kept].mean()))
            worse = _log_odds(float(logp[4 + w][lost].mean()))
            odds += math.log1p(math.exp(-(better - worse)))
        learnt = batch.attention_mask[w].clone()
        learnt[0] = False
        learnt = learnt if nll_on == "all" else kept
        nll -= float(logp[w][learnt].sum())
        tokens += int(learnt.sum())
    found = orpo_loss(logp, batch, ORPOConfig(weight=weight, nll_on=nll_on))
    assert found.loss.item() == pytest.approx(nll / max(1, tokens) + weight * odds / 4, rel=1e-9)


@pytest.mark.parametrize("exponent", range(-18, 3))
def test_log1mexp_keeps_its_digits_and_those_of_its_slope(exponent: int) -> None:
    value = -(10.0**exponent)
    expected = math.log(-math.expm1(value)) if value > -1 else math.log1p(-math.exp(value))
    x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    found = log1mexp(x)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-12)
    (slope,) = torch.autograd.grad(found, x)
    assert float(slope) == pytest.approx(math.exp(value) / math.expm1(value), rel=1e-12)


def test_a_certain_completion_has_a_finite_loss() -> None:
    """All log-probabilities 0: the odds are infinite, the loss and its gradient are not."""
    batch = pair_batch(3, 7, torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float64):
        logp = torch.zeros(6, 7, dtype=dtype, requires_grad=True)
        out = orpo_loss(logp, batch)
        (gradient,) = torch.autograd.grad(out.loss, logp)
        assert bool(torch.isfinite(out.loss)) and bool(torch.isfinite(gradient).all())


def test_bad_options_are_refused() -> None:
    for wrong in ({"weight": -1.0}, {"nll_on": "prompt"}):
        with pytest.raises(ConfigError, match="ORPOConfig"):
            ORPOConfig(**wrong)  # type: ignore[arg-type]
