"""Hyper-parameters of a real model on a real table, as a program with choices and numbers.

Kernel ridge regression on scikit-learn's table of 442 diabetes patients, judged by R^2 of five-fold
cross-validation on shuffled patients: the scaling of the columns, the kernel, its parameters, the
penalty. Beside each other at the same evaluations: ``SearchProposer``, our TPE, random search, and
Optuna's TPE and random search on the same ranges.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from benchmarks.text.task_numeric import play

import sharpen.text as st
from sharpen.core.parameters import Categorical, Float, Int

__all__ = ["tuning"]

_FOLDS = 5


class Regression(st.Module):
    """Scales a table and fits it."""

    def __init__(self) -> None:
        from sklearn.datasets import load_diabetes
        from sklearn.model_selection import KFold

        self.x, self.y = load_diabetes(return_X_y=True, scaled=False)
        folds = KFold(_FOLDS, shuffle=True, random_state=0)
        self.folds = list(folds.split(self.x))
        self.scaling = st.Parameter(
            "none", kind="choice", space=Categorical("none", "standard", "minmax", "quantile")
        )
        self.kernel = st.Parameter(
            "linear",
            kind="choice",
            space=Categorical("linear", "rbf", "laplacian", "polynomial", "sigmoid"),
        )
        self.penalty = st.Parameter(1.0, space=Float(1e-5, 1e3, log=True))
        self.gamma = st.Parameter(1.0, space=Float(1e-5, 1e2, log=True))
        self.degree = st.Parameter(2, space=Int(1, 5))
        self.offset = st.Parameter(1.0, space=Float(0.0, 5.0))

    def forward(self) -> Any:
        table = self.scaled(self.scaling)
        return self.r2(table, self.kernel, self.penalty, self.gamma, self.degree, self.offset)

    @st.op
    def scaled(self, scaling: str) -> Any:
        """The table with scaled columns."""
        from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

        made = {
            "standard": StandardScaler,
            "minmax": MinMaxScaler,
            "quantile": lambda: QuantileTransformer(n_quantiles=100),
        }
        return self.x if scaling == "none" else made[scaling]().fit_transform(self.x)

    @st.op
    def r2(
        self,
        table: Any,
        kernel: str,
        penalty: float,
        gamma: float,
        degree: int,
        offset: float,
    ) -> float:
        """R^2 of cross-validation, -1 at least."""
        from sklearn.kernel_ridge import KernelRidge
        from sklearn.metrics import r2_score

        scores = []
        for train, valid in self.folds:
            model = KernelRidge(
                alpha=penalty, kernel=kernel, gamma=gamma, degree=degree, coef0=offset
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mean = self.y[train].mean()
                model.fit(table[train], self.y[train] - mean)
                guess = np.nan_to_num(model.predict(table[valid]) + mean, posinf=1e9, neginf=-1e9)
            scores.append(r2_score(self.y[valid], np.clip(guess, -1e6, 1e6)))
        return max(float(np.mean(scores)), -1.0)


def tuning(seeds: Sequence[int], budget: int) -> dict[str, Any]:
    """The best R^2 so far after each evaluation, by way and seed."""
    problem = st.TextProblem(Regression())
    ways: dict[str, list[list[float]]] = {}
    for seed in seeds:
        for name, way in (("search", st.SearchProposer), ("tpe", "tpe"), ("random", "random")):
            scores, _ = play(problem, way, seed, budget)
            ways.setdefault(name, []).append(_best_so_far(scores))
        for name in ("optuna tpe", "optuna random"):
            ways.setdefault(name, []).append(_best_so_far(_optuna(problem, name, seed, budget)))
    start = problem.evaluate(problem.space.default()).objectives["score"]
    best = max(curve[-1] for curves in ways.values() for curve in curves)
    return {"evaluations": budget, "start": start, "best": best, "curves": ways}


def _best_so_far(scores: Sequence[float]) -> list[float]:
    return [float(score) for score in np.maximum.accumulate(scores)]


def _optuna(problem: st.TextProblem, name: str, seed: int, budget: int) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {
        "optuna tpe": optuna.samplers.TPESampler,
        "optuna random": optuna.samplers.RandomSampler,
    }
    sampler = samplers[name](seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        config: dict[str, Any] = {}
        for key, parameter in problem.space.items():
            if isinstance(parameter, Categorical):
                config[key] = trial.suggest_categorical(key, list(parameter.choices))
            elif isinstance(parameter, Int):
                config[key] = trial.suggest_int(key, parameter.low, parameter.high)
            elif isinstance(parameter, Float):
                config[key] = trial.suggest_float(
                    key, parameter.low, parameter.high, log=parameter.log
                )
        return problem.evaluate(config).objectives["score"]

    study.optimize(objective, n_trials=budget)
    return [trial.value for trial in study.trials if trial.value is not None]
