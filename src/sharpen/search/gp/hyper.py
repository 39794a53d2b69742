"""Hyper-parameters of a Gaussian process: those of the largest posterior density.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, equations 5.8 and
5.9, with K and m of :mod:`sharpen.search.gp.model`::

    log p(y) = -1/2 (y - m)' K^-1 (y - m) - 1/2 log det K - n/2 log 2 pi
    d log p(y) / d t = 1/2 trace((a a' - K^-1) dK/dt),  a = K^-1 (y - m)
    l, e        the priors of :mod:`sharpen.search.gp.prior`
    log s       ~ N(0, 1)
    log a, log b ~ N(0, 0.75)   where inputs are warped, see :mod:`sharpen.search.gp.warp`

Differs from the book: None. Time O(n^3) an evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.search.gp.kernels import profile, squared_distances
from sharpen.search.gp.model import LEAST_NOISE, Hyperparameters
from sharpen.search.gp.optimize import minimize_all
from sharpen.search.gp.prior import LengthscalePrior, noise_misfit, noise_slope
from sharpen.search.gp.warp import warp, warp_slopes

__all__ = ["LogPosterior", "densest", "fit"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BOUNDS = {
    "lengthscale": (2.5e-2, 1e3),
    "scale": (1e-2, 1e2),
    "noise": (LEAST_NOISE, 1.0),
    "warp": (0.1, 10.0),
}
_WARP_VARIANCE = 0.75


def fit(
    features: Tensor,
    targets: Tensor,
    groups: npt.NDArray[np.int64],
    *,
    kernels: Sequence[str] = ("matern52",),
    noise: Tensor | None = None,
    learn_noise: bool = True,
    warped: npt.NDArray[np.int64] | None = None,
    alike: int | None = None,
    evaluations: int = 60,
) -> list[Hyperparameters]:
    """Hyper-parameters of the largest posterior density, of each of some kernels.

    Args:
        features: [n, p] float64 points.
        targets: [n] float64 standardized values.
        groups: [p] which lengthscale each feature has.
        kernels: ``matern52`` or ``rbf``, once or both.
        noise: [n] known variances; None is none.
        learn_noise: whether there may be noise beside the known one.
        warped: [m] features in [0, 1] whose warp is learnt; None is none.
        alike: how many lengthscales, the first, are alike; None is all.
        evaluations: most evaluations of the density; each takes all starts in one batch.
    """
    posterior = LogPosterior(
        features,
        targets,
        groups,
        kernels=kernels,
        noise=noise,
        learn_noise=learn_noise,
        warped=warped,
        alike=alike,
    )
    return [posterior.hyperparameters(row) for row in densest(posterior, evaluations)]


class Density(Protocol):
    """A negative log density of rows, with its gradient, and where to look for its largest."""

    starts: Floats
    low: Floats
    high: Floats
    problems: int
    """How many densities it is, each with as many of the starts, one behind the other."""

    def __call__(self, theta: Floats, rows: Ints) -> tuple[Floats, Floats]:
        """[b] values and [b, k] gradients of [b, k] rows, by the starts [b] they come from."""


def densest(posterior: Density, evaluations: int = 60) -> Floats:
    """[problems, k] rows of the largest density that a search finds; see :func:`fit`."""
    found, value = minimize_all(
        posterior,
        posterior.starts,
        posterior.low,
        posterior.high,
        evaluations=evaluations,
        tolerance=1e-6,
    )
    value = value.reshape(posterior.problems, -1)
    best: Floats = found.reshape(*value.shape, -1)[np.arange(len(value)), value.argmin(axis=1)]
    return best


class LogPosterior:
    """The negative log density of hyper-parameters given data, with its gradient.

    Arguments are those of :func:`fit`. Called with [b, g + 2 + 2m] rows of log lengthscales, log s,
    log e, log a and log b, and the starts [b] they come from, ascending, it gives [b] values and
    [b, g + 2 + 2m] gradients, of the first kernel where no starts are given.

    Args:
        features: see :func:`fit`, like those that follow.
        targets: likewise.
        groups: likewise.
        kernels: likewise.
        noise: likewise.
        learn_noise: likewise.
        warped: likewise.
        alike: likewise.
        integrated_mean: whether the mean is integrated out; else it is at its likeliest.

    Attributes:
        low: [g + 2 + 2m] least values.
        high: [g + 2 + 2m] largest values.
        starts: [2 problems, g + 2 + 2m] where a search for the best ones begins.
        problems: how many kernels there are.
        prior_mean: [g + 2 + 2m] of the normal priors; for log e a normal that covers its range.
        lengthscale_prior: the prior of the first g.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        groups: npt.NDArray[np.int64],
        *,
        kernels: Sequence[str] = ("matern52",),
        noise: Tensor | None = None,
        learn_noise: bool = True,
        warped: npt.NDArray[np.int64] | None = None,
        alike: int | None = None,
        integrated_mean: bool = False,
    ) -> None:
        self._x, self._y = features, targets
        self._index = groups
        self._count = count = int(groups.max()) + 1 if len(groups) else 0
        self._owners = np.eye(count)[groups]
        self._profiles, self._integrated = [profile(name) for name in kernels], integrated_mean
        self.problems = len(self._profiles)
        self._warped = np.empty(0, dtype=np.int64) if warped is None else warped
        n, m = len(targets), len(self._warped)
        self._noise = torch.zeros(n, dtype=torch.float64) if noise is None else noise
        self._sides = torch.stack([torch.ones_like(targets), targets], 1)
        self.lengthscale_prior = LengthscalePrior(count, alike)
        centre = self.lengthscale_prior.centre
        kinds = ["lengthscale"] * count + ["scale", "noise"] + ["warp"] * (2 * m)
        self.low, self.high = (np.log([_BOUNDS[kind][k] for kind in kinds]) for k in (0, 1))
        if not learn_noise:
            self.high[count + 1] = self.low[count + 1]
        starts = [
            [*[centre] * count, 0.0, math.log(1e-4), *[0.0] * (2 * m)],
            [*[centre - 1.2] * count, 0.0, math.log(1e-2), *[0.0] * (2 * m)],
        ]
        self.starts = np.array(starts * self.problems)
        self.prior_mean = np.array([*[centre] * count, 0.0, math.log(1e-4), *[0.0] * (2 * m)])
        warp_sd = math.sqrt(_WARP_VARIANCE)
        self._other_sd = np.array([1.0, 4.0, *[warp_sd] * (2 * m)])

    def prior_draws(self, rng: np.random.Generator, draws: int) -> Floats:
        """[draws, g + 2 + 2m] draws from the normal priors, less their mean."""
        scales = self.lengthscale_prior.draw(rng, draws)
        others = self._other_sd * rng.standard_normal((draws, len(self._other_sd)))
        return np.concatenate([scales, others], axis=1)

    def prior_misfit(self, away: Floats) -> Floats:
        """[b] negative log density of the normal priors, up to a constant, ``away`` their mean."""
        scales, others = np.split(away, [self._count], axis=1)
        shared = self.lengthscale_prior.misfit(scales)
        found: Floats = shared + ((others / self._other_sd) ** 2).sum(axis=1) / 2
        return found

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
        self, theta: Floats, rows: Ints | None = None, *, gradients: bool = True
    ) -> tuple[Floats, Floats]:
        """See the class; without gradients, those given are 0."""
        count, n, m = self._count, len(self._y), len(self._warped)
        powers = np.exp(theta)
        scale, noise = powers[:, count], powers[:, count + 1]
        units = torch.from_numpy((1 / powers[:, :count])[:, None, self._index])
        shapes = torch.from_numpy(powers[:, None, count + 2 :])
        x = self._x
        if m:
            x = x.expand(len(theta), -1, -1).clone()
            x[:, :, self._warped] = warp(
                self._x[:, self._warped], shapes[:, :, :m], shapes[:, :, m:]
            )
        scaled = x * units
        k, slope = self._correlations(squared_distances(scaled, scaled), rows)
        covariance = k.mul_(torch.from_numpy(scale)[:, None, None])
        errors = self._noise + torch.from_numpy(noise)[:, None]
        covariance.diagonal(dim1=1, dim2=2).add_(errors)
        factor, info = torch.linalg.cholesky_ex(covariance)
        failed = info.numpy() > 0
        if failed.any():
            factor[torch.from_numpy(failed)] = torch.eye(n, dtype=torch.float64)
        sides = self._sides.expand(len(theta), -1, -1)
        if gradients:
            inverse = torch.cholesky_inverse(factor)
            solved = inverse @ sides
        else:
            solved = torch.cholesky_solve(sides, factor)
        products = (solved.mT @ sides).numpy()  # of 1 and y by K^-1
        size = 1 + products[:, 0, 0]
        mean = products[:, 0, 1] / size
        value: Floats = 0.5 * (products[:, 1, 1] - mean * products[:, 0, 1])
        value += factor.diagonal(dim1=1, dim2=2).log().sum(1).numpy()
        value += n / 2 * math.log(2 * math.pi)
        if self._integrated:
            value += 0.5 * np.log(size)
        misfit, gradient = self._priors(theta, noise)
        value += misfit
        value[failed] = math.inf
        if not gradients:
            return value, np.zeros_like(theta)
        # outer = d value / d K, twice: K^-1 - w w' with w = K^-1 (y - m), and its trace with K.
        ones, weights = solved[:, :, 0], solved[:, :, 1]
        weights = weights - torch.from_numpy(mean)[:, None] * ones
        outer = torch.baddbmm(inverse, weights[:, :, None], weights[:, None], alpha=-1)
        trace = n - products[:, 1, 1] + 2 * mean * products[:, 0, 1] - mean**2 * (size - 1)
        if self._integrated:
            outer -= ones[:, :, None] * ones[:, None, :] / torch.from_numpy(size)[:, None, None]
            trace -= (size - 1) / size
        diagonal = outer.diagonal(dim1=1, dim2=2)
        gradient[:, count] += 0.5 * (trace - (diagonal * errors).sum(1).numpy())
        gradient[:, count + 1] += 0.5 * noise * diagonal.sum(1).numpy()
        h = outer.mul_(slope)
        by_point = scaled * h.sum(2, keepdim=True) - h @ scaled
        by_point *= torch.from_numpy(2 * scale)[:, None, None]
        by_feature = -(scaled * by_point).sum(1)
        gradient[:, :count] += by_feature.numpy() @ self._owners
        if m:
            moved = (by_point * units)[:, :, self._warped]
            slopes = warp_slopes(self._x[:, self._warped], shapes[:, :, :m], shapes[:, :, m:])
            by_shape = torch.cat([(moved * each).sum(1) for each in slopes], 1) * shapes[:, 0]
            gradient[:, count + 2 :] += by_shape.numpy()
        return value, gradient

    def _correlations(self, squares: Tensor, rows: Ints | None) -> tuple[Tensor, Tensor]:
        """[b, n, n] kernel values and their slopes, each matrix by the kernel of its start."""
        if rows is None or self.problems == 1:
            return self._profiles[0](squares)[:2]
        each = len(self.starts) // self.problems
        ends = np.searchsorted(rows, each * np.arange(1, self.problems)).tolist()
        parts = [of(u) for of, u in zip(self._profiles, squares.tensor_split(ends), strict=True)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _priors(self, theta: Floats, noise: Floats) -> tuple[Floats, Floats]:
        """[b] negative logarithms of the priors' densities, up to a constant, and gradients."""
        count = self._count
        gradient = np.empty_like(theta)
        away = theta[:, :count] - self.lengthscale_prior.centre
        gradient[:, :count] = self.lengthscale_prior.slope(away)
        gradient[:, count] = theta[:, count]
        gradient[:, count + 1] = noise * noise_slope(noise)
        gradient[:, count + 2 :] = theta[:, count + 2 :] / _WARP_VARIANCE
        misfit: Floats = 0.5 * (gradient[:, :count] * away).sum(axis=1)
        misfit += 0.5 * theta[:, count] ** 2 + noise_misfit(noise)
        misfit += 0.5 * (gradient[:, count + 2 :] * theta[:, count + 2 :]).sum(axis=1)
        return misfit, gradient
