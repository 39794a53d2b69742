"""Bayesian optimization with cheap, coarse trials: where and how closely to measure, by cost.

Matthias Poloczek, Jialei Wang and Peter I. Frazier, "Multi-Information Source Optimization", NIPS
2017, section 3.2; Jian Wu et al., "Practical Multi-fidelity Bayesian Optimization for
Hyperparameter Tuning", UAI 2019; Kirthevasan Kandasamy et al., "Multi-fidelity Bayesian
Optimisation with Continuous Approximations", ICML 2017, for the kernel::

    f(x, s) ~ GP, s the fidelity scaled to [0, 1] with a lengthscale of its own, 1 the truth
    value(x, s) = (E[max_x' in A -mu_{n+1}(x', 1) | x, s] - max_x' in A -mu_n(x', 1)) / cost(s)
    A           = the 40 evaluated points of the least mean at the truth, and the best of 256 others

The knowledge gradient over A is exact (:mod:`sharpen.search.gp.envelope`). x is found for each of
four fidelities from the lowest to the truth, and the pair of the largest value is proposed; every
fifth trial at least is one at the truth.

Differs from the papers: the fidelity is a feature in the one Matern kernel, the set A is discrete,
and only four fidelities (or all, where there are fewer) are compared. Time as for GP, four times
over for the acquisition.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.optimizer import Capabilities, Proposal, Recommendation
from sharpen.core.space import random_stream
from sharpen.search.gp.acquisition import (
    Acquisition,
    knowledge_gradient,
    log_expected_improvement,
)
from sharpen.search.gp.candidates import maximize
from sharpen.search.gp.model import GaussianProcess
from sharpen.search.gp.optimizer import GP
from sharpen.search.gp.surrogates import one_thread

__all__ = ["MultiFidelityGP"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEVELS = 4
_KEPT = 40
_OTHERS = 256
_TRUTH_EVERY = 5


class MultiFidelityGP(GP):
    """Bayesian optimization that chooses the fidelity; see the module for the method.

    Arguments are those of :class:`~sharpen.search.gp.optimizer.GP`, without constraints; its
    ``acquisition`` has an effect only where the problem has no fidelity, where all is as there.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.problem import Fidelity
        >>> from sharpen.core.space import Space
        >>> space, epochs = Space(x=Float(0, 1)), Fidelity("epochs", 1, 9, integer=True)
        >>> optimizer = MultiFidelityGP(space, fidelity=epochs, n_init=4)
        >>> for _ in range(6):
        ...     candidate = optimizer.ask()[0]
        ...     coarse = 0.1 / candidate.fidelity
        ...     optimizer.tell([candidate.result((candidate.config["x"] - 0.3) ** 2 + coarse)])
        >>> 1 <= optimizer.ask()[0].fidelity <= 9
        True
    """

    name: ClassVar[str] = "mf-gp"
    takes_related: ClassVar[bool] = False
    covers_numbers: ClassVar[bool] = True
    capabilities: ClassVar[Capabilities] = Capabilities(fidelity=True)

    def propose(self, number: int) -> dict[str, Any] | Proposal:
        """See :meth:`Optimizer.propose`."""
        if self.fidelity is None:
            return super().propose(number)
        levels = self._levels()
        ok = self.seen.ok
        truths = int((ok & self._true).sum())
        # The initial design takes the levels in turn, so that the model sees how they differ.
        if ok.sum() + len(self.pending) < self.n_init or ok.sum() < 2:
            return Proposal(
                config=self._initial(number), fidelity=levels[-1 - number % len(levels)]
            )
        rng = random_stream(self.seed, number)
        with one_thread():
            model, rows = self._joint()
            least = self._seen_at_truth(rows)
            means = model.posterior(least)[0].detach()
            least = least[means.argsort()[:_KEPT]]
            hope = log_expected_improvement(model, float(means.min()))
            anchors = self._anchors(self.seen.imputed()[:, 0])
            starts = maximize(_at(hope, 1.0), self._features, anchors, rng, samples=_OTHERS)
            places = torch.cat([least, self._features_of(starts, 1.0)])
            noise = model.hyper.noise
            gain = knowledge_gradient(model, places, noise=noise, with_point=False)
            due = truths * _TRUTH_EVERY <= len(self.seen) + len(self.pending)
            best: tuple[float, dict[str, Any], float] | None = None
            for level in levels[-1:] if due else levels:
                scaled = self._scaled(level)
                found = maximize(
                    _at(gain, scaled),
                    self._features,
                    np.concatenate([anchors, self.space.encode(starts[:3]).x]),
                    rng,
                    screen=_at(hope, 1.0),
                    samples=self.samples // 2,
                    restarts=max(self.restarts // 2, 1),
                )
                config = self._new(found, noise > 1e-3, rng)
                with torch.no_grad():
                    worth = float(gain(self._features_of([config], scaled))[0])
                worth -= math.log(self.fidelity.cost(level))
                if best is None or worth > best[0]:
                    best = (worth, config, level)
        assert best is not None
        return Proposal(config=best[1], fidelity=best[2])

    def _levels(self) -> list[float]:
        """Fidelities that are compared, ascending."""
        fidelity = self.fidelity
        assert fidelity is not None
        if fidelity.log:
            found = np.geomspace(fidelity.low, fidelity.high, _LEVELS)
        else:
            found = np.linspace(fidelity.low, fidelity.high, _LEVELS)
        if fidelity.integer:
            found = np.round(found)
        return sorted({float(np.clip(v, fidelity.low, fidelity.high)) for v in found})

    def _scaled(self, value: float | Floats) -> Any:
        """Fidelity on [0, 1], 1 the truth."""
        fidelity = self.fidelity
        assert fidelity is not None
        if fidelity.log:
            return np.log(value / fidelity.low) / math.log(fidelity.high / fidelity.low)
        return (value - fidelity.low) / (fidelity.high - fidelity.low)

    def _features_of(self, configs: list[dict[str, Any]], scaled: float) -> Tensor:
        encoded = self.space.encode(configs)
        rows = torch.from_numpy(self._features(encoded.x, encoded.mask))
        return _beside(rows, scaled)

    def _seen_at_truth(self, rows: Ints) -> Tensor:
        rows = rows[self.seen.ok[rows]]
        x = torch.from_numpy(self._features(self.seen.x[rows], self.seen.mask[rows]))
        return _beside(x, 1.0)

    def _joint(self) -> tuple[GaussianProcess, Ints]:
        """The model of all fidelities, pending trials believed, and the rows it is made of."""
        rows = self._nearest(np.arange(len(self.seen)), self.seen.imputed()[:, 0])
        loss = self.seen.imputed()[rows, 0]
        noise = self._noise(rows, self.objectives[0].name)
        groups = np.append(self._features.groups, self._features.num_groups)
        x = self._features(self.seen.x[rows], self.seen.mask[rows])
        s = self._scaled(self.seen.fidelity[rows])
        joint = np.column_stack([x, s])
        alike = self._features.num_groups
        model = self._fit("joint", joint, groups, loss, noise, self.bend, alike).model
        if self.pending:
            trials = [self.pending[k] for k in sorted(self.pending)]
            assert self.fidelity is not None
            high = self.fidelity.high
            given = [high if t.fidelity is None else t.fidelity for t in trials]
            encoded = self.space.encode([t.config for t in trials])
            features = self._features(encoded.x, encoded.mask)
            at = torch.from_numpy(np.column_stack([features, self._scaled(np.array(given))]))
            with torch.no_grad():
                model = model.append(at, model.posterior(at)[0])
        return model, rows

    def recommend(self) -> Recommendation:
        """The evaluated configuration that is least at the truth, a standard deviation allowed for.

        Those measured at the truth itself have next to none.
        """
        if self.fidelity is None or self.seen.ok.sum() < 2:
            return super().recommend()
        with one_thread(), torch.no_grad():
            model, rows = self._joint()
            mean, variance = model.posterior(self._seen_at_truth(rows))
            best = int((mean + variance.sqrt()).argmin())
        trial = self.history[int(self.seen.numbers[rows[self.seen.ok[rows]][best]])]
        why = f"least mean and deviation expected at the highest fidelity, trial {trial.number}"
        return Recommendation(config=dict(trial.config), predicted=dict(trial.values), why=why)


def _beside(features: Tensor, scaled: float) -> Tensor:
    column = torch.full((len(features), 1), scaled, dtype=torch.float64)
    return torch.cat([features, column], 1)


def _at(acquisition: Acquisition, scaled: float) -> Acquisition:
    """An acquisition of configurations and fidelity, at one fidelity."""
    return lambda points: acquisition(_beside(points, scaled))
