"""Sweeps: every experiment once, resumed, and tables by the formula."""

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.problem import Objective
from sharpen.core.store import open_store
from sharpen.problems.synthetic import synthetic
from sharpen.search import Sweep, sweep
from sharpen.search.sweep import Experiment, settings_of


class Bowl:
    """Counts its evaluations; maximized at 3/4."""

    def __init__(self, name: str = "bowl", breaks_at: int | None = None) -> None:
        self.name = name
        self.space = sh.Space(x=sh.Float(0, 1), kind=sh.Categorical("a", "b", "c"))
        self.objectives = (Objective("score", "max"),)
        self.constraints = ()
        self.calls, self.breaks_at = 0, breaks_at

    def evaluate(self, config: dict[str, Any], trial: Any) -> float:
        self.calls += 1
        if self.calls == self.breaks_at:
            raise KeyboardInterrupt
        return 1 - (config["x"] - 0.75) ** 2 - 0.1 * "abc".index(config["kind"])


def test_each_setting_runs_with_each_seed_and_every_trial_is_kept(tmp_path: Path) -> None:
    problem = Bowl()
    seen: list[Experiment] = []
    found = sweep(
        problem,
        {"ga": {"population": [4, 8], "elite": [0, 1]}, "random": [{}]},
        budget=12,
        seeds=2,
        store=tmp_path / "s.db",
        on_experiment=seen.append,
    )
    assert len(found.experiments) == (4 + 1) * 2
    assert tuple(seen) == found.experiments
    records = open_store(tmp_path / "s.db").studies()
    assert sorted(r.name for r in records) == sorted(e.study for e in found.experiments)
    assert all(sum(r.counts.values()) == 12 for r in records)
    for e in found.experiments:
        study = sh.Study.load(tmp_path / "s.db", e.study)
        values = [t.values["score"] for t in study.trials()]
        assert e.best == max(values)
        assert e.designs == len({study.space.digest(t.config) for t in study.trials()})
        assert e.trials == 12
    record = next(r for r in records if "/ga/" in r.name)
    assert record.spec["source"]["sweep"]["algorithm"] == "ga"


def test_the_same_call_adds_nothing_and_a_larger_budget_what_lacks(tmp_path: Path) -> None:
    call: dict[str, Any] = {"algorithms": {"random": [{}], "ga": 2}, "seeds": [0, 5]}
    first = Bowl()
    one = sweep(first, budget=10, store=tmp_path / "s.db", **call)
    again = Bowl()
    two = sweep(again, budget=10, store=tmp_path / "s.db", **call)
    assert again.calls == 0
    assert one == two
    more = Bowl()
    sweep(more, budget=15, store=tmp_path / "s.db", **call)
    assert 0 < more.calls <= 5 * 6
    assert sweep(Bowl(), budget=10, store=tmp_path / "s.db", **call) == one


def test_an_interrupted_sweep_goes_on_to_the_same_result(tmp_path: Path) -> None:
    call: dict[str, Any] = {"algorithms": {"de": 3, "random": [{}]}, "budget": 12, "seeds": 2}
    whole = sweep(Bowl(), store=tmp_path / "whole.db", **call)
    with pytest.raises(sh.core.errors.Interrupted):
        sweep(Bowl(breaks_at=30), store=tmp_path / "s.db", **call)
    rest = Bowl()
    found = sweep(rest, store=tmp_path / "s.db", **call)
    assert rest.calls < 8 * 12 - 25
    assert [e.best for e in found.experiments] == [e.best for e in whole.experiments]


def test_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    problems = [synthetic("branin"), synthetic("hartmann3")]
    call: dict[str, Any] = {"algorithms": {"random": [{}], "pso": 2}, "budget": 8, "seeds": 1}
    one = sweep(problems, store=tmp_path / "one.db", **call)
    two = sweep(problems, store=tmp_path / "two.db", workers=2, **call)
    assert [(e.study, e.best) for e in one.experiments] == [
        (e.study, e.best) for e in two.experiments
    ]


def experiments(scores: dict[str, list[list[float | None]]]) -> tuple[Experiment, ...]:
    """By algorithm, a list of values by seed for each setting."""
    return tuple(
        Experiment("p", name, {"k": k}, seed, f"{name}{k}{seed}", value, 10, 9, 1.0)
        for name, settings in scores.items()
        for k, values in enumerate(settings)
        for seed, value in enumerate(values)
    )


@pytest.mark.parametrize("direction", ["min", "max"])
def test_tables_are_by_the_formula(direction: Any) -> None:
    rng = np.random.default_rng(4)
    values = {name: rng.normal(size=(5, 3)) for name in ("a", "b")}
    found = Sweep(
        experiments({name: v.tolist() for name, v in values.items()}), Objective("y", direction)
    )
    rows = {row["algorithm"]: row for row in found.table()}
    pick = np.min if direction == "min" else np.max
    for name, v in values.items():
        q1, median, q3 = np.percentile(v, [25, 50, 75])
        assert rows[name]["best"] == pick(v)
        assert rows[name]["median"] == pytest.approx(median)
        assert rows[name]["iqr"] == pytest.approx(q3 - q1)
        assert (rows[name]["experiments"], rows[name]["trials"]) == (15, 150)
    settings = found.table(by="setting")
    assert len(settings) == 10
    medians = [row["median"] for row in settings]
    assert medians == sorted(medians, reverse=direction == "max")
    [lottery] = found.lottery()
    scores = {name: np.median(v, axis=1) for name, v in values.items()}
    assert lottery.within == {n: pytest.approx(np.ptp(s)) for n, s in scores.items()}
    tuned = [pick(s) for s in scores.values()]
    assert lottery.between_tuned == pytest.approx(abs(tuned[0] - tuned[1]))
    middle = [np.median(s) for s in scores.values()]
    assert lottery.between_medians == pytest.approx(abs(middle[0] - middle[1]))
    within = statistics.median(lottery.within.values())
    assert lottery.holds is bool(within > lottery.between_tuned)
    assert "between tuned families" in found.summary()


def test_what_failed_is_told_and_left_out() -> None:
    found = Sweep(experiments({"a": [[1.0, None]], "b": [[None, None]]}), Objective("y"))
    a, b = found.table()
    assert (a["failed"], a["median"], a["iqr"]) == (1, 1.0, 0.0)
    assert (b["failed"], b["best"], b["median"]) == (2, None, None)
    assert " - " in found.summary()
    with pytest.raises(ConfigError, match="needs two with values"):
        found.lottery()
    with pytest.raises(ConfigError, match="by='seed'"):
        found.table(by="seed")


def test_settings_are_lists_grids_or_drawn() -> None:
    assert settings_of("ga", [{"elite": 1}, {"elite": 1}]) == [{"elite": 1}]
    grid = settings_of("ga", {"elite": [0, 1], "tournament": [2, 3, 4]})
    assert len(grid) == 6
    assert {"elite": 1, "tournament": 3} in grid
    drawn = settings_of("ga", 12)
    assert drawn == settings_of("ga", 12)
    assert drawn[0] == {}
    assert len(drawn) == 12
    space = sh.search.GA.hyperparameters
    assert all(space.validate(options) == options for options in drawn[1:])
    assert settings_of("random", 1) == [{}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithms": {"gaa": [{}]}}, "no optimizer 'gaa'"),
        ({"algorithms": {"ga": [{"elites": 1}]}}, "no option 'elites'"),
        ({"algorithms": {"random": 3}}, "3 settings of 'random' cannot be drawn"),
        ({"algorithms": {"ga": []}}, "has no settings to try"),
        ({"budget": 0}, "at least 1"),
        ({"seeds": 0}, "needs a seed"),
        ({"problem": [Bowl(), Bowl()]}, "names of their own"),
        ({"problem": [Bowl(), synthetic("branin")]}, "one objective, the same"),
        ({"workers": 2, "store": "sqlite://"}, "need a store in a file"),
    ],
)
def test_wrong_sweeps_are_told_before_anything_runs(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    call: dict[str, Any] = {"problem": Bowl(), "algorithms": ["random"], "store": tmp_path / "s.db"}
    with pytest.raises(ConfigError, match=message):
        sweep(**{**call, **change})


def test_a_problem_that_always_fails_ends_the_sweep(tmp_path: Path) -> None:
    class Broken(Bowl):
        def evaluate(self, config: dict[str, Any], trial: Any) -> float:
            return math.nan

    with pytest.raises(ExecutionError, match="all failed"):
        sweep(Broken(), "random", budget=10, store=tmp_path / "s.db")
