"""Studies of problems with a fidelity or with contexts, and what trials are tried again for."""

import json
import os
import signal
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from sharpen.core.command import CommandProblem
from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities, Proposal, make_optimizer
from sharpen.core.problem import Fidelity, TrialContext
from sharpen.core.space import random_stream
from sharpen.core.study import Budget, Study
from sharpen.search import Random

SPACE = sh.Space(x=sh.Float(0, 1))
EPOCHS = Fidelity("epochs", 1, 9, integer=True)
WEATHER = sh.Space(rain=sh.Float(0, 1), wind=sh.Int(0, 3))


class Coarse(Random):
    """Measures every other trial at the lowest fidelity."""

    name = "coarse"
    capabilities = Capabilities(fidelity=True)

    def propose(self, number: int) -> Proposal:
        assert self.fidelity is not None
        fidelity = self.fidelity.low if number % 2 else None
        return Proposal(config={"x": 0.1 * (number // 2)}, fidelity=fidelity)


class Minded(Random):
    """Takes the weather it is told, or chooses one."""

    name = "minded"
    capabilities = Capabilities(context=True)

    def propose(self, number: int) -> Proposal:
        assert self.contexts is not None
        rng = random_stream(self.seed, number)
        return Proposal(config=self.space.draw(rng), context=self.contexts.draw(rng))

    def propose_in(self, context: Mapping[str, Any], number: int) -> dict[str, Any]:
        return {"x": float(context["rain"])}


@sh.problem(SPACE, minimize="loss", fidelity=EPOCHS)
def learning(config: dict[str, Any], trial: TrialContext) -> float:
    epochs = EPOCHS.high if trial.fidelity is None else trial.fidelity
    return float(config["x"]) - (9 - epochs)


@sh.problem(SPACE, minimize="loss", contexts=WEATHER)
def walking(config: dict[str, Any], trial: TrialContext) -> float:
    return float(abs(config["x"] - trial.context["rain"]) + trial.context["wind"])


def test_only_what_measured_the_truth_is_best(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    study = Study(learning, optimizer=Coarse, store=store, budget=Budget(trials=6)).run()
    trials = study.trials()
    assert [t.fidelity for t in trials] == [None, 1.0] * 3
    assert [t.value for t in trials] == pytest.approx([0, -8, 0.1, -7.9, 0.2, -7.8])
    assert study.best.number == 0
    assert study.optimizer.recommend().config == {"x": 0.0}
    assert [t.number for t in study.pareto()] == [0]
    assert trials[1].to_dict()["fidelity"] == 1.0
    view = Study.load(store, "learning")
    assert view.fidelity == EPOCHS
    assert view.best.number == 0
    assert [t.fidelity for t in view.trials()] == [None, 1.0] * 3


def test_workers_measure_at_the_fidelity_asked_for(tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": Coarse, "budget": Budget(trials=6)}
    alone = Study(learning, store=tmp_path / "a.db", **options).run()
    shared = Study(learning, store=tmp_path / "b.db", workers=2, **options).run()
    assert [t.values for t in shared.trials()] == [t.values for t in alone.trials()]


def test_a_fidelity_knows_its_range_and_cost() -> None:
    assert EPOCHS.check(3) == 3
    assert EPOCHS.cost(9) == 1
    assert Fidelity("size", 0, 1, overhead=0.5).cost(0) == 0.5
    assert Fidelity("source", 0, 2, integer=True, costs=(1, 5, 10)).cost(1) == 0.5
    for value in (0, 10, 2.5, float("nan")):
        with pytest.raises(ConfigError, match="epochs must be a whole number from 1 to 9"):
            EPOCHS.check(value)


@pytest.mark.parametrize(
    "options",
    [
        {"low": 2, "high": 1},
        {"low": 0, "high": 1, "log": True},
        {"low": 0.5, "high": 2, "integer": True},
        {"low": 0, "high": 1, "overhead": 1},
        {"low": -1, "high": 1},
        {"low": 0, "high": 2, "integer": True, "costs": (1, 2)},
        {"low": 0, "high": 2, "costs": (1, 2, 3)},
    ],
)
def test_fidelities_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Fidelity"):
        Fidelity("f", **options)


def test_an_optimizer_chooses_conditions_or_is_told_them(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    study = Study(walking, optimizer=Minded, store=store, budget=Budget(trials=4))
    told = study.ask(context={"rain": 0.25, "wind": 2})
    assert told is not None
    assert (told.config, told.context) == ({"x": 0.25}, {"rain": 0.25, "wind": 2})
    study.tell(told, 2.0)
    study.run()
    trials = study.trials()
    for trial in trials[1:]:
        assert WEATHER.validate(trial.context) == trial.context
        expected = abs(trial.config["x"] - trial.context["rain"]) + trial.context["wind"]
        assert trial.value == pytest.approx(expected)
    assert [t.context for t in Study.load(store, "walking").trials()] == [t.context for t in trials]
    with pytest.raises(ConfigError, match="another space of contexts"):
        Study(
            sh.problem(SPACE, learning.function, minimize="loss", fidelity=EPOCHS, name="walking"),
            optimizer=Random,
            store=sqlite_copy(store, tmp_path / "t.db"),
        )


def sqlite_copy(source: Path, target: Path) -> Path:
    """The same study without a fidelity to differ in."""
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
        spec = '{"optimizer":"minded","fidelity":{"name":"epochs","low":1,"high":9,"integer":true}}'
        spec = spec[:-1] + ',"contexts":' + json.dumps(WEATHER.to_dict()) + "}"
        new.execute("UPDATE study SET spec = ?", (spec,))
    return target


def test_a_problem_may_observe_its_conditions() -> None:
    class Observed(type(walking)):  # type: ignore[misc]
        def observe(self, number: int, seed: int) -> dict[str, Any]:
            return {"rain": number / 4, "wind": seed % 4}

    problem = Observed(
        walking.function, SPACE, walking.objectives, name="seen", contexts=walking.contexts
    )
    study = Study(problem, optimizer=Minded, store="sqlite://", budget=Budget(trials=4)).run()
    assert [t.config["x"] for t in study.trials()] == [0, 0.25, 0.5, 0.75]
    assert [t.context["wind"] for t in study.trials()] == [t.seed % 4 for t in study.trials()]


def test_contexts_need_an_optimizer_that_minds_them() -> None:
    with pytest.raises(ConfigError, match="'random' cannot handle contexts"):
        Study(walking, optimizer="random", store="sqlite://")

    def f(space: Any, objectives: Any, constraints: Any, *, seed: int) -> Random:
        return Random(space, objectives, constraints, seed=seed)

    with pytest.raises(ConfigError, match="'f' cannot handle contexts"):
        Study(walking, optimizer=f, store="sqlite://")
    with pytest.raises(ConfigError, match="a problem without contexts"):
        Random(SPACE).ask(context={"rain": 1})
    with pytest.raises(ConfigError, match="unknown parameter 'snow'"):
        Minded(SPACE, contexts=WEATHER).ask(context={"snow": 1})
    with pytest.raises(ConfigError, match=r"must take \(config, trial\)"):
        sh.problem(SPACE, lambda c: 1.0, minimize="v", contexts=WEATHER)


def test_what_ended_badly_is_tried_again_where_that_is_asked_for() -> None:
    attempts: list[tuple[int, int]] = []

    @sh.problem(SPACE, minimize="v")
    def flaky(config: dict[str, Any], trial: TrialContext) -> float:
        attempts.append((trial.number, trial.attempt))
        if trial.attempt < 3 - trial.number:
            raise ValueError("not yet")
        return float(config["x"])

    def run(**options: Any) -> Study:
        attempts.clear()
        study = Study(
            flaky, optimizer="random", store="sqlite://", budget=Budget(trials=3), **options
        )
        return study.run()

    assert run(retry=["failed"]).counts() == {"ok": 3}
    assert attempts == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)]
    assert run(retry=["failed"], max_attempts=2).counts() == {"ok": 2, "failed": 1}
    assert run(retry=["timeout"]).counts() == {"ok": 1, "failed": 2}
    with pytest.raises(ConfigError, match="retry takes killed, failed and timeout, got 'ok'"):
        run(retry=["ok"])


def test_a_killed_worker_or_program_is_no_failure_of_the_trial(tmp_path: Path) -> None:
    def suicidal(config: dict[str, Any], trial: TrialContext) -> float:
        if trial.attempt <= trial.number % 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(config["x"])

    problem = sh.problem(SPACE, suicidal, minimize="v")
    options: dict[str, Any] = {"optimizer": "random", "workers": 2, "budget": Budget(trials=6)}
    study = Study(problem, store=tmp_path / "s.db", **options).run()
    assert [(t.state, t.attempt) for t in study.trials()] == [("ok", 1 + n % 3) for n in range(6)]
    strict = Study(problem, store=tmp_path / "t.db", retry=(), **options).run()
    assert strict.counts() == {"ok": 2, "failed": 4}
    (tmp_path / "p.py").write_text(
        "import os, pathlib, sys\nbegun = pathlib.Path('begun' + sys.argv[1])\n"
        "if not begun.exists(): begun.touch(); os.kill(os.getpid(), 9)\nprint('{\"v\": 1}')\n"
    )
    program = CommandProblem("python p.py {trial} {x}", SPACE, problem.objectives, folder=tmp_path)
    study = Study(program, store=tmp_path / "p.db", **options).run()
    assert [(t.state, t.attempt) for t in study.trials()] == [("ok", 2)] * 6


def test_no_configuration_is_tried_twice_where_that_is_forbidden() -> None:
    space = sh.Space(a=sh.Int(1, 3), b=sh.Bool())
    problem = sh.problem(space, lambda c: float(c["a"]), minimize="v", name="few")
    study = Study(problem, optimizer="random", store="sqlite://", dedup="forbid").run()
    configs = [tuple(t.config.values()) for t in study.trials()]
    assert len(configs) == len(set(configs)) == 6
    assert study.run().counts() == {"ok": 6}


def test_a_study_ends_once_its_trials_cost_too_much() -> None:
    def paid(config: dict[str, Any]) -> sh.Feedback:
        return sh.Feedback(objectives={"v": config["x"]}, cost={"usd": 0.4})

    problem = sh.problem(SPACE, paid, minimize="v")
    study = Study(problem, optimizer="random", store="sqlite://", budget=Budget(cost={"usd": 1}))
    assert len(study.run().trials()) == 3
    with pytest.raises(ConfigError, match="usd must be positive"):
        Budget(cost={"usd": 0})


def test_options_of_an_optimizer_are_given_by_name() -> None:
    class Sized(Random):
        def __init__(self, *arguments: Any, size: int = 3, **given: Any) -> None:
            super().__init__(*arguments, **given)
            self.size = size

    made = make_optimizer(Sized, SPACE, learning.objectives, seed=4, budget=50)
    assert (made.seed, made.budget) == (4, 50)
    assert isinstance(made, Sized)
    with pytest.raises(
        ConfigError, match=r"'random' has no option 'bugdet'\. Did you mean 'budget'"
    ):
        make_optimizer({"name": "random", "bugdet": 1}, SPACE, learning.objectives)
    named = make_optimizer({"name": "random", "budget": 7}, SPACE, learning.objectives)
    assert named.budget == 7


def test_a_store_of_the_first_format_is_read_and_written_on(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    plain = sh.problem(SPACE, lambda c: float(c["x"]), minimize="v", name="plain")
    options: dict[str, Any] = {"optimizer": "random", "store": path}
    before = Study(plain, budget=Budget(trials=3), **options).run().trials()
    with sqlite3.connect(path) as old:
        old.execute("ALTER TABLE trial DROP COLUMN fidelity")
        old.execute("ALTER TABLE trial DROP COLUMN context")
        old.execute("PRAGMA user_version = 1")
    study = Study(plain, budget=Budget(trials=5), **options).run()
    assert study.trials()[:3] == before
    assert len(study.trials()) == 5
    with sqlite3.connect(path) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (2,)
