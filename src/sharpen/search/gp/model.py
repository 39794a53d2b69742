"""The exact Gaussian process: posterior, evidence, appended data.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, algorithm 2.1 and
equations 5.8 and 5.12::

    K        = s k(X, X) + diag(v + e)        v known variances of the noise, e the learnt one
    m        = 1' K^-1 y / (1' K^-1 1 + 1)    constant mean, with a N(0, 1) prior
    mu(x)    = m + s k(x, X) K^-1 (y - m)
    var(x)   = s - s k(x, X) K^-1 k(X, x) s
    log p(y) = -1/2 (y - m)' K^-1 (y - m) - 1/2 log det K - n/2 log 2 pi

Hyper-parameters: :mod:`sharpen.search.gp.hyper`. K^-1 is never formed for a prediction, only its
Cholesky factor; where that fails, jitter is added, from 1e-8 of s by tens to 1e-4.

Differs from the book: None. Time O(n^3) a factor, O(n^2 k) to append k points, O(q n^2) for q
predictions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.search.gp.kernels import correlation, profile, squared_distances
from sharpen.search.gp.warp import warp

__all__ = ["LEAST_NOISE", "GaussianProcess", "Hyperparameters", "Moments", "cholesky"]

Floats = npt.NDArray[np.float64]

LEAST_NOISE = 1e-8
_JITTERS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """What is learnt of a process; see the module."""

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

    is_plain: ClassVar[bool] = True
    """Whether values of the kernel between features are all there is to the covariances."""

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


@dataclass(frozen=True, slots=True)
class Pulled:
    """Posterior moments at q points."""

    mean: Floats
    """[q, k] one column for each of the targets."""

    variance: Floats
    """[q] of the function, at least 0."""

    covariance: Floats
    """[q, m] with the function at the other points."""

    back: Callable[[Floats, Floats, Floats | None], Floats]
    """[q, p] derivatives by the points, from those by mean, variance and covariance; None is 0."""


class Moments:
    """Posterior moments of a process with their derivatives, for acquisition functions.

    In closed form, which takes a third of the time of autograd; by autograd where the covariances
    are not plain ones.

    Args:
        model: the process.
        others: [m, p] points whose covariances are wanted, too; None is none.
    """

    def __init__(self, model: GaussianProcess, others: Tensor | None = None) -> None:
        if others is None:
            others = torch.empty(0, model.features.shape[1], dtype=torch.float64)
        self._model, self._others, self._has_others = model, others, len(others) > 0
        self._is_plain = model.is_plain and model.hyper.warp is None
        if self._has_others:
            with torch.no_grad():
                self._half = model.half(others)
                self._solved = torch.linalg.solve_triangular(
                    model._factor.mT, self._half, upper=True
                )
                if self._is_plain:
                    self._scaled = model.scaled(others)

    def __call__(self, points: Floats) -> Pulled:
        """The moments at [q, p] ``points``."""
        return self._closed(points) if self._is_plain else self._by_autograd(points)

    @torch.no_grad()
    def _closed(self, points: Floats) -> Pulled:
        model, factor, scale = self._model, self._model._factor, self._model.hyper.scale
        weights, units = model._weights, 1 / model.hyper.lengthscales
        scaled = torch.from_numpy(points) * units
        cross, slope, _ = model._profile(squared_distances(scaled, model._scaled))
        cross.mul_(scale)
        half = torch.linalg.solve_triangular(factor, cross.mT, upper=False)
        mean = torch.addmm(model.mean.reshape(1, -1), cross, weights)
        variance = (model.prior_variance - (half * half).sum(0)).clamp_(min=0)
        covariance, other_slope = cross[:, :0], slope[:, :0]
        if self._has_others:
            prior, other_slope, _ = model._profile(squared_distances(scaled, self._scaled))
            covariance = torch.addmm(prior, half.mT, self._half, beta=scale, alpha=-1)

        def back(by_mean: Floats, by_variance: Floats, by_covariance: Floats | None) -> Floats:
            by_half = half * torch.from_numpy(-2 * by_variance)
            by_cross = torch.linalg.solve_triangular(factor.mT, by_half, upper=True).mT
            by_cross = torch.addmm(by_cross, torch.from_numpy(by_mean), weights.mT)
            found = torch.zeros_like(scaled)
            if by_covariance is not None:
                given = torch.from_numpy(by_covariance)
                by_cross.addmm_(given, self._solved.mT, alpha=-1)
                found = _by_points(given * other_slope, scaled, self._scaled)
            found += _by_points(by_cross.mul_(slope), scaled, model._scaled)
            by_points: Floats = (found * (units * (2 * scale))).numpy()
            return by_points

        return Pulled(mean.numpy(), variance.numpy(), covariance.numpy(), back)

    @torch.enable_grad()
    def _by_autograd(self, points: Floats) -> Pulled:
        model = self._model
        at = torch.from_numpy(points).requires_grad_()
        mean, variance = model.posterior(at)
        mean = mean.reshape(len(at), -1)
        covariance = mean[:, :0]
        if self._has_others:
            covariance = model.prior(at, self._others) - model.half(at).mT @ self._half

        def back(by_mean: Floats, by_variance: Floats, by_covariance: Floats | None) -> Floats:
            wanted, given = [mean, variance], [by_mean, by_variance]
            if by_covariance is not None:
                wanted, given = [*wanted, covariance], [*given, by_covariance]
            [found] = torch.autograd.grad(wanted, at, [torch.from_numpy(g) for g in given])
            by_points: Floats = found.numpy()
            return by_points

        values = [v.detach().numpy() for v in (mean, variance, covariance)]
        return Pulled(values[0], values[1], values[2], back)


def _by_points(weight: Tensor, scaled: Tensor, others: Tensor) -> Tensor:
    """[q, p] half the derivative of [q, m] squared distances by the first points, weighted."""
    return scaled * weight.sum(1, keepdim=True) - weight @ others


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
