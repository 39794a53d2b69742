"""Tree-structured Parzen estimator (TPE), over all parameters at once.

James Bergstra, Remi Bardenet, Yoshua Bengio and Balazs Kegl, "Algorithms for Hyper-Parameter
Optimization", NIPS 2011, section 4; several objectives: Yoshihiko Ozaki, Yuki Tanigaki, Shuhei
Watanabe and Masaki Onishi, "Multiobjective Tree-Structured Parzen Estimator", JAIR 73, 2022.

::

    n <  startup finished trials:  draw at random
    n >= startup:  good = the best min(ceil(share n), max_good) of n, bad = the others and pending
                   l = Parzen(good), g = Parzen(bad)                  (sharpen.search.parzen)
                   propose argmax l(x) / g(x) over candidates x drawn from l

Best is: feasible by loss, then infeasible by the sum of violations (Deb's rules). Of several
objectives: by rank of non-domination; the rank that does not fit whole gives those that together
have most hypervolume. Trials that failed, timed out or were pruned are bad; trials at a lower
fidelity are not counted. Running trials are bad, too ("constant liar"), so that workers keep apart.
The newest 25 trials weigh 1 and earlier ones less, down to 1/n.

A mixture has a kernel for each trial that knows which parameters were active in it, so conditional
parameters are drawn together with the choice that makes them active, and what was never active
counts as drawn at random. In a finite space a candidate that was tried already gives way to others.

Differs from the papers: kernels are products over all parameters (BOHB); conditional parameters as
said; the share is 0.1, good and bad weigh alike in several objectives.
Time O(n log n d) a proposal for n trials and d coordinates; memory O(n d) beside the history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities, Proposal
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.observations import ArrayOptimizer
from sharpen.search.pareto import hypervolume_subset, non_dominated_ranks
from sharpen.search.parzen import Axes, Parzen

__all__ = ["TPE", "recency_weights"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_NEWEST = 25


def recency_weights(n: int) -> Floats:
    """[n] weights of trials from the oldest to the newest; see the module."""
    old = max(n - _NEWEST, 0)
    return np.concatenate([np.linspace(1 / max(n, 1), 1.0, old), np.ones(n - old)])


class TPE(ArrayOptimizer):
    """Draws where good trials are dense and bad ones are not; see the module for the method.

    Args:
        space: what to search over.
        objectives: one or more.
        constraints: any number.
        startup: trials that must have ended well before the densities are used.
        candidates: points drawn from the density of good trials for each proposal.
        share: of the trials that count as good, above 0 and at most 1.
        max_good: most trials that count as good.
        prior_weight: weight of drawing at random within each density, where a trial has 1.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of its range.
        DependencyNotInstalled: SciPy is missing.

    Examples:
        >>> optimizer = TPE(Space(x=Float(-5, 5)), seed=1)
        >>> for candidate in (optimizer.ask()[0] for _ in range(40)):
        ...     optimizer.tell([candidate.result((candidate.config["x"] - 2) ** 2)])
        >>> abs(optimizer.recommend().config["x"] - 2) < 0.2
        True
    """

    name: ClassVar[str] = "tpe"
    capabilities: ClassVar[Capabilities] = Capabilities(multi_objective=True, constraints=True)
    hyperparameters: ClassVar[Space | None] = Space(
        startup=Int(2, 50, log=True, default=10),
        candidates=Int(4, 512, log=True, default=24),
        share=Float(0.02, 0.5, log=True, default=0.1),
        max_good=Int(5, 100, log=True, default=25),
        prior_weight=Float(0.01, 10, log=True, default=1.0),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        startup: int = 10,
        candidates: int = 24,
        share: float = 0.1,
        max_good: int = 25,
        prior_weight: float = 1.0,
        **given: Any,
    ) -> None:
        super().__init__(space, objectives, constraints, **given)
        for name, value, is_right in (
            ("startup", startup, startup >= 1),
            ("candidates", candidates, candidates >= 1),
            ("share", share, 0 < share <= 1),
            ("max_good", max_good, max_good >= 1),
            ("prior_weight", prior_weight, 0 < prior_weight < math.inf),
        ):
            if not is_right:
                raise ConfigError(f"{name}={value} is out of its range (the optimizer 'tpe').")
        self.startup = startup
        self.candidates = candidates
        self.share = share
        self.max_good = max_good
        self.prior_weight = prior_weight
        self._axes = Axes(space)
        self._is_finite = math.isfinite(space.cardinality)

    def propose(self, number: int) -> dict[str, Any] | Proposal:
        """See :meth:`Optimizer.propose`."""
        rng = random_stream(self.seed, number)
        return self.draw(rng, self.seen.fidelity == self._truth)

    @property
    def _truth(self) -> float:
        return 1.0 if self.fidelity is None else self.fidelity.high

    def draw(self, rng: np.random.Generator, counted: Bools) -> dict[str, Any]:
        """A configuration by the trials that count.

        Args:
            rng: of the trial.
            counted: [n] which finished trials to learn from.
        """
        usable = np.flatnonzero(self.seen.ok & counted)
        if len(usable) < self.startup:
            return self.space.draw(rng)
        good = self._good(usable)
        bad = np.flatnonzero(counted)
        bad = bad[~np.isin(bad, good)]
        seen = self.seen
        numbers, x, mask = seen.numbers[bad], seen.x[bad], seen.mask[bad]
        if self.pending:
            pending = np.array(sorted(self.pending))
            encoded = self.space.encode([self.pending[k].config for k in pending.tolist()])
            # What is measured again, more closely or not, is known already.
            is_new = ~_among(encoded.x, seen.x[counted])
            order = np.argsort(np.concatenate([numbers, pending[is_new]]), kind="stable")
            x = np.concatenate([x, encoded.x[is_new]])[order]
            mask = np.concatenate([mask, encoded.mask[is_new]])[order]
        better = self._fit(seen.x[good], seen.mask[good])
        worse = self._fit(x, mask)
        points = better.draw(rng, self.candidates)
        configs = [self.space.settle(point, rng) for point in points]
        drawn = self.space.encode(configs)
        value = better.log_density(drawn.x, drawn.mask) - worse.log_density(drawn.x, drawn.mask)
        if self._is_finite:
            tried = _among(drawn.x, np.concatenate([seen.x[good], x]))
            if not tried.all():
                value[tried] = -np.inf
        return configs[int(np.argmax(value))]

    def _fit(self, x: Floats, mask: Bools) -> Parzen:
        return Parzen(self._axes, x, mask, recency_weights(len(x)), self.prior_weight)

    def _good(self, rows: Rows) -> Rows:
        """[k] those of ``rows`` that are good, ascending."""
        count = min(math.ceil(self.share * len(rows)), self.max_good)
        feasible = self.seen.good[rows]
        if len(self.objectives) == 1:
            return np.sort(rows[np.argsort(self.seen.merit()[rows], kind="stable")[:count]])
        best, rest = rows[feasible], rows[~feasible]
        if len(best) > count:
            best = best[_best_of_several(self.seen.loss[best], count)]
        order = np.argsort(self.seen.violation[rest], kind="stable")
        return np.sort(np.concatenate([best, rest[order[: count - len(best)]]]))


def _among(points: Floats, known: Floats) -> Bools:
    """[q] which of [q, d] points are among [n, d] known ones."""
    found: Bools = (points[:, None] == known).all(axis=2).any(axis=1)
    return found


def _best_of_several(loss: Floats, count: int) -> Rows:
    """Places of the best ``count`` rows of [n, m] losses: by rank, then by hypervolume."""
    ranks = non_dominated_ranks(loss, count)
    last = np.sort(ranks)[count - 1]
    whole, split = np.flatnonzero(ranks < last), np.flatnonzero(ranks == last)
    points = loss[split]
    worst = points.max(axis=0)
    reference = worst + 0.1 * np.where(worst == 0, 1.0, np.abs(worst))
    chosen = split[hypervolume_subset(points, reference, count - len(whole))]
    return np.concatenate([whole, chosen])
