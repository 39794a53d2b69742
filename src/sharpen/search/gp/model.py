"""The exact Gaussian process: posterior, hyper-parameters by maximum a posteriori, appended data.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, algorithm 2.1 and
equations 5.8, 5.9 and 5.12; prior of the lengthscales: Carl Hvarfner, Erik Orm Hellsten and Luigi
Nardi, "Vanilla Bayesian Optimization Performs Great in High Dimensions", ICML 2024, section 5::

    K        = s k(X, X) + diag(v + e)        v known variances of the noise, e the learnt one
    m        = 1' K^-1 y / (1' K^-1 1 + 1)    constant mean, with a N(0, 1) prior
    mu(x)    = m + s k(x, X) K^-1 (y - m)
    var(x)   = s - s k(x, X) K^-1 k(X, x) s
    log p(y) = -1/2 (y - m)' K^-1 (y - m) - 1/2 log det K - n/2 log 2 pi
    d log p(y) / d t = 1/2 trace((a a' - K^-1) dK/dt),  a = K^-1 (y - m)
    log l_j ~ N(sqrt(2) + log(p) / 2 - 3, 3)  the density of l ~ LogNormal(sqrt(2) + log(p)/2, 3)
                                              has its mode there
    log s   ~ N(0, 1)
    e       ~ Gamma(1.1, 30)

Differs from the papers: s is learnt, not 1, and the noise has a prior that leaves it free to
vanish, because many objectives have none. K^-1 is never formed for a prediction, only its Cholesky
factor; where that fails, jitter is added, from 1e-8 of s by tens to 1e-4.

Time O(n^3) a fit's evaluation and a factor, O(n^2 k) to append k points, O(q n^2) for q
predictions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.search.gp.kernels import Profile, correlation, profile, squared_distances
from sharpen.search.gp.optimize import minimize_all

__all__ = ["GaussianProcess", "Hyperparameters", "fit"]

Floats = npt.NDArray[np.float64]

LEAST_NOISE = 1e-8
_BOUNDS = {"lengthscale": (2.5e-2, 1e3), "scale": (1e-2, 1e2), "noise": (LEAST_NOISE, 1.0)}
_JITTERS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
_GAMMA_SHAPE, _GAMMA_RATE = 1.1, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """What :func:`fit` finds; see the module."""

    lengthscales: Tensor
    """[p] one a feature."""

    scale: float = 1.0
    """s, the variance of the function."""

    noise: float = LEAST_NOISE
    """e, the learnt variance of the noise."""


class GaussianProcess:
    """A Gaussian process given data.

    Args:
        features: [n, p] float64 points.
        targets: [n] or [n, k] float64 values; k columns are k functions that share all but these.
        hyper: lengthscales, scale and noise.
        kernel: ``matern52`` or ``rbf``.
        noise: [n] known variances; None is none.
        mean: the constant mean; None is the likeliest.

    Raises:
        ConfigError: the covariance is not positive definite in spite of jitter.

    Examples:
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> hyper = Hyperparameters(lengthscales=torch.ones(1, dtype=torch.float64))
        >>> model = GaussianProcess(x, torch.tensor([-1.0, 1.0], dtype=torch.float64), hyper)
        >>> mean, variance = model.posterior(x)
        >>> [round(float(v), 4) for v in mean]
        [-1.0, 1.0]
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        hyper: Hyperparameters,
        *,
        kernel: str = "matern52",
        noise: Tensor | None = None,
        mean: float | None = None,
    ) -> None:
        scaled = features / hyper.lengthscales
        shape = profile(kernel)
        known = torch.zeros(len(features), dtype=torch.float64) if noise is None else noise
        covariance = hyper.scale * shape(squared_distances(scaled, scaled))[0]
        covariance.diagonal().add_(known + hyper.noise)
        factor = _cholesky(covariance, hyper.scale)
        self._settle(scaled, targets, hyper, kernel, known, mean, factor)

    def _settle(
        self,
        scaled: Tensor,
        targets: Tensor,
        hyper: Hyperparameters,
        kernel: str,
        known: Tensor,
        given_mean: float | None,
        factor: Tensor,
    ) -> None:
        self.hyper, self.kernel, self.known_noise = hyper, kernel, known
        self.targets, self._scaled, self._factor = targets, scaled, factor
        self._given_mean = given_mean
        self._profile: Profile = profile(kernel)
        columns = targets.reshape(len(targets), -1)
        ones = torch.ones(len(targets), 1, dtype=torch.float64)
        half = torch.linalg.solve_triangular(factor, torch.cat([ones, columns], 1), upper=False)
        one, y = half[:, :1], half[:, 1:]
        if given_mean is None:
            mean = (one.T @ y) / ((one * one).sum() + 1)
        else:
            mean = torch.full((1, columns.shape[1]), given_mean, dtype=torch.float64)
        self._residual = y - one * mean  # L^-1 (y - m)
        weights = torch.linalg.solve_triangular(factor.mT, self._residual, upper=True)
        self.mean = mean[0].reshape(targets.shape[1:])
        self._weights = weights

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def features(self) -> Tensor:
        """[n, p] the data's points."""
        return self._scaled * self.hyper.lengthscales

    # -- predictions ----------------------------------------------------------------------------

    def _cross(self, points: Tensor) -> Tensor:
        """[q, n] prior covariances of points with the data."""
        scaled = points / self.hyper.lengthscales
        return self.hyper.scale * correlation(scaled, self._scaled, self._profile)

    def posterior(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the function, without noise.

        Args:
            points: [q, p]; gradients flow to them.

        Returns:
            [q] or [q, k] means and [q] variances, at least 0.
        """
        cross = self._cross(points)
        mean = cross @ self._weights + self.mean.reshape(1, -1)
        half = torch.linalg.solve_triangular(self._factor, cross.mT, upper=False)
        variance = (self.hyper.scale - (half * half).sum(0)).clamp(min=0)
        return mean.reshape(len(points), *self.targets.shape[1:]), variance

    def half(self, points: Tensor) -> Tensor:
        """[n, q] L^-1 k(X, points): its columns' products are what data take off the prior."""
        found: Tensor = torch.linalg.solve_triangular(
            self._factor, self._cross(points).mT, upper=False
        )
        return found

    def covariance(self, points: Tensor, others: Tensor) -> Tensor:
        """[q, m] posterior covariances of the function; gradients flow to ``points`` alone."""
        lengthscales = self.hyper.lengthscales
        prior = correlation(points / lengthscales, others / lengthscales, self._profile)
        return self.hyper.scale * prior - self.half(points).mT @ self.half(others)

    # -- evidence -------------------------------------------------------------------------------

    def log_likelihood(self) -> Tensor:
        """[] or [k] log p(y)."""
        n = len(self)
        misfit = 0.5 * (self._residual**2).sum(0)
        size = self._factor.diagonal().log().sum() + n / 2 * math.log(2 * math.pi)
        value: Tensor = -misfit - size
        return value.reshape(self.targets.shape[1:])

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each observed value given all others, with its noise.

        Rasmussen and Williams 2006, equation 5.12, with the mean held.

        Returns:
            [n] or [n, k] means and [n] variances.
        """
        inverse = torch.cholesky_inverse(self._factor)
        variance = 1 / inverse.diagonal()
        columns = self.targets.reshape(len(self), -1)
        return (columns - self._weights * variance[:, None]).reshape(self.targets.shape), variance

    # -- more data ------------------------------------------------------------------------------

    def append(
        self, features: Tensor, targets: Tensor, noise: Tensor | None = None
    ) -> GaussianProcess:
        """The same process given more data, by extending the Cholesky factor.

        Args:
            features: [j, p] further points.
            targets: [j] or [j, k] their values; k may be more than one where it was none so far.
            noise: [j] known variances.
        """
        scaled = features / self.hyper.lengthscales
        known = torch.zeros(len(features), dtype=torch.float64) if noise is None else noise
        side = torch.linalg.solve_triangular(self._factor, self._cross(features).mT, upper=False).mT
        corner = self.hyper.scale * self._profile(squared_distances(scaled, scaled))[0]
        corner.diagonal().add_(known + self.hyper.noise)
        corner = _cholesky(corner - side @ side.mT, self.hyper.scale)
        n, j = len(self), len(features)
        factor = torch.zeros(n + j, n + j, dtype=torch.float64)
        factor[:n, :n], factor[n:, :n], factor[n:, n:] = self._factor, side, corner
        old = self.targets
        if targets.dim() > old.dim():
            old = old[:, None].expand(-1, targets.shape[1])
        grown = object.__new__(GaussianProcess)
        grown._settle(
            torch.cat([self._scaled, scaled]),
            torch.cat([old, targets]),
            self.hyper,
            self.kernel,
            torch.cat([self.known_noise, known]),
            self._given_mean,
            factor,
        )
        return grown

    def with_targets(self, targets: Tensor, mean: float = 0.0) -> GaussianProcess:
        """The same process with other values at the same points, and a mean that is given."""
        other = object.__new__(GaussianProcess)
        known, factor = self.known_noise, self._factor
        other._settle(self._scaled, targets, self.hyper, self.kernel, known, mean, factor)
        return other


def _cholesky(covariance: Tensor, scale: float) -> Tensor:
    for jitter in _JITTERS:
        eye = jitter * scale * torch.eye(len(covariance), dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(covariance + eye)
        if not int(failed):
            found: Tensor = factor
            return found
    raise ConfigError(
        f"the covariance of {len(covariance)} points is not positive definite even with "
        f"{_JITTERS[-1]:g} added to its diagonal (GaussianProcess). Are there NaNs among them?"
    )


def fit(
    features: Tensor,
    targets: Tensor,
    groups: npt.NDArray[np.int64],
    *,
    kernel: str = "matern52",
    noise: Tensor | None = None,
    learn_noise: bool = True,
    evaluations: int = 60,
) -> Hyperparameters:
    """Hyper-parameters of the largest posterior density.

    Args:
        features: [n, p] float64 points.
        targets: [n] float64 standardized values.
        groups: [p] which lengthscale each feature has.
        kernel: ``matern52`` or ``rbf``.
        noise: [n] known variances; None is none.
        learn_noise: whether there may be noise beside the known one.
        evaluations: most evaluations of the density; each takes all starts in one batch.
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    posterior = LogPosterior(features, targets, groups, kernel=kernel, noise=noise)
    low = np.log([*[_BOUNDS["lengthscale"][0]] * count, _BOUNDS["scale"][0], LEAST_NOISE])
    high = np.log([*[_BOUNDS["lengthscale"][1]] * count, _BOUNDS["scale"][1], 1.0])
    if not learn_noise:
        high[-1] = low[-1]
    centre = posterior.centre
    starts = np.array(
        [
            [*[centre] * count, 0.0, math.log(1e-4)],
            [*[centre - 1.2] * count, 0.0, math.log(1e-2)],
        ]
    )
    best, value = minimize_all(
        posterior, starts, low, high, evaluations=evaluations, tolerance=1e-6
    )
    theta = best[int(np.argmin(value))]
    return Hyperparameters(
        lengthscales=torch.from_numpy(np.exp(theta[:count])[groups]),
        scale=math.exp(theta[count]),
        noise=math.exp(theta[count + 1]),
    )


class LogPosterior:
    """The negative log density of hyper-parameters given data, with its gradient.

    Arguments are those of :func:`fit`. Called with [b, g + 2] rows of log lengthscales, log s and
    log e, it gives [b] values and [b, g + 2] gradients.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        groups: npt.NDArray[np.int64],
        *,
        kernel: str = "matern52",
        noise: Tensor | None = None,
    ) -> None:
        self._x, self._y, self._groups = features, targets, torch.from_numpy(groups)
        self._count = int(groups.max()) + 1 if len(groups) else 0
        self._profile = profile(kernel)
        n = len(targets)
        self._noise = torch.zeros(n, dtype=torch.float64) if noise is None else noise
        self.centre = math.sqrt(2) - 3 + math.log(max(self._count, 1)) / 2

    @torch.no_grad()
    def __call__(self, theta: Floats, rows: object = None) -> tuple[Floats, Floats]:
        """See the class."""
        count, n = self._count, len(self._y)
        t = torch.from_numpy(np.ascontiguousarray(theta))
        scale, noise = t[:, count].exp(), t[:, count + 1].exp()
        scaled = self._x * (-t[:, :count]).exp()[:, self._groups].unsqueeze(1)
        k, slope, _ = self._profile(squared_distances(scaled, scaled))
        signal = scale[:, None, None] * k
        covariance = signal.clone()
        covariance.diagonal(dim1=1, dim2=2).add_(self._noise + noise[:, None])
        factor, failed = torch.linalg.cholesky_ex(covariance)
        factor[failed > 0] = torch.eye(n, dtype=torch.float64)
        inverse = torch.cholesky_inverse(factor)
        ones = inverse.sum(2)
        mean = (ones @ self._y) / (ones.sum(1) + 1)
        weights = inverse @ self._y - mean[:, None] * ones
        value = 0.5 * ((self._y - mean[:, None]) * weights).sum(1) + 0.5 * mean**2
        value += factor.diagonal(dim1=1, dim2=2).log().sum(1) + n / 2 * math.log(2 * math.pi)
        outer = inverse - weights[:, :, None] * weights[:, None, :]
        h = outer * slope * scale[:, None, None]
        by_feature = -2 * (scaled * (scaled * h.sum(2, keepdim=True) - h @ scaled)).sum(1)
        gradient = torch.zeros_like(t)
        gradient[:, :count].index_add_(1, self._groups, by_feature)
        gradient[:, count] = 0.5 * (outer * signal).sum((1, 2))
        gradient[:, count + 1] = 0.5 * noise * outer.diagonal(dim1=1, dim2=2).sum(1)
        # The priors, as the module gives them.
        away = t[:, :count] - self.centre
        value += (away**2).sum(1) / 6 + t[:, count] ** 2 / 2
        value += _GAMMA_RATE * noise - (_GAMMA_SHAPE - 1) * t[:, count + 1]
        gradient[:, :count] += away / 3
        gradient[:, count] += t[:, count]
        gradient[:, count + 1] += _GAMMA_RATE * noise - (_GAMMA_SHAPE - 1)
        value[failed > 0] = math.inf
        return value.numpy(), gradient.numpy()
