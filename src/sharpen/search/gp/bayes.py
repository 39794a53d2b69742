"""Hyper-parameters drawn from their posterior, by elliptical slice sampling.

Iain Murray, Ryan Prescott Adams and David J. C. MacKay, "Elliptical slice sampling", AISTATS 2010,
figure 2; for Gaussian processes: Iain Murray and Ryan Prescott Adams, "Slice sampling covariance
hyperparameters of latent Gaussian models", NIPS 2010; for the acquisition: Jasper Snoek, Hugo
Larochelle and Ryan P. Adams, "Practical Bayesian Optimization of Machine Learning Algorithms", NIPS
2012, section 3.1::

    theta ~ N(m, S) p(y | theta)      a normal prior, and all the rest as the likelihood
    nu    ~ N(0, S),  log c = log p(y | theta) - Exp(1),  angle t ~ U(0, 2 pi)
    theta' = m + (theta - m) cos t + nu sin t, taken where log p(y | theta') > log c; else
    the bracket of t shrinks towards 0 to what was refused, and t is drawn in it anew

    acquisition(x) = mean over the draws of acquisition(x; theta)

Several chains go side by side, so that one evaluation of the density serves all of them; each gives
its last states. The noise, whose prior is no normal, has one that covers its range, and the
quotient of the two counts as likelihood. Beyond a bound the likelihood is 0.

Differs from the papers: the chains begin at the densest point. Time O(c s n^3) for c chains of s
steps, of about five evaluations each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.search.gp.acquisition import Acquisition
from sharpen.search.gp.hyper import LogPosterior

__all__ = ["STEPS", "averaged", "sample"]

Floats = npt.NDArray[np.float64]

STEPS = 24
_MOST_SHRINKS = 100


def sample(
    posterior: LogPosterior,
    start: Floats,
    rng: np.random.Generator,
    *,
    chains: int = 8,
    steps: int = STEPS,
    burn_in: int | None = None,
) -> Floats:
    """Draws from the posterior of hyper-parameters.

    Args:
        posterior: their density.
        start: [k] where the chains begin.
        rng: draws them.
        chains: how many go side by side.
        steps: of each.
        burn_in: steps after which every state is a draw; None keeps the last alone.

    Returns:
        [chains, k], or [(steps - burn_in) chains, k].
    """
    # What is held at one value has no room to move.
    held = posterior.high <= posterior.low
    state = np.repeat(np.where(held, posterior.low, start)[None], chains, axis=0)
    centre = np.where(held, posterior.low, posterior.prior_mean)
    known = _log_likelihood(posterior, state, centre)
    kept = []
    for step in range(steps):
        nu = np.where(held, 0.0, posterior.prior_draws(rng, chains))
        level = known - rng.exponential(size=chains)
        angle = 2 * math.pi * rng.random(chains)
        low, high = angle - 2 * math.pi, angle.copy()
        going = np.arange(chains)
        for _ in range(_MOST_SHRINKS):
            t = angle[going, None]
            moved = centre + (state[going] - centre) * np.cos(t) + nu[going] * np.sin(t)
            value = _log_likelihood(posterior, moved, centre)
            taken = value > level[going]
            state[going[taken]], known[going[taken]] = moved[taken], value[taken]
            going = going[~taken]
            if not len(going):
                break
            back = angle[going] < 0
            low[going[back]] = angle[going[back]]
            high[going[~back]] = angle[going[~back]]
            angle[going] = low[going] + (high[going] - low[going]) * rng.random(len(going))
        if burn_in is not None and step >= burn_in:
            kept.append(state.copy())
    return state if burn_in is None else np.concatenate(kept)


def _log_likelihood(posterior: LogPosterior, theta: Floats, centre: Floats) -> Floats:
    """[c] log density over that of the normal prior; minus infinity beyond the bounds."""
    inside = ((theta >= posterior.low - 1e-12) & (theta <= posterior.high + 1e-12)).all(axis=1)
    found = np.full(len(theta), -np.inf)
    if inside.any():
        value, _ = posterior(theta[inside], gradients=False)
        found[inside] = posterior.prior_misfit(theta[inside] - centre) - value
    return found


def averaged(parts: Sequence[Acquisition], *, is_log: bool) -> Acquisition:
    """The mean of acquisition functions.

    Args:
        parts: one for each draw.
        is_log: whether they are logarithms, so that what is averaged are their exponentials.
    """

    def value(points: Tensor) -> Tensor:
        each = torch.stack([part(points) for part in parts])
        if is_log:
            return torch.logsumexp(each, 0) - math.log(len(parts))
        return each.mean(0)

    return value
