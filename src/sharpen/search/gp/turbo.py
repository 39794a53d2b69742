"""TuRBO: Bayesian optimization in a trust region, for more than about 20 parameters.

David Eriksson, Michael Pearce, Jacob R. Gardner, Ryan Turner and Matthias Poloczek, "Scalable
Global Optimization via Local Bayesian Optimization", NeurIPS 2019, section 2 and appendix D::

    region   a box around the best trial of the run, of side L l_i / (prod_j l_j)^(1/d), l the
             lengthscales of a model of the run's trials
    x        of min(100 d, 5000) points in the box, each the best with a random min(1, 20/d) of its
             coordinates moved, the lowest on a function drawn from the posterior
    L        starts at 0.8; doubled, up to 1.6, after 3 trials in a row that improve the best by
             1/1000 of its size; halved after max(4, d) in a row that do not; below 2^-7 the run
             ends and another begins with an initial design of its own

The region follows from the trials in the order of their numbers, so from the history alone.

Differs from the paper: one trust region; points drawn at random in the box, not from a Sobol
sequence, and at most 500 of them in a space that is not all of real numbers; the sampled function
is a whole path (:mod:`sharpen.search.gp.thompson`), so a proposal is linear in the number of
points. Trials that fail count as no improvement. Time O(100 d K) a proposal for K frequencies
beside the model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from sharpen.core.optimizer import Capabilities
from sharpen.core.space import random_stream
from sharpen.search.gp.optimizer import GP
from sharpen.search.gp.surrogates import one_thread
from sharpen.search.gp.thompson import sample_path

__all__ = ["TuRBO"]

Floats = npt.NDArray[np.float64]

_FIRST, _LEAST, _MOST = 0.8, 0.5**7, 1.6
_SUCCESSES = 3
_IMPROVES = 1e-3
_POINTS = 100  # a dimension
_MOST_POINTS = 5000
_MOST_SETTLED = 500  # where each point must be rounded and moved out of forbidden combinations


@dataclass(slots=True)
class Region:
    """Where a run of the trust region stands."""

    begin: int = 0
    """Row of the run's first trial."""

    length: float = _FIRST
    """L of the paper."""

    best: float = np.inf
    """Least loss of the run."""

    successes: int = 0
    failures: int = 0


def follow(losses: Floats, n_init: int, patience: int) -> Region:
    """The trust region after trials.

    Args:
        losses: [n] by number; infinite where a trial failed.
        n_init: trials of each run's initial design.
        patience: trials without improvement that halve the region.
    """
    region = Region()
    for row, loss in enumerate(losses):
        inside = row - region.begin >= n_init
        size = abs(region.best) if np.isfinite(region.best) else 0.0
        better = loss < region.best - _IMPROVES * size
        region.best = min(region.best, loss)
        if not inside:
            continue
        region.successes = region.successes + 1 if better else 0
        region.failures = 0 if better else region.failures + 1
        if region.successes == _SUCCESSES:
            region.length, region.successes = min(2 * region.length, _MOST), 0
        elif region.failures == patience:
            region.length, region.failures = region.length / 2, 0
        if region.length < _LEAST:
            region = Region(begin=row + 1)
    return region


class TuRBO(GP):
    """Bayesian optimization in a trust region; see the module for the method.

    Arguments are those of :class:`~sharpen.search.gp.optimizer.GP`; its ``acquisition``,
    ``restarts`` and ``samples`` have no effect.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.space import Space
        >>> optimizer = TuRBO(Space({f"x{i}": Float(-1, 1) for i in range(30)}), n_init=10)
        >>> for _ in range(12):
        ...     candidate = optimizer.ask()[0]
        ...     optimizer.tell([candidate.result(sum(v * v for v in candidate.config.values()))])
        >>> len(optimizer.history)
        12
    """

    name: ClassVar[str] = "turbo"
    capabilities: ClassVar[Capabilities] = Capabilities()
    takes_related: ClassVar[bool] = False
    covers_numbers: ClassVar[bool] = True
    hyperparameters = None

    def propose(self, number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose`."""
        rows = np.flatnonzero(self._true)
        losses = np.where(self.seen.ok, self.seen.loss[:, 0], np.inf)[rows]
        patience = max(4, self.space.dimensions)
        region = follow(losses, self.n_init, patience)
        run = rows[region.begin :]
        known = self.seen.ok[run].sum()
        if len(run) + len(self.pending) < self.n_init or known < 2:
            return self._initial(number)
        rng = random_stream(self.seed, number)
        with one_thread(), torch.no_grad():
            run = self._nearest(run, self.seen.imputed()[:, 0])
            loss = self.seen.imputed()[run, 0]
            noise = self._noise(run, self.objectives[0].name)
            model = self._model("loss", run, loss, noise, self.bend).model
            best = self.seen.x[run[int(np.argmin(loss))]]
            points = self._points(best, region.length, model.hyper.lengthscales.numpy(), rng)
            features = points
            if not self._features.is_continuous:
                points, encoded = self.space.settle_all(points, rng)
                features = self._features(encoded.x, encoded.mask)
            value = sample_path(model, rng)(torch.from_numpy(features)).numpy()
        order = np.argsort(value, kind="stable")[:8]
        return self._new(self.space.decode(points[order]), False, rng)

    def _points(
        self, best: Floats, length: float, lengthscales: Floats, rng: np.random.Generator
    ) -> Floats:
        """[k, d] points of the trust region."""
        d = self.space.dimensions
        weights = np.ones(d)
        moving = self._features.moving
        scales = lengthscales[moving]
        if len(moving):
            weights[self._features.columns] = scales / np.exp(np.log(scales).mean())
        half = length * weights / 2
        lower, upper = np.clip(best - half, 0, 1), np.clip(best + half, 0, 1)
        most = _MOST_POINTS if self._features.is_continuous else _MOST_SETTLED
        count = min(_POINTS * d, most)
        moved = rng.random((count, d)) < min(1.0, 20 / d)
        moved[np.arange(count), rng.integers(d, size=count)] = True
        return np.where(moved, lower + (upper - lower) * rng.random((count, d)), best)
