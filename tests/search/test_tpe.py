import itertools
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sharpen.core.conditions import Eq
from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.optimizer import Candidate
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search import TPE, Random
from sharpen.search.pareto import hypervolume
from sharpen.search.parzen import Axes, Parzen
from sharpen.search.tpe import recency_weights
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import branin, mixed_space

LINE = Space(x=Float(0, 1))


class TestTPE(OptimizerConformance):
    optimizer = TPE
    regret = 0.5


def _play(optimizer: Any, loss: Any, trials: int) -> list[Trial]:
    told = []
    for _ in range(trials):
        candidate = optimizer.ask()[0]
        told.append(candidate.result(loss(candidate.config)))
        optimizer.tell(told[-1:])
    return told


def _trial(number: int, x: float, value: float = 0.0, **rest: Any) -> Trial:
    feedback = Feedback(objectives={"value": value}, **rest)
    return Trial(number=number, config={"x": x}, state=feedback.status, feedback=feedback)


def test_newest_trials_weigh_one_and_older_ones_less() -> None:
    assert recency_weights(0).tolist() == []
    assert recency_weights(25).tolist() == [1.0] * 25
    weights = recency_weights(125)
    np.testing.assert_allclose(weights[:100], np.linspace(1 / 125, 1, 100))
    assert weights[100:].tolist() == [1.0] * 25


def test_the_tenth_that_is_best_counts_as_good() -> None:
    optimizer = TPE(LINE)
    losses = np.random.default_rng(0).permutation(300)
    optimizer.tell([_trial(k, 0.5, float(v)) for k, v in enumerate(losses)])
    for n in (11, 100, 101, 250, 300):
        good = optimizer._good(np.arange(n))
        wanted = np.sort(np.argsort(losses[:n])[: min(math.ceil(n / 10), 25)])
        assert good.tolist() == wanted.tolist()


def test_good_are_feasible_ones_then_the_least_violations_and_never_failed_ones() -> None:
    limit = Constraint("memory", "<=", 1.0)
    optimizer = TPE(LINE, constraints=[limit], share=0.5, startup=1)
    rows = [(5.0, 0.5), (1.0, 3.0), (2.0, 2.0), (4.0, 1.0), (0.0, 9.0), (3.0, 1.5)]
    optimizer.tell(
        _trial(k, 0.1 * k, value, constraints={"memory": memory})
        for k, (value, memory) in enumerate(rows)
    )
    assert optimizer._good(np.arange(6)).tolist() == [0, 3, 5]
    optimizer.tell([_trial(k, 0.9, -1.0, status="failed") for k in range(6, 40)])
    usable = np.flatnonzero(optimizer.seen.ok)
    assert optimizer._good(usable).tolist() == [0, 3, 5]
    assert optimizer.ask()[0].config["x"] < 0.9


def test_proposals_are_where_the_ratio_of_densities_is_large() -> None:
    rng = np.random.default_rng(3)
    points = rng.random((60, 2))
    square = Space(x=Float(0, 1), y=Float(0, 1))
    optimizer = TPE(square, seed=1)
    losses = ((points - [0.3, 0.7]) ** 2).sum(axis=1)
    optimizer.tell(
        Candidate(number=k, config={"x": p[0], "y": p[1]}).result(float(v))
        for k, (p, v) in enumerate(zip(points.tolist(), losses, strict=True))
    )
    order = np.argsort(losses)
    all_on = np.ones((60, 2), dtype=bool)
    axes = Axes(square)
    good, bad = np.sort(order[:6]), np.sort(order[6:])
    better = Parzen(axes, points[good], all_on[good], recency_weights(6), 1.0)
    worse = Parzen(axes, points[bad], all_on[bad], recency_weights(54), 1.0)

    def ratio(x: np.ndarray) -> np.ndarray:
        mask = np.ones(x.shape, dtype=bool)
        return better.log_density(x, mask) - worse.log_density(x, mask)

    anywhere = np.quantile(ratio(rng.random((2000, 2))), 0.95)
    proposed = []
    for number in range(60, 90):
        config = optimizer.ask(number=number)[0].config
        optimizer.abandon([number])
        proposed.append([config["x"], config["y"]])
    assert (ratio(np.array(proposed)) > anywhere).mean() > 0.9


def test_running_trials_keep_others_away() -> None:
    def spread(is_told: bool) -> float:
        optimizer = TPE(LINE, seed=0)
        optimizer.tell([_trial(k, (k + 0.5) / 40, abs((k + 0.5) / 40 - 0.4)) for k in range(40)])
        found = []
        for number in range(40, 60):
            found.append(optimizer.ask(number=number)[0].config["x"])
            if not is_told:
                optimizer.abandon([number])
        return float(np.std(found))

    assert spread(True) > 1.5 * spread(False)


def test_the_order_of_tells_does_not_matter() -> None:
    space = mixed_space()
    first, second = TPE(space, seed=4), TPE(space, seed=4)
    told = _play(first, lambda c: c["x"] ** 2 + c["grid"], 40)
    pending = first.ask(3)
    shuffled = list(told)
    random.Random(1).shuffle(shuffled)
    second.tell([pending[2].begun(), pending[0].begun()])
    second.tell(shuffled)
    second.tell([pending[1].begun()])
    assert second.ask(number=43)[0].config == first.ask(number=43)[0].config


def test_finds_the_branch_and_the_values_of_a_conditional_space() -> None:
    space = Space(
        kind=Categorical("a", "b", "c"),
        n=Int(1, 20).active_if(Eq("kind", "b")),
        x=Float(-5, 5).active_if(Eq("kind", "b")),
        y=Float(-5, 5).active_if(Eq("kind", "c")),
    )

    def loss(c: dict[str, Any]) -> float:
        if c["kind"] == "a":
            return 3.0
        if c["kind"] == "c":
            return 1 + abs(c["y"])
        return abs(c["x"] - 2) + 0.2 * abs(c["n"] - 13)

    found: dict[str, list[float]] = {"tpe": [], "random": []}
    for seed, kind in itertools.product(range(7), (TPE, Random)):
        told = _play(kind(space, seed=seed), loss, 80)
        found[kind.name].append(min(t.value for t in told))
    assert np.median(found["tpe"]) < np.median(found["random"]) / 2
    assert np.median(found["tpe"]) < 0.3


def test_several_objectives_reach_further_than_random_draws() -> None:
    plane = Space(x=Float(0, 1), y=Float(0, 1), z=Float(0, 1))
    objectives = (Objective("f"), Objective("g"))

    def values(c: dict[str, Any]) -> dict[str, float]:
        g = 1 + 9 * (c["y"] + c["z"]) / 2
        return {"f": c["x"], "g": g * (1 - math.sqrt(c["x"] / g))}

    def volume(kind: Any, seed: int) -> float:
        told = _play(kind(plane, objectives, seed=seed), values, 100)
        return hypervolume(np.array([[t.values["f"], t.values["g"]] for t in told]), np.full(2, 5))

    ours = [volume(TPE, seed) for seed in range(5)]
    assert np.median(ours) > np.median([volume(Random, seed) for seed in range(5)]) + 1


def test_a_finite_space_is_not_tried_twice_while_there_is_else() -> None:
    space = Space(a=Int(1, 6), b=Categorical(*"abcdef"))
    told = _play(TPE(space, seed=0, startup=1, candidates=200), lambda c: abs(c["a"] - 3), 25)
    assert len({space.digest(t.config) for t in told}) == 25


def test_trials_at_a_lower_fidelity_are_not_counted() -> None:
    ladder = Fidelity("epochs", 1, 9)
    trials = [_trial(k, k / 40, abs(k / 40 - 0.8)) for k in range(40)]
    cheap = [replace(_trial(k, k / 80, -1.0), fidelity=1.0) for k in range(100, 160)]
    alone, both = TPE(LINE, fidelity=ladder), TPE(LINE, fidelity=ladder)
    alone.tell(trials)
    both.tell(trials + cheap)
    assert alone.ask(number=200)[0].config == both.ask(number=200)[0].config


@pytest.mark.parametrize("option", ["startup", "candidates", "share", "max_good", "prior_weight"])
def test_options_out_of_range_are_refused_and_its_own_space_is_of_options(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}=0 is out of its range"):
        TPE(LINE, **{option: 0})
    assert TPE.hyperparameters is not None
    assert TPE.hyperparameters.default()[option] == getattr(TPE(LINE), option)


@pytest.mark.peer
def test_finds_as_much_as_optuna_does() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = Space(x=Float(-5, 10), y=Float(0, 15))
    ours, theirs = [], []
    for seed in range(12):
        told = _play(TPE(space, seed=seed), lambda c: branin(c["x"], c["y"]), 60)
        ours.append(math.log(min(t.value for t in told) - 0.397887 + 1e-6))
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        study.optimize(
            lambda t: branin(t.suggest_float("x", -5, 10), t.suggest_float("y", 0, 15)), 60
        )
        theirs.append(math.log(study.best_value - 0.397887 + 1e-6))
    error = math.hypot(np.std(ours), np.std(theirs)) / math.sqrt(12)
    assert np.mean(ours) < np.mean(theirs) + 2 * error


@pytest.mark.peer
@pytest.mark.parametrize("m", [2, 3])
def test_good_ones_of_several_objectives_are_those_of_optuna(m: int) -> None:
    import optuna
    from optuna.samplers._tpe.sampler import _split_complete_trials_multi_objective

    losses = np.random.default_rng(m).random((60, m))
    objectives = [Objective(f"v{i}") for i in range(m)]
    optimizer = TPE(LINE, objectives)
    for number, row in enumerate(losses):
        candidate = Candidate(number=number, config={"x": 0.5}, objectives=tuple(objectives))
        optimizer.tell([candidate.result(list(row))])
    study = optuna.create_study(directions=["minimize"] * m)
    trials = [optuna.trial.create_trial(values=list(row)) for row in losses]
    for number, trial in enumerate(trials):
        trial.number = number
    below, _ = _split_complete_trials_multi_objective(trials, study, 6)
    assert optimizer._good(np.arange(60)).tolist() == sorted(t.number for t in below)
