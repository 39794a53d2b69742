"""Rejection sampling, step-wise DPO and reflection each raise success over the start."""

import pytest

from sharpen.align.agents import (
    AgentReport,
    ReflectionMemory,
    StepPair,
    TablePolicy,
    Trajectory,
    collect,
    compare_agents,
    evaluate,
    filter_trajectories,
    step_pairs,
)
from sharpen.align.agents.filtering import best_of, succeeded, unique
from sharpen.align.agents.worlds import CalculatorTask, Rooms

TASKS = range(1000, 1200)


@pytest.fixture(scope="module")
def start() -> AgentReport:
    return evaluate(Rooms, TablePolicy(), TASKS)


@pytest.fixture(scope="module")
def sampled() -> list[Trajectory]:
    return collect(Rooms, TablePolicy(), 4, tasks=range(200))


def test_imitating_what_succeeded(start: AgentReport, sampled: list[Trajectory]) -> None:
    kept = filter_trajectories(sampled, [succeeded(), unique(), best_of(2)])
    assert kept.dropped["succeeded"] > len(kept.kept) > 50
    policy = TablePolicy()
    policy.fit(kept.kept)
    found = compare_agents(evaluate(Rooms, policy, TASKS), start)
    assert found.difference.low > 0.1
    assert found.p < 0.001
    again = filter_trajectories(
        collect(Rooms, policy, 4, tasks=range(200), seed=1), [succeeded(), best_of(2)]
    )
    policy.fit(again.kept)
    assert evaluate(Rooms, policy, TASKS).success.value > start.success.value + 0.2


@pytest.mark.slow
def test_preferring_better_steps(start: AgentReport) -> None:
    branches = collect(Rooms, TablePolicy(), 6, tasks=range(30), explore="branch")
    pairs = step_pairs(branches, margin=0.5, min_visits=5)
    assert len(pairs) > 50
    policy = TablePolicy()
    policy.prefer(pairs)
    found = compare_agents(evaluate(Rooms, policy, TASKS), start)
    assert found.difference.low > 0.1
    assert found.p < 0.001


def test_preferences_move_by_the_gradient_of_the_loss() -> None:
    pair = StepPair(
        goal="g", task=0, steps=(), observation="o", chosen="a", rejected="b", margin=1.0
    )
    policy = TablePolicy()
    policy.table["g", "o"] = {"a": 0.5, "b": 1.0}
    policy.prefer([pair], beta=0.7, rate=2.0, steps=1)
    gain = policy.table["g", "o"]["a"] - 0.5
    assert gain == pytest.approx(2.0 * 0.7 * 0.5)  # -d/dx of -log sigmoid(0.7 x) at 0 is 0.35
    assert policy.table["g", "o"]["b"] == pytest.approx(1.0 - gain)
    policy.prefer([pair] * 3, steps=5)
    assert policy.table["g", "o"]["a"] > policy.table["g", "o"]["b"]


def test_lessons_from_failures(start: AgentReport, sampled: list[Trajectory]) -> None:
    memory = ReflectionMemory()
    assert memory.learn(sampled) > 50
    found = compare_agents(evaluate(Rooms, TablePolicy(), TASKS, memory=memory), start)
    assert found.difference.low > 0
    assert found.p < 0.01


def test_another_world_is_learned_by_the_same_means() -> None:
    tries = collect(CalculatorTask, TablePolicy(), 200, tasks=range(10))
    kept = filter_trajectories(tries, [succeeded(), best_of(1)])
    policy = TablePolicy()
    policy.fit(kept.kept, prior=0.01)
    before = evaluate(CalculatorTask, TablePolicy(), range(10))
    after = evaluate(CalculatorTask, policy, range(10))
    assert len(kept.kept) >= 5
    assert after.success.value >= before.success.value + 0.4
