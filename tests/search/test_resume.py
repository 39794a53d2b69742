"""Studies that are interrupted and gone on with, by the optimizers that keep a state."""

from pathlib import Path
from typing import Any

import pytest

from sharpen.core.executor import Local
from sharpen.core.feedback import Feedback
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.problem import FunctionProblem, Objective
from sharpen.core.space import Space
from sharpen.core.study import Budget, Study

NAMES = (
    *("cmaes", "de", "jade", "lshade", "pso", "ga", "aco", "annealing", "random-walk"),
    *("nelder-mead", "powell", "cobyla", "lbfgsb", "slsqp", "spsa", "adam-spsa", "aqgd"),
    *("grid", "halton", "lhs", "portfolio", "sms-emoa", "dehb"),
)
SPACE = Space(x=Float(-5, 10), n=Int(0, 30), kind=Categorical("a", "b"))


def loss(config: dict[str, Any]) -> Any:
    if config["n"] == 7:
        return Feedback(status="failed", error="of the function")
    return float((config["x"] - 1) ** 2 + config["n"] + (config["kind"] == "b"))


PROBLEM = FunctionProblem(loss, SPACE, [Objective("loss")])


def begin(path: Path, name: str, trials: int, **given: Any) -> Study:
    return Study(
        PROBLEM,  # type: ignore[arg-type]
        optimizer=name,
        store=f"sqlite:///{path}",
        budget=Budget(trials=trials),
        seed=3,
        dedup="reevaluate",
        **given,
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_study_goes_on_with_the_same_configurations(
    name: str, tmp_path: Path
) -> None:
    whole = begin(tmp_path / "whole.db", name, 45)
    whole.run()
    for trials in (13, 17):
        part = begin(tmp_path / "parts.db", name, 45)
        for _ in range(trials):
            trial = part.ask()
            assert trial is not None
            part.tell(trial, loss(trial.config))
    rest = begin(tmp_path / "parts.db", name, 45)
    rest.run()
    assert [t.config for t in rest.trials()] == [t.config for t in whole.trials()]


@pytest.mark.parametrize("name", ["cmaes", "nelder-mead", "de"])
def test_workers_share_a_study(name: str, tmp_path: Path) -> None:
    study = begin(tmp_path / "s.db", name, 30, executor=Local(workers=3))
    study.run()
    configs = [trial.config for trial in study.trials()]
    assert len(configs) == 30
    assert len({SPACE.digest(config) for config in configs}) > 20
