"""Which acquisition function a step maximizes: by its name, the noise and the trials under way.

::

    auto     log EI, in spaces with conditions in turn with one that has to gain more (branches);
             exact noisy EI where the losses are noisy
    pending  trials under way enter log EI as 16 sampled outcomes of each, the others as expected
    bayes    the mean of the acquisition over 16 draws of the hyper-parameters; for "ts" one draw
    chances  multiplied by the probabilities that constraints hold and that the trial succeeds;
             while no trial is feasible, those alone

The functions themselves: :mod:`~sharpen.search.gp.acquisition`, :mod:`~sharpen.search.gp.entropy`,
:mod:`~sharpen.search.gp.thompson`. Those of the kinds kg, jes and pes are costly, so a cheaper one
chooses where the search for their maximum starts.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.search.gp.acquisition import (
    Acquisition,
    constrained,
    knowledge_gradient,
    log_expected_improvement,
    log_probability_of_improvement,
    max_value_entropy,
    noisy_expected_improvement,
    sample_minima,
    upper_confidence_bound,
)
from sharpen.search.gp.bayes import averaged
from sharpen.search.gp.branches import GAIN, has_to_gain
from sharpen.search.gp.entropy import joint_entropy, sample_optima
from sharpen.search.gp.local import LocalSteps
from sharpen.search.gp.model import GaussianProcess
from sharpen.search.gp.surrogates import NOISY, Fitted, believe
from sharpen.search.gp.thompson import sample_path

__all__ = ["ACQUISITIONS", "AcquiringOptimizer"]

Floats = npt.NDArray[np.float64]

ACQUISITIONS = ("auto", "log_ei", "noisy_ei", "pi", "kg", "mes", "jes", "pes", "ucb", "ts")
_LOGARITHMS = ("auto", "log_ei", "noisy_ei", "pi", "kg")
_FANTASIES = 16
_MINIMA = 16
_AIM = 0.01  # by how much, in standard deviations of the losses, "pi" is to improve


class AcquiringOptimizer(LocalSteps):
    """Base of optimizers that maximize an acquisition; a subclass sets which before it is made."""

    acquisitions: ClassVar[tuple[str, ...]] = ACQUISITIONS
    """The names that it takes."""

    acquisition: str
    """One of them."""

    def _acquisition(
        self, models: dict[str, Fitted], losses: Floats, rng: np.random.Generator
    ) -> tuple[Acquisition, Acquisition | None]:
        """What to maximize, and a cheaper one to choose starts by where that is costly."""
        draws = len(models["loss"].draws)
        if not draws:
            return self._acquisition_of(models, losses, rng)
        if self.acquisition == "ts":
            # One function of one draw is a function of the whole posterior.
            k = int(rng.integers(draws))
            return self._acquisition_of({n: m.draw(k) for n, m in models.items()}, losses, rng)
        parts = [
            self._acquisition_of({n: m.draw(k) for n, m in models.items()}, losses, rng)[0]
            for k in range(draws)
        ]
        _, screen = self._acquisition_of(models, losses, rng)
        return averaged(parts, is_log=self.acquisition in _LOGARITHMS), screen

    def _acquisition_of(
        self, models: dict[str, Fitted], losses: Floats, rng: np.random.Generator
    ) -> tuple[Acquisition, Acquisition | None]:
        loss = models["loss"]
        pending = self._pending_features()
        parts = self._chances(models, pending)
        good = self._good(models)
        if not good.any():
            return constrained(parts), None
        x = torch.from_numpy(self._features(self.seen.x[good], self.seen.mask[good]))
        wanted, screen = self._improvement(loss, x, losses[good], pending, rng)
        return constrained([wanted, *parts]), screen and constrained([screen, *parts])

    def _improvement(
        self,
        loss: Fitted,
        seen: Tensor,
        losses: Floats,
        pending: Tensor,
        rng: np.random.Generator,
    ) -> tuple[Acquisition, Acquisition | None]:
        model, kind = loss.model, self.acquisition
        own_noise = model.noise
        noisy = own_noise > NOISY
        if kind == "auto":
            kind = "noisy_ei" if noisy else "log_ei"
        if kind == "log_ei":
            best = self._incumbent(loss, seen, losses, noisy) - self._gain()
            if not len(pending):
                return log_expected_improvement(model, best), None
            outcomes = _sample(model, pending, _FANTASIES, rng)
            model = model.append(pending, outcomes)
            best = torch.minimum(best, outcomes.min(0).values)
            return log_expected_improvement(model, best), None
        model = believe(model, pending)
        places = torch.cat([seen, pending])
        least = float(model.posterior(places)[0].min())
        screen = log_expected_improvement(model, least)
        if kind == "pi":
            return log_probability_of_improvement(model, least - _AIM), screen
        if kind == "noisy_ei":
            return noisy_expected_improvement(model, places, own_noise if noisy else 0.0), screen
        if kind == "ucb":
            count = len(self.seen) + 1
            beta = 0.2 * self.space.dimensions * math.log(2 * count)
            return upper_confidence_bound(model, beta), None
        if kind == "ts":
            path = sample_path(model, rng)
            return lambda points: -path(points), None
        drawn = np.array([rng.random(self.space.dimensions) for _ in range(256)])
        _, encoded = self.space.settle_all(drawn, rng)
        raw = torch.from_numpy(self._features(encoded.x, encoded.mask))
        measured = own_noise if noisy else 0.0
        if kind == "mes":
            minima = sample_minima(model, torch.cat([seen, raw]), _MINIMA, rng)
            return max_value_entropy(model, minima, noise=measured), None
        optima, values = sample_optima(
            model, torch.cat([seen, raw]), _MINIMA, rng, in_cube=self._features.is_continuous
        )
        if kind == "kg":
            best_raw = model.posterior(raw)[0].argsort()[:50]
            others = torch.cat([places, optima, raw[best_raw]])
            return knowledge_gradient(model, others, noise=own_noise), screen
        if kind == "jes":
            return joint_entropy(model, optima, values, noise=measured), screen
        from sharpen.search.gp.bridge import predictive_entropy

        return predictive_entropy(model, optima), screen

    def _gain(self) -> float:
        """What the next trial has to gain on the best, in standard deviations of the losses."""
        step = len(self.seen) + len(self.pending)
        among = self.acquisition == "auto" and self.space.is_conditional
        return GAIN if among and has_to_gain(step) else 0.0

    def _incumbent(self, loss: Fitted, seen: Tensor, losses: Floats, noisy: bool) -> Tensor:
        """The least loss known, as the model has it; of noisy losses, the least expected one."""
        if noisy:
            return loss.model.posterior(seen)[0].min()
        return torch.tensor(loss.transform(losses).min())

    def _pending_features(self) -> Tensor:
        configs = [self.pending[k].config for k in sorted(self.pending)]
        encoded = self.space.encode(configs)
        return torch.from_numpy(self._features(encoded.x, encoded.mask))


def _sample(model: GaussianProcess, points: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """[q, count] samples of measurements at points, jointly."""
    with torch.no_grad():
        mean, _ = model.posterior(points)
        covariance = model.covariance(points, points)
        covariance.diagonal().add_(model.hyper.noise)
        values, vectors = torch.linalg.eigh(covariance)
        normal = torch.from_numpy(rng.standard_normal((len(points), count)))
        drawn: Tensor = vectors @ (values.clamp(min=0).sqrt()[:, None] * normal)
        return mean[:, None] + drawn
