import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Categorical, Float
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search import DEHB, Random
from sharpen.search.de import binomial
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import branin

EPOCHS = Fidelity("epochs", 1, 9, integer=True)
PLANE = Space(x=Float(-5, 10), y=Float(0, 15))
BRACKETS = [[9, 3, 1], [5, 1], [3]]  # of eta 3 and three rungs, by the table of Hyperband


def on_a_ladder(
    space: Space,
    objectives: Sequence[Objective] = (Objective("value"),),
    constraints: Sequence[Constraint] = (),
    *,
    seed: int = 0,
) -> DEHB:
    return DEHB(space, objectives, constraints, seed=seed, fidelity=EPOCHS)


class TestDEHB(OptimizerConformance):
    optimizer = DEHB


class TestDEHBOnALadder(OptimizerConformance):
    optimizer = staticmethod(on_a_ladder)


def play(optimizer: Any, trials: int) -> list[Any]:
    told = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        loss = branin(candidate.config["x"], candidate.config["y"])
        told.append(candidate.result(loss + 5 / (candidate.fidelity or 9)))
        optimizer.tell(told[-1:])
    return told


def test_fidelities_are_those_of_hyperband_and_the_first_round_promotes() -> None:
    told = play(DEHB(PLANE, fidelity=EPOCHS, seed=1), 44)
    levels = [9.0, 3.0, 1.0]
    expected = [[levels[len(sizes) - 1 - i]] * n for sizes in BRACKETS for i, n in enumerate(sizes)]
    one = list(itertools.chain(*expected))
    assert [t.fidelity for t in told] == one + one
    # The first bracket is plain successive halving: the best three of nine, the best of three.
    lowest = sorted(told[:9], key=lambda t: t.value)
    assert [t.config for t in told[9:12]] == [t.config for t in lowest[:3]]
    assert told[12].config == min(told[9:12], key=lambda t: t.value).config


def test_populations_are_as_large_as_their_largest_rung_and_keep_the_best_of_each_place() -> None:
    optimizer = DEHB(PLANE, fidelity=EPOCHS, seed=2)
    assert optimizer.populations == [9, 5, 3]
    told = play(optimizer, 66)
    optimizer.ask()
    for level, size in enumerate(optimizer.populations):
        mine = [t for t in told if t.fidelity == optimizer.levels[level]]
        best = {p: min(mine[p::size], key=lambda t: t.value) for p in range(size)}
        kept = optimizer._members[level]
        assert {p: -merit[2] for p, (merit, _) in kept.items()} == {
            p: t.number for p, t in best.items()
        }


def test_a_child_is_a_mutant_of_the_best_below_crossed_with_its_target() -> None:
    optimizer = DEHB(PLANE, fidelity=EPOCHS, seed=3, factor=0.7, crossover=0.4)
    play(optimizer, 31)
    [candidate] = optimizer.ask()  # number 31: the second round's first at 3 epochs
    assert (candidate.number, candidate.fidelity) == (31, 3.0)
    below = sorted(optimizer._members[0].values(), key=lambda member: member[0])[:3]
    rng = random_stream(3, 31)
    a, b, c = (below[k][1] for k in rng.choice(3, size=3, replace=False))
    mutant, anew = a + 0.7 * (b - c), rng.random(2)
    mutant = np.where((mutant < 0) | (mutant > 1), anew, mutant)
    place = sum(t.fidelity == 3.0 for t in optimizer.history.values()) % 5
    point = binomial(rng, optimizer._members[1][place][1], mutant, 0.4)
    assert candidate.config == PLANE.decode([point])[0]


def test_what_is_told_anew_changes_places_and_failures_hold_none() -> None:
    optimizer = DEHB(PLANE, fidelity=EPOCHS, seed=4)
    told = play(optimizer, 20)
    again = DEHB(PLANE, fidelity=EPOCHS, seed=4)
    again.tell([*told[5:], *told[:5]])
    assert again.ask(3) == optimizer.ask(3)
    failed = DEHB(PLANE, fidelity=EPOCHS, seed=4).ask(9)
    other = DEHB(PLANE, fidelity=EPOCHS, seed=4)
    other.tell([candidate.result(float("nan")) for candidate in failed])
    [after] = other.ask()
    assert after.fidelity == 3.0  # nothing to promote: a random one
    assert not any(other._members)


def test_it_leaves_random_search_behind_at_equal_cost() -> None:
    space = Space({f"x{i}": Float(0, 1) for i in range(5)}, kind=Categorical("a", "b", "c"))

    def loss(config: dict[str, Any], epochs: float) -> float:
        wrong = "abc".index(config["kind"]) * 0.1
        return sum((config[f"x{i}"] - 0.3) ** 2 for i in range(5)) + wrong + 1 / epochs

    found: dict[str, list[float]] = {"dehb": [], "random": []}
    for kind in (DEHB, Random):
        for seed in range(7):
            optimizer, spent = kind(space, fidelity=EPOCHS, seed=seed), 0.0
            while spent < 60:
                [candidate] = optimizer.ask()
                epochs = candidate.fidelity or 9
                optimizer.tell([candidate.result(loss(candidate.config, epochs))])
                spent += epochs / 9
            found[kind.name].append(optimizer.recommend().predicted["value"] - 1 / 9)
    assert np.median(found["dehb"]) < np.median(found["random"]) / 3


@pytest.mark.parametrize("options", [{"factor": 0.0}, {"factor": 2.5}, {"crossover": 1.5}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}=.*DEHB"):
        DEHB(PLANE, **options)
