"""Where trials succeed: Gaussian process classification by Laplace's method.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, algorithms 3.1
and 3.2, with the logistic likelihood; the mean of the logistic function: David J. C. MacKay, "The
Evidence Framework Applied to Classification Networks", Neural Computation 4(5), 1992::

    f^    = argmax sum_i log sigma(y_i f_i) - f' K^-1 f / 2        y = -1 or 1, by Newton steps
    W     = sigma(f^) (1 - sigma(f^))
    log q = -a' f^ / 2 + sum_i log sigma(y_i f^_i) - log det(I + W^1/2 K W^1/2) / 2,  K a = f^
    p(x)  = sigma(mu(x) / sqrt(1 + pi var(x) / 8))

mu and var are those of regression on f^ + (y - p) / W with noise of variance 1 / W, so the
posterior is a :class:`~sharpen.search.gp.model.GaussianProcess`. Hyper-parameters maximize log q
and their log prior; the gradient goes through one more Newton step from f^, which has the
derivative of f^.

Differs from the book: the gradient is autograd's. Prior of log s: N(1, 1); of the lengthscales, as
in regression. Time O(k n^3) a fit's evaluation for k Newton steps.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.search.gp.acquisition import Acquisition
from sharpen.search.gp.kernels import profile
from sharpen.search.gp.model import GaussianProcess, Hyperparameters
from sharpen.search.gp.optimize import minimize_all
from sharpen.search.gp.prior import LengthscalePrior

__all__ = ["fit_success", "log_success", "success_model"]

Floats = npt.NDArray[np.float64]

_STEPS = 50
_CONVERGED = 1e-9
_BOUNDS = ((2.5e-2, 1e3), (1e-1, 1e3))
_LEAST_CURVATURE = 1e-10


def _covariance(
    features: Tensor, lengthscales: Tensor, scale: Tensor | float, kernel: str
) -> Tensor:
    """[..., n, n] prior covariance, differentiable in lengthscales [..., p] and scale."""
    gap = (features[:, None] - features[None]) ** 2
    u = (gap / (lengthscales**2)[..., None, None, :]).sum(-1)
    if kernel == "matern52":
        # Distances 0 get a slope of 0 from the clamp, where the root has none.
        r = (5 * u).clamp(min=1e-30).sqrt()
        return scale * (1 + r + r * r / 3) * torch.exp(-r)
    return scale * torch.exp(-u / 2)


def _newton(covariance: Tensor, labels: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """One step from latent values [..., n]: new ones and the a with K a = f."""
    p = torch.sigmoid(f)
    w = p * (1 - p)
    root = w.sqrt()
    eye = torch.eye(len(labels), dtype=torch.float64)
    inner = eye + root[..., :, None] * covariance * root[..., None, :]
    factor = torch.linalg.cholesky(inner)
    b = w * f + (labels + 1) / 2 - p
    solved = torch.cholesky_solve((root * (covariance @ b[..., None])[..., 0])[..., None], factor)
    a = b - root * solved[..., 0]
    return (covariance @ a[..., None])[..., 0], a


def _mode(covariance: Tensor, labels: Tensor) -> Tensor:
    f = torch.zeros(covariance.shape[:-1], dtype=torch.float64)
    for _ in range(_STEPS):
        new, _ = _newton(covariance, labels, f)
        change = float((new - f).abs().max())
        f = new
        if change < _CONVERGED:
            break
    return f


def log_evidence(covariance: Tensor, labels: Tensor) -> Tensor:
    """[...] log q of covariances [..., n, n], differentiable in them."""
    with torch.no_grad():
        mode = _mode(covariance, labels)
    f, a = _newton(covariance, labels, mode)
    p = torch.sigmoid(f)
    root = (p * (1 - p)).sqrt()
    eye = torch.eye(len(labels), dtype=torch.float64)
    inner = eye + root[..., :, None] * covariance * root[..., None, :]
    size = torch.linalg.cholesky(inner).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    likelihood = torch.nn.functional.logsigmoid(labels * f).sum(-1)
    value: Tensor = -0.5 * (a * f).sum(-1) + likelihood - size
    return value


def fit_success(
    features: Tensor,
    labels: Tensor,
    groups: npt.NDArray[np.int64],
    *,
    kernel: str = "matern52",
    evaluations: int = 30,
) -> Hyperparameters:
    """Hyper-parameters of the largest posterior density.

    Args:
        features: [n, p] float64 points.
        labels: [n] float64, 1 where the trial succeeded and -1 where it failed.
        groups: [p] which lengthscale each feature has.
        kernel: ``matern52`` or ``rbf``.
        evaluations: most evaluations of the density.
    """
    profile(kernel)
    count = int(groups.max()) + 1
    index = torch.from_numpy(groups)
    lengthscale_prior = LengthscalePrior(count)
    centre = lengthscale_prior.centre

    def loss(theta: Floats, rows: object) -> tuple[Floats, Floats]:
        t = torch.from_numpy(theta).requires_grad_()
        lengthscales = t[:, :count].exp()[:, index]
        covariance = _covariance(features, lengthscales, t[:, count].exp()[:, None, None], kernel)
        prior = lengthscale_prior.misfit(t[:, :count] - centre) + (t[:, count] - 1) ** 2 / 2
        value = prior - log_evidence(covariance, labels)
        value.sum().backward()  # type: ignore[no-untyped-call]
        assert t.grad is not None
        return value.detach().numpy(), t.grad.numpy()

    low, high = (np.log([*[b[k] for b in [_BOUNDS[0]] * count], _BOUNDS[1][k]]) for k in (0, 1))
    starts = np.array([[*[centre] * count, 1.0], [*[centre + 1.0] * count, 2.0]])
    best, value = minimize_all(loss, starts, low, high, evaluations=evaluations, tolerance=1e-4)
    theta = best[int(np.argmin(value))]
    return Hyperparameters(
        lengthscales=torch.from_numpy(np.exp(theta[:count])[groups]), scale=math.exp(theta[count])
    )


def success_model(
    features: Tensor, labels: Tensor, hyper: Hyperparameters, *, kernel: str = "matern52"
) -> GaussianProcess:
    """The posterior of the latent function; arguments as for :func:`fit_success`."""
    with torch.no_grad():
        covariance = _covariance(features, hyper.lengthscales, hyper.scale, kernel)
        f = _mode(covariance, labels)
        p = torch.sigmoid(f)
        w = (p * (1 - p)).clamp(min=_LEAST_CURVATURE)
        targets = f + ((labels + 1) / 2 - p) / w
        return GaussianProcess(features, targets, hyper, kernel=kernel, noise=1 / w, mean=0.0)


def log_success(model: GaussianProcess) -> Acquisition:
    """The logarithm of the probability that a trial succeeds."""

    def value(points: Tensor) -> Tensor:
        mean, variance = model.posterior(points)
        chance: Tensor = mean / (1 + math.pi * variance / 8).sqrt()
        return torch.nn.functional.logsigmoid(chance)

    return value
