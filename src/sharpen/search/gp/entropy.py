"""Joint entropy search: how much a point tells of where the least loss is, and of how low it is.

Carl Hvarfner, Frank Hutter and Luigi Nardi, "Joint Entropy Search For Maximally-Informed Bayesian
Optimization", NeurIPS 2022, equations 8 and 9; the bound: Ben Tu et al., "Joint Entropy Search for
Multi-objective Bayesian Optimization", NeurIPS 2022, section 3::

    (x*_k, f*_k)  = places and values of the minima of functions drawn from the posterior
    mu_k, v_k     = posterior of the loss, given f(x*_k) = f*_k too
    g             = (mu_k - f*_k) / sqrt(v_k),  r = phi(g) / Phi(g)
    JES(x)        = 1/2 log(v + e) - mean over k of 1/2 log(v_k (1 - r (g + r)) + e)

v_k (1 - r (g + r)) is the variance of a normal that is known to be above f*_k; e is the noise.

Differs from the papers: where the space is not all of real numbers, the minima are those among the
raw points. Time O(q n^2 + q k) for q points and k minima.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.search.gp.acquisition import Acquisition
from sharpen.search.gp.model import GaussianProcess
from sharpen.search.gp.normal import LOG_SQRT_2PI
from sharpen.search.gp.optimize import minimize_all
from sharpen.search.gp.thompson import sample_paths

__all__ = ["joint_entropy", "sample_optima"]

Floats = npt.NDArray[np.float64]

_LEAST_VARIANCE = 1e-12
_CONDITION_NOISE = 1e-7  # relative to the scale; without it, a minimum at a datum is singular
_EVALUATIONS = 30


def sample_optima(
    model: GaussianProcess,
    raw: Tensor,
    count: int,
    rng: np.random.Generator,
    *,
    in_cube: bool,
) -> tuple[Tensor, Tensor]:
    """Minima of functions drawn from a model's posterior.

    Args:
        model: with one column of targets.
        raw: [q, p] points among which the search begins.
        count: how many.
        rng: draws them.
        in_cube: whether every point of the unit cube is allowed; else only the raw ones are.

    Returns:
        [count, p] places and [count] values.
    """
    paths = sample_paths(model, rng, count)
    with torch.no_grad():
        values = paths(raw)
    least, rows = values.min(0)
    places = raw[rows]
    if not in_cube:
        return places, least

    def descent(x: Floats, which: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        points = torch.from_numpy(np.ascontiguousarray(x)).requires_grad_()
        value = paths(points)[torch.arange(len(x)), torch.from_numpy(which)]
        (gradient,) = torch.autograd.grad(value.sum(), points)
        return value.detach().numpy(), gradient.numpy()

    d = raw.shape[1]
    x, found = minimize_all(
        descent, places.numpy(), np.zeros(d), np.ones(d), evaluations=_EVALUATIONS, tolerance=1e-6
    )
    return torch.from_numpy(x), torch.from_numpy(found)


def joint_entropy(
    model: GaussianProcess, places: Tensor, values: Tensor, *, noise: float = 0.0
) -> Acquisition:
    """JES, by its lower bound.

    Args:
        model: of the loss, with one column of targets.
        places: [k, p] where functions drawn from it are least.
        values: [k] how low they are there.
        noise: variance of the noise of the next measurement.
    """
    with torch.no_grad():
        mean_there, variance_there = model.posterior(places)
        variance_there = variance_there + _CONDITION_NOISE * model.hyper.scale
        lift = (values - mean_there) / variance_there

    def value(points: Tensor) -> Tensor:
        mean, variance = model.posterior(points)
        variance = variance.clamp(min=_LEAST_VARIANCE)[:, None]
        shared = model.covariance(points, places)
        left = (variance - shared * shared / variance_there).clamp(min=_LEAST_VARIANCE)
        gap = (mean[:, None] + shared * lift - values) / left.sqrt()
        log_share = torch.special.log_ndtr(gap)
        ratio = torch.exp(-gap * gap / 2 - LOG_SQRT_2PI - log_share)
        cut = left * (1 - ratio * (gap + ratio)).clamp(min=1e-10)
        told: Tensor = 0.5 * torch.log(variance + noise) - 0.5 * torch.log(cut + noise)
        return told.mean(1)

    return value
