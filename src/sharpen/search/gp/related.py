"""Rows of a joint process from trials: slopes that evaluations gave, and trials of earlier studies.

A slope comes in the units of its parameter (``Feedback.gradients``); by the chain rule it is one of
the transformed loss by a coordinate of the unit cube::

    d T(loss) / du = T'(loss) * sign * d value / d x * dx/du
    dx/du          = high - low, or x log(high / low) of a logarithmic parameter

Slopes by parameters that are no plain real numbers are left out, and beyond a number those of the
worst trials. An earlier study counts with at most 300 trials over the number of studies, its best
quarter and the rest spread over time; its losses are standardized by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.parameters import Float
from sharpen.core.problem import Objective
from sharpen.core.space import Space
from sharpen.search.gp.features import Features
from sharpen.search.gp.joint import Rows
from sharpen.search.gp.transforms import OutputTransform
from sharpen.search.moments import deviation, mean

__all__ = ["Earlier", "slope_rows", "value_rows"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MOST_SLOPES = 300
_MOST_EARLIER = 300
_PRIOR_TRIALS = 5  # trials that the earlier studies' spread counts for in this one's


def value_rows(points: Floats, values: Floats, noise: Floats | None = None, task: int = 0) -> Rows:
    """Rows of values.

    Args:
        points: [n, p] features.
        values: [n] of the transformed loss.
        noise: [n] known variances; None is none.
        task: the function they are of.
    """
    n = len(values)
    return Rows(
        points=torch.from_numpy(np.ascontiguousarray(points)),
        targets=torch.from_numpy(np.ascontiguousarray(values)),
        axes=torch.full((n,), -1, dtype=torch.int64),
        tasks=torch.full((n,), task, dtype=torch.int64),
        noise=torch.from_numpy(np.zeros(n) if noise is None else noise),
    )


def slope_rows(
    trials: Sequence[Trial],
    points: Floats,
    features: Features,
    objective: Objective,
    transform: OutputTransform,
) -> Rows | None:
    """Rows of the slopes that trials came with, at most 300, those of the best trials first.

    Args:
        trials: [n] of the study.
        points: [n, p] their features.
        features: the feature map.
        objective: whose slopes count.
        transform: of the losses.

    Returns:
        None where there are none.
    """
    order = sorted(
        (k for k, trial in enumerate(trials) if _gradients(trial, objective)),
        key=lambda k: objective.loss(trials[k].values[objective.name]),
    )
    rows: list[int] = []
    axes: list[int] = []
    slopes: list[float] = []
    places = [columns.start for columns in features.space.columns.values()]
    names = dict(zip(places, features.space, strict=True))
    for k in order:
        value = objective.loss(trials[k].values[objective.name])
        outer = float(transform.slope(np.array([value]))[0])
        given = _gradients(trials[k], objective)
        for feature, column in zip(features.moving, features.columns, strict=True):
            name = names[int(column)]
            parameter = features.space[name]
            if name not in given or not isinstance(parameter, Float) or parameter.step is not None:
                continue
            if name not in trials[k].config:
                continue
            unit = parameter.high - parameter.low
            if parameter.log:
                unit = trials[k].config[name] * math.log(parameter.high / parameter.low)
            slope = outer * objective.loss(given[name]) * unit
            if math.isfinite(slope) and len(rows) < MOST_SLOPES:
                rows.append(k)
                axes.append(int(feature))
                slopes.append(slope)
    if not rows:
        return None
    made = value_rows(points[rows], np.array(slopes))
    return Rows(
        points=made.points,
        targets=made.targets,
        axes=torch.tensor(axes, dtype=torch.int64),
        tasks=made.tasks,
        noise=made.noise,
    )


def _gradients(trial: Trial, objective: Objective) -> dict[str, float]:
    if not trial.is_ok or trial.feedback is None:
        return {}
    return dict(trial.feedback.gradients.get(objective.name, {}))


class Earlier:
    """Trials of earlier studies.

    Args:
        studies: the trials of each.
        space: of the present study; configurations that it does not have are left out.
        features: its feature map.
        objective: which value of theirs counts.

    Raises:
        ConfigError: a study has fewer than two trials with such a value and configuration.
    """

    def __init__(
        self,
        studies: Sequence[Sequence[Trial]],
        space: Space,
        features: Features,
        objective: Objective,
    ) -> None:
        self.rows: list[Rows] = []
        self._spreads: list[float] = []
        best: list[list[dict[str, object]]] = []
        for number, trials in enumerate(studies):
            configs, losses = [], []
            for trial in trials:
                value = trial.values.get(objective.name, math.nan)
                if not trial.is_ok or not math.isfinite(value):
                    continue
                try:
                    configs.append(space.validate(trial.config))
                except ConfigError:
                    continue
                losses.append(objective.loss(value))
            if len(losses) < 2:
                raise ConfigError(
                    f"warm_start[{number}] has {len(losses)} of {len(trials)} trials with a value "
                    f"'{objective.name}' and a configuration of this space; it takes two."
                )
            loss = np.array(losses)
            kept = _some(loss, max(_MOST_EARLIER // len(studies), 2))
            transform = OutputTransform.fit(loss[kept], bend=False)
            encoded = space.encode([configs[k] for k in kept])
            points = features(encoded.x, encoded.mask)
            self.rows.append(value_rows(points, transform(loss[kept]), task=number + 1))
            self._spreads.append(float(deviation(loss[kept])))
            best.append([configs[k] for k in np.argsort(loss, kind="stable")[:10]])
        self.best = [config for group in zip(*_even(best), strict=True) for config in group]

    def transform(self, losses: Floats) -> OutputTransform:
        """A transform of this study's losses, by the earlier ones' spread where it has few."""
        n = len(losses)
        earlier = math.sqrt(_PRIOR_TRIALS) * float(np.median(self._spreads))
        own = math.sqrt(n) * float(deviation(losses))
        scale = math.hypot(earlier, own) / math.sqrt(_PRIOR_TRIALS + n)
        return OutputTransform(float(mean(losses)), scale or 1.0, 1.0, 0.0, 1.0)


def _some(loss: Floats, most: int) -> npt.NDArray[np.int64]:
    """Rows of the best quarter, and of the rest spread over time."""
    order = np.argsort(loss, kind="stable")
    if len(order) <= most:
        return np.sort(order)
    best, rest = order[: most // 4], np.sort(order[most // 4 :])
    spread = rest[np.linspace(0, len(rest) - 1, most - len(best)).astype(int)]
    return np.sort(np.concatenate([best, spread]))


def _even(groups: list[list[dict[str, object]]]) -> list[list[dict[str, object]]]:
    """Groups of one length."""
    shortest = min((len(group) for group in groups), default=0)
    return [group[:shortest] for group in groups]
