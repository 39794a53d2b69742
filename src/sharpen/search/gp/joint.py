"""A Gaussian process of more than values of one function: slopes, and values of related functions.

Slopes: Jian Wu, Matthias Poloczek, Andrew Gordon Wilson and Peter I. Frazier, "Bayesian
Optimization with Gradients", NIPS 2017, equation 3.1; related functions: Kevin Swersky, Jasper
Snoek and Ryan P. Adams, "Multi-Task Bayesian Optimization", NIPS 2013, section 3.1, by the
intrinsic coregionalization model. With k', k'' of :mod:`sharpen.search.gp.kernels` and z = x / l,
d = z - z'::

    cov(f_t(x), f_t'(x'))          = s B[t, t'] k(u) + [t = t']
    cov(f_t(x), d/dx'_j f_t'(x'))  = -2 s B[t, t'] k'(u) d_j / l_j
    cov(d/dx_i f_t(x), d/dx'_j f_t'(x'))
                                   = s B[t, t'] (-4 k''(u) d_i d_j - 2 k'(u) [i = j]) / (l_i l_j)
    B = b b' + diag(1 - b^2), b_0 = 1, b_t = tanh v_t, v_t ~ N(1, 1)

Function 0 is the one that is optimized; b_t says how much function t tells of it. [t = t'] stands
for a constant of each function with a N(0, 1) prior. Each function has a noise of its own; that of
a slope is that of a value over the lengthscale squared. The noise of related functions has the
prior Gamma(1.1, 2), so that one that is noise to us is not taken for a rough function. Other
priors: see :mod:`sharpen.search.gp.hyper`.

Differs from the papers: B has rank 1 beside its diagonal, with function 0 as the common factor, and
functions are standardized one by one. Time O((n + r)^3) for n values and r slopes, in the fit with
gradients by autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.search.gp.hyper import LogPosterior, densest
from sharpen.search.gp.kernels import profile
from sharpen.search.gp.model import GaussianProcess, Hyperparameters, cholesky
from sharpen.search.gp.prior import noise_misfit

__all__ = ["JointProcess", "Rows", "fit_joint"]

Floats = npt.NDArray[np.float64]

_TINY = 1e-30  # squared distance from which the root under the kernel has a slope
_MOST_LOAD = 3.0
_RELATED_RATE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Data of a joint process."""

    points: Tensor
    """[n, p] float64 where they were taken."""

    targets: Tensor
    """[n] values, or slopes by the feature that ``axes`` says."""

    axes: Tensor
    """[n] int64: -1 for a value, else the feature that the slope is by."""

    tasks: Tensor
    """[n] int64: the function, 0 for the one that is optimized."""

    noise: Tensor
    """[n] known variances."""

    @classmethod
    def stacked(cls, parts: Sequence[Rows]) -> Rows:
        """All rows of several."""
        names = ("points", "targets", "axes", "tasks", "noise")
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _covariance(
    a: tuple[Tensor, Tensor, Tensor],
    b: tuple[Tensor, Tensor, Tensor],
    inverse_scales: Tensor,
    scale: Tensor | float,
    loads: Tensor,
    kernel: str,
) -> Tensor:
    """[n, m] covariances of rows, each given as scaled points, axes and tasks."""
    (x, x_axes, x_tasks), (y, y_axes, y_tasks) = a, b
    u = ((x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T).clamp(min=_TINY)
    k, first, second = profile(kernel)(u)
    i, j = x_axes.clamp(min=0), y_axes.clamp(min=0)
    is_slope_x, is_slope_y = (x_axes >= 0)[:, None], (y_axes >= 0)[None]
    by_x = x.gather(1, i[:, None]) - y[:, i].T
    by_y = x[:, j] - y.gather(1, j[:, None]).T
    found = torch.where(is_slope_y, -2 * first * by_y, k)
    both = -4 * second * by_x * by_y - 2 * first * (i[:, None] == j[None])
    found = torch.where(is_slope_x, torch.where(is_slope_y, both, 2 * first * by_x), found)
    units_x = torch.where(x_axes >= 0, inverse_scales[i], torch.ones_like(inverse_scales[i]))
    units_y = torch.where(y_axes >= 0, inverse_scales[j], torch.ones_like(inverse_scales[j]))
    same = x_tasks[:, None] == y_tasks[None]
    shared = loads[x_tasks][:, None] * loads[y_tasks][None]
    constant = (same & ~is_slope_x & ~is_slope_y).to(torch.float64)
    between = torch.where(same, torch.ones_like(shared), shared)
    return scale * between * found * units_x[:, None] * units_y[None] + constant


class JointProcess(GaussianProcess):
    """A process given values and slopes, and those of related functions.

    Predictions are of function 0, and data that are appended are values of it.

    Args:
        rows: the data.
        hyper: lengthscales, scale and noise.
        loads: [t] b, 1 first; None where function 0 is the only one.
        noises: [t] learnt variances of each function's noise; None is ``hyper.noise`` for all.
        kernel: ``matern52`` or ``rbf``.
    """

    is_plain = False

    def __init__(
        self,
        rows: Rows,
        hyper: Hyperparameters,
        loads: Tensor | None = None,
        noises: Tensor | None = None,
        *,
        kernel: str = "matern52",
    ) -> None:
        self.hyper, self.kernel, self._profile = hyper, kernel, profile(kernel)
        self.loads = torch.ones(1, dtype=torch.float64) if loads is None else loads
        self.features, self._axes, self._tasks = rows.points, rows.axes, rows.tasks
        self._scaled = self.scaled(rows.points)
        if noises is None:
            noises = torch.full_like(self.loads, hyper.noise)
        learnt = _learnt_noise(rows, 1 / hyper.lengthscales, noises)
        known = rows.noise + learnt - hyper.noise
        covariance = self._between(self._data(), self._data())
        covariance.diagonal().add_(known + hyper.noise)
        self._settle(rows.targets, known, 0.0, cholesky(covariance, hyper.scale))

    @property
    def constant_sd(self) -> float:
        """See :meth:`GaussianProcess.constant_sd`."""
        return 1.0

    def _data(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._scaled, self._axes, self._tasks

    def _between(
        self, a: tuple[Tensor, Tensor, Tensor], b: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        units = 1 / self.hyper.lengthscales
        return _covariance(a, b, units, self.hyper.scale, self.loads, self.kernel)

    @property
    def noise(self) -> float:
        """See :meth:`GaussianProcess.noise`; that of values of function 0."""
        ours = (self._axes < 0) & (self._tasks == 0)
        return self.hyper.noise + (float(self.known_noise[ours].mean()) if ours.any() else 0.0)

    @property
    def prior_variance(self) -> float:
        """See :meth:`GaussianProcess.prior_variance`; that of the constant with it."""
        return self.hyper.scale + 1.0

    def prior(self, points: Tensor, others: Tensor) -> Tensor:
        """See :meth:`GaussianProcess.prior`."""
        return super().prior(points, others) + 1.0

    def _values(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points as values of function 0."""
        none = torch.full((len(points),), -1, dtype=torch.int64)
        return self.scaled(points), none, torch.zeros_like(none)

    def _cross(self, points: Tensor) -> Tensor:
        return self._between(self._values(points), self._data())

    def _extend(self, count: int) -> None:
        none = torch.full((count,), -1, dtype=torch.int64)
        self._axes = torch.cat([self._axes, none])
        self._tasks = torch.cat([self._tasks, torch.zeros_like(none)])

    def observed(self, functions: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        """See :meth:`GaussianProcess.observed`."""
        found = []
        with torch.enable_grad():
            points = self.features.detach().requires_grad_()
            for function in functions:
                values = function(points)
                columns = []
                for k in range(values.shape[1]):
                    (slopes,) = torch.autograd.grad(values[:, k].sum(), points, retain_graph=True)
                    by_axis = slopes.gather(1, self._axes.clamp(min=0)[:, None])[:, 0]
                    columns.append(torch.where(self._axes >= 0, by_axis, values[:, k]))
                found.append(torch.stack(columns, 1))
        chosen: Tensor = torch.stack(found)[self._tasks, torch.arange(len(self))].detach()
        return chosen

    def _corner(self, features: Tensor) -> Tensor:
        values = self._values(features)
        return self._between(values, values)


def _learnt_noise(rows: Rows, inverse_scales: Tensor, noises: Tensor) -> Tensor:
    """[n] learnt variances of the noise of rows."""
    units = inverse_scales[rows.axes.clamp(min=0)] ** 2
    own = noises[rows.tasks]
    return torch.where(rows.axes >= 0, own * units, own)


class _JointPosterior:
    """The negative log density of hyper-parameters and loads, with its gradient by autograd.

    Rows are those of :class:`LogPosterior`, then v and log e of the related functions.
    """

    problems = 1

    def __init__(
        self, rows: Rows, groups: npt.NDArray[np.int64], *, kernel: str, learn_noise: bool
    ) -> None:
        self._rows, self._kernel = rows, kernel
        values = rows.axes < 0
        self.plain = LogPosterior(
            rows.points[values],
            rows.targets[values],
            groups,
            kernels=(kernel,),
            learn_noise=learn_noise,
        )
        self._groups, self._count = torch.from_numpy(groups), int(groups.max()) + 1
        self.tasks = int(rows.tasks.max())
        others, noise = np.full(self.tasks, _MOST_LOAD), self._count + 1
        bounds = self.plain.low[noise], math.log(1.0)
        self.low = np.concatenate([self.plain.low, -others, np.full(self.tasks, bounds[0])])
        self.high = np.concatenate([self.plain.high, others, np.full(self.tasks, bounds[1])])
        plain = self.plain.starts
        ones = np.ones((len(plain), self.tasks))
        self.starts = np.concatenate([plain, ones, ones * plain[:, noise : noise + 1]], axis=1)
        if self.tasks:
            # Smooth, with much noise in the others: what a rough fit of an unrelated one hides.
            smooth = np.concatenate([plain[:1], 2 * ones[:1], ones[:1] * math.log(0.1)], axis=1)
            smooth[0, : self._count] += 1.0
            self.starts = np.concatenate([self.starts, smooth])

    def loads(self, v: Tensor) -> Tensor:
        """[t] b from [t - 1] v."""
        return torch.cat([torch.ones(1, dtype=torch.float64), torch.tanh(v)])

    def __call__(self, theta: Floats, rows: object = None) -> tuple[Floats, Floats]:
        values, gradients = [], []
        for row in theta:
            with torch.enable_grad():
                t = torch.from_numpy(row.copy()).requires_grad_()
                value = self._value(t)
                (gradient,) = torch.autograd.grad(value, t)
            values.append(float(value.detach()))
            gradients.append(gradient.numpy())
        return np.array(values), np.array(gradients)

    def _value(self, t: Tensor) -> Tensor:
        count, rows = self._count, self._rows
        log_scales, log_s = t[:count], t[count]
        v, others = t[count + 2 :].tensor_split(2)
        log_e = torch.cat([t[count + 1 : count + 2], others])
        units, noises = (-log_scales).exp()[self._groups], log_e.exp()
        data = rows.points * units, rows.axes, rows.tasks
        covariance = _covariance(data, data, units, log_s.exp(), self.loads(v), self._kernel)
        error = rows.noise + _learnt_noise(rows, units, noises)
        # As much more as keeps slopes, which tell much of each other, apart from singular.
        steep = torch.where(rows.axes >= 0, units[rows.axes.clamp(min=0)] ** 2, torch.ones(()))
        factor, failed = torch.linalg.cholesky_ex(covariance + torch.diag(error + 1e-9 * steep))
        if int(failed):
            return (t * 0).sum() + torch.inf
        half = torch.linalg.solve_triangular(factor, rows.targets[:, None], upper=False)
        value = 0.5 * (half * half).sum() + factor.diagonal().log().sum()
        prior = self.plain.lengthscale_prior
        value = value + prior.misfit(log_scales - prior.centre) + log_s**2 / 2
        value = value + noise_misfit(noises[0])
        value = value + _RELATED_RATE * noises[1:].sum() - 0.1 * others.sum()
        found: Tensor = value + ((v - 1) ** 2).sum() / 2
        return found


def fit_joint(
    rows: Rows,
    groups: npt.NDArray[np.int64],
    *,
    kernel: str = "matern52",
    learn_noise: bool = True,
    evaluations: int = 40,
) -> tuple[Hyperparameters, Tensor, Tensor]:
    """Hyper-parameters, loads and noises of the largest posterior density.

    Args:
        rows: the data; values of each function standardized.
        groups: [p] which lengthscale each feature has.
        kernel: ``matern52`` or ``rbf``.
        learn_noise: whether there may be noise beside the known one.
        evaluations: most evaluations of the density.

    Returns:
        The hyper-parameters, [t] b, and [t] variances of the functions' noise.
    """
    posterior = _JointPosterior(rows, groups, kernel=kernel, learn_noise=learn_noise)
    [best] = densest(posterior, evaluations)
    size, tasks = len(posterior.plain.low), posterior.tasks
    hyper = posterior.plain.hyperparameters(best[:size])
    loads = posterior.loads(torch.from_numpy(best[size : size + tasks]))
    noises = torch.from_numpy(np.append(hyper.noise, np.exp(best[size + tasks :])))
    return hyper, loads, noises
