import math
from typing import ClassVar

import numpy as np
import pytest

from sharpen.core.feedback import Feedback, Status, Trial
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search.generations import Generation, GenerationalOptimizer, merit_keys, no_worse
from sharpen.search.observations import Floats

SPACE = Space(x=Float(0, 1))


class Counter(GenerationalOptimizer):
    """Generations of three; generation g is planned at 0.1 (g + 1), strays are at 0.9."""

    name: ClassVar[str] = "counter"
    capabilities = GenerationalOptimizer.capabilities.__class__(constraints=True)

    def begin(self) -> None:
        self.absorbed: list[Generation] = []
        self.start = self.best_elsewhere()

    def plan(self, first: int) -> Floats:
        assert first == 3 * len(self.absorbed)
        base = 0.1 * (len(self.absorbed) + 1)
        return np.round(base + 0.01 * np.arange(3.0)[:, None], 6)

    def absorb(self, generation: Generation) -> None:
        self.absorbed.append(generation)

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        return np.array([0.9 + 0.01 * (number % 7)])


def told(number: int, x: float, value: float = 1.0, **given: float) -> Trial:
    feedback = Feedback(objectives={"value": value})
    return Trial(
        number=number,
        config={"x": x},
        state="ok",
        feedback=feedback,
        fidelity=given.get("fidelity"),
    )


def test_a_generation_is_planned_once_the_one_before_is_complete() -> None:
    optimizer = Counter(SPACE)
    candidates = optimizer.ask(4)
    assert [round(c.config["x"], 6) for c in candidates] == [0.1, 0.11, 0.12, 0.93]
    for k in (3, 1, 0):
        optimizer.tell([candidates[k].result(float(k))])
        assert optimizer.ask(number=20)[0].config["x"] > 0.89
    optimizer.abandon([20])
    optimizer.tell([candidates[2].result(2.0)])
    assert optimizer.propose(4)["x"] == pytest.approx(0.21)
    [generation] = optimizer.absorbed
    assert generation.places.tolist() == [0, 1, 2]
    np.testing.assert_allclose(generation.x[:, 0], [0.1, 0.11, 0.12])
    np.testing.assert_allclose(generation.loss, [0, 1, 2])
    assert generation.planned.all()


def test_strays_and_choices_of_others_count_at_their_own_coordinates() -> None:
    optimizer = Counter(SPACE)
    optimizer.tell([told(0, 0.1), told(1, 0.75), told(2, 0.12), told(3, 0.93), told(4, 0.21)])
    optimizer.tell([told(5, 0.22)])
    optimizer.propose(6)
    first, second = optimizer.absorbed
    assert first.planned.tolist() == [True, False, True]
    np.testing.assert_allclose(first.x[:, 0], [0.1, 0.75, 0.12])
    assert second.planned.tolist() == [False, True, True]
    assert first.mask.all()


def test_a_trial_that_is_lost_is_waited_for_until_as_many_later_ones_have_ended() -> None:
    optimizer = Counter(SPACE)
    optimizer.tell([told(0, 0.1), told(2, 0.12)])
    for number in (3, 4):
        optimizer.tell([told(number, 0.9)])
        optimizer.propose(9)
        assert optimizer.absorbed == []
    optimizer.tell([told(5, 0.9)])
    optimizer.propose(9)
    assert [g.places.tolist() for g in optimizer.absorbed] == [[0, 2], [0, 1, 2]]
    # It runs after all: its generation is open again.
    optimizer.tell([Trial(number=1, config={"x": 0.11})])
    optimizer.propose(9)
    assert optimizer.absorbed == []
    optimizer.tell([told(1, 0.11)])
    optimizer.propose(9)
    assert [g.places.tolist() for g in optimizer.absorbed] == [[0, 1, 2]] * 2


def test_a_pending_trial_is_waited_for_however_late() -> None:
    optimizer = Counter(SPACE)
    optimizer.ask(1)
    optimizer.tell(told(n, 0.5) for n in range(1, 40))
    optimizer.propose(40)
    assert optimizer.absorbed == []


def test_the_state_is_built_again_only_when_the_past_changes() -> None:
    optimizer = Counter(SPACE)
    trials = [told(n, 0.5, float(n)) for n in range(9)]
    optimizer.tell(trials)
    optimizer.propose(9)
    state = optimizer.absorbed
    assert len(state) == 3
    optimizer.tell(trials)  # the same again
    optimizer.propose(9)
    assert optimizer.absorbed is state
    optimizer.tell([told(4, 0.5, -1.0)])
    optimizer.propose(9)
    assert optimizer.absorbed is not state
    np.testing.assert_allclose(optimizer.absorbed[1].loss, [3, -1, 5])
    optimizer.tell([told(-1, 0.25, 0.0), told(-2, 0.5, 1.0)])
    optimizer.propose(9)
    assert optimizer.start is not None
    np.testing.assert_allclose(optimizer.start, [0.25])


def test_keys_order_feasible_infeasible_and_failed_trials() -> None:
    limit, fidelity = Constraint("c", "<=", 1.0), Fidelity("epochs", 1, 9)
    optimizer = Counter(SPACE, [Objective("value", "max")], [limit], fidelity=fidelity)

    def trial(
        number: int, value: float, c: float, status: Status = "ok", fidelity: float | None = None
    ) -> Trial:
        feedback = Feedback(objectives={"value": value}, constraints={"c": c}, status=status)
        return Trial(
            number=number,
            config={"x": 0.5},
            state=feedback.status,
            feedback=feedback,
            fidelity=fidelity,
        )

    optimizer.tell([
        trial(0, 5.0, 0.0), trial(1, 7.0, 1.0, fidelity=9.0), trial(2, 99.0, 3.0),
        trial(3, 99.0, 0.0, fidelity=3.0), trial(4, 99.0, 0.0, status="pruned"),
        trial(5, math.nan, 0.0),
    ])  # fmt: skip
    keys = merit_keys(optimizer, range(6))
    np.testing.assert_array_equal(keys, [[0, -5], [0, -7], [1, 2], [2, 0], [2, 0], [2, 0]])
    generation = Generation(
        np.arange(6),
        np.zeros((6, 1)),
        np.ones((6, 1), bool),
        np.ones(6, bool),
        keys,
        optimizer.seen.loss,
    )
    assert generation.order.tolist() == [1, 0, 2, 3, 4, 5]
    np.testing.assert_array_equal(generation.loss, [-5, -7, *[np.nan] * 4])
    assert no_worse(keys[[1, 0, 3, 2]], keys[[0, 1, 4, 1]]).tolist() == [True, False, True, False]
