from collections.abc import Sequence

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search import BOHB, Hyperband
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import branin

EPOCHS = Fidelity("epochs", 1, 9, integer=True)
PLANE = Space(x=Float(-5, 10), y=Float(0, 15))


def on_a_ladder(
    space: Space,
    objectives: Sequence[Objective] = (Objective("value"),),
    constraints: Sequence[Constraint] = (),
    *,
    seed: int = 0,
) -> BOHB:
    return BOHB(space, objectives, constraints, seed=seed, fidelity=EPOCHS)


class TestBOHB(OptimizerConformance):
    optimizer = BOHB


class TestBOHBOnALadder(OptimizerConformance):
    optimizer = staticmethod(on_a_ladder)


def _play(optimizer: Hyperband, trials: int) -> list[Trial]:
    told = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        loss = branin(candidate.config["x"], candidate.config["y"])
        told.append(candidate.result(loss + 5 / (candidate.fidelity or 9)))
        optimizer.tell(told[-1:])
    return told


def test_climbs_like_hyperband() -> None:
    ours, theirs = (kind(PLANE, fidelity=EPOCHS, seed=1) for kind in (BOHB, Hyperband))
    assert [t.fidelity for t in _play(ours, 60)] == [t.fidelity for t in _play(theirs, 60)]


def test_learns_from_the_highest_rung_that_has_enough() -> None:
    optimizer = BOHB(PLANE, fidelity=EPOCHS, seed=0, random_share=0.0)
    assert optimizer.startup == 5
    told = _play(optimizer, 4)
    assert optimizer.new_config(9) == PLANE.draw(_begun(9))  # four on the lowest are too few
    for count, level in ((9, 1.0), (19, 3.0), (22, 9.0)):
        told += _play(optimizer, count - len(told))
        counts = {k: sum(t.fidelity == k for t in told) for k in (1.0, 3.0, 9.0)}
        assert counts[level] >= 5
        assert all(counts[k] < 5 for k in counts if k > level)
        counted = optimizer.seen.fidelity == level
        assert optimizer.new_config(99) == optimizer.draw(_begun(99), counted)


def _begun(number: int) -> np.random.Generator:
    rng = random_stream(0, number)
    rng.random()
    return rng


def test_finds_more_than_hyperband_and_random_ones_stay_in_their_share() -> None:
    space = Space({f"x{i}": Float(0, 1) for i in range(5)})
    found: dict[str, list[float]] = {}
    for kind in (BOHB, Hyperband):
        for seed in range(5):
            optimizer = kind(space, fidelity=EPOCHS, seed=seed)
            for _ in range(110):
                [candidate] = optimizer.ask()
                loss = sum((x - 0.3) ** 2 for x in candidate.config.values())
                optimizer.tell([candidate.result(loss + 1 / (candidate.fidelity or 9))])
            best = optimizer.recommend().predicted["value"] - 1 / 9
            found.setdefault(kind.name, []).append(best)
    assert np.median(found["bohb"]) < np.median(found["hyperband"]) / 2
    always = BOHB(PLANE, fidelity=EPOCHS, seed=2, random_share=1.0)
    _play(always, 40)
    assert always.new_config(50) == PLANE.draw(_with_seed(2, 50))


def _with_seed(seed: int, number: int) -> np.random.Generator:
    rng = random_stream(seed, number)
    rng.random()
    return rng


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"random_share=1\.5 must be from 0 to 1"):
        BOHB(PLANE, random_share=1.5)
