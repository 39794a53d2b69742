"""Acquisition functions: what is expected of evaluating the objective at a point.

With mu and s^2 the posterior of the loss (less is better) and f* the least loss known::

    h(z)      = phi(z) + z Phi(z)
    EI        = s h(z), z = (f* - mu) / s                       log EI = log s + log h(z)
    PI        = Phi(z)
    UCB       = -(mu - sqrt(beta) s)
    MES       = mean over samples f* of g phi(g) / (2 Phi(g)) - log Phi(g), g = (mu - f*) / s
    GIBBON    = mean of -1/2 log(1 - s^2 / (s^2 + e) r (g + r)), r = phi(g) / Phi(g), e the noise
    feasible  = prod_j Phi(-mu_j / s_j) over the margins of the constraints
    noisy EI  = E[max_i (-mu_i') over x_1 .. x_n and x] - max_i (-mu_i) over x_1 .. x_n,
                mu' the means after x is measured: lines in a standard normal
    KG        = the same over any set of points instead of x_1 .. x_n

EI: Donald R. Jones, Matthias Schonlau and William J. Welch, Journal of Global Optimization 13,
1998; its logarithm: Sebastian Ament et al., "Unexpected Improvements to Expected Improvement for
Bayesian Optimization", NeurIPS 2023, section 4.1; PI: Harold J. Kushner, Journal of Basic
Engineering 86, 1964; UCB: Niranjan Srinivas et al., ICML 2010; MES: Zi Wang and Stefanie Jegelka,
"Max-value Entropy Search for Efficient Bayesian Optimization", ICML 2017, equation 6; its lower
bound under noise, GIBBON: Henry B. Moss et al., JMLR 22, 2021, section 4; constrained EI: Jacob R.
Gardner et al., "Bayesian Optimization with Inequality Constraints", ICML 2014; noisy EI and KG:
Peter I. Frazier, "A Tutorial on Bayesian Optimization", arXiv:1807.02811, 2018, sections 4.2 and 5.

Differs from the papers: EI and all that follows from it is given as its logarithm, and where the
targets have several columns (sampled outcomes of pending trials) EI is its mean over them. Time
O(q n^2) for q points, O(q n^2) more for the lines of n points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_ndtr
from torch import Tensor

from sharpen.search.gp.envelope import log_expected_rise
from sharpen.search.gp.model import GaussianProcess, Moments
from sharpen.search.gp.normal import LOG_SQRT_2PI, log_improvement

__all__ = [
    "Acquisition",
    "Smooth",
    "constrained",
    "knowledge_gradient",
    "log_expected_improvement",
    "log_feasibility",
    "log_probability_of_improvement",
    "max_value_entropy",
    "noisy_expected_improvement",
    "sample_minima",
    "upper_confidence_bound",
    "value_and_slopes",
]

Floats = npt.NDArray[np.float64]

Acquisition = Callable[[Tensor], Tensor]
"""Of [q, p] features; gives [q] values, more is better, through which gradients flow."""

_LEAST_SD = 1e-10
_MOST_LINES = 50


class _ByHand(torch.autograd.Function):
    """Values whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, acquisition: Smooth) -> Tensor:
        value, gradient = acquisition.slopes(points.numpy())
        ctx.save_for_backward(torch.from_numpy(gradient))
        return torch.from_numpy(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        [gradient] = ctx.saved_tensors
        return gradients[0][:, None] * gradient, None


class Smooth:
    """An acquisition with its gradient in closed form.

    Args:
        function: of [q, p] points; gives [q] values, and what gives their [q, p] gradients.
    """

    def __init__(self, function: Callable[[Floats], tuple[Floats, Callable[[], Floats]]]) -> None:
        self._function = function

    def __call__(self, points: Tensor) -> Tensor:
        """See :data:`Acquisition`."""
        if points.requires_grad:
            value: Tensor = _ByHand.apply(points, self)  # type: ignore[no-untyped-call]
            return value
        return torch.from_numpy(self._function(points.numpy())[0])

    def slopes(self, points: Floats) -> tuple[Floats, Floats]:
        """[q] values and [q, p] gradients at [q, p] points."""
        value, gradient = self._function(points)
        return value, gradient()


def value_and_slopes(acquisition: Acquisition, points: Floats) -> tuple[Floats, Floats]:
    """[q] values and [q, p] gradients at [q, p] points, by autograd where nothing else is known."""
    if isinstance(acquisition, Smooth):
        return acquisition.slopes(points)
    at = torch.from_numpy(points).requires_grad_()
    value = acquisition(at)
    [gradient] = torch.autograd.grad(value.sum(), at)
    return value.detach().numpy(), gradient.numpy()


def _mean_and_sd(model: GaussianProcess, points: Tensor) -> tuple[Tensor, Tensor]:
    """[q, k] means and [q, 1] standard deviations."""
    mean, variance = model.posterior(points)
    # The root has no derivative at 0, where there is nothing to learn either.
    return mean.reshape(len(points), -1), variance.clamp(min=_LEAST_SD**2).sqrt()[:, None]


def log_expected_improvement(model: GaussianProcess, best: Tensor | float) -> Acquisition:
    """The logarithm of EI below ``best``, one number or [k] for as many columns of the targets."""
    moments, least = Moments(model), np.asarray(best, dtype=np.float64)

    def value(points: Floats) -> tuple[Floats, Callable[[], Floats]]:
        at = moments(points)
        variance = np.maximum(at.variance, _LEAST_SD**2)
        log_ei, by_mean, by_variance = log_improvement(at.mean, variance[:, None], least)
        # The mean over columns, without underflow.
        most = log_ei.max(axis=1, keepdims=True)
        share = np.exp(log_ei - most)
        total = share.sum(axis=1, keepdims=True)
        found = most + np.log(total / log_ei.shape[1])

        def gradient() -> Floats:
            part = share / total
            slope = (part * by_variance).sum(axis=1) * (at.variance >= _LEAST_SD**2)
            return at.back(part * by_mean, slope, None)

        return found[:, 0], gradient

    return Smooth(value)


def log_probability_of_improvement(model: GaussianProcess, best: float) -> Acquisition:
    """The logarithm of the probability that the function is below ``best``."""
    return log_feasibility(model, best)


def upper_confidence_bound(model: GaussianProcess, beta: float) -> Acquisition:
    """The loss that is hoped for, sqrt(beta) standard deviations below the mean, negated."""

    def value(points: Tensor) -> Tensor:
        mean, sd = _mean_and_sd(model, points)
        hoped: Tensor = math.sqrt(beta) * sd - mean
        return hoped.mean(1)

    return value


def max_value_entropy(model: GaussianProcess, minima: Tensor, *, noise: float = 0.0) -> Acquisition:
    """MES: how much a point tells of the least loss.

    Args:
        model: of the loss.
        minima: [k] samples of the least loss.
        noise: variance of the noise of the next measurement; above 0 the value is GIBBON's bound.
    """

    def value(points: Tensor) -> Tensor:
        mean, sd = _mean_and_sd(model, points)
        gap = (mean.mean(1, keepdim=True) - minima) / sd
        log_share = torch.special.log_ndtr(gap)
        ratio = torch.exp(-gap * gap / 2 - LOG_SQRT_2PI - log_share)
        if noise > 0:
            share = sd * sd / (sd * sd + noise)
            return (-0.5 * torch.log1p(-share * ratio * (gap + ratio))).mean(1)
        told: Tensor = gap * ratio / 2 - log_share
        return told.mean(1)

    return value


def sample_minima(
    model: GaussianProcess, points: Tensor, count: int, rng: np.random.Generator
) -> Tensor:
    """[count] samples of the least loss, from the joint posterior at [q, p] ``points``."""
    with torch.no_grad():
        mean, _ = model.posterior(points)
        covariance = model.covariance(points, points)
        covariance.diagonal().add_(1e-8 * model.hyper.scale)
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=0).sqrt()
        normal = torch.from_numpy(rng.standard_normal((len(points), count)))
        centre = mean.reshape(len(points), -1).mean(1, keepdim=True)
        drawn: Tensor = (centre + root @ normal).min(0).values
        return drawn


def log_feasibility(model: GaussianProcess, bound: float = 0.0) -> Acquisition:
    """The logarithm of the probability that the function is at most ``bound``."""
    moments = Moments(model)

    def value(points: Floats) -> tuple[Floats, Callable[[], Floats]]:
        at = moments(points)
        variance = np.maximum(at.variance, _LEAST_SD**2)[:, None]
        sd = np.sqrt(variance)
        z = (bound - at.mean) / sd
        share = log_ndtr(z)

        def gradient() -> Floats:
            ratio = np.exp(z * z * -0.5 - LOG_SQRT_2PI - share) / z.shape[1]
            slope = (-0.5 * ratio * z / variance).sum(axis=1) * (at.variance >= _LEAST_SD**2)
            return at.back(-ratio / sd, slope, None)

        return share.mean(axis=1), gradient

    return Smooth(value)


def constrained(parts: Sequence[Acquisition]) -> Acquisition:
    """The sum of logarithms: the expected improvement times every probability."""
    if len(parts) == 1:
        return parts[0]
    smooth = [part for part in parts if isinstance(part, Smooth)]
    if len(smooth) < len(parts):
        return lambda points: torch.stack([part(points) for part in parts]).sum(0)

    def value(points: Floats) -> tuple[Floats, Callable[[], Floats]]:
        values, gradients = zip(*(part._function(points) for part in smooth), strict=True)
        return np.sum(values, axis=0), lambda: np.sum([g() for g in gradients], axis=0)

    return Smooth(value)


def knowledge_gradient(
    model: GaussianProcess, others: Tensor, *, noise: float = 0.0, with_point: bool = True
) -> Acquisition:
    """The logarithm of the knowledge gradient on a discrete set.

    Args:
        model: of the loss.
        others: [m, p] the set whose least posterior mean counts.
        noise: variance of the noise of the next measurement.
        with_point: whether the point itself joins the set after the measurement, as noisy EI has it
            (the least mean so far is then over the set without it).
    """
    moments = Moments(model, others)
    with torch.no_grad():
        known = -model.posterior(others)[0].reshape(len(others), -1).mean(1).numpy()

    def value(points: Floats) -> tuple[Floats, Callable[[], Floats]]:
        at = moments(points)
        variance = np.maximum(at.variance, _LEAST_SD**2)[:, None]
        spread = np.sqrt(variance + noise)
        tells = not with_point or noise > 0  # of the others
        slopes = at.covariance / spread if tells else np.zeros_like(at.covariance)
        heights = np.broadcast_to(known, slopes.shape)
        if with_point:
            mean = -at.mean.mean(axis=1, keepdims=True)
            heights = np.concatenate([heights, mean], axis=1)
            slopes = np.concatenate([slopes, variance / spread], axis=1)
        rise, by_height, by_slope = log_expected_rise(heights, slopes)
        found, whole = rise, np.ones(len(rise))
        if with_point:
            # What lies above the best known already, if the point's own mean does.
            above = np.maximum(mean[:, 0] - known.max(), 0)
            is_above = above > 0
            if is_above.any():
                found = np.where(is_above, np.logaddexp(rise, np.log(above + ~is_above)), rise)
                whole = np.exp(rise - found)

        def gradient() -> Floats:
            by_lines = by_slope * whole[:, None]
            m = len(known)
            by_mean, by_variance = np.zeros_like(at.mean), np.zeros(len(found))
            if tells:
                by_variance -= (by_lines[:, :m] * slopes[:, :m]).sum(axis=1)
            if with_point:
                own = by_height[:, m] * whole + is_above * np.exp(-np.where(is_above, found, 0.0))
                by_mean -= own[:, None] / at.mean.shape[1]
                by_variance += by_lines[:, m] * (2 * spread - variance / spread)[:, 0]
            by_variance *= (at.variance >= _LEAST_SD**2) / (2 * spread[:, 0] ** 2)
            return at.back(by_mean, by_variance, by_lines[:, :m] / spread if tells else None)

        return found, gradient

    return Smooth(value)


def noisy_expected_improvement(model: GaussianProcess, seen: Tensor, noise: float) -> Acquisition:
    """The logarithm of noisy EI, exact: the gain in the best mean over evaluated points.

    Args:
        model: of the loss.
        seen: [n, p] evaluated points; above 50, those of the least means stand for all, as the
            others would have to pass all of them with one measurement.
        noise: variance of the noise of the next measurement.
    """
    with torch.no_grad():
        means = model.posterior(seen)[0].reshape(len(seen), -1).mean(1)
    return knowledge_gradient(model, seen[means.argsort()[:_MOST_LINES]], noise=noise)
