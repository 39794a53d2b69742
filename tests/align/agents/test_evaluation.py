import json
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from sharpen.align.agents import Step, TablePolicy, Trajectory, compare_agents, evaluate, report_of
from sharpen.align.agents.worlds import CalculatorTask
from sharpen.core.errors import DataError

STEP = Step(observation="o", action="a", cost=2.0, time_s=0.5)
WON = Trajectory(goal="g", steps=(STEP, STEP), success=True, reward=1.0)
LOST = replace(WON, success=False, reward=0.0, steps=(replace(STEP, is_violation=True),))


def test_a_report_has_all_that_was_measured() -> None:
    found = report_of([WON, WON, WON, LOST])
    interval = binomtest(3, 4).proportion_ci(method="wilson")
    assert (found.success.value, found.success.low, found.success.high) == pytest.approx(
        (0.75, interval.low, interval.high)
    )
    assert (found.steps, found.cost, found.violations) == (1.75, 3.5, 0.25)
    assert found.time_s == pytest.approx(0.875)
    assert "success 0.750" in found.summary()
    assert json.loads(json.dumps(found.to_json()))["wins"] == [True, True, True, False]
    with pytest.raises(DataError, match="no trajectories"):
        report_of([])


def test_two_policies_are_compared_on_the_same_tasks() -> None:
    tasks = [replace(WON, task=i) for i in range(12)]
    better = report_of(tasks)
    worse = report_of([replace(LOST, task=i) if i < 8 else tasks[i] for i in range(12)])
    found = compare_agents(better, worse)
    assert found.p == pytest.approx(binomtest(8, 8).pvalue)
    assert found.difference.value == pytest.approx(8 / 12)
    with pytest.raises(DataError, match="same tasks"):
        compare_agents(better, report_of(tasks[:3]))


def test_calls_that_are_none_count_as_violations() -> None:
    found = evaluate(CalculatorTask, TablePolicy(), range(20))
    assert found.violations == 0.0
    assert found.tasks == tuple(range(20))
