"""Every optimizer on every kind of problem: it says that it cannot, or it does, and again the same.

Too long for each change: ``make nightly``.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import find_optimizer, optimizer_names
from sharpen.core.problem import Problem
from sharpen.core.study import Study
from sharpen.problems import arch
from sharpen.problems.solvers import LinearSequence
from sharpen.problems.synthetic import synthetic
from sharpen.testing.search import mixed_space

pytestmark = pytest.mark.nightly
TRIALS = 24


def mixed() -> Problem:
    def loss(config: dict[str, Any]) -> float:
        deep = config.get("depth", 0) + len(config["chosen"]) + config["order"].index("a")
        return float(config["x"] ** 2 + abs(config["grid"] - 0.5) + 0.1 * deep)

    return sh.problem(mixed_space(), loss, minimize="loss", name="mixed")


def orders() -> Problem:
    space = sh.Space(order=sh.Permutation(list("abcdef")))

    def far(config: dict[str, Any]) -> int:
        return sum(abs(i - "abcdef".index(item)) for i, item in enumerate(config["order"]))

    return sh.problem(space, far, minimize="far", name="orders")


def subsets() -> Problem:
    space = sh.Space(chosen=sh.Subset(6, min=1, max=4), level=sh.Int(0, 3))

    def loss(config: dict[str, Any]) -> float:
        return float(abs(sum(config["chosen"]) - 7) + config["level"])

    return sh.problem(space, loss, minimize="loss", name="subsets")


def two_objectives() -> Problem:
    space = sh.Space(x=sh.Float(-2, 2), y=sh.Float(-2, 2))

    def both(config: dict[str, Any]) -> dict[str, float]:
        x, y = config["x"], config["y"]
        return {"near": x**2 + y**2, "far": (x - 1) ** 2 + y**2}

    return sh.problem(space, both, minimize=["near", "far"], name="two")


def flaky() -> Problem:
    space = sh.Space(x=sh.Float(0, 1), n=sh.Int(1, 9))

    def loss(config: dict[str, Any]) -> float:
        if config["x"] > 0.8:
            raise RuntimeError("too hot")
        return float("nan") if config["n"] == 8 else (config["x"] - 0.4) ** 2 + config["n"]

    return sh.problem(space, loss, minimize="loss", name="flaky")


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "branin": lambda: synthetic("branin"),
    "hartmann6": lambda: synthetic("hartmann6"),
    "noisy": lambda: synthetic("branin", noise=5.0),
    "conditional": lambda: synthetic("conditional"),
    "constrained": lambda: synthetic("gramacy"),
    "fidelity": lambda: synthetic("augmented_branin"),
    "mixed": mixed,
    "orders": orders,
    "subsets": subsets,
    "two": two_objectives,
    "flaky": flaky,
    "contexts": lambda: LinearSequence(side=12),
    "dram": lambda: arch.make("dram-v0", workload="random", requests=200),
}


def run(name: str, problem: Problem) -> Study:
    return Study(
        problem,
        optimizer=name,
        store="sqlite://",
        budget=sh.Budget(trials=TRIALS),
        seed=7,
        dedup="reevaluate",
    ).run()


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("name", optimizer_names())
def test_it_says_that_it_cannot_or_does_and_again_the_same(name: str, kind: str) -> None:
    problem, refused = PROBLEMS[kind](), ""
    try:
        study = run(name, problem)
    except ConfigError as error:
        refused = str(error)
    if refused:
        assert name in refused or "take an optimizer" in refused
        assert getattr(find_optimizer(name), "capabilities", None) is not None
        return
    states = Counter(trial.state for trial in study.trials())
    few = problem.space.cardinality < TRIALS
    assert states.total() == TRIALS or few or name == "grid"
    assert set(states) <= ({"ok", "failed"} if kind == "flaky" else {"ok"})
    for trial in study.trials():
        assert problem.space.validate(trial.config) == trial.config
    again = [trial.config for trial in run(name, PROBLEMS[kind]()).trials()]
    assert again == [trial.config for trial in study.trials()]
    assert study.pareto()
