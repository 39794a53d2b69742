from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.losses.kto import (
    Divergence,
    KTOConfig,
    kto_divergence,
    kto_loss,
    kto_weights,
)
from sharpen.core.errors import ConfigError
from sharpen.testing.align import label_batch, logp_of


@given(seed=st.integers(0, 10_000), size=st.integers(2, 6), beta=st.sampled_from([0.1, 1.0]))
def test_the_loss_is_its_formula(seed: int, size: int, beta: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = label_batch(size, 7, generator)
    logp = logp_of(2 * size, 7, generator)
    assert batch.ref_logp is not None
    sums = np.array([float(logp[i][batch.action_mask[i]].sum()) for i in range(2 * size)])
    ratios = sums - batch.ref_logp.numpy()
    z0 = max(0.0, beta * ratios[size:].mean())
    total = 0.0
    for i in range(size):
        r = beta * ratios[i]
        if batch.desirable[i]:
            total += 1.3 * (1 - 1 / (1 + np.exp(-(r - z0))))
        else:
            total += 0.8 * (1 - 1 / (1 + np.exp(-(z0 - r))))
    config = KTOConfig(beta=beta, desirable_weight=1.3, undesirable_weight=0.8)
    assert kto_loss(logp, batch, config).loss.item() == pytest.approx(total / size, rel=1e-10)


def test_the_zero_point_has_no_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = label_batch(3, 7, generator)
    logp = logp_of(6, 7, generator).requires_grad_()
    (gradient,) = torch.autograd.grad(kto_loss(logp, batch).loss, logp)
    assert not bool(gradient[3:].any()) and bool(gradient[:3].any())


@given(good=st.integers(0, 500), bad=st.integers(0, 500))
def test_weights_balance_the_classes(good: int, bad: int) -> None:
    first, second = kto_weights(good, bad)
    assert min(first, second) == 1.0
    if good and bad:
        assert 1 - 1e-12 <= first * good / (second * bad) <= 4 / 3 + 1e-12


def test_a_batch_of_one_has_no_mismatched_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = label_batch(1, 5, generator)
    with pytest.raises(ConfigError, match="at least 2"):
        kto_loss(logp_of(2, 5, generator), batch)
    two = label_batch(2, 5, generator)
    with pytest.raises(ConfigError, match="ref_logp"):
        kto_divergence(logp_of(4, 5, generator), replace(two, ref_logp=None))
    assert Divergence(total=0.0, count=0).mean == 0.0
    with pytest.raises(ConfigError, match="KTOConfig"):
        KTOConfig(beta=0.0)
