"""Bayesian optimization with Gaussian processes.

Peter I. Frazier, "A Tutorial on Bayesian Optimization", arXiv:1807.02811, 2018, algorithm 1; Jonas
Mockus, "On Bayesian methods for seeking the extremum", 1974; Jones, Schonlau and Welch, Journal of
Global Optimization 13, 1998::

    the first n0 trials: the default, then a scrambled Sobol sequence
    then, from all trials so far
      1. losses -> standardized, bent where skewed          (transforms)
      2. hyper-parameters of largest posterior density      (model)
      3. x = argmax of the acquisition over the space       (acquisition, candidates)

    acquisition "auto": log EI; exact noisy EI where the losses are noisy
    hyper "bayes": 16 draws of the hyper-parameters, and the mean of the acquisition over them
    slopes and earlier studies join the model of the loss (:mod:`sharpen.search.gp.joint`)
    warp: coordinates bent before the kernel sees them, the bend learnt with the rest

Constraints each have a model of their own, and the acquisition is multiplied by the probability
that all hold; while no trial is feasible, that probability alone counts. Pending trials enter as 16
sampled outcomes of each. Failed trials count as the worst loss seen plus a standard deviation; from
the third failure on they are left out instead, and a model of where trials succeed joins the
constraints (:mod:`sharpen.search.gp.classify`).

Hyper-parameters are fitted anew at every trial up to 20 and then at each tenth more, always to the
trials with the lowest numbers and from the same starts, so that they follow from the history alone.
Above 500 trials the model is of 400 next to the best, the best 50 and 50 spread over the rest.

Differs from the tutorial: the hyper-parameters' prior, see the model. Time O(n^2) a proposal for n
trials, O(n^3) where hyper-parameters are due; memory O(n^2).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Capabilities, Proposal, Recommendation
from sharpen.core.parameters import Bool, Categorical, Fixed, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.gp.acquisition import (
    Acquisition,
    constrained,
    knowledge_gradient,
    log_expected_improvement,
    log_feasibility,
    log_probability_of_improvement,
    max_value_entropy,
    noisy_expected_improvement,
    sample_minima,
    upper_confidence_bound,
)
from sharpen.search.gp.bayes import STEPS, averaged, sample
from sharpen.search.gp.bridge import check_botorch
from sharpen.search.gp.candidates import maximize
from sharpen.search.gp.classify import fit_success, log_success, success_model
from sharpen.search.gp.entropy import joint_entropy, sample_optima
from sharpen.search.gp.features import Features
from sharpen.search.gp.joint import JointProcess, Rows, fit_joint
from sharpen.search.gp.model import (
    GaussianProcess,
    Hyperparameters,
    LogPosterior,
    densest,
    fit,
)
from sharpen.search.gp.related import Earlier, slope_rows, value_rows
from sharpen.search.gp.thompson import sample_path
from sharpen.search.gp.transforms import OutputTransform
from sharpen.search.observations import ArrayOptimizer
from sharpen.search.sobol import Sobol

__all__ = ["ACQUISITIONS", "GP", "NOISY", "Fitted", "believe", "one_thread"]

Floats = npt.NDArray[np.float64]

ACQUISITIONS = ("auto", "log_ei", "noisy_ei", "pi", "kg", "mes", "jes", "pes", "ucb", "ts")
_LOGARITHMS = ("auto", "log_ei", "noisy_ei", "pi", "kg")
NOISY = 1e-3  # variance of the noise, in that of the losses, from which losses count as noisy
_FANTASIES = 16
_FAILURES = 3  # from which where trials fail is modelled
_MOST = 500  # trials in a model
_ANCHORS = 5
_MINIMA = 16
_DRAWS = 16
_AIM = 0.01  # by how much, in standard deviations of the losses, "pi" is to improve
_STREAM = 2**61  # of draws of hyper-parameters; beyond the numbers of trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A model of one output."""

    model: GaussianProcess
    transform: OutputTransform

    draws: tuple[GaussianProcess, ...] = ()
    """The same data under hyper-parameters drawn from their posterior."""

    def draw(self, k: int) -> Fitted:
        """As if the draw ``k`` were the model."""
        return Fitted(model=self.draws[k], transform=self.transform)

    def mapped(self, change: Callable[[GaussianProcess], GaussianProcess]) -> Fitted:
        """With every model changed."""
        draws = tuple(change(model) for model in self.draws)
        return Fitted(model=change(self.model), transform=self.transform, draws=draws)


class GP(ArrayOptimizer):
    """Bayesian optimization; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number.
        acquisition: ``auto``, ``log_ei``, ``noisy_ei``, ``pi``, ``kg`` (knowledge gradient on the
            evaluated points, minima of drawn functions and the best raw points), ``mes``, ``jes``,
            ``pes`` (needs the extra ``botorch``), ``ucb`` or ``ts`` (Thompson sampling).
        kernel: ``matern52`` or ``rbf``.
        hyper: ``map``, the densest hyper-parameters, or ``bayes``, the mean over their posterior.
        warp: whether the warp of each numeric parameter is learnt.
        noise: standard deviation of the objective's noise, in its own unit; None learns it. Trials
            that come with their own (``Feedback.std``) keep it.
        n_init: trials before the model is asked; None is 2d + 1 for d parameters, at least 5 and
            at most a quarter of the budget.
        bend: whether skewed losses are bent before they are modelled.
        gradients: whether slopes that trials come with (``Feedback.gradients``) are modelled too;
            not where inputs are warped.
        warm_start: trials of earlier studies of like problems in this space, one list a study. What
            they tell of this one is learnt; ``n_init`` is 2 then, and those are their best.
        restarts: starts of the search for the best acquisition.
        samples: raw points that the starts are chosen from.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range or no such thing.

    Examples:
        >>> from sharpen.core.space import Float, Space
        >>> optimizer = GP(Space(x=Float(-1, 1)), n_init=3)
        >>> for _ in range(8):
        ...     candidate = optimizer.ask()[0]
        ...     optimizer.tell([candidate.result((candidate.config["x"] - 0.3) ** 2)])
        >>> abs(optimizer.recommend().config["x"] - 0.3) < 0.01
        True
    """

    name: ClassVar[str] = "gp"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)
    acquisitions: ClassVar[tuple[str, ...]] = ACQUISITIONS
    takes_related: ClassVar[bool] = True
    hyperparameters: ClassVar[Space | None] = Space(
        acquisition=Categorical(*(a for a in ACQUISITIONS if a != "pes")),
        kernel=Categorical("matern52", "rbf"),
        hyper=Categorical("map", "bayes"),
        warp=Bool(),
        restarts=Int(2, 32, log=True, default=8),
        samples=Int(64, 4096, log=True, default=512),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        acquisition: str = "auto",
        kernel: str = "matern52",
        hyper: str = "map",
        warp: bool = False,
        noise: float | None = None,
        n_init: int | None = None,
        bend: bool = True,
        gradients: bool = True,
        warm_start: Sequence[Sequence[Trial]] = (),
        restarts: int = 8,
        samples: int = 512,
        **given: Any,
    ) -> None:
        for option, given_name, names in (
            ("acquisition", acquisition, self.acquisitions),
            ("hyper", hyper, ("map", "bayes")),
        ):
            if given_name not in names:
                raise ConfigError(
                    f"{option}={given_name!r} is none of {', '.join(names)} (GP)."
                    f"{did_you_mean(given_name, names)}"
                )
        for option, value, least in (
            ("n_init", n_init, 1),
            ("restarts", restarts, 1),
            ("samples", samples, 1),
            ("noise", noise, 0),
        ):
            if value is not None and not value >= least:
                raise ConfigError(f"{option}={value!r} must be at least {least} (GP).")
        if acquisition == "pes":
            check_botorch(warp)
        self.acquisition, self.kernel, self.noise = acquisition, kernel, noise
        self.hyper, self.warp = hyper, warp
        if warm_start and (warp or acquisition == "pes" or not self.takes_related):
            raise ConfigError(
                f"warm_start goes with the optimizer 'gp', without warp and with another "
                f"acquisition than 'pes'; got warp={warp}, acquisition={acquisition!r} "
                f"({self.name})."
            )
        self.bend, self.restarts, self.samples = bend, restarts, samples
        self.gradients = gradients and self.takes_related and not warp and acquisition != "pes"
        self.warm_start = [list(trials) for trials in warm_start]
        super().__init__(space, objectives, constraints, **given)
        if n_init is None:
            searched = sum(not isinstance(p, Fixed) for p in space.values())
            n_init = max(2 * searched + 1, 5)
            if self.budget is not None:
                n_init = max(min(n_init, self.budget // 4), 2)
            n_init = 2 if self.warm_start else n_init
        self.n_init = n_init

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        self._features = Features(self.space)
        self._start = Sobol(self.space, seed=self.seed)
        self._fits: dict[tuple[str, int], tuple[bytes, list[Hyperparameters], OutputTransform]] = {}
        self._models: dict[str, tuple[bytes, list[GaussianProcess]]] = {}
        self._success_fit: tuple[bytes, Hyperparameters] | None = None
        self._joint_fit: tuple[bytes, Hyperparameters, Tensor, Tensor] | None = None
        self._earlier: Earlier | None = None
        if self.warm_start:
            self._earlier = Earlier(self.warm_start, self.space, self._features, self.objectives[0])

    # -- proposals ------------------------------------------------------------------------------

    def propose(self, number: int) -> dict[str, Any] | Proposal:
        """See :meth:`Optimizer.propose`."""
        known = self.seen.ok & self._true
        if known.sum() + len(self.pending) < self.n_init or known.sum() < 2:
            return self._initial(number)
        rng = random_stream(self.seed, number)
        with one_thread():
            losses = self._losses(rng)
            models = self._all_models(losses)
            found = self._search(models, losses, rng)
        return self._new(found, self._is_noisy(models), rng)

    def _is_noisy(self, models: dict[str, Fitted]) -> bool:
        """Whether measuring a configuration again tells something."""
        return models["loss"].model.hyper.noise > NOISY

    def _search(
        self, models: dict[str, Fitted], losses: Floats, rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """Configurations where the acquisition function is large, best first."""
        acquisition, screen = self._acquisition(models, losses, rng)
        return maximize(
            acquisition,
            self._features,
            self._anchors(losses),
            rng,
            screen=screen,
            samples=self.samples,
            restarts=self.restarts,
        )

    def _initial(self, number: int) -> dict[str, Any]:
        if self._earlier is not None and 0 <= number < len(self._earlier.best):
            return dict(self._earlier.best[number])
        if number == 0 and not self.history:
            default = self.space.default()
            if not any(clause.holds(default) is True for clause in self.space.forbidden):
                return default
        return self._start.propose(max(number, 0))

    def _new(
        self, found: list[dict[str, Any]], noisy: bool, rng: np.random.Generator
    ) -> dict[str, Any]:
        """The first configuration that is not known yet; where losses are noisy, the first."""
        if noisy:
            return found[0]
        trials = (*self.history.values(), *self.pending.values())
        known = {self.space.canonical(trial.config) for trial in trials}
        for config in (*found, *(self.space.draw(rng) for _ in range(100))):
            if self.space.canonical(config) not in known:
                return config
        return found[0]  # the space is exhausted

    def _losses(self, rng: np.random.Generator) -> Floats:
        """[n] what is to be made small, with a bad value for what is missing."""
        losses: Floats = self.seen.imputed()[:, 0]
        return losses

    def _anchors(self, losses: Floats) -> Floats:
        """[a, d] the best configurations known, feasible ones first."""
        rows = np.flatnonzero(self.seen.ok & self._true)
        order = np.lexsort((losses[rows], self.seen.violation[rows]))
        anchors: Floats = self.seen.x[rows[order[:_ANCHORS]]]
        return anchors

    # -- models ---------------------------------------------------------------------------------

    @property
    def _true(self) -> npt.NDArray[np.bool_]:
        """[n] whether each trial was measured at the highest fidelity."""
        high = 1.0 if self.fidelity is None else self.fidelity.high
        true: npt.NDArray[np.bool_] = self.seen.fidelity == high
        return true

    def _all_models(self, losses: Floats) -> dict[str, Fitted]:
        """Models of the loss and of each constraint's margin."""
        rows, measured = self._modelled(losses)
        noise = self._noise(rows, self.objectives[0].name) if len(self.objectives) == 1 else None
        models = {"loss": self._model("loss", rows, losses[rows], noise, self.bend)}
        return {**models, **self._margins(measured)}

    def _modelled(self, losses: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows of trials that models are made of, and those of them that ended well."""
        seen, true = self.seen, self._true
        failed = true & ~seen.ok & np.array([self._is_failure(k) for k in seen.numbers])
        learns_failures = failed.sum() >= _FAILURES
        rows = np.flatnonzero(true & ~failed) if learns_failures else np.flatnonzero(true)
        rows = self._nearest(rows, losses)
        return rows, rows[seen.ok[rows]]

    def _margins(self, measured: npt.NDArray[np.int64]) -> dict[str, Fitted]:
        """Models of each constraint's margin."""
        models = {}
        for j, constraint in enumerate(self.constraints):
            margin = self.seen.margin[measured, j]
            noise = self._noise(measured, constraint.name, own=False)
            models[f"constraint {j}"] = self._model(
                f"constraint {j}", measured, margin, noise, self.bend
            )
        return models

    def _success(self) -> GaussianProcess | None:
        """The model of where trials succeed; None while too few have failed."""
        rows = np.flatnonzero(self._true)
        failed = np.array([self._is_failure(k) for k in self.seen.numbers[rows]])
        if failed.sum() < _FAILURES:
            return None
        kept = self._nearest(rows, self.seen.imputed()[:, 0])
        features = torch.from_numpy(self._features(self.seen.x[kept], self.seen.mask[kept]))
        labels = torch.from_numpy(np.where(failed[np.searchsorted(rows, kept)], -1.0, 1.0))
        due = _due(len(kept))
        mark = _mark(features[:due].numpy(), labels[:due].numpy())
        found = self._success_fit
        if found is None or found[0] != mark:
            hyper = fit_success(
                features[:due], labels[:due], self._features.groups, kernel=self.kernel
            )
            self._success_fit = found = (mark, hyper)
        return success_model(features, labels, found[1], kernel=self.kernel)

    def _is_failure(self, number: int) -> bool:
        return self.history[int(number)].state not in ("ok", "pruned", "cancelled")

    def _nearest(self, rows: npt.NDArray[np.int64], loss: Floats) -> npt.NDArray[np.int64]:
        """At most 500 of the rows: those near the best, the best, and some of the rest."""
        if len(rows) <= _MOST:
            return rows
        order = np.argsort(loss[rows], kind="stable")
        gap = self.seen.x[rows] - self.seen.x[rows[order[0]]]
        near = np.argsort((gap**2).sum(1), kind="stable")
        kept = set(order[: _MOST // 10]) | set(near[: _MOST * 4 // 5])
        rest = np.array([i for i in range(len(rows)) if i not in kept])
        spread = rest[np.linspace(0, len(rest) - 1, _MOST - len(kept)).astype(int)]
        chosen: npt.NDArray[np.int64] = rows[np.array(sorted(kept | set(spread)))]
        return chosen

    def _noise(self, rows: npt.NDArray[np.int64], name: str, own: bool = True) -> Floats | None:
        """[n] known standard deviations of an output's noise; None where none is known."""
        default = self.noise if own else None
        found = []
        for number in self.seen.numbers[rows]:
            feedback = self.history[int(number)].feedback
            given = feedback.std.get(name) if feedback is not None else None
            found.append(default if given is None else given)
        if all(s is None for s in found):
            return None
        return np.array([0.0 if s is None else s for s in found])

    def _model(
        self,
        kind: str,
        rows: npt.NDArray[np.int64],
        values: Floats,
        noise: Floats | None,
        bend: bool,
    ) -> Fitted:
        """The model of one output over configurations, with pending trials not in it yet."""
        x = self._features(self.seen.x[rows], self.seen.mask[rows])
        if kind == "loss":
            joint = self._joint_model(rows, x, values, noise, bend)
            if joint is not None:
                return joint
        return self._fit(kind, x, self._features.groups, values, noise, bend)

    def _fit(
        self,
        kind: str,
        x: Floats,
        groups: npt.NDArray[np.int64],
        values: Floats,
        noise: Floats | None,
        bend: bool,
    ) -> Fitted:
        """The model of one output over features.

        The factor of the trials that the hyper-parameters were fitted to is kept; later ones are
        appended to it, all at once, so that the result does not depend on when they were told.
        """
        due = _due(len(x))
        mark = _mark(x[:due], values[:due], *([] if noise is None else [noise[:due]]))
        features = torch.from_numpy(x)
        kept = self._fits.get((kind, due))
        if kept is not None and kept[0] == mark:
            _, hypers, transform = kept
        else:
            transform = OutputTransform.fit(values[:due], bend=bend)
            known = _variance(transform, values[:due], noise)
            targets = torch.from_numpy(transform(values[:due]))
            hypers = self._hypers(features[:due], targets, groups, known)
            self._fits = {k: v for k, v in self._fits.items() if k[0] != kind}
            self._fits[(kind, due)] = (mark, hypers, transform)
        targets = torch.from_numpy(transform(values))
        known = _variance(transform, values, noise)
        first = self._models.get(kind)
        if first is None or first[0] != mark:
            bases = [
                GaussianProcess(
                    features[:due],
                    targets[:due],
                    hyper,
                    kernel=self.kernel,
                    noise=None if known is None else known[:due],
                )
                for hyper in hypers
            ]
            self._models[kind] = first = (mark, bases)
        models = first[1]
        if due < len(x):
            later = None if known is None else known[due:]
            models = [model.append(features[due:], targets[due:], later) for model in models]
        return Fitted(model=models[0], transform=transform, draws=tuple(models[1:]))

    def _joint_model(
        self,
        rows: npt.NDArray[np.int64],
        x: Floats,
        values: Floats,
        noise: Floats | None,
        bend: bool,
    ) -> Fitted | None:
        """The model of the loss with slopes and earlier studies; None where there are neither."""
        trials = [self.history[int(k)] for k in self.seen.numbers[rows]]
        due = _due(len(x))
        if self._earlier is None:
            given = self.gradients and any(t.feedback and t.feedback.gradients for t in trials)
            if not given:
                return None
            transform = OutputTransform.fit(values[:due], bend=bend)
        else:
            transform = self._earlier.transform(values[:due])

        def stacked(count: int) -> Rows:
            known = _variance(transform, values[:count], noise)
            parts = [
                value_rows(
                    x[:count], transform(values[:count]), None if known is None else known.numpy()
                )
            ]
            if self.gradients:
                slopes = slope_rows(
                    trials[:count], x[:count], self._features, self.objectives[0], transform
                )
                parts += [slopes] if slopes is not None else []
            return Rows.stacked([*parts, *(self._earlier.rows if self._earlier else ())])

        first = stacked(due)
        mark = _mark(first.points.numpy(), first.targets.numpy(), first.noise.numpy())
        kept = self._joint_fit
        if kept is None or kept[0] != mark:
            learn_noise = noise is None or self.noise is None
            found = fit_joint(
                first, self._features.groups, kernel=self.kernel, learn_noise=learn_noise
            )
            self._joint_fit = kept = (mark, *found)
        model = JointProcess(stacked(len(x)), *kept[1:], kernel=self.kernel)
        return Fitted(model=model, transform=transform)

    def _hypers(
        self,
        features: Tensor,
        targets: Tensor,
        groups: npt.NDArray[np.int64],
        known: Tensor | None,
    ) -> list[Hyperparameters]:
        """The densest hyper-parameters and, where they are wanted, draws of them."""
        options: dict[str, Any] = {
            "kernel": self.kernel,
            "noise": known,
            "learn_noise": known is None or self.noise is None,
            "warped": self._features.moving if self.warp else None,
        }
        if self.hyper == "map":
            return [fit(features, targets, groups, **options)]
        options["integrated_mean"] = True
        posterior = LogPosterior(features, targets, groups, **options)
        best = densest(posterior)
        rng = random_stream(self.seed, _STREAM + len(targets))
        drawn = sample(posterior, best, rng, chains=_DRAWS // 2, burn_in=STEPS - 2)
        return [posterior.hyperparameters(row) for row in (best, *drawn)]

    # -- acquisition ----------------------------------------------------------------------------

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

    def _chances(self, models: dict[str, Fitted], pending: Tensor) -> list[Acquisition]:
        """The logarithms of the probabilities that constraints hold and that a trial succeeds."""
        parts = []
        for kind, fitted in models.items():
            if kind.startswith("constraint"):
                bound = float(fitted.transform(np.zeros(1))[0])
                parts.append(log_feasibility(believe(fitted.model, pending), bound))
        success = self._success()
        if success is not None:
            parts.append(log_success(success))
        return parts

    def _good(self, models: dict[str, Fitted]) -> npt.NDArray[np.bool_]:
        """[n] which trials are feasible; of a noisy constraint, by its expected value."""
        good: npt.NDArray[np.bool_] = self.seen.ok & self._true
        for j in range(len(self.constraints)):
            margin = self.seen.margin[:, j]
            fitted = models[f"constraint {j}"]
            if fitted.model.noise > NOISY and good.any():
                rows = np.flatnonzero(good)
                at = torch.from_numpy(self._features(self.seen.x[rows], self.seen.mask[rows]))
                expected = fitted.model.posterior(at)[0].numpy()
                margin = margin.copy()
                margin[rows] = expected - float(fitted.transform(np.zeros(1))[0])
            good = good & (margin <= 0)
        return good

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
            best = self._incumbent(loss, seen, losses, noisy)
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

    def _incumbent(self, loss: Fitted, seen: Tensor, losses: Floats, noisy: bool) -> Tensor:
        """The least loss known, as the model has it; of noisy losses, the least expected one."""
        if noisy:
            return loss.model.posterior(seen)[0].min()
        return torch.tensor(loss.transform(losses).min())

    def _pending_features(self) -> Tensor:
        configs = [self.pending[k].config for k in sorted(self.pending)]
        encoded = self.space.encode(configs)
        return torch.from_numpy(self._features(encoded.x, encoded.mask))

    # -- the end --------------------------------------------------------------------------------

    def recommend(self) -> Recommendation:
        """The evaluated configuration of the least expected loss.

        Where neither losses nor constraints have noise that is the best one observed; where they
        have, it is the one of the least posterior mean among those expected to be feasible.

        Raises:
            ConfigError: nothing feasible was told yet.
        """
        observed = super().recommend()
        if (self.seen.good & self._true).sum() < 3:
            return observed
        with one_thread(), torch.no_grad():
            models = self._all_models(self.seen.imputed()[:, 0])
            rows, loss = np.flatnonzero(self._good(models)), models["loss"]
            noisy = any(
                fitted.model.noise > NOISY
                for kind, fitted in models.items()
                if kind == "loss" or kind.startswith("constraint")
            )
            if not noisy or not len(rows):
                return observed
            x = torch.from_numpy(self._features(self.seen.x[rows], self.seen.mask[rows]))
            mean = loss.model.posterior(x)[0].numpy()
        best = int(np.argmin(mean))
        number = int(self.seen.numbers[rows[best]])
        predicted = float(loss.transform.inverse(mean[best : best + 1])[0])
        objective = self.objectives[0]
        return Recommendation(
            config=dict(self.history[number].config),
            predicted={objective.name: objective.loss(predicted)},
            why=f"least posterior mean of the noisy losses, trial {number}",
        )


def _mark(*arrays: Floats) -> bytes:
    """A digest of data, by which what was derived from them is known again."""
    return hashlib.blake2b(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).digest()


def _due(n: int) -> int:
    """How many of n trials hyper-parameters are fitted to."""
    due = min(n, 20)
    while n > 20 and due + max(due // 10, 1) <= n:
        due += max(due // 10, 1)
    return due


def _variance(transform: OutputTransform, values: Floats, noise: Floats | None) -> Tensor | None:
    """[n] known variances of the noise of transformed values, to first order."""
    if noise is None:
        return None
    return torch.from_numpy((transform.slope(values) * noise[: len(values)]) ** 2)


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


def believe(model: GaussianProcess, pending: Tensor) -> GaussianProcess:
    """The model as if pending trials gave what it expects of them."""
    if not len(pending):
        return model
    with torch.no_grad():
        return model.append(pending, model.posterior(pending)[0])


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the number of threads; small matrices are faster so, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
