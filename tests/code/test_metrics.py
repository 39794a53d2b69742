"""Metrics of programs: against enumeration, the authors' own functions, and their formulas."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.code.metrics import (
    Overhead,
    best_at_k,
    bootstrap,
    eff_at_k,
    hodges_lehmann,
    kaplan_meier_median,
    level_efficiency,
    normalized,
    overhead,
    pass_at_k,
    restricted_mean,
    speedup,
    summarize,
    survival,
    time_limit,
)
from sharpen.core.errors import ConfigError, DataError

numbers = st.floats(0, 2, allow_nan=False)


@given(st.lists(numbers, min_size=1, max_size=9), st.data())
def test_eff_at_k_is_the_mean_of_the_best_over_all_subsets(e: list[float], data) -> None:
    k = data.draw(st.integers(1, len(e)))
    every = [max(some) for some in combinations(e, k)]
    assert eff_at_k(e, k) == pytest.approx(sum(every) / len(every), abs=1e-12)


@given(st.integers(1, 60), st.data())
def test_both_are_one_on_right_and_wrong(n: int, data) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-12)
    assert eff_at_k([1.0] * c + [0.0] * (n - c), k) == pytest.approx(exact, abs=1e-12)


def test_large_numbers_of_samples_are_no_trouble() -> None:
    e = np.linspace(0, 1, 10_000)
    # The expected maximum of k of evenly spaced values.
    for k in (1, 10, 5_000, 10_000):
        assert eff_at_k(e, k) == pytest.approx((k / (k + 1) * 10_001 - 1) / 9_999, rel=1e-9)
    assert eff_at_k([0.2, 0.9, 0.5, 0], 2) == pytest.approx(0.65)


def test_values_are_those_recorded_of_enam(repository: Path) -> None:
    record = json.loads((repository / "benchmarks/code/enam_record.json").read_text())
    assert record["version"] == "0.2.0"
    for one in record["time"]:
        assert hodges_lehmann(one["times"]) == pytest.approx(one["value"], rel=1e-12)
    for one in record["eff@k"]:
        assert eff_at_k(one["e"], one["k"]) == pytest.approx(one["value"], abs=1e-12)
    for one in record["pass@k"]:
        assert pass_at_k(one["n"], one["c"], one["k"]) == pytest.approx(one["value"], abs=1e-12)
    for one in record["eff"]:
        alpha = one["limit"] / one["reference"]
        found = level_efficiency([one["elapsed"]], [one["reference"]], hardness=[1], alpha=alpha)
        assert found == pytest.approx(one["value"], rel=1e-9, abs=1e-12)


def test_levels_are_weighed_and_cut_at_the_limit() -> None:
    reference = [0.1, 1.0, 2.0, 4.0]
    assert time_limit(reference) == 8.0
    assert level_efficiency(reference, reference) == pytest.approx(1.0)
    # A twice as slow program runs into the limit at the last level.
    slow = level_efficiency([0.2, 2.0, 4.0, None], reference)
    assert slow == pytest.approx((3 * 6 / 7 + 3 * 4 / 6) / 10)
    assert level_efficiency([0.1, None, 1.0, 1.0], reference) == 0
    fast = level_efficiency([0.1, 0.0, 0.0, 0.0], reference)
    assert fast == pytest.approx((3 * 8 / 7 + 3 * 8 / 6 + 4 * 8 / 4) / 10)
    assert hodges_lehmann([1, 2, 3, 10, 4, 5]) == 3.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pass_at_k(3, 4, 1), "c=4"),
        (lambda: pass_at_k(3, 1, 4), "k=4"),
        (lambda: eff_at_k([0.5], 2), "k=2"),
        (lambda: time_limit([1.0, 1.0]), "4 weights"),
        (lambda: time_limit([1, 1, 1, 1], alpha=1.0), "alpha=1"),
        (lambda: level_efficiency([1.0], [1, 1, 1, 1]), "1 times"),
        (lambda: best_at_k([1.0], 0), "k=0"),
        (lambda: normalized([], [], "mean"), "normalize='mean'"),
        (lambda: bootstrap([1.0], confidence=1.0), "confidence=1"),
    ],
)
def test_wrong_arguments_are_refused(call, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: eff_at_k([math.nan], 1),
        lambda: hodges_lehmann([]),
        lambda: time_limit([0.0, 0.0, 1.0, 1.0]),
        lambda: level_efficiency([math.nan] * 4, [1.0] * 4),
        lambda: speedup([1.0, 2.0], [1.0]),
        lambda: speedup([math.inf], [1.0]),
        lambda: speedup([1.0], [0.0]),
        lambda: best_at_k([0.0], 1),
        lambda: summarize([], []),
        lambda: overhead([[0.0, 1.0]]),
        lambda: overhead([[1.0, 1.0], [0.0, 1.0]]),
        lambda: normalized([Overhead(1, 1, 1)], [Overhead(0, 1, 1)]),
        lambda: restricted_mean([1.0], [True], 2.0),
        lambda: survival([], []),
        lambda: bootstrap([]),
    ],
)
def test_wrong_data_is_refused(call) -> None:
    with pytest.raises(DataError):
        call()


def test_a_wrong_edit_changes_nothing_and_slow_ones_are_no_loss() -> None:
    old, new = [4.0, 4.0, 4.0, 4.0], [1.0, 8.0, math.inf, 3.7]
    assert speedup(old, new).tolist() == pytest.approx([4, 1, 1, 4 / 3.7])
    found = summarize(old, new)
    assert (found.programs, found.correct, found.optimized) == (4, 0.75, 0.25)
    assert found.geometric_mean == pytest.approx((4 * 4 / 3.7) ** 0.25)
    assert found.shares[2.0] == 0.25
    assert best_at_k([None, 3.0, 2.0, 1.0], 3) == 2.0
    assert best_at_k([None, 3.0], 1) == math.inf
    assert best_at_k([2.0] * 5, 5) == best_at_k([2.0], 1)
    order = np.random.default_rng(0).permutation(4)
    assert summarize(np.array(old)[order], np.array(new)[order]) == found


def test_memory_times_time_is_the_area_below_the_samples() -> None:
    found = overhead([[0, 0], [1, 10], [3, 0]])
    assert found == Overhead(3.0, 10.0, 15.0)
    assert overhead([[0, 1], [1, 1]], peak=7.0).mu == 7.0


def test_both_ways_to_compare_with_canonical_solutions() -> None:
    runs = [Overhead(1, 10, 5), Overhead(4, 20, 10), Overhead(9, 30, 60)]
    canonical = [Overhead(2, 10, 10), Overhead(2, 10, 10), Overhead(3, 30, 30)]
    ratios = normalized(runs, canonical)
    assert ratios == Overhead(*map(pytest.approx, ((0.5 + 2 + 3) / 3, 4 / 3, (0.5 + 1 + 2) / 3)))
    sums = normalized(runs, canonical, "ratio_of_sums")
    assert sums == Overhead(*map(pytest.approx, (14 / 7, 60 / 50, 75 / 50)))


def test_stopped_runs_count_as_long_ones() -> None:
    # The example of Kaplan and Meier's paper: 0.8, 3.1, 5.4, 9.2 ended; 1.0, 2.7, 7.0, 12.1 lost.
    times = [0.8, 1.0, 2.7, 3.1, 5.4, 7.0, 9.2, 12.1]
    stopped = [False, True, True, False, False, True, False, True]
    ends, chance = survival(times, stopped)
    assert ends.tolist() == [0.8, 3.1, 5.4, 9.2]
    assert chance.tolist() == pytest.approx([7 / 8, 7 / 10, 21 / 40, 21 / 80])
    assert kaplan_meier_median(times, stopped) == 9.2
    assert kaplan_meier_median([1.0, 2.0, 2.0], [False, True, True]) == math.inf
    assert restricted_mean([1.0, 2.0, 5.0], [False, False, True], 3.0) == 2.0


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=9))
def test_without_stopped_runs_the_median_is_an_ordinary_one(times: list[float]) -> None:
    expected = sorted(times)[(len(times) - 1) // 2]
    assert kaplan_meier_median(times, [False] * len(times)) == expected


def test_intervals_hold_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        found = bootstrap(rng.normal(size=40), resamples=300, seed=seed)
        inside += found.low <= 0 <= found.high
    assert 0.88 * 200 <= inside <= 0.99 * 200
    rows = rng.normal(size=(30, 2))
    one = bootstrap(rows, lambda x: float(x[:, 0].mean() - x[:, 1].mean()), seed=1)
    assert one.value == pytest.approx(rows[:, 0].mean() - rows[:, 1].mean())
    assert one == bootstrap(rows, lambda x: float(x[:, 0].mean() - x[:, 1].mean()), seed=1)
