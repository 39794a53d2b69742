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

import numpy as np
import torch
from torch import Tensor

from sharpen.search.gp.envelope import log_expected_rise
from sharpen.search.gp.model import GaussianProcess
from sharpen.search.gp.normal import LOG_SQRT_2PI, log_h

__all__ = [
    "Acquisition",
    "constrained",
    "knowledge_gradient",
    "log_expected_improvement",
    "log_feasibility",
    "log_probability_of_improvement",
    "max_value_entropy",
    "noisy_expected_improvement",
    "sample_minima",
    "upper_confidence_bound",
]

Acquisition = Callable[[Tensor], Tensor]
"""Of [q, p] features; gives [q] values, more is better, through which gradients flow."""

_LEAST_SD = 1e-10
_MOST_LINES = 50


def _mean_and_sd(model: GaussianProcess, points: Tensor) -> tuple[Tensor, Tensor]:
    """[q, k] means and [q, 1] standard deviations."""
    mean, variance = model.posterior(points)
    # The root has no derivative at 0, where there is nothing to learn either.
    return mean.reshape(len(points), -1), variance.clamp(min=_LEAST_SD**2).sqrt()[:, None]


def log_expected_improvement(model: GaussianProcess, best: Tensor | float) -> Acquisition:
    """The logarithm of EI below ``best``, one number or [k] for as many columns of the targets."""

    def value(points: Tensor) -> Tensor:
        mean, sd = _mean_and_sd(model, points)
        log_ei = sd.log() + log_h((best - mean) / sd)
        if mean.shape[1] == 1:
            return log_ei[:, 0]
        return torch.logsumexp(log_ei, 1) - math.log(mean.shape[1])

    return value


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

    def value(points: Tensor) -> Tensor:
        mean, sd = _mean_and_sd(model, points)
        share: Tensor = torch.special.log_ndtr((bound - mean) / sd)
        return share.mean(1)

    return value


def constrained(parts: Sequence[Acquisition]) -> Acquisition:
    """The sum of logarithms: the expected improvement times every probability."""

    def value(points: Tensor) -> Tensor:
        total = parts[0](points)
        for part in parts[1:]:
            total = total + part(points)
        return total

    return value


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
    with torch.no_grad():
        known = -model.posterior(others)[0].reshape(len(others), -1).mean(1)
        other_half = model.half(others)

    def value(points: Tensor) -> Tensor:
        half = model.half(points)
        covariance = model.prior(points, others) - half.mT @ other_half
        variance = (model.prior_variance - (half * half).sum(0)).clamp(min=_LEAST_SD**2)
        spread = (variance + noise).sqrt()[:, None]
        slopes = covariance / spread
        heights = known.expand(len(points), -1)
        if not with_point:
            return log_expected_rise(heights, slopes)
        mean = -model.posterior(points)[0].reshape(len(points), -1).mean(1, keepdim=True)
        own = variance[:, None] / spread
        if noise == 0:
            slopes = torch.zeros_like(slopes)
        rise = log_expected_rise(torch.cat([heights, mean], 1), torch.cat([slopes, own], 1))
        # What lies above the best known already, if the point's own mean does.
        above = (mean[:, 0] - known.max()).clamp(min=0)
        return torch.where(above > 0, torch.log(rise.exp() + above), rise)

    return value


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
