"""Bayesian optimization with Gaussian processes.

Peter I. Frazier, "A Tutorial on Bayesian Optimization", arXiv:1807.02811, 2018, algorithm 1; Jonas
Mockus, "On Bayesian methods for seeking the extremum", 1974; Jones, Schonlau and Welch, Journal of
Global Optimization 13, 1998::

    the first n0 trials: the default, then a scrambled Sobol sequence
    then, from all trials so far
      1. losses -> standardized, bent where skewed          (transforms, branches)
      2. hyper-parameters of largest posterior density      (model)
      3. x = argmax of the acquisition over the space       (acquire, candidates)

    acquisition "auto": log EI; exact noisy EI where the losses are noisy. Among real numbers with
    little noise, steps near the best trial, with a model of its own, take turns with others
    (local). In spaces with conditions every other step has to gain more (branches)
    hyper "bayes": 16 draws of the hyper-parameters, and the mean of the acquisition over them
    slopes and earlier studies join the model of the loss (:mod:`sharpen.search.gp.joint`)
    warp: coordinates bent before the kernel sees them, the bend learnt with the rest

Constraints each have a model of their own, and the acquisition is multiplied by the probability
that all hold; while no trial is feasible, that probability alone counts. Pending trials enter as 16
sampled outcomes of each. Failed trials count as the worst loss seen plus a standard deviation; from
the third failure on they are left out instead, and a model of where trials succeed joins the
constraints (:mod:`sharpen.search.gp.classify`).

What the models are made of: :mod:`sharpen.search.gp.surrogates`.

Differs from the tutorial: the hyper-parameters' prior, see the model. Time O(n^2) a proposal for n
trials, O(n^3) where hyper-parameters are due; memory O(n^2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Capabilities, Proposal, Recommendation
from sharpen.core.parameters import Bool, Categorical, Fixed, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.gp.acquire import ACQUISITIONS, AcquiringOptimizer
from sharpen.search.gp.bridge import check_botorch
from sharpen.search.gp.candidates import maximize
from sharpen.search.gp.features import Features
from sharpen.search.gp.local import Region
from sharpen.search.gp.surrogates import NOISY, Fitted, one_thread
from sharpen.search.sobol import Sobol

__all__ = ["GP"]

Floats = npt.NDArray[np.float64]

_ANCHORS = 5


class GP(AcquiringOptimizer):
    """Bayesian optimization; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number.
        acquisition: ``auto`` (log EI or noisy EI; among real numbers with little noise three steps
            of four are near the best trial), ``log_ei``, ``noisy_ei``, ``pi``, ``kg``
            (knowledge gradient on the evaluated points, minima of drawn functions and the best raw
            points), ``mes``, ``jes``, ``pes`` (needs the extra ``botorch``), ``ucb`` or ``ts``
            (Thompson sampling).
        kernel: ``matern52`` or ``rbf``.
        hyper: ``map``, the densest hyper-parameters, or ``bayes``, the mean over their posterior.
        warp: whether the warp of each numeric parameter is learnt.
        noise: standard deviation of the objective's noise, in its own unit; None learns it. Trials
            that come with their own (``Feedback.std``) keep it.
        n_init: trials before the model is asked; None is 2 for each parameter with a
            few values and one more, at least 5 and at most a quarter of the budget.
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
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.space import Space
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
    covers_numbers: ClassVar[bool] = False
    """Whether the initial design grows with parameters that are numbers, too."""

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
            searched = [name for name, p in space.items() if not isinstance(p, Fixed)]
            planned = searched if self.covers_numbers else Features(space).discrete
            n_init = max(2 * len(planned) + 1, 5)
            if self.budget is not None:
                n_init = max(min(n_init, self.budget // 4), 2)
            n_init = 2 if self.warm_start else n_init
        self.n_init = n_init

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        self._start = Sobol(self.space, seed=self.seed)
        self._texts: dict[int, tuple[Mapping[str, Any], str]] = {}

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
            region = None
            if self.acquisition == "auto" and self.takes_related:
                region = self._region(models, losses, number, self.n_init)
            found = self._search(models, losses, rng, region)
        return self._new(found, self._is_noisy(models), rng)

    def _is_noisy(self, models: dict[str, Fitted]) -> bool:
        """Whether measuring a configuration again tells something."""
        return models["loss"].model.hyper.noise > NOISY

    def _search(
        self,
        models: dict[str, Fitted],
        losses: Floats,
        rng: np.random.Generator,
        region: Region | None = None,
    ) -> list[dict[str, Any]]:
        """Configurations, of a region if there is one, of a large acquisition, best first."""
        anchors = self._anchors(losses)
        lower, upper = None, None
        if region is not None:
            models = {**models, "loss": region.model}
            lower, upper = region.lower, region.upper
            anchors = np.concatenate([region.centre[None], anchors]).clip(lower, upper)
        acquisition, screen = self._acquisition(models, losses, rng)
        return maximize(
            acquisition,
            self._features,
            anchors,
            rng,
            screen=screen,
            samples=self.samples,
            restarts=self.restarts,
            lower=lower,
            upper=upper,
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
        known = {self._text(t) for t in (*self.history.values(), *self.pending.values())}
        for config in chain(found, (self.space.draw(rng) for _ in range(100))):
            if self.space.canonical(config) not in known:
                return config
        return found[0]  # the space is exhausted

    def _text(self, trial: Trial) -> str:
        """The canonical text of a trial's configuration, kept while the trial has it."""
        kept = self._texts.get(trial.number)
        if kept is None or kept[0] is not trial.config:
            kept = self._texts[trial.number] = trial.config, self.space.canonical(trial.config)
        return kept[1]

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
