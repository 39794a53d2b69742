"""The models that Bayesian optimization stands on, made from the trials so far.

::

    loss, or one an objective    exact process; with slopes and earlier studies, a joint one
    each constraint's margin     likewise, of the trials that ended well
    success                      classifier, from the third failed trial on

Hyper-parameters are fitted anew at every trial up to 20 and then at each tenth more, always to the
trials with the lowest numbers and from the same starts, so that they follow from the history alone.
The factor of the trials they were fitted to is kept and later ones are appended. Above 500 trials
the models are of 400 next to the best, the best 50 and 50 spread over the rest.

Parts: :mod:`~sharpen.search.gp.model`, :mod:`~sharpen.search.gp.hyper`,
:mod:`~sharpen.search.gp.joint`, :mod:`~sharpen.search.gp.classify`,
:mod:`~sharpen.search.gp.bayes`. Time O(n^2) for n trials, O(n^3) where hyper-parameters are due;
memory O(n^2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.feedback import Trial
from sharpen.core.space import random_stream
from sharpen.search.gp.acquisition import Acquisition, log_feasibility
from sharpen.search.gp.bayes import STEPS, sample
from sharpen.search.gp.branches import are_tailed
from sharpen.search.gp.classify import fit_success, log_success, success_model
from sharpen.search.gp.features import Features
from sharpen.search.gp.hyper import LogPosterior, densest, fit
from sharpen.search.gp.joint import JointProcess, Rows, fit_joint
from sharpen.search.gp.model import GaussianProcess, Hyperparameters
from sharpen.search.gp.related import Earlier, slope_rows, value_rows
from sharpen.search.gp.transforms import OutputTransform
from sharpen.search.observations import ArrayOptimizer

__all__ = ["NOISY", "Fitted", "ModelOptimizer", "believe", "due_of", "one_thread"]

Floats = npt.NDArray[np.float64]

NOISY = 1e-3  # variance of the noise, in that of the losses, from which losses count as noisy
_FAILURES = 3  # from which where trials fail is modelled
_MOST = 500  # trials in a model
_DRAWS = 16
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


@dataclass(frozen=True, slots=True)
class _Kept:
    """Models of one output that were fitted to some trials."""

    mark: bytes
    """Of the trials."""

    transform: OutputTransform

    models: list[GaussianProcess]
    """By kernel, and of each that of the densest hyper-parameters before those of draws."""


class ModelOptimizer(ArrayOptimizer):
    """Base of optimizers with such models; a subclass sets the options before it is made."""

    kernel: str
    """``matern52`` or ``rbf``."""

    hyper: str
    """``map`` or ``bayes``."""

    warp: bool
    """Whether the warp of numeric parameters is learnt."""

    noise: float | None
    """Known standard deviation of the first objective's noise."""

    bend: bool
    """Whether skewed losses are bent."""

    gradients: bool
    """Whether slopes are modelled."""

    warm_start: list[list[Trial]]
    """Trials of earlier studies."""

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        self._features = Features(self.space)
        self._fits: dict[str, _Kept] = {}
        self._success_fit: tuple[bytes, Hyperparameters] | None = None
        self._joint_fit: tuple[bytes, Hyperparameters, Tensor, Tensor] | None = None
        self._earlier: Earlier | None = None
        if self.warm_start:
            self._earlier = Earlier(self.warm_start, self.space, self._features, self.objectives[0])

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
        due = due_of(len(kept))
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
        alike: int | None = None,
        kernels: Sequence[str] = (),
    ) -> Fitted:
        """The model of one output over features; ``alike`` as in the priors of its lengthscales.

        Other ``kernels`` than the optimizer's may be given; of several that one is taken under
        which the values are likeliest.

        The factor of the trials that the hyper-parameters were fitted to is kept; later ones are
        appended to it, all at once, so that the result does not depend on when they were told.
        """
        due, kernels = due_of(len(x)), kernels or (self.kernel,)
        mark = _mark(x[:due], values[:due], *([] if noise is None else [noise[:due]]))
        features = torch.from_numpy(x)
        kept = self._fits.get(kind)
        if kept is None or kept.mark != mark:
            if bend and kind == "loss" and self.space.is_conditional:
                bend = are_tailed(x[:due], values[:due])
            transform = OutputTransform.fit(values[:due], bend=bend)
            known = _variance(transform, values[:due], noise)
            targets = torch.from_numpy(transform(values[:due]))
            models = [
                GaussianProcess(features[:due], targets, hyper, kernel=kernel, noise=known)
                for kernel, hypers in zip(
                    kernels,
                    self._hypers(features[:due], targets, groups, known, alike, kernels),
                    strict=True,
                )
                for hyper in hypers
            ]
            self._fits[kind] = kept = _Kept(mark, transform, models)
        models = kept.models
        if due < len(x):
            targets = torch.from_numpy(kept.transform(values[due:]))
            known = _variance(kept.transform, values, noise)
            later = None if known is None else known[due:]
            models = [model.append(features[due:], targets, later) for model in models]
        each = len(models) // len(kernels)
        first = 0
        if len(kernels) > 1:
            evidence = [float(model.log_likelihood()) for model in models[::each]]
            first = each * int(np.argmax(evidence))
        model, *draws = models[first : first + each]
        return Fitted(model=model, transform=kept.transform, draws=tuple(draws))

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
        due = due_of(len(x))
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
        alike: int | None,
        kernels: Sequence[str],
    ) -> list[list[Hyperparameters]]:
        """By kernel, the densest hyper-parameters and, where they are wanted, draws of them."""
        options: dict[str, Any] = {
            "noise": known,
            "learn_noise": known is None or self.noise is None,
            "warped": self._features.moving if self.warp else None,
            "alike": alike,
        }
        if self.hyper == "map":
            densest_ones = fit(features, targets, groups, kernels=kernels, **options)
            return [[hyper] for hyper in densest_ones]
        found = []
        for kernel in kernels:
            posterior = LogPosterior(
                features, targets, groups, kernels=(kernel,), integrated_mean=True, **options
            )
            [best] = densest(posterior)
            rng = random_stream(self.seed, _STREAM + len(targets))
            drawn = sample(posterior, best, rng, chains=_DRAWS // 2, burn_in=STEPS - 2)
            found.append([posterior.hyperparameters(row) for row in (best, *drawn)])
        return found

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


def _mark(*arrays: Floats) -> bytes:
    """A digest of data, by which what was derived from them is known again."""
    return hashlib.blake2b(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).digest()


def due_of(n: int) -> int:
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
