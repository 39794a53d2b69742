import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sharpen.search.gp.joint import JointProcess, Rows, _JointPosterior, fit_joint
from sharpen.search.gp.model import GaussianProcess, Hyperparameters
from sharpen.search.gp.thompson import sample_paths

SCALES = torch.tensor([0.5, 0.9], dtype=torch.float64)
HYPER = Hyperparameters(lengthscales=SCALES, scale=1.3, noise=1e-6)


def points(n: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((n, 2)))


def wave(x: Tensor) -> Tensor:
    found: Tensor = torch.sin(4 * x[:, 0]) + x[:, 1] ** 2
    return found


def values(x: Tensor, task: int = 0, shift: float = 0.0) -> Rows:
    none = torch.full((len(x),), -1, dtype=torch.int64)
    return Rows(
        points=x,
        targets=wave(x) + shift,
        axes=none,
        tasks=torch.full_like(none, task),
        noise=torch.zeros(len(x), dtype=torch.float64),
    )


def slopes(x: Tensor) -> Rows:
    by_first, by_second = 4 * torch.cos(4 * x[:, 0]), 2 * x[:, 1]
    n = len(x)
    return Rows(
        points=x.repeat(2, 1),
        targets=torch.cat([by_first, by_second]),
        axes=torch.arange(2).repeat_interleave(n),
        tasks=torch.zeros(2 * n, dtype=torch.int64),
        noise=torch.zeros(2 * n, dtype=torch.float64),
    )


@pytest.mark.parametrize("kernel", ["matern52", "rbf"])
def test_covariances_of_slopes_are_derivatives_of_the_kernel(kernel: str) -> None:
    model = JointProcess(
        Rows.stacked([values(points(3)), slopes(points(2, 1))]), HYPER, kernel=kernel
    )
    got = model._between(model._data(), model._data())

    def k(a: Tensor, b: Tensor) -> Tensor:
        u = (((a - b) / SCALES) ** 2).sum()
        if kernel == "rbf":
            return 1.3 * torch.exp(-u / 2) + 1
        r = (5 * u + 1e-30).sqrt()
        found: Tensor = 1.3 * (1 + r + r * r / 3) * torch.exp(-r) + 1
        return found

    for i in range(len(model)):
        for j in range(len(model)):
            if torch.equal(model.features[i], model.features[j]):
                continue  # the reference has no second derivative there
            a = model.features[i].clone().requires_grad_()
            b = model.features[j].clone().requires_grad_()
            expected = k(a, b)
            if model._axes[j] >= 0:
                (found,) = torch.autograd.grad(expected, b, create_graph=True)
                expected = found[model._axes[j]]
            if model._axes[i] >= 0:
                (found,) = torch.autograd.grad(expected, a, create_graph=True)
                expected = found[model._axes[i]]
            assert float(got[i, j]) == pytest.approx(float(expected.detach()), abs=1e-10)
    assert (torch.linalg.eigvalsh(got) > 0).all()


def test_a_slope_is_the_limit_of_two_values() -> None:
    x, at, step = points(4), points(6, 2), 1e-2
    hyper = Hyperparameters(lengthscales=SCALES, scale=1.3, noise=1e-10)
    with_slopes = JointProcess(Rows.stacked([values(x), slopes(x)]), hyper, kernel="rbf")
    moved = [x + step * torch.eye(2, dtype=torch.float64)[k] for k in range(2)]
    back = [x - step * torch.eye(2, dtype=torch.float64)[k] for k in range(2)]
    # Differences of values shall tell of slopes but not of curvature.
    rough = Hyperparameters(lengthscales=SCALES, scale=1.3, noise=1e-7)
    pairs = Rows.stacked([values(p) for p in (x, *moved, *back)])
    with_values = JointProcess(pairs, rough, kernel="rbf")
    got, expected = with_slopes.posterior(at), with_values.posterior(at)
    np.testing.assert_allclose(got[0], expected[0], atol=0.02)
    np.testing.assert_allclose(got[1], expected[1], atol=0.02)


def test_the_posterior_has_the_slopes_that_were_seen() -> None:
    x = points(5)
    model = JointProcess(Rows.stacked([values(x), slopes(x)]), HYPER)
    at = x.clone().requires_grad_()
    mean, _ = model.posterior(at)
    np.testing.assert_allclose(mean.detach(), wave(x), atol=1e-3)
    (found,) = torch.autograd.grad(mean.sum(), at)
    expected = torch.stack([4 * torch.cos(4 * x[:, 0]), 2 * x[:, 1]], 1)
    np.testing.assert_allclose(found, expected, atol=0.02)
    other = points(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(model.posterior, other, atol=1e-5)


def test_without_slopes_and_relatives_it_is_a_plain_process_with_a_random_mean() -> None:
    x, at = points(8), points(5, 1)
    joint = JointProcess(values(x), HYPER)
    plain = GaussianProcess(x, wave(x), HYPER)
    np.testing.assert_allclose(joint.posterior(at)[0], plain.posterior(at)[0], atol=1e-8)
    assert (joint.posterior(at)[1] >= plain.posterior(at)[1] - 1e-12).all()
    grown = JointProcess(values(x[:5]), HYPER).append(x[5:], wave(x[5:]))
    for mine, theirs in zip(grown.posterior(at), joint.posterior(at), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-8)
    np.testing.assert_allclose(
        joint.covariance(at, at).diagonal(), joint.posterior(at)[1], atol=1e-10
    )


def test_relatives_have_the_covariance_of_coregionalization() -> None:
    x, y = points(3), points(2, 1)
    loads = torch.tensor([1.0, 0.8, -0.4], dtype=torch.float64)
    rows = Rows.stacked([values(x), values(y, 1), values(y, 2)])
    model = JointProcess(rows, HYPER, loads)
    got = model._between(model._data(), model._data())
    b = torch.outer(loads, loads) + torch.diag(1 - loads**2)
    plain = GaussianProcess(rows.points, rows.targets, HYPER)
    same = (rows.tasks[:, None] == rows.tasks[None]).double()
    prior = plain.prior(rows.points, rows.points)
    np.testing.assert_allclose(got, b[rows.tasks][:, rows.tasks] * prior + same, atol=1e-12)


def test_the_gradient_of_the_density_is_that_of_differences_and_finds_what_is_related() -> None:
    x, y, z = points(4), points(20, 1), points(20, 2)
    unlike = values(z, 2)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=20))
    unlike = Rows(
        points=z,
        targets=noise,
        axes=unlike.axes,
        tasks=unlike.tasks,
        noise=unlike.noise,
    )
    rows = Rows.stacked([values(x), values(y, 1, 0.7), unlike])
    groups = np.array([0, 1])
    density = _JointPosterior(rows, groups, kernel="matern52", learn_noise=True)
    theta = density.starts + 0.1 * np.random.default_rng(1).normal(size=density.starts.shape)
    _, gradient = density(theta)
    for k in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[k] = 1e-5
        slope = (density(theta + step)[0] - density(theta - step)[0]) / 2e-5
        np.testing.assert_allclose(gradient[:, k], slope, rtol=1e-4, atol=1e-4)
    hyper, loads, noises = fit_joint(rows, groups)
    assert float(loads[1]) > 0.9
    assert abs(float(loads[2])) < 0.6
    at = points(50, 5)
    mean, _ = JointProcess(rows, hyper, loads, noises).posterior(at)
    alone = GaussianProcess(x, wave(x), HYPER)
    error = float((mean - wave(at)).abs().mean())
    assert error < 0.5 * float((alone.posterior(at)[0] - wave(at)).abs().mean())


def test_slopes_sharpen_the_fit() -> None:
    x, at = points(6), points(200, 4)
    rows = Rows.stacked([values(x), slopes(x)])
    hyper, _, _ = fit_joint(rows, np.array([0, 1]))
    error = (JointProcess(rows, hyper).posterior(at)[0] - wave(at)).abs().mean()
    plain_hyper, _, _ = fit_joint(values(x), np.array([0, 1]))
    plain = (JointProcess(values(x), plain_hyper).posterior(at)[0] - wave(at)).abs().mean()
    assert float(error) < 0.3 * float(plain)


def test_drawn_functions_follow_the_posterior_of_slopes_and_relatives() -> None:
    x = points(3)
    loads = torch.tensor([1.0, 0.7], dtype=torch.float64)
    rows = Rows.stacked([values(x), slopes(x[:1]), values(points(4, 1), 1, 0.5)])
    model = JointProcess(rows, HYPER, loads)
    at = points(3, 7)
    drawn = torch.cat(
        [sample_paths(model, np.random.default_rng(s), 100)(at) for s in range(30)], 1
    )
    mean, variance = model.posterior(at)
    error = (variance / drawn.shape[1]).sqrt()
    assert ((drawn.mean(1) - mean).abs() < 5 * error + 0.01).all()
    np.testing.assert_allclose(drawn.var(1), variance, rtol=0.2, atol=1e-3)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_slopes_of_the_rbf_kernel_are_those_of_gpytorch() -> None:
    kernels = pytest.importorskip("gpytorch.kernels")
    x = points(4)
    kernel = kernels.RBFKernelGrad(ard_num_dims=2).double()
    kernel.lengthscale = SCALES[None]
    expected = 1.3 * kernel(x, x).to_dense().detach()  # rows: value, slopes of each point in turn
    model = JointProcess(Rows.stacked([values(x), slopes(x)]), HYPER, kernel="rbf")
    got = model._between(model._data(), model._data())
    got = got - ((model._axes[:, None] < 0) & (model._axes[None] < 0)).double()
    order = torch.tensor([k * 4 + i for i in range(4) for k in range(3)])
    np.testing.assert_allclose(got[order][:, order], expected, atol=1e-8)
    assert math.isfinite(float(got.sum()))
