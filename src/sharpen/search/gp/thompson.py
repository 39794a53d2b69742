"""A whole function drawn from the posterior, for Thompson sampling.

Ali Rahimi and Benjamin Recht, "Random Features for Large-Scale Kernel Machines", NIPS 2007; update
by data: James T. Wilson et al., "Efficiently Sampling Functions from Gaussian Process Posteriors",
ICML 2020, equation 9 (Matheron's rule)::

    g(x) = m + sqrt(2 s / K) sum_k w_k cos(omega_k' x / l + b_k)       a draw from the prior
    f(x) = g(x) + s k(x, X) (s k(X, X) + diag(noise))^-1 (y - g(X) - e),  e ~ N(0, noise)

Differs from the papers: None. Time O(K q p) for q points, K frequencies and p features, beside
O(q n) for the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sharpen.search.gp.acquisition import Acquisition
from sharpen.search.gp.kernels import spectral_frequencies
from sharpen.search.gp.model import GaussianProcess

__all__ = ["sample_path", "sample_paths"]


def sample_path(
    model: GaussianProcess, rng: np.random.Generator, frequencies: int = 1024
) -> Acquisition:
    """A function drawn from a model's posterior.

    Args:
        model: with one column of targets.
        rng: draws it.
        frequencies: K; the prior's covariance has an error of about 1/sqrt(K).

    Returns:
        A function of [q, p] features that gives [q] values, through which gradients flow.
    """
    paths = sample_paths(model, rng, 1, frequencies)
    return lambda points: paths(points)[:, 0]


def sample_paths(
    model: GaussianProcess, rng: np.random.Generator, count: int, frequencies: int = 1024
) -> Acquisition:
    """``count`` functions drawn from a model's posterior, which share their frequencies.

    Arguments are those of :func:`sample_path`.

    Returns:
        A function of [q, p] features that gives [q, count] values, through which gradients flow.
    """
    hyper = model.hyper
    omega = spectral_frequencies(model.kernel, frequencies, len(hyper.lengthscales), rng)
    phase = torch.from_numpy(rng.random(frequencies)) * 2 * math.pi
    weight = torch.from_numpy(rng.standard_normal((frequencies, count)))
    weight = weight * math.sqrt(2 * hyper.scale / frequencies)

    def waves(points: Tensor) -> Tensor:
        return torch.cos(model.scaled(points) @ omega.T + phase)

    # What related functions have of this one, and what they have for themselves.
    functions: list[Callable[[Tensor], Tensor]] = []
    for load in model.loads.tolist():
        own = weight
        if functions:
            other = torch.from_numpy(rng.standard_normal((frequencies, count)))
            other = other * math.sqrt(2 * hyper.scale / frequencies)
            own = load * weight + math.sqrt(max(1 - load * load, 0.0)) * other
        constant = torch.zeros(count, dtype=torch.float64)
        if model.constant_sd:
            constant = model.constant_sd * torch.from_numpy(rng.standard_normal(count))
        functions.append(partial(_wave_sum, waves, own, constant))
    prior = functions[0]
    noise = (model.known_noise + hyper.noise).sqrt()
    e = noise[:, None] * torch.from_numpy(rng.standard_normal((len(model), count)))
    drawn = model.observed(functions) + e
    away = model.with_targets((model.targets - model.mean)[:, None] - drawn)

    def paths(points: Tensor) -> Tensor:
        value: Tensor = model.mean + prior(points) + away.posterior(points)[0]
        return value

    return paths


def _wave_sum(
    waves: Callable[[Tensor], Tensor], weight: Tensor, constant: Tensor, points: Tensor
) -> Tensor:
    return waves(points) @ weight + constant
