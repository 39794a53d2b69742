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
    log a, log b ~ N(0, 0.75)   where inputs are warped, see :mod:`sharpen.search.gp.warp`

Differs from the papers: s is learnt, not 1, and the noise has a prior that leaves it free to
vanish, because many objectives have none. K^-1 is never formed for a prediction, only its Cholesky
factor; where that fails, jitter is added, from 1e-8 of s by tens to 1e-4.

Time O(n^3) a fit's evaluation and a factor, O(n^2 k) to append k points, O(q n^2) for q
predictions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.search.gp.kernels import correlation, profile, squared_distances
from sharpen.search.gp.optimize import minimize_all
from sharpen.search.gp.warp import warp, warp_slopes

__all__ = ["GaussianProcess", "Hyperparameters", "LogPosterior", "cholesky", "densest", "fit"]

Floats = npt.NDArray[np.float64]

LEAST_NOISE = 1e-8
_BOUNDS = {
    "lengthscale": (2.5e-2, 1e3),
    "scale": (1e-2, 1e2),
    "noise": (LEAST_NOISE, 1.0),
    "warp": (0.1, 10.0),
}
_JITTERS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
_GAMMA_SHAPE, _GAMMA_RATE = 1.1, 30.0
_WARP_VARIANCE = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """What :func:`fit` finds; see the module."""

    lengthscales: Tensor
    """[p] one a feature."""

    scale: float = 1.0
    """s, the variance of the function."""

    noise: float = LEAST_NOISE
    """e, the learnt variance of the noise."""

    warp: Tensor | None = None
    """[2, p] a and b of the warp of each feature, 1 where there is none; None is no warp at all."""


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

    loads = torch.ones(1, dtype=torch.float64)
    """[t] how much each related function has of this one; see :mod:`sharpen.search.gp.joint`."""

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
        self.hyper, self.kernel, self._profile = hyper, kernel, profile(kernel)
        known = torch.zeros(len(features), dtype=torch.float64) if noise is None else noise
        self.features, self._scaled = features, self.scaled(features)
        covariance = self._data_covariance()
        covariance.diagonal().add_(known + hyper.noise)
        self._settle(targets, known, mean, cholesky(covariance, hyper.scale))

    def _settle(
        self, targets: Tensor, known: Tensor, given_mean: float | None, factor: Tensor
    ) -> None:
        """Take values and the factor of their covariance, once the points are set."""
        self.known_noise, self.targets, self._factor = known, targets, factor
        self._given_mean = given_mean
        columns = targets.reshape(len(targets), -1)
        sides = torch.cat([self._constant()[:, None], columns], 1)
        half = torch.linalg.solve_triangular(factor, sides, upper=False)
        one, y = half[:, :1], half[:, 1:]
        if given_mean is None:
            mean = (one.T @ y) / ((one * one).sum() + 1)
        else:
            mean = torch.full((1, columns.shape[1]), given_mean, dtype=torch.float64)
        self._residual = y - one * mean  # L^-1 (y - m)
        weights = torch.linalg.solve_triangular(factor.mT, self._residual, upper=True)
        self.mean = mean[0].reshape(targets.shape[1:])
        self._weights = weights

    def _constant(self) -> Tensor:
        """[n] what a constant function adds to each of the data."""
        return torch.ones(len(self._scaled), dtype=torch.float64)

    def _data_covariance(self) -> Tensor:
        """[n, n] prior covariance of the data, without noise."""
        return self.hyper.scale * self._profile(squared_distances(self._scaled, self._scaled))[0]

    def __len__(self) -> int:
        return len(self.targets)

    # -- predictions ----------------------------------------------------------------------------

    def scaled(self, points: Tensor) -> Tensor:
        """[q, p] points as the kernel sees them: warped, and divided by the lengthscales."""
        if self.hyper.warp is not None:
            points = warp(points, self.hyper.warp[0], self.hyper.warp[1])
        return points / self.hyper.lengthscales

    @property
    def noise(self) -> float:
        """Variance of the noise of a measurement, the mean of those known with what was learnt."""
        return self.hyper.noise + float(self.known_noise.mean())

    def observed(self, functions: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        """[n, k] what the data would be, were they those of given functions.

        Args:
            functions: of [q, p] points, with [q, k] values; one for each related function.
        """
        return functions[0](self.features)

    @property
    def constant_sd(self) -> float:
        """Standard deviation of the constant that draws from the prior have."""
        return 0.0

    @property
    def prior_variance(self) -> float:
        """Variance of the function at a point that no data tell of."""
        return self.hyper.scale

    def prior(self, points: Tensor, others: Tensor) -> Tensor:
        """[q, m] prior covariances of the function; gradients flow to ``points`` alone."""
        with torch.no_grad():
            fixed = self.scaled(others)
        return self.hyper.scale * correlation(self.scaled(points), fixed, self._profile)

    def _cross(self, points: Tensor) -> Tensor:
        """[q, n] prior covariances of points with the data."""
        return self.hyper.scale * correlation(self.scaled(points), self._scaled, self._profile)

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
        variance = (self.prior_variance - (half * half).sum(0)).clamp(min=0)
        return mean.reshape(len(points), *self.targets.shape[1:]), variance

    def half(self, points: Tensor) -> Tensor:
        """[n, q] L^-1 k(X, points): its columns' products are what data take off the prior."""
        found: Tensor = torch.linalg.solve_triangular(
            self._factor, self._cross(points).mT, upper=False
        )
        return found

    def covariance(self, points: Tensor, others: Tensor) -> Tensor:
        """[q, m] posterior covariances of the function; gradients flow to ``points`` alone."""
        with torch.no_grad():
            others_half = self.half(others)
        return self.prior(points, others) - self.half(points).mT @ others_half

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
        scaled = self.scaled(features)
        known = torch.zeros(len(features), dtype=torch.float64) if noise is None else noise
        side = torch.linalg.solve_triangular(self._factor, self._cross(features).mT, upper=False).mT
        corner = self._corner(features)
        corner.diagonal().add_(known + self.hyper.noise)
        corner = cholesky(corner - side @ side.mT, self.hyper.scale)
        n, j = len(self), len(features)
        factor = torch.zeros(n + j, n + j, dtype=torch.float64)
        factor[:n, :n], factor[n:, :n], factor[n:, n:] = self._factor, side, corner
        old = self.targets
        if targets.dim() > old.dim():
            old = old[:, None].expand(-1, targets.shape[1])
        grown = copy.copy(self)
        grown.features = torch.cat([self.features, features])
        grown._scaled = torch.cat([self._scaled, scaled])
        grown._extend(j)
        known = torch.cat([self.known_noise, known])
        grown._settle(torch.cat([old, targets]), known, self._given_mean, factor)
        return grown

    def _corner(self, features: Tensor) -> Tensor:
        """[j, j] prior covariance of further values."""
        scaled = self.scaled(features)
        return self.hyper.scale * self._profile(squared_distances(scaled, scaled))[0]

    def _extend(self, count: int) -> None:
        """Note ``count`` further points, for subclasses whose data are of several kinds."""

    def with_targets(self, targets: Tensor, mean: float = 0.0) -> GaussianProcess:
        """The same process with other values at the same points, and a mean that is given."""
        other = copy.copy(self)
        other._settle(targets, self.known_noise, mean, self._factor)
        return other


def cholesky(covariance: Tensor, scale: float) -> Tensor:
    """The lower factor of a covariance [n, n], with jitter where it takes that.

    Raises:
        ConfigError: it is not positive definite in spite of jitter.
    """
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
    warped: npt.NDArray[np.int64] | None = None,
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
        warped: [m] features in [0, 1] whose warp is learnt; None is none.
        evaluations: most evaluations of the density; each takes all starts in one batch.
    """
    posterior = LogPosterior(
        features,
        targets,
        groups,
        kernel=kernel,
        noise=noise,
        learn_noise=learn_noise,
        warped=warped,
    )
    return posterior.hyperparameters(densest(posterior, evaluations))


class Density(Protocol):
    """A negative log density of rows, with its gradient, and where to look for its largest."""

    starts: Floats
    low: Floats
    high: Floats

    def __call__(self, theta: Floats, rows: object = None) -> tuple[Floats, Floats]:
        """[b] values and [b, k] gradients of [b, k] rows."""


def densest(posterior: Density, evaluations: int = 60) -> Floats:
    """[k] the row of the largest density that a search finds; see :func:`fit`."""
    best, value = minimize_all(
        posterior,
        posterior.starts,
        posterior.low,
        posterior.high,
        evaluations=evaluations,
        tolerance=1e-6,
    )
    found: Floats = best[int(np.argmin(value))]
    return found


class LogPosterior:
    """The negative log density of hyper-parameters given data, with its gradient.

    Arguments are those of :func:`fit`. Called with [b, g + 2 + 2m] rows of log lengthscales, log s,
    log e, log a and log b, it gives [b] values and [b, g + 2 + 2m] gradients.

    Args:
        features: see :func:`fit`, like those that follow.
        targets: likewise.
        groups: likewise.
        kernel: likewise.
        noise: likewise.
        learn_noise: likewise.
        warped: likewise.
        integrated_mean: whether the mean is integrated out; else it is at its likeliest.

    Attributes:
        low: [g + 2 + 2m] least values.
        high: [g + 2 + 2m] largest values.
        starts: [2, g + 2 + 2m] where a search for the best ones begins.
        prior_mean: [g + 2 + 2m] of the normal priors; for log e a normal that covers its range.
        prior_sd: [g + 2 + 2m] likewise.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        groups: npt.NDArray[np.int64],
        *,
        kernel: str = "matern52",
        noise: Tensor | None = None,
        learn_noise: bool = True,
        warped: npt.NDArray[np.int64] | None = None,
        integrated_mean: bool = False,
    ) -> None:
        self._x, self._y = features, targets
        self._index, self._groups = groups, torch.from_numpy(groups)
        self._count = count = int(groups.max()) + 1 if len(groups) else 0
        self._profile, self._integrated = profile(kernel), integrated_mean
        self._warped = np.empty(0, dtype=np.int64) if warped is None else warped
        n, m = len(targets), len(self._warped)
        self._noise = torch.zeros(n, dtype=torch.float64) if noise is None else noise
        self.centre = math.sqrt(2) - 3 + math.log(max(count, 1)) / 2
        kinds = ["lengthscale"] * count + ["scale", "noise"] + ["warp"] * (2 * m)
        self.low, self.high = (np.log([_BOUNDS[kind][k] for kind in kinds]) for k in (0, 1))
        if not learn_noise:
            self.high[count + 1] = self.low[count + 1]
        self.starts = np.array(
            [
                [*[self.centre] * count, 0.0, math.log(1e-4), *[0.0] * (2 * m)],
                [*[self.centre - 1.2] * count, 0.0, math.log(1e-2), *[0.0] * (2 * m)],
            ]
        )
        self.prior_mean = np.array([*[self.centre] * count, 0.0, math.log(1e-4), *[0.0] * (2 * m)])
        warp_sd = math.sqrt(_WARP_VARIANCE)
        self.prior_sd = np.array([*[math.sqrt(3)] * count, 1.0, 4.0, *[warp_sd] * (2 * m)])

    def hyperparameters(self, theta: Floats) -> Hyperparameters:
        """What one row [g + 2 + 2m] means."""
        count, m = self._count, len(self._warped)
        shape = None
        if m:
            shape = torch.ones(2, len(self._index), dtype=torch.float64)
            shape[:, self._warped] = torch.from_numpy(np.exp(theta[count + 2 :]).reshape(2, m))
        return Hyperparameters(
            lengthscales=torch.from_numpy(np.exp(theta[:count])[self._index]),
            scale=math.exp(theta[count]),
            noise=math.exp(theta[count + 1]),
            warp=shape,
        )

    @torch.no_grad()
    def __call__(
        self, theta: Floats, rows: object = None, *, gradients: bool = True
    ) -> tuple[Floats, Floats]:
        """See the class; without gradients, those given are 0."""
        count, n, m = self._count, len(self._y), len(self._warped)
        t = torch.from_numpy(np.ascontiguousarray(theta))
        scale, noise = t[:, count].exp(), t[:, count + 1].exp()
        shapes = t[:, count + 2 :].exp()
        x = self._x
        if m:
            a, b = shapes[:, None, :m], shapes[:, None, m:]
            x = x.expand(len(t), -1, -1).clone()
            x[:, :, self._warped] = warp(self._x[:, self._warped], a, b)
        inverse_scales = (-t[:, :count]).exp()[:, self._groups].unsqueeze(1)
        scaled = x * inverse_scales
        k, slope, _ = self._profile(squared_distances(scaled, scaled))
        signal = scale[:, None, None] * k
        covariance = signal.clone()
        covariance.diagonal(dim1=1, dim2=2).add_(self._noise + noise[:, None])
        factor, failed = torch.linalg.cholesky_ex(covariance)
        factor[failed > 0] = torch.eye(n, dtype=torch.float64)
        if gradients:
            inverse = torch.cholesky_inverse(factor)
            ones, by_y = inverse.sum(2), inverse @ self._y
        else:
            sides = torch.stack([torch.ones_like(self._y), self._y], 1).expand(len(t), -1, -1)
            ones, by_y = torch.cholesky_solve(sides, factor).unbind(2)
        mean = (ones @ self._y) / (ones.sum(1) + 1)
        weights = by_y - mean[:, None] * ones
        value = 0.5 * ((self._y - mean[:, None]) * weights).sum(1) + 0.5 * mean**2
        value += factor.diagonal(dim1=1, dim2=2).log().sum(1) + n / 2 * math.log(2 * math.pi)
        size = 1 + ones.sum(1)
        if self._integrated:
            value += 0.5 * size.log()
        # The priors, as the module gives them.
        away = t[:, :count] - self.centre
        value += (away**2).sum(1) / 6 + t[:, count] ** 2 / 2
        value += _GAMMA_RATE * noise - (_GAMMA_SHAPE - 1) * t[:, count + 1]
        value += (t[:, count + 2 :] ** 2).sum(1) / (2 * _WARP_VARIANCE)
        value[failed > 0] = math.inf
        if not gradients:
            return value.numpy(), np.zeros_like(theta)
        outer = inverse - weights[:, :, None] * weights[:, None, :]
        if self._integrated:
            outer -= ones[:, :, None] * ones[:, None, :] / size[:, None, None]
        h = outer * slope * scale[:, None, None]
        by_point = 2 * (scaled * h.sum(2, keepdim=True) - h @ scaled)
        by_feature = -(scaled * by_point).sum(1)
        gradient = torch.zeros_like(t)
        gradient[:, :count].index_add_(1, self._groups, by_feature)
        gradient[:, count] = 0.5 * (outer * signal).sum((1, 2))
        gradient[:, count + 1] = 0.5 * noise * outer.diagonal(dim1=1, dim2=2).sum(1)
        if m:
            moved = (by_point * inverse_scales)[:, :, self._warped]
            for place, slopes in enumerate(warp_slopes(self._x[:, self._warped], a, b)):
                at = count + 2 + place * m
                gradient[:, at : at + m] = (moved * slopes).sum(1) * shapes[:, place * m :][:, :m]
            gradient[:, count + 2 :] += t[:, count + 2 :] / _WARP_VARIANCE
        gradient[:, :count] += away / 3
        gradient[:, count] += t[:, count]
        gradient[:, count + 1] += _GAMMA_RATE * noise - (_GAMMA_SHAPE - 1)
        return value.numpy(), gradient.numpy()
