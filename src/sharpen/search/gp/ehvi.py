"""Expected hypervolume improvement: several objectives, by the volume a trial is expected to add.

Michael T. M. Emmerich, Kyriakos C. Giannakoglou and Boris Naujoks, "Single- and Multiobjective
Evolutionary Optimization Assisted by Gaussian Random Field Metamodels", IEEE Transactions on
Evolutionary Computation 10(4), 2006; over disjoint boxes: Samuel Daulton, Maximilian Balandat and
Eytan Bakshy, "Differentiable Expected Hypervolume Improvement for Parallel Multi-Objective Bayesian
Optimization", NeurIPS 2020, equation 2. With h of :mod:`sharpen.search.gp.normal`::

    boxes    [l, u) of all that no known point dominates, up to the reference point
    G_j(z)   = E[max(z - f_j(x), 0)] = s_j h((z - mu_j) / s_j)
    EHVI(x)  = sum over boxes of prod_j (G_j(u_j) - G_j(l_j))        G_j(-infinity) = 0
    front    of the values observed; of noisy objectives, of their posterior means

Each objective has a model of its own. The reference point is, where none is given, the worst of the
front in each objective and a tenth of its range beyond. Constraints and failed trials count as for
:class:`~sharpen.search.gp.optimizer.GP`. ``acquisition="nehvi"`` averages over samples of the front
instead, by BoTorch.

Differs from the papers: the logarithm of EHVI is maximized, of one point after the other, with
pending trials believed. Time O(q b m) for q points and b boxes beside the models', with b a few for
each point of the front for two and three objectives and many more beyond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities, Optimizer, Recommendation
from sharpen.core.parameters import Bool, Categorical
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.gp.acquisition import Acquisition, constrained
from sharpen.search.gp.bayes import averaged
from sharpen.search.gp.bridge import check_botorch, noisy_hypervolume_improvement
from sharpen.search.gp.model import GaussianProcess
from sharpen.search.gp.normal import log_h
from sharpen.search.gp.optimizer import GP
from sharpen.search.gp.surrogates import NOISY, Fitted, believe
from sharpen.search.moments import deviation
from sharpen.search.pareto import free_boxes, non_dominated

__all__ = ["EHVI", "log_hypervolume_improvement"]

Floats = npt.NDArray[np.float64]

_BEYOND = 0.1
_LEAST_VARIANCE = 1e-20
_MOST_ANCHORS = 20


def log_hypervolume_improvement(
    models: Sequence[GaussianProcess], front: Floats, reference: Floats
) -> Acquisition:
    """The logarithm of EHVI, exact for independent objectives.

    Args:
        models: one an objective, less is better, each with one column of targets.
        front: [n, m] points known, as the models have them.
        reference: [m] what is worse than all that counts.
    """
    low, high = (torch.from_numpy(corner) for corner in free_boxes(front, reference))

    def value(points: Tensor) -> Tensor:
        total = torch.zeros(len(points), len(low), dtype=torch.float64)
        for j, model in enumerate(models):
            mean, variance = model.posterior(points)
            sd = variance.clamp(min=_LEAST_VARIANCE).sqrt()[:, None]
            mean = mean[:, None]
            up = log_h((high[:, j] - mean) / sd)
            open_below = torch.isinf(low[:, j])
            floor = torch.where(open_below, high[:, j] - 1.0, low[:, j])
            down = log_h((floor - mean) / sd)
            # log(G(u) - G(l)); of equal ones, a difference too small to see.
            rest = torch.log(-torch.expm1((down - up).clamp(max=-1e-15)))
            total = total + sd.log() + up + torch.where(open_below, torch.zeros_like(rest), rest)
        return torch.logsumexp(total, 1)

    return value


class EHVI(GP):
    """Bayesian optimization of several objectives; see the module for the method.

    Arguments are those of :class:`~sharpen.search.gp.optimizer.GP`, with two objectives or more.

    Args:
        space: what to search over.
        objectives: two or more; a single one is what GP has by ``log_ei``.
        constraints: any number.
        acquisition: ``auto`` and ``ehvi``, or ``nehvi``, which needs the extra ``botorch``.
        reference: by objective, the value from which on a trial counts for nothing; None follows
            the front.
        given: see :class:`~sharpen.search.gp.optimizer.GP`.

    Raises:
        ConfigError: as for GP, or the reference does not name each objective once.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> optimizer = EHVI(Space(x=Float(0, 1)), (Objective("a"), Objective("b")), n_init=3)
        >>> for _ in range(5):
        ...     candidate = optimizer.ask()[0]
        ...     x = candidate.config["x"]
        ...     optimizer.tell([candidate.result({"a": x, "b": (1 - x) ** 2})])
        >>> len(optimizer.history)
        5
    """

    name: ClassVar[str] = "ehvi"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True, multi_objective=True)
    takes_related: ClassVar[bool] = False
    covers_numbers: ClassVar[bool] = True
    acquisitions: ClassVar[tuple[str, ...]] = ("auto", "ehvi", "nehvi")
    hyperparameters: ClassVar[Space | None] = Space(
        kernel=Categorical("matern52", "rbf"), hyper=Categorical("map", "bayes"), warp=Bool()
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        acquisition: str = "auto",
        reference: Mapping[str, float] | None = None,
        **given: Any,
    ) -> None:
        super().__init__(space, objectives, constraints, acquisition=acquisition, **given)
        if acquisition == "nehvi":
            check_botorch(self.warp)
        names = [objective.name for objective in self.objectives]
        if reference is not None and sorted(reference) != sorted(names):
            raise ConfigError(
                f"reference={dict(reference)!r} must have a value for each of {', '.join(names)} "
                "and for nothing else (EHVI)."
            )
        self.reference = None if reference is None else dict(reference)

    # -- models ---------------------------------------------------------------------------------

    def _losses(self, rng: np.random.Generator) -> Floats:
        return self.seen.imputed()

    def _all_models(self, losses: Floats) -> dict[str, Fitted]:
        if losses.ndim == 1:
            losses = self.seen.imputed()
        spread = deviation(losses)
        spread = np.where(spread > 0, spread, 1.0)
        rows, measured = self._modelled((losses / spread).sum(axis=1))
        models = {}
        for j, objective in enumerate(self.objectives):
            noise = self._noise(rows, objective.name, own=len(self.objectives) == 1)
            kind = f"objective {j}"
            # Volumes shall be those of the objectives, so they are scaled and not bent.
            models[kind] = self._model(kind, rows, losses[rows, j], noise, False)
        return {**models, **self._margins(measured)}

    def _is_noisy(self, models: dict[str, Fitted]) -> bool:
        return any(f.model.hyper.noise > NOISY for k, f in models.items() if k.startswith("obj"))

    def _anchors(self, losses: Floats) -> Floats:
        rows = np.flatnonzero(self.seen.ok & self._true)
        good = rows[self.seen.violation[rows] == self.seen.violation[rows].min()]
        front: Floats = self.seen.x[good[non_dominated(losses[good])]]
        return front[:: max(len(front) // _MOST_ANCHORS, 1)]

    # -- acquisition ----------------------------------------------------------------------------

    def _acquisition(
        self, models: dict[str, Fitted], losses: Floats, rng: np.random.Generator
    ) -> tuple[Acquisition, Acquisition | None]:
        draws = len(models["objective 0"].draws)
        if not draws:
            return self._volume(models, losses, rng), None
        parts = [
            self._volume({n: m.draw(k) for n, m in models.items()}, losses, rng)
            for k in range(draws)
        ]
        return averaged(parts, is_log=True), None

    def _volume(
        self, models: dict[str, Fitted], losses: Floats, rng: np.random.Generator
    ) -> Acquisition:
        pending = self._pending_features()
        parts = self._chances(models, pending)
        good = self._good(models)
        if not good.any():
            return constrained(parts)
        fitted = [models[f"objective {j}"] for j in range(len(self.objectives))]
        seen = torch.from_numpy(self._features(self.seen.x[good], self.seen.mask[good]))
        with torch.no_grad():
            front = np.column_stack(
                [
                    f.model.posterior(seen)[0].numpy()
                    if f.model.noise > NOISY
                    else f.transform(losses[good, j])
                    for j, f in enumerate(fitted)
                ]
            )
            reference = self._reference(front, fitted)
            believed = [believe(f.model, pending) for f in fitted]
            if len(pending):
                expected = [model.posterior(pending)[0].numpy() for model in believed]
                front = np.concatenate([front, np.column_stack(expected)])
        front = front[non_dominated(front)]
        if self.acquisition == "nehvi":
            places = torch.cat([seen, pending])
            seed = int(rng.integers(2**31))
            volume = noisy_hypervolume_improvement(
                believed, places, torch.from_numpy(reference), seed
            )
        else:
            volume = log_hypervolume_improvement(believed, front, reference)
        return constrained([volume, *parts])

    def _reference(self, values: Floats, fitted: Sequence[Fitted]) -> Floats:
        """[m] the reference point, as the models have the objectives."""
        if self.reference is not None:
            return np.array(
                [
                    float(f.transform(np.array([o.loss(self.reference[o.name])]))[0])
                    for o, f in zip(self.objectives, fitted, strict=True)
                ]
            )
        front = values[non_dominated(values)]
        span = np.ptp(front, axis=0)
        span = np.where(span > 0, span, np.ptp(values, axis=0))
        worst: Floats = front.max(axis=0) + _BEYOND * np.where(span > 0, span, 1.0)
        return worst

    def recommend(self) -> Recommendation:
        """See :meth:`Optimizer.recommend`: of one objective the best trial observed."""
        return Optimizer.recommend(self)
