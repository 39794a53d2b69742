"""A real task of a minute: the hyper-parameters of gradient boosting on a table.

Histogram gradient boosting of scikit-learn (extra ``search``), after Guolin Ke et al., "LightGBM: A
Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017; cross-validated on folds that are
the same for every trial, so that an evaluation depends on its configuration alone. The fidelity is
the number of trees.

Tables that ship with scikit-learn:

- ``breast-cancer``: 569 rows, 30 columns, two classes
- ``diabetes``: 442 rows, 10 columns, a number
- ``digits``: 1797 rows, 64 columns, ten classes
- ``wine``: 178 rows, 13 columns, three classes

An evaluation takes about a tenth of a second of one core, of digits a second or two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DependencyNotInstalled, did_you_mean
from sharpen.core.feedback import Feedback
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Fidelity, Objective, TrialContext
from sharpen.core.space import Space

__all__ = ["TABLES", "Boosting"]

_LOADERS = {
    "breast-cancer": "load_breast_cancer",
    "diabetes": "load_diabetes",
    "digits": "load_digits",
    "wine": "load_wine",
}
TABLES = tuple(_LOADERS)
"""Names of tables."""


class Boosting:
    """Find the hyper-parameters of gradient boosting that predict a table best.

    Args:
        table: one of :data:`TABLES`, or ``(x, y)``: columns [N, D] of numbers, NaN where one is
            missing, and N targets: whole numbers or texts are classes, other numbers are numbers.
        trees: of the truth.
        folds: of the cross-validation.
        seed: of the folds and of the columns a tree looks at.

    The loss is the mean over folds of the log loss, or of the root mean square error over the
    standard deviation of the targets.

    Raises:
        ConfigError: an unknown table, shapes that do not fit, or fewer rows than folds.
        DependencyNotInstalled: scikit-learn is missing.

    Examples:
        >>> Boosting("wine", trees=10).evaluate(Boosting("wine").space.default())["loss"] < 1
        True
    """

    constraints = ()

    def __init__(
        self,
        table: str | tuple[Any, Any] = "diabetes",
        *,
        trees: int = 100,
        folds: int = 3,
        seed: int = 0,
    ) -> None:
        if trees < 2 or folds < 2:
            raise ConfigError(f"trees={trees} and folds={folds} must be at least 2.")
        self.name = f"boosting-{table}" if isinstance(table, str) else "boosting"
        self._x, self._y = _load(table) if isinstance(table, str) else _own(*table)
        self._is_number = bool(self._y.dtype.kind == "f")
        if len(self._y) < folds:
            raise ConfigError(f"the table has {len(self._y)} rows, fewer than folds={folds}.")
        self._scale = float(self._y.std()) or 1.0 if self._is_number else 1.0
        self._folds, self._seed = folds, seed
        self.objectives = (Objective("loss"),)
        self.fidelity = Fidelity("trees", max(2, trees // 25), trees, integer=True, log=True)
        self.space = Space(
            learning_rate=Float(0.01, 1.0, log=True, default=0.1),
            leaves=Int(2, 64, log=True, default=31),
            min_rows=Int(1, 60, log=True, default=20),
            l2=Float(1e-6, 100.0, log=True, default=1e-3),
            columns=Float(0.1, 1.0, default=1.0),
            bins=Int(8, 255, log=True, default=255),
        )

    def evaluate(self, config: dict[str, Any], trial: TrialContext | None = None) -> Any:
        """Cross-validate one configuration; see :meth:`Problem.evaluate`.

        Returns:
            ``loss``, and in a study's trials each fold's under ``info``.
        """
        trees = self.fidelity.high
        if trial is not None and trial.fidelity is not None:
            trees = trial.fidelity
        losses = [
            self._loss(self._model(config, int(trees)), train, test)
            for train, test in self._split()
        ]
        values = {"loss": float(np.mean(losses))}
        if trial is None:
            return values
        return Feedback(objectives=values, info={"folds": losses})

    def _model(self, config: dict[str, Any], trees: int) -> Any:
        from sklearn import ensemble

        kind = "Regressor" if self._is_number else "Classifier"
        return getattr(ensemble, f"HistGradientBoosting{kind}")(
            max_iter=trees,
            learning_rate=config["learning_rate"],
            max_leaf_nodes=config["leaves"],
            min_samples_leaf=config["min_rows"],
            l2_regularization=config["l2"],
            max_features=config["columns"],
            max_bins=config["bins"],
            early_stopping=False,
            random_state=self._seed,
        )

    def _split(self) -> list[tuple[Any, Any]]:
        from sklearn.model_selection import KFold, StratifiedKFold

        kind: Callable[..., Any] = KFold if self._is_number else StratifiedKFold
        split = kind(self._folds, shuffle=True, random_state=self._seed)
        return list(split.split(self._x, self._y))

    def _loss(self, model: Any, train: Any, test: Any) -> float:
        model.fit(self._x[train], self._y[train])
        if self._is_number:
            error = model.predict(self._x[test]) - self._y[test]
            return float(np.sqrt(np.mean(error**2)) / self._scale)
        chances = model.predict_proba(self._x[test])
        places = np.searchsorted(model.classes_, self._y[test])
        return float(-np.log(np.maximum(chances[np.arange(len(test)), places], 1e-15)).mean())


def _load(name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    if name not in _LOADERS:
        raise ConfigError(
            f"there is no table '{name}'.{did_you_mean(name, TABLES)} Known: {', '.join(TABLES)}; "
            "or give (x, y)."
        )
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("gradient boosting", "search") from None
    x, y = getattr(datasets, _LOADERS[name])(return_X_y=True)
    return x, y.astype(float) if name == "diabetes" else y


def _own(x: Any, y: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    columns, targets = np.asarray(x, dtype=np.float64), np.asarray(y)
    if columns.ndim != 2 or targets.shape != columns.shape[:1]:
        raise ConfigError(
            f"a table needs columns [N, D] and N targets, got {columns.shape} and {targets.shape}."
        )
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise ConfigError("every target must be a finite number.")
    if targets.dtype.kind != "f" and min(np.unique(targets, return_counts=True)[1]) < 2:
        raise ConfigError("every class needs at least two rows.")
    return columns, targets
