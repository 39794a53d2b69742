import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sharpen as sh
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.optimizer import Candidate
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search import Hyperband, SuccessiveHalving
from sharpen.search.successive_halving import bracket_sizes
from sharpen.testing import OptimizerConformance

LINE = Space(x=Float(0, 1))
EPOCHS = Fidelity("epochs", 1, 9, integer=True)
LONG = Fidelity("epochs", 1, 81, integer=True)


def on_a_ladder(
    space: Space,
    objectives: Sequence[Objective] = (Objective("value"),),
    constraints: Sequence[Constraint] = (),
    *,
    seed: int = 0,
) -> Hyperband:
    return Hyperband(space, objectives, constraints, seed=seed, fidelity=EPOCHS)


class TestSuccessiveHalving(OptimizerConformance):
    optimizer = SuccessiveHalving


class TestHyperband(OptimizerConformance):
    optimizer = Hyperband


class TestHyperbandOnALadder(OptimizerConformance):
    optimizer = staticmethod(on_a_ladder)
    regret = 5.0  # most of its trials are cheap ones, of which the best are repeated


def test_brackets_are_those_of_the_paper() -> None:
    # Li et al., JMLR 2018: R = 81, eta = 3, n by algorithm 1.
    assert {s: bracket_sizes(s, 4, 3) for s in range(5)} == {
        4: [81, 27, 9, 3, 1],
        3: [34, 11, 3, 1],
        2: [15, 5, 1],
        1: [8, 2],
        0: [5],
    }


@given(st.integers(0, 6), st.integers(2, 6))
def test_sizes_are_the_formula_in_real_numbers(s_max: int, eta: int) -> None:
    for s in range(s_max + 1):
        n = math.ceil((s_max + 1) / (s + 1) * eta**s - 1e-9)
        assert bracket_sizes(s, s_max, eta) == [math.floor(n / eta**i + 1e-9) for i in range(s + 1)]


def _round(optimizer: Any, trials: int) -> list[Trial]:
    told = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        told.append(candidate.result(candidate.config["x"]))
        optimizer.tell(told[-1:])
    return told


def test_a_round_of_hyperband_is_the_table_in_its_order() -> None:
    told = _round(Hyperband(LINE, fidelity=LONG), 206)
    table = {s: bracket_sizes(s, 4, 3) for s in (4, 3, 2, 1, 0)}
    wanted = [
        81 / 3 ** (s - i) for s, n in table.items() for i in range(s + 1) for _ in range(n[i])
    ]
    assert [t.fidelity for t in told] == wanted
    cost = sum(LONG.cost(t.fidelity or 0) for t in told)
    assert cost == pytest.approx(sum(level / 81 for level in wanted))
    # Each bracket costs at most (s_max + 1) R and the rounding up of n.
    assert cost <= 5 * 5 + sum((s + 1) / 3**s for s in range(5))


def test_the_best_of_each_rung_climb_in_their_order() -> None:
    told = _round(SuccessiveHalving(LINE, fidelity=LONG, seed=3), 121)
    below = sorted((t for t in told if t.fidelity == 1), key=lambda t: t.value)
    for level, n in ((3, 27), (9, 9), (27, 3), (81, 1)):
        rung = [t for t in told if t.fidelity == level]
        assert [t.config for t in rung] == [t.config for t in below[:n]]
        below = rung


def test_a_new_bracket_begins_while_a_rung_waits() -> None:
    optimizer = SuccessiveHalving(LINE, fidelity=EPOCHS)
    first = optimizer.ask(12)
    assert {c.fidelity for c in first} == {1.0}
    optimizer.tell(c.result(c.config["x"]) for c in first[:8])
    assert optimizer.ask()[0].fidelity == 1.0
    optimizer.tell([first[8].result(first[8].config["x"])])
    climbing = optimizer.ask(4)
    assert [c.fidelity for c in climbing] == [3.0] * 3 + [1.0]
    best = sorted(first[:9], key=lambda c: c.config["x"])
    assert [c.config for c in climbing[:3]] == [c.config for c in best[:3]]


def test_failed_trials_do_not_climb_and_their_places_are_not_waited_for() -> None:
    optimizer = SuccessiveHalving(LINE, fidelity=EPOCHS)
    first = optimizer.ask(9)
    optimizer.tell(c.result(Feedback(status="failed")) for c in first[:7])
    optimizer.tell(c.result(1.0) for c in first[7:])
    climbing = optimizer.ask(3)
    assert [c.fidelity for c in climbing] == [3.0, 3.0, 1.0]
    optimizer.tell(c.result(1.0) for c in climbing[:2])
    assert optimizer.ask()[0].fidelity == 9.0


def test_abandoned_trials_leave_their_places() -> None:
    optimizer = SuccessiveHalving(LINE, fidelity=EPOCHS)
    first = optimizer.ask(9)
    optimizer.abandon([c.number for c in first[:2]])
    optimizer.tell(c.result(0.0) for c in first[2:])
    again = optimizer.ask(2)
    assert [c.fidelity for c in again] == [1.0, 1.0]
    optimizer.tell(c.result(0.0) for c in again)
    assert optimizer.ask()[0].fidelity == 3.0


def test_late_and_changed_and_foreign_trials_are_found_a_place() -> None:
    whole, late = (SuccessiveHalving(LINE, fidelity=EPOCHS) for _ in range(2))
    told = _round(whole, 8)
    late.tell([told[4], told[7]])
    assert late.ask(number=20)[0].fidelity == 1.0
    late.abandon([20])
    late.tell(told[:4] + told[5:7])
    # Neither off the ladder nor in full, where no bracket begins, is a member of one.
    config = {"x": 0.0}
    done = Feedback(objectives={"value": -1.0})
    for number, fidelity in ((30, 2.0), (31, None)):
        late.tell(
            [Trial(number=number, config=config, state="ok", fidelity=fidelity, feedback=done)]
        )
    [last] = late.ask(number=40)
    assert last.fidelity == 1.0
    late.tell([last.result(5.0)])
    best = sorted(told, key=lambda t: t.value)
    assert late.ask(number=41)[0].config == best[0].config
    # Once the best is known to have failed, the next one climbs in its stead.
    late.abandon([41])
    late.tell([replace(best[0], state="failed", feedback=Feedback(status="failed"))])
    assert late.ask(number=41)[0].config == best[1].config


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.booleans())
def test_any_order_of_results_fills_brackets_and_is_found_again_from_the_history(
    seed: int, workers: int, is_small: bool
) -> None:
    rng = random.Random(seed)
    space = Space(n=Int(1, 5)) if is_small else LINE

    def make() -> Hyperband:
        return Hyperband(space, fidelity=EPOCHS, seed=seed)

    optimizer = make()
    running: list[Candidate] = optimizer.ask(workers)
    asked = list(running)
    for step in range(70):
        candidate = running.pop(rng.randrange(len(running)))
        outcome: Any = float(next(iter(candidate.config.values())))
        if rng.random() < 0.1:
            outcome = Feedback(status="failed")
        optimizer.tell([candidate.result(outcome)])
        running += optimizer.ask()
        asked.append(running[-1])
        if step % 23 == 0:
            other = make()
            known = [*optimizer.history.values(), *(c.begun() for c in running[:-1])]
            rng.shuffle(known)
            other.tell(known)
            assert other.ask(number=running[-1].number)[0] == running[-1]
    begun = Counter(c.fidelity for c in asked)
    assert begun[1.0] > 9
    if not is_small:
        # Nothing is measured twice at a fidelity, and what climbs was on the rung below.
        seen = [(c.config["x"], c.fidelity) for c in asked]
        assert len(set(seen)) == len(seen)


def test_a_study_takes_it_by_name_and_keeps_the_ladder(tmp_path: Any) -> None:
    @sh.problem(LINE, minimize="loss", fidelity=EPOCHS)
    def train(config: dict[str, Any], trial: Any) -> float:
        return float(config["x"] + 1 / trial.fidelity)

    def run(trials: int) -> sh.Study:
        return sh.Study(
            train,
            optimizer={"name": "hyperband", "eta": 3},
            store=f"sqlite:///{tmp_path / 'study.db'}",
            budget=sh.Budget(trials=trials),
        ).run()

    run(11)  # stops within a rung and goes on from what the store has
    trials = run(22).trials()
    assert [t.fidelity for t in trials] == [1] * 9 + [3] * 3 + [9] + [3] * 5 + [9] + [9] * 3
    climbed = sorted(t.config["x"] for t in trials[:9])[:3]
    assert [t.config["x"] for t in trials[9:12]] == climbed
