"""Steps near the best trial, in turn with steps over the whole space.

Youssef Diouane, Victor Picheny, Rodolphe Le Riche and Alexandre Scotto Di Perrotolo, "TREGO: a
trust-region framework for efficient global optimization", Journal of Global Optimization 86, 2023,
algorithm 1; a model of the region's own trials: David Eriksson et al., "Scalable Global
Optimization via Local Bayesian Optimization", NeurIPS 2019, section 2::

    turns    after the initial trials one step over the whole space, then three near the best, by
             the trials' numbers; while other trials are under way all are over the whole space
    region   sides L w_j around the best trial, w_j = l_j / (prod_j l_j)^(1/d) within [1/4, 4],
             l the lengthscales of the model of all trials
    L        starts at 0.2; doubled, up to 1, after a step near the best that improves on it, halved
             after max(2, d / 3) in a row that do not; below 2^-7 it starts again
    model    of the max(4 d, 15) trials next to the best, distances divided by w; of the kernels
             that is kept under which its losses are likelier

A function that is bent differently here and there is smooth near its minimum: few trials around the
best one then tell more of it than all do. Where parameters are choices or whole numbers there is
less to follow, so spaces that are not all of real numbers are searched as a whole each time. So are
all where losses are noisy, for few trials tell little then. The model of all trials may take the
waves of an exact loss for noise; that of the region, where they are long, tells the two apart.

The best trial and L follow from the trials in the order of their numbers, so from the history
alone.

Differs from the papers: the region has a model of its own, and the lengthscales shape it (TREGO has
one model and a ball); turns are fixed (there, steps over the whole space go on while they improve),
and any improvement is one. Time O(n) beside the model's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sharpen.search.gp.joint import JointProcess
from sharpen.search.gp.kernels import KERNELS
from sharpen.search.gp.surrogates import NOISY, Fitted, ModelOptimizer

__all__ = ["LocalSteps", "Region", "is_near", "length"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TURNS = 4  # one of them over the whole space
_FIRST, _LEAST, _MOST = 0.2, 0.5**7, 1.0
_WIDEST = 4.0
_TRIALS, _LEAST_TRIALS = 4, 15  # of the model of the region, a dimension and at least
_LOUD = 0.1  # variance of the noise, in that of the region's losses, from which it hides them


def is_near(step: int) -> bool:
    """Whether a step is near the best trial; steps count from 0, behind the initial trials."""
    return step % _TURNS > 0


def length(merits: Iterable[tuple[int, float]], dimensions: int) -> float:
    """L of the module after some trials.

    Args:
        merits: step and merit of each trial, by number; initial ones are steps below 0. Of merits,
            less is better.
        dimensions: d of the module.
    """
    found, best, failures = _FIRST, np.inf, 0
    for step, merit in merits:
        improves, best = merit < best, min(best, merit)
        if step < 0 or not is_near(step):
            continue
        failures = 0 if improves else failures + 1
        if improves:
            found = min(2 * found, _MOST)
        elif failures == max(2, dimensions // 3):
            found, failures = found / 2, 0
        if found < _LEAST:
            found = _FIRST
    return found


@dataclass(frozen=True, slots=True)
class Region:
    """A box around the best trial, and the model of the loss in it."""

    model: Fitted
    centre: Floats
    """[d] the best trial."""

    lower: Floats
    """[d] one corner, in the cube."""

    upper: Floats
    """[d] the other corner."""


class LocalSteps(ModelOptimizer):
    """Base of optimizers whose steps near the best trial take turns with others."""

    def _region(
        self, models: dict[str, Fitted], losses: Floats, number: int, n_init: int
    ) -> Region | None:
        """The region of the step ``number``; None where it is one over the whole space.

        So it is where noise hides what the region's trials tell, while other trials are under way,
        which would crowd a region, as long as no trial is feasible, in a space that is not all of
        real numbers, and where slopes or earlier studies are modelled, which the region's own model
        would not know of.
        """
        loss, good = models["loss"].model, np.flatnonzero(self._good(models))
        if self.pending or not is_near(number - n_init) or not len(good):
            return None
        if not self._features.is_continuous or isinstance(loss, JointProcess):
            return None
        scores, is_noisy = losses[good], loss.noise > NOISY
        if is_noisy:
            scores = loss.posterior(torch.from_numpy(self.seen.x[good]))[0].numpy()
        centre = self.seen.x[good[int(np.argmin(scores))]]
        widths = _widths(loss.hyper.lengthscales.numpy())
        rows = np.flatnonzero(self._true)
        steps = (self.seen.numbers[rows] - n_init).tolist()
        merits = zip(steps, self.seen.merit()[rows].tolist(), strict=True)
        half = length(merits, len(centre)) * widths / 2
        rows, _ = self._modelled(losses)
        rows = rows[_nearest(self.seen.x[rows], centre, widths)]
        lower, upper = (centre - half).clip(0, 1), (centre + half).clip(0, 1)
        found = self._likelier(rows, losses[rows])
        if is_noisy and found.model.noise > _LOUD:
            return None
        return Region(found, centre, lower, upper)

    def _likelier(self, rows: Ints, losses: Floats) -> Fitted:
        """The model of some trials by that kernel under which their losses are likelier."""
        return self._fit(
            "near",
            self.seen.x[rows],
            self._features.groups,
            losses,
            self._noise(rows, self.objectives[0].name),
            self.bend,
            kernels=tuple(KERNELS),
        )


def _widths(lengthscales: Floats) -> Floats:
    """[d] w of the module from [d] lengthscales."""
    logs = np.log(lengthscales)
    found: Floats = np.exp(logs - logs.mean()).clip(1 / _WIDEST, _WIDEST)
    return found


def _nearest(points: Floats, centre: Floats, widths: Floats) -> Ints:
    """[k] rows, ascending, of those of [n, d] points that the region's model is made of."""
    count = max(_TRIALS * len(centre), _LEAST_TRIALS)
    gap = (((points - centre) / widths) ** 2).sum(axis=1)
    return np.sort(np.argsort(gap, kind="stable")[:count])
