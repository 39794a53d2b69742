"""A model in place of a simulator, trained on what studies measured; itself a problem.

Srivatsan Krishnan et al., "ArchGym: An Open-Source Gymnasium for Machine Learning Assisted
Architecture Design", ISCA 2023, arXiv:2306.08888: a random forest on pooled samples.
Error bars: Jing Lei et al., "Distribution-Free Predictive Inference for Regression", Journal of the
American Statistical Association 113, 2018, split conformal with local weights.

::

    y ~ model(x)              x one-hot categories, unit coordinates; y in logarithms if positive
    half width = q s(x)       q the ceil((n + 1) level)-th smallest of |y_i - model(x_i)| / s(x_i)
                              over samples that were kept out of the training
    s(x) = standard deviation over the trees of a forest, else 1

The bars hold the truth at the stated rate on samples drawn like those of the data set. A data set
has each configuration once, so that none is both in training and in the test.

Time of a prediction: O(trees * depth), beside a fixed cost a call: ask for many at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError, DependencyNotInstalled
from sharpen.core.feedback import Feedback
from sharpen.core.parameters import Bool, Categorical, Fixed
from sharpen.core.problem import Constraint, Objective, TrialContext
from sharpen.core.space import Space
from sharpen.problems.arch.dataset import Dataset

__all__ = ["Features", "ProxyModel", "Quality"]

Floats = npt.NDArray[np.float64]
Kind = Literal["rf", "et", "gbdt", "mlp"]
Split = Literal["random", "by-agent"]
_FEWEST = 20
_CALIBRATION = 0.2
_TREES = 100


class Features:
    """Configurations as rows of numbers: one column a category, unit coordinates for the rest.

    An inactive parameter is 1/2, or no category at all.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.width = sum(self._width(name) for name in space)

    def _width(self, name: str) -> int:
        parameter = self.space[name]
        if isinstance(parameter, Fixed):
            return 0
        if isinstance(parameter, (Categorical, Bool)):
            return int(parameter.cardinality)
        return parameter.width

    def __call__(self, configs: Sequence[Mapping[str, Any]]) -> Floats:
        """[n, width]."""
        encoded = self.space.encode(configs)
        parts = []
        for name, parameter in self.space.items():
            width, columns = self._width(name), self.space.columns[name]
            if not width:
                continue
            part = encoded.x[:, columns]
            if isinstance(parameter, (Categorical, Bool)):
                place = np.minimum((part[:, 0] * width).astype(int), width - 1)
                part = (place[:, None] == np.arange(width)) & encoded.mask[:, columns]
            parts.append(part.astype(np.float64))
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(configs), 0))


@dataclass(frozen=True, slots=True)
class Quality:
    """How far predictions of one value are from the truth, on samples that were not trained on."""

    rmse: float
    """Root of the mean squared error."""

    mean: float
    """Mean of the true values."""

    median_error: float
    """Median of the relative error."""

    coverage: float
    """Share of true values within the 90 % bars."""

    samples: int
    """Of the test."""

    @property
    def relative_rmse(self) -> float:
        """``rmse`` over the mean."""
        return self.rmse / abs(self.mean) if self.mean else math.inf


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The model of one value."""

    model: Any
    is_log: bool
    has_trees: bool
    scores: Floats
    """[n] sorted errors of the calibration samples, over their s."""

    least: float
    """Smallest s."""

    def scaled(self, x: Floats) -> tuple[Floats, Floats]:
        """[n] predictions and [n] s, in the scale of the model."""
        if not self.has_trees:
            return np.asarray(self.model.predict(x), dtype=np.float64), np.ones(len(x))
        narrow = np.ascontiguousarray(x, dtype=np.float32)  # what the trees compare with
        trees = [tree.tree_.predict(narrow).reshape(len(x)) for tree in self.model.estimators_]
        each = np.array(trees)
        return each.mean(axis=0), np.maximum(each.std(axis=0), self.least)

    def quantile(self, level: float) -> float:
        place = math.ceil((len(self.scores) + 1) * level)
        return math.inf if place > len(self.scores) else float(self.scores[max(place, 1) - 1])


class ProxyModel:
    """A trained stand-in for the simulator; made by :meth:`fit`.

    It is a problem: with ``like``, one with that problem's objectives, scored from predictions;
    else one that minimizes the targets.
    """

    def __init__(
        self,
        features: Features,
        fitted: Mapping[str, _Fitted],
        quality: Mapping[str, Quality],
        like: Any,
        kind: str,
        test: Dataset,
    ) -> None:
        self.space = features.space
        self.kind = kind
        self.quality = dict(quality)
        """By target: errors on the test part."""
        self.test = test
        """Samples that were not trained on."""
        self.targets = tuple(fitted)
        self.name = f"proxy-{kind}" if like is None else f"{like.name}-{kind}"
        named = [Objective(name) for name in self.targets]
        self.objectives = tuple(named if like is None else like.objectives)
        self.constraints: tuple[Constraint, ...] = ()
        self._features, self._fitted, self._like = features, dict(fitted), like

    @classmethod
    def fit(
        cls,
        dataset: Dataset,
        model: Kind = "rf",
        *,
        target: str | Sequence[str] = ("power", "latency"),
        split: Split = "random",
        test: float | Sequence[str] = 0.2,
        like: Any = None,
        seed: int = 0,
    ) -> ProxyModel:
        """Train.

        Args:
            dataset: what studies measured.
            model: a random forest, extremely randomized trees, gradient-boosted trees, or a small
                neural network.
            target: which values to predict.
            split: what is kept for the test: samples at random, or all samples of some agents.
            test: the share of samples; or, by agent, their names (a share is of the agents).
            like: the problem to stand in for: its objectives, and its ``score(values)``.
            seed: of the split and the model.

        Raises:
            ConfigError: an unknown word, target or agent, or a problem that cannot score.
            DataError: fewer than 20 samples to train on, or none for the test.
            DependencyNotInstalled: scikit-learn is missing.
        """
        if model not in get_args(Kind) or split not in get_args(Split):
            raise ConfigError(
                f"model={model!r} must be one of {', '.join(get_args(Kind))}, split={split!r} of "
                f"{', '.join(get_args(Split))}."
            )
        if like is not None and not hasattr(like, "score"):
            raise ConfigError(f"{like!r} has no score(values), which a stand-in needs.")
        targets = [target] if isinstance(target, str) else list(target)
        columns = {name: dataset.values(name) for name in targets}
        rng = np.random.default_rng(seed)
        kept = _kept_out(dataset, split, test, rng)
        rest = rng.permutation(np.flatnonzero(~kept))
        if len(rest) < _FEWEST or not kept.any():
            raise DataError(
                f"a model needs {_FEWEST} samples to train on and some for the test; there are "
                f"{len(rest)} and {int(kept.sum())}."
            )
        features = Features(dataset.space)
        x = features([sample.config for sample in dataset])
        cut = max(int(len(rest) * _CALIBRATION), 5)
        fitted = {
            name: _train(model, x, y, rest[cut:], rest[:cut], seed) for name, y in columns.items()
        }
        quality = {}
        for name, y in columns.items():
            low, middle, high = _bars(fitted[name], x[kept], 0.9)
            truth = y[kept]
            quality[name] = Quality(
                rmse=float(np.sqrt(np.mean((middle - truth) ** 2))),
                mean=float(truth.mean()),
                median_error=float(
                    np.median(np.abs(middle - truth) / np.maximum(np.abs(truth), 1e-300))
                ),
                coverage=float(np.mean((low <= truth) & (truth <= high))),
                samples=int(kept.sum()),
            )
        return cls(features, fitted, quality, like, model, dataset[np.flatnonzero(kept)])

    def predict(self, configs: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
        """[n] by target."""
        x = self._features(configs)
        return {name: _bars(fitted, x, 0.5)[1] for name, fitted in self._fitted.items()}

    def interval(
        self, configs: Sequence[Mapping[str, Any]], *, level: float = 0.9
    ) -> dict[str, tuple[Floats, Floats]]:
        """Bars that hold the truth at the rate ``level``: [n] lower and [n] upper ends by target.

        Infinite where there were too few samples for that level.
        """
        if not 0 < level < 1:
            raise ConfigError(f"level={level} must lie between 0 and 1.")
        x = self._features(configs)
        found = {}
        for name, fitted in self._fitted.items():
            low, _, high = _bars(fitted, x, level)
            found[name] = (low, high)
        return found

    def evaluate(self, config: dict[str, Any], trial: TrialContext | None = None) -> Feedback:
        """Predicted values; ``std`` is half the width of the bars at 68 %."""
        x, values, std = self._features([config]), {}, {}
        for name, fitted in self._fitted.items():
            low, middle, high = _bars(fitted, x, 0.68)
            values[name] = float(middle[0])
            if math.isfinite(high[0]):
                std[name] = float(high[0] - low[0]) / 2
        if self._like is None:
            return Feedback(objectives=values, std=std)
        scored = self._like.score(values)
        extra = {f"{name}_std": value for name, value in std.items()}
        return Feedback(objectives=scored, info={**values, **extra})


def _kept_out(
    dataset: Dataset, split: Split, test: float | Sequence[str], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """[n] which samples are for the test."""
    kept = np.zeros(len(dataset), dtype=bool)
    if isinstance(test, (int, float)) and not 0 < test < 1:
        raise ConfigError(f"test={test} must lie between 0 and 1.")
    if split == "random":
        if not isinstance(test, (int, float)):
            raise ConfigError("test must be a share where the split is random.")
        kept[rng.permutation(len(dataset))[: round(len(dataset) * test)]] = True
        return kept
    agents = dataset.agents
    if isinstance(test, (int, float)):
        if len(agents) < 2:
            raise ConfigError(f"a split by agent needs two agents; there is {', '.join(agents)}.")
        count = min(max(round(len(agents) * test), 1), len(agents) - 1)
        chosen = set(rng.permutation(agents)[:count].tolist())
    else:
        chosen = set([test] if isinstance(test, str) else test)
        for name in chosen - set(agents):
            raise ConfigError(f"no sample is of the agent '{name}'. Agents: {', '.join(agents)}.")
    return np.array([sample.agent in chosen for sample in dataset])


def _train(model: str, x: Floats, y: Floats, train: Any, calibration: Any, seed: int) -> _Fitted:
    is_log = bool((y > 0).all())
    goal = np.log(y) if is_log else y
    made = _makers(seed)[model]().fit(x[train], goal[train])
    spread = float(np.std(goal[train]))
    fitted = _Fitted(made, is_log, model in ("rf", "et"), np.zeros(0), max(spread, 1e-12) * 1e-3)
    middle, scale = fitted.scaled(x[calibration])
    scores = np.sort(np.abs(middle - goal[calibration]) / scale)
    return _Fitted(made, is_log, fitted.has_trees, scores, fitted.least)


def _bars(fitted: _Fitted, x: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    middle, scale = fitted.scaled(x)
    half = fitted.quantile(level) * scale
    if not fitted.is_log:
        return middle - half, middle, middle + half
    with np.errstate(over="ignore"):
        return np.exp(middle - half), np.exp(middle), np.exp(middle + half)


def _makers(seed: int) -> dict[str, Callable[[], Any]]:
    try:
        from sklearn.compose import TransformedTargetRegressor
        from sklearn.ensemble import (
            ExtraTreesRegressor,
            HistGradientBoostingRegressor,
            RandomForestRegressor,
        )
        from sklearn.neural_network import MLPRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("a proxy model", "search") from None

    def network() -> Any:
        made = MLPRegressor(
            hidden_layer_sizes=(128, 128), max_iter=300, early_stopping=True, random_state=seed
        )
        inputs = make_pipeline(StandardScaler(), made)
        return TransformedTargetRegressor(inputs, transformer=StandardScaler())

    return {
        "rf": lambda: RandomForestRegressor(_TREES, random_state=seed, n_jobs=1),
        "et": lambda: ExtraTreesRegressor(_TREES, random_state=seed, n_jobs=1),
        "gbdt": lambda: HistGradientBoostingRegressor(max_iter=300, random_state=seed),
        "mlp": network,
    }
