import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sharpen.search.pareto import (
    hypervolume,
    hypervolume_contributions,
    hypervolume_subset,
    non_dominated,
    non_dominated_ranks,
)


def _dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


@st.composite
def _points(draw: st.DrawFn) -> np.ndarray:
    shape = (draw(st.integers(1, 25)), draw(st.integers(1, 4)))
    return draw(arrays(np.float64, shape, elements=st.integers(0, 5).map(float)))


@given(_points())
def test_front_is_what_nothing_dominates(points: np.ndarray) -> None:
    wanted = [not any(_dominates(other, p) for other in points) for p in points]
    assert non_dominated(points).tolist() == wanted


@given(_points())
def test_ranks_peel_one_front_after_the_other(points: np.ndarray) -> None:
    ranks = non_dominated_ranks(points)
    for point, rank in zip(points, ranks, strict=True):
        above = [ranks[i] for i, other in enumerate(points) if _dominates(other, point)]
        assert rank == max(above, default=-1) + 1


def test_ranking_stops_once_enough_have_a_rank() -> None:
    points = np.array([[3.0, 3.0], [0.0, 0.0], [2.0, 2.0], [1.0, 1.0]])
    assert non_dominated_ranks(points, 2).tolist() == [2, 0, 2, 1]


@given(_points())
def test_hypervolume_counts_the_unit_cells_that_are_dominated(points: np.ndarray) -> None:
    reference = np.full(points.shape[1], 5.0)
    cells = itertools.product(range(5), repeat=points.shape[1])
    # Points are whole, so a unit cell is dominated whole, by those not above its lower corner.
    covered = sum(bool((points <= np.array(cell)).all(axis=1).any()) for cell in cells)
    assert hypervolume(points, reference) == pytest.approx(covered, abs=1e-9)


def test_points_beyond_the_reference_add_nothing() -> None:
    points = np.array([[1.0, 3.0, 1.0], [2.0, 9.0, 0.0]])
    assert hypervolume(points, np.array([2.0, 4.0, 3.0])) == pytest.approx(2.0)
    assert hypervolume(points, np.array([2.0, 3.0, 3.0])) == 0.0


@pytest.mark.parametrize("m", [2, 3, 4])
def test_greedy_subset_takes_the_largest_gain_each_time(m: int) -> None:
    rng = np.random.default_rng(m)
    points = rng.random((12, m))
    reference = np.full(m, 1.1)
    chosen: list[int] = []
    for _ in range(5):
        gains = [
            hypervolume(points[[*chosen, i]], reference) if i not in chosen else -1.0
            for i in range(12)
        ]
        chosen.append(int(np.argmax(gains)))
    assert hypervolume_subset(points, reference, 5).tolist() == chosen


def test_subset_holds_most_of_the_best_subset_of_its_size() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = rng.random((8, 3))
        reference = np.full(3, 1.1)
        best = max(
            hypervolume(points[list(rows)], reference)
            for rows in itertools.combinations(range(8), 3)
        )
        got = hypervolume(points[hypervolume_subset(points, reference, 3)], reference)
        assert got >= (1 - 1 / np.e) * best


@given(_points(), st.booleans())
def test_a_contribution_is_what_is_lost_without_the_point(
    points: np.ndarray, is_near: bool
) -> None:
    reference = np.full(points.shape[1], 4.0 if is_near else 6.0)
    whole = hypervolume(points, reference)
    lost = [whole - hypervolume(np.delete(points, i, 0), reference) for i in range(len(points))]
    np.testing.assert_allclose(hypervolume_contributions(points, reference), lost, atol=1e-9)
