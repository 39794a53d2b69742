import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.losses.reward_model import (
    RewardModelConfig,
    calibration_error,
    reward_model_loss,
)
from sharpen.core.errors import ConfigError
from sharpen.testing.align import pair_batch


@given(seed=st.integers(0, 10_000), centering=st.sampled_from([0.0, 0.01]), margin=st.booleans())
def test_the_loss_is_its_formula(seed: int, centering: float, margin: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = pair_batch(4, 5, generator)
    if not margin:
        batch = replace(batch, margin=None)
    scores = torch.randn(8, generator=generator, dtype=torch.float64)
    total = 0.0
    for i in range(4):
        w, l = float(scores[i]), float(scores[4 + i])  # noqa: E741 - the paper's name
        above = w - l - (float(batch.margin[i]) if batch.margin is not None else 0.0)
        total += math.log1p(math.exp(-above)) + centering * (w + l) ** 2
    found = reward_model_loss(scores, batch, RewardModelConfig(centering=centering))
    assert found.loss.item() == pytest.approx(total / 4, rel=1e-10)
    assert found.metrics["accuracy"] == (float((scores[:4] > scores[4:]).sum()), 4.0)


def test_calibration_of_a_model_that_says_what_is_true_is_zero() -> None:
    """Of 10 pairs at odds of 9 to 1, nine are right: no error; twice the difference is too sure."""
    gap = math.log(9)
    chosen = torch.tensor([gap] * 9 + [-gap])
    scores = torch.cat([chosen, torch.zeros(10)])
    assert calibration_error(scores) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(2 * scores) == pytest.approx(81 / 82 - 0.9, abs=1e-6)
    assert calibration_error(torch.zeros(8)) == 0.0
    assert calibration_error(torch.zeros(0)) == 0.0
    with pytest.raises(ConfigError, match="bins=0"):
        calibration_error(scores, bins=0)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="centering=-1"):
        RewardModelConfig(centering=-1.0)
