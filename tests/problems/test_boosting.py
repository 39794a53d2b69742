import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.problem import TrialContext
from sharpen.problems.boosting import TABLES, Boosting


def table(rows: int = 90) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 4))
    return x, x[:, 0] * 2 + np.abs(x[:, 1])


def test_the_loss_of_numbers_is_that_of_scikit_learn() -> None:
    x, y = table()
    problem = Boosting((x, y), trees=8, seed=3)
    config = {**problem.space.default(), "leaves": 4, "min_rows": 3, "columns": 0.5, "bins": 16}
    model = HistGradientBoostingRegressor(
        max_iter=8,
        max_leaf_nodes=4,
        min_samples_leaf=3,
        max_features=0.5,
        max_bins=16,
        l2_regularization=1e-3,
        random_state=3,
    )
    folds = list(KFold(3, shuffle=True, random_state=3).split(x))
    predicted = cross_val_predict(model, x, y, cv=folds)
    errors = [np.sqrt(np.mean((predicted[t] - y[t]) ** 2)) / y.std() for _, t in folds]
    assert problem.evaluate(config)["loss"] == pytest.approx(np.mean(errors), rel=1e-12)


@pytest.mark.parametrize("texts", [False, True])
def test_the_loss_of_classes_is_that_of_scikit_learn(texts: bool) -> None:
    x, y = table()
    kinds = np.digitize(y, [-1.0, 1.5])
    given = np.array(["low", "middle", "up"])[kinds] if texts else kinds
    problem = Boosting((x, given), trees=5)
    config = {**problem.space.default(), "min_rows": 2}
    model = HistGradientBoostingClassifier(
        max_iter=5, min_samples_leaf=2, l2_regularization=1e-3, random_state=0, early_stopping=False
    )
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(x, given))
    chances = cross_val_predict(model, x, given, cv=folds, method="predict_proba")
    losses = [log_loss(given[t], chances[t]) for _, t in folds]
    assert problem.evaluate(config)["loss"] == pytest.approx(np.mean(losses), rel=1e-9)


def test_an_evaluation_depends_on_its_configuration_and_the_number_of_trees() -> None:
    problem = Boosting("wine", trees=20)
    config = problem.space.default()
    first = problem.evaluate(config, TrialContext(number=1, seed=1))
    assert first == problem.evaluate(config, TrialContext(number=2, seed=2))
    assert len(first.info["folds"]) == 3
    few = problem.evaluate(config, TrialContext(fidelity=2.0))
    assert few.objectives["loss"] > first.objectives["loss"]
    assert pickle.loads(pickle.dumps(problem)).evaluate(config) == problem.evaluate(config)


@pytest.mark.parametrize("name", [name for name in TABLES if name != "digits"])
def test_a_search_finds_better_settings_than_the_defaults(name: str) -> None:
    problem = Boosting(name, trees=30)
    default = problem.evaluate(problem.space.default())["loss"]
    study = sh.Study(
        problem, optimizer="tpe", store="sqlite://", budget=sh.Budget(trials=25), seed=1
    ).run()
    assert study.counts() == {"ok": 25}
    assert study.best.value < default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "dibaetes"}, "Did you mean 'diabetes'"),
        ({"table": "wine", "folds": 1}, "folds=1 must be at least 2"),
        ({"table": (np.ones((4, 2)), np.ones(3))}, "N targets"),
        ({"table": (np.ones((2, 2)), np.ones(2))}, "fewer than folds=3"),
        ({"table": (np.ones((4, 2)), np.array([1.0, np.nan, 1, 1]))}, "finite"),
        ({"table": (np.ones((4, 2)), np.array([1, 1, 1, 2]))}, "at least two rows"),
    ],
)
def test_tables_that_cannot_be_learned_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Boosting(**arguments)
