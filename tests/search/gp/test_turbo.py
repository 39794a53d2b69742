import numpy as np
import pytest

from sharpen.core.parameters import Float
from sharpen.core.space import Space
from sharpen.search import Random
from sharpen.search.gp.turbo import TuRBO, follow
from sharpen.testing import OptimizerConformance

WIDE = Space({f"x{i}": Float(-1, 1) for i in range(30)})


class TestTuRBO(OptimizerConformance):
    optimizer = TuRBO
    evaluations = 40
    regret = 0.3


def test_the_region_grows_after_three_successes_and_shrinks_after_patience_runs_out() -> None:
    start = [5.0, 4.0]
    assert follow(np.array(start), 2, 4).length == 0.8
    grown = follow(np.array([*start, 3.0, 2.0, 1.0]), 2, 4)
    assert (grown.length, grown.best, grown.successes) == (1.6, 1.0, 0)
    assert follow(np.array([*start, *range(3, -5, -1)]), 2, 4).length == 1.6
    assert follow(np.array([*start, 9.0, np.inf, 9.0, 9.0]), 2, 4).length == 0.4
    # An improvement of less than a thousandth is none, but is kept.
    slight = follow(np.array([*start, 3.9999]), 2, 4)
    assert (slight.failures, slight.best) == (1, 3.9999)


def test_a_region_that_is_too_small_ends_its_run() -> None:
    # Halved at every trial: 0.8 / 2^6 is still above 2^-7, 0.8 / 2^7 is not.
    last = follow(np.array([1.0, *[2.0] * 6]), 1, 1)
    assert (last.begin, last.length) == (0, pytest.approx(0.0125))
    ended = follow(np.array([1.0, *[2.0] * 7]), 1, 1)
    assert (ended.begin, ended.length, ended.best) == (8, 0.8, np.inf)


def test_points_lie_in_a_box_of_the_region_s_volume_and_move_twenty_coordinates() -> None:
    optimizer = TuRBO(WIDE)
    best, scales = np.full(30, 0.5), np.geomspace(0.5, 2, 30)
    points = optimizer._points(best, 0.2, scales, np.random.default_rng(0))
    assert points.shape == (3000, 30)
    sides = points.max(axis=0) - points.min(axis=0)
    assert np.prod(sides) ** (1 / 30) == pytest.approx(0.2, rel=0.02)
    assert sides[-1] / sides[0] == pytest.approx(4, rel=0.05)
    assert (points != best).sum(axis=1).mean() == pytest.approx(20, abs=0.5)


def test_thirty_dimensions_are_brought_far_below_random_search() -> None:
    def loss(config: dict[str, float]) -> float:
        return float(sum((v - 0.3) ** 2 for v in config.values()))

    best = {}
    for made in (TuRBO, Random):
        optimizer = made(WIDE, seed=1, **({"n_init": 20} if made is TuRBO else {}))
        values = []
        for _ in range(90):
            candidate = optimizer.ask()[0]
            values.append(loss(candidate.config))
            optimizer.tell([candidate.result(values[-1])])
        best[made.name] = min(values)
    assert best["turbo"] < 0.35 * best["random"]
