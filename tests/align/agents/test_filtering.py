import pytest

from sharpen.align.agents import Rule, Step, Trajectory, filter_trajectories
from sharpen.align.agents.filtering import (
    best_of,
    difficulty,
    judged,
    max_steps,
    min_reward,
    no_violation,
    succeeded,
    unique,
    without,
)
from sharpen.core.errors import ConfigError


def made(task: int, actions: str, reward: float, *, bad: bool = False) -> Trajectory:
    steps = tuple(Step(observation="o", action=a, is_violation=bad) for a in actions)
    return Trajectory(goal="g", steps=steps, success=reward > 0, reward=reward, task=task)


SOME = [
    made(0, "ab", 1.0),
    made(0, "ab", 1.0),
    made(0, "abc", 1.0),
    made(0, "x", 0.0),
    made(1, "xy", 0.0),
    made(1, "z", 0.5, bad=True),
    made(2, "q", 2.0),
]


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (succeeded(), [0, 1, 2, 5, 6]),
        (min_reward(1.0), [0, 1, 2, 6]),
        (max_steps(2), [0, 1, 3, 4, 5, 6]),
        (no_violation(), [0, 1, 2, 3, 4, 6]),
        (without("[xz]"), [0, 1, 2, 6]),
        (judged(lambda one: len(one.steps), 2), [0, 1, 2, 4]),
        (unique(), [0, 2, 3, 4, 5, 6]),
        (best_of(2), [0, 1, 4, 5, 6]),
        (difficulty(0.4, 0.8), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_each_rule(rule: Rule, left: list[int]) -> None:
    found = filter_trajectories(SOME, [rule])
    assert [id(one) for one in found.kept] == [id(SOME[i]) for i in left]
    assert found.dropped == {rule.name: len(SOME) - len(left)}


def test_rules_apply_in_order_with_a_count_for_each() -> None:
    found = filter_trajectories(SOME, [succeeded(), unique(), best_of(1)])
    assert found.dropped == {"succeeded": 2, "unique": 1, "best 1": 1}
    assert [one.task for one in found.kept] == [0, 1, 2]


def test_wrong_rules_are_named() -> None:
    with pytest.raises(ConfigError, match="name 'unique'"):
        filter_trajectories(SOME, [unique(), unique()])
    with pytest.raises(ConfigError, match="'half' gave 1 answers for 7"):
        filter_trajectories(SOME, [Rule("half", lambda some: [True])])
    for wrong in (lambda: best_of(0), lambda: difficulty(0.8, 0.2)):
        with pytest.raises(ConfigError):
            wrong()
