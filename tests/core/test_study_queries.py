"""Bounded answers equal what all trials say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharpen as sh
from sharpen.core.problem import Fidelity, Objective, TrialContext
from sharpen.core.study_queries import StudyQueries

SPACE = sh.Space(x=sh.Float(0, 1), n=sh.Int(1, 9))


def made(tmp_path: Path, trials: int = 60, **goals: Any) -> sh.Study:
    def function(config: dict[str, Any], trial: TrialContext) -> dict[str, float]:
        trial.report(1, 0.5)
        if trial.number % 7 == 3:
            raise ValueError("bad luck")
        return {"v": config["x"], "w": config["n"]}

    problem = sh.problem(SPACE, function, name="q", **(goals or {"minimize": "v"}))
    return sh.Study(
        problem, optimizer="random", store=tmp_path / "q.db", budget=sh.Budget(trials=trials)
    ).run()


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_the_history_is_that_of_all_good_trials(tmp_path: Path, goal: str) -> None:
    study = made(tmp_path, **{goal: "v"}, constraints=["w <= 7", "w > 1"])
    good = [t for t in study.trials() if t.is_ok and t.feasible]
    assert 20 < len(good) < 50
    found = StudyQueries(study).history(study.objectives[0])
    assert found["number"] == [t.number for t in good]
    assert found["value"] == [t.values["v"] for t in good]
    running = np.minimum if goal == "minimize" else np.maximum
    np.testing.assert_array_equal(found["best"], running.accumulate(found["value"]))
    thin = StudyQueries(study).history(study.objectives[0], points=10)
    bests = [n for n, v, b in zip(*found.values(), strict=True) if v == b]
    assert set(bests) <= set(thin["number"])
    assert len(thin["number"]) <= 20
    assert set(zip(*thin.values(), strict=True)) <= set(zip(*found.values(), strict=True))


def test_the_sample_has_the_best_and_others_spread_evenly(tmp_path: Path) -> None:
    study = made(tmp_path)
    rows = StudyQueries(study).sample(points=16)
    good = [t for t in study.trials() if t.is_ok]
    best = sorted(good, key=lambda t: t.value)[:4]
    assert {t.number for t in best} <= {r["number"] for r in rows}
    assert 12 <= len(rows) <= 17
    by_number = {t.number: t for t in good}
    for row in rows:
        trial = by_number[row["number"]]
        assert row["config"] == trial.config
        assert row["values"] == trial.values
    whole = StudyQueries(study).sample()
    assert [r["number"] for r in whole] == sorted(by_number)
    assert [t.values for t in StudyQueries(study).as_trials()] == [t.values for t in good]


def test_pages_details_and_counts(tmp_path: Path) -> None:
    study = made(tmp_path)
    queries = StudyQueries(study)
    assert queries.counts() == study.counts()
    pages = [queries.trials(offset=k, limit=25) for k in (0, 25, 50, 75)]
    numbers = [[row["number"] for row in page] for page in pages]
    assert numbers == [[*range(59, 34, -1)], [*range(34, 9, -1)], [*range(9, -1, -1)], []]
    assert {row["state"] for row in queries.trials(state="failed", limit=100)} == {"failed"}
    detail = queries.trial(3)
    assert detail is not None
    assert "bad luck" in detail["error"]
    assert detail["trace"] == [[1, 0.5]]
    assert queries.trial(60) is None
    assert [row["number"] for row in queries.timeline(last=5)] == [55, 56, 57, 58, 59]


def test_the_version_changes_as_trials_begin_and_end(tmp_path: Path) -> None:
    study = made(tmp_path, 5)
    study.budget = sh.Budget(trials=6)
    queries = StudyQueries(study)
    first = queries.version()
    assert queries.version() == first
    trial = study.ask()
    second = queries.version()
    assert trial is not None
    study.tell(trial, {"v": 1.0, "w": 1})
    assert len({first, second, queries.version()}) == 3


def test_only_the_truth_counts(tmp_path: Path) -> None:
    problem = sh.problem(
        SPACE, lambda c, trial: c["x"], minimize="v", name="f", fidelity=Fidelity("e", 1, 3)
    )
    study = sh.Study(
        problem, optimizer="random", store=tmp_path / "f.db", budget=sh.Budget(trials=4)
    )
    study.run()
    with study.store._database.write() as connection:
        connection.exec_driver_sql("UPDATE trial SET fidelity = number WHERE number > 0")
    assert StudyQueries(study).history(Objective("v"))["number"] == [0, 3]
