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
    kernel: str = "matern52",
    noise: Tensor | None = None,
    learn_noise: bool = True,
    warped: npt.NDArray[np.int64] | None = None,
    alike: int | None = None,
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
        alike: how many lengthscales, the first, are alike; None is all.
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
        alike=alike,
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
        alike: likewise.
        integrated_mean: whether the mean is integrated out; else it is at its likeliest.

    Attributes:
        low: [g + 2 + 2m] least values.
        high: [g + 2 + 2m] largest values.
        starts: [2, g + 2 + 2m] where a search for the best ones begins.
        prior_mean: [g + 2 + 2m] of the normal priors; for log e a normal that covers its range.
        lengthscale_prior: the prior of the first g.
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
        alike: int | None = None,
        integrated_mean: bool = False,
    ) -> None:
        self._x, self._y = features, targets
        self._index, self._groups = groups, torch.from_numpy(groups)
        self._count = count = int(groups.max()) + 1 if len(groups) else 0
        self._profile, self._integrated = profile(kernel), integrated_mean
        self._warped = np.empty(0, dtype=np.int64) if warped is None else warped
        n, m = len(targets), len(self._warped)
        self._noise = torch.zeros(n, dtype=torch.float64) if noise is None else noise
        self.lengthscale_prior = LengthscalePrior(count, alike)
        centre = self.lengthscale_prior.centre
        kinds = ["lengthscale"] * count + ["scale", "noise"] + ["warp"] * (2 * m)
        self.low, self.high = (np.log([_BOUNDS[kind][k] for kind in kinds]) for k in (0, 1))
        if not learn_noise:
            self.high[count + 1] = self.low[count + 1]
        self.starts = np.array(
            [
                [*[centre] * count, 0.0, math.log(1e-4), *[0.0] * (2 * m)],
                [*[centre - 1.2] * count, 0.0, math.log(1e-2), *[0.0] * (2 * m)],
            ]
        )
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
        shared = self.lengthscale_prior.misfit(torch.from_numpy(scales)).numpy()
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
        away = t[:, :count] - self.lengthscale_prior.centre
        value += self.lengthscale_prior.misfit(away) + t[:, count] ** 2 / 2
        value += noise_misfit(noise)
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
        gradient[:, :count] += self.lengthscale_prior.slope(away)
        gradient[:, count] += t[:, count]
        gradient[:, count + 1] += noise * noise_slope(noise)
        return value.numpy(), gradient.numpy()
