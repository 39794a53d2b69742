import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from sharpen.search.gp.normal import log_h


def at(*z: float) -> torch.Tensor:
    return torch.tensor(z, dtype=torch.float64)


def test_is_the_logarithm_of_the_integral() -> None:
    for z in (-5.0, -2.0, -1.0, -0.9, -0.1, 0.0, 0.5, 3.0, 8.0):
        # h(z) is the expected positive part of z + Z.
        exact, _ = quad(lambda t, z=z: (z + t) * norm.pdf(t), -z, 40, epsabs=0, epsrel=1e-12)
        assert float(log_h(at(z))) == pytest.approx(np.log(exact), abs=1e-10)


def test_far_tails_have_their_known_values() -> None:
    # phi(z) + z Phi(z) in 60-digit arithmetic; the error grows as 1e-16 z^2.
    assert float(log_h(at(-40.0))) == pytest.approx(-808.29856835661996, abs=1e-11)
    assert float(log_h(at(-1000.0))) == pytest.approx(-500014.73445209116, rel=1e-9)
    assert float(log_h(at(-1e8))) == pytest.approx(-5e15 - 37.76030002, rel=1e-15)


def test_is_continuous_where_its_branches_meet_and_increases() -> None:
    for z in (-1.0, -6.7e7):
        near = log_h(at(z * (1 + 1e-12), z * (1 - 1e-12)))
        assert float(near[1] - near[0]) == pytest.approx(0, abs=1e-9 * max(1.0, z * z))
    grid = torch.linspace(-60, 10, 5000, dtype=torch.float64)
    assert (log_h(grid).diff() > 0).all()
    # Where the correction is about as small as rounding, it is lost but not turned into nonsense.
    far = torch.linspace(-7e7, -1e7, 100_001, dtype=torch.float64)
    leading = -far * far / 2
    assert ((log_h(far) - leading).abs() < 50 + 1e-15 * leading.abs()).all()


def test_gradient_is_right_and_finite_in_the_tail() -> None:
    z = torch.linspace(-12, 6, 60, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(log_h, z, atol=1e-6)
    far = at(-40.0, -1e3).requires_grad_()
    log_h(far).sum().backward()  # type: ignore[no-untyped-call]
    assert far.grad is not None
    # Phi(z) / h(z) in 60-digit arithmetic.
    np.testing.assert_allclose(far.grad, [40.049906657648518, 1000.0019999940], rtol=1e-6)
