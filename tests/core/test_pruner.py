import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import linregress

from sharpen.core.errors import ConfigError
from sharpen.core.pruner import Curve, Median, Patience, Percentile, PlateauNoise, Threshold

Points = list[tuple[int, float]]
OTHERS = [
    Curve(k, points)
    for k, points in enumerate(
        [[(1, 1.0), (2, 3.0)], [(1, 2.0), (2, 2.0)], [(1, 3.0), (2, 9.0)], [(1, 4.0)]]
    )
]


def _curve(*losses: float, number: int = 9, **options: Any) -> Curve:
    return Curve(number, enumerate(losses, 1), **options)


@pytest.mark.parametrize(
    ("points", "stop"),
    [
        ([(1, 2.5)], False),  # the means at step 1 are 1, 2, 3, 4: the median is 2.5
        ([(1, 2.6)], True),
        ([(1, 9.0), (2, 3.0)], False),  # at step 2 they are 2, 2, 6, 4: the median is 3
        ([(1, 9.0), (2, 3.1)], True),
        ([(1, 2.0), (2, 99.0)], False),  # the best so far counts
    ],
)
def test_stops_what_is_worse_than_the_median_of_means(points: Points, stop: bool) -> None:
    assert Median().should_stop(Curve(9, points), OTHERS) is stop


_LOSSES = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=8)


@given(_LOSSES, st.lists(_LOSSES, min_size=1, max_size=12), st.integers(1, 99))
def test_percentiles_are_the_formula(mine: Any, others: Any, p: int) -> None:
    step = len(mine)
    means = [statistics.fmean(losses[:step]) for losses in others]
    bound = float(np.percentile(means, p))
    rule = Percentile(percentile=p, min_trials=1)
    found = rule.should_stop(_curve(*mine), [_curve(*losses) for losses in others])
    assert abs(min(mine) - bound) < 1e-9 or found == (min(mine) > bound)
    middle = Median(min_trials=1).should_stop(_curve(*mine), [_curve(*x) for x in others])
    median = statistics.median(means)
    assert abs(min(mine) - median) < 1e-9 or middle == (min(mine) > median)


def test_waits_for_enough_trials_and_steps() -> None:
    bad = Curve(9, [(1, 99.0)])
    assert not Median(min_trials=5).should_stop(bad, OTHERS)
    assert not Median(warmup_steps=1).should_stop(bad, OTHERS)
    assert Median(warmup_steps=0).should_stop(bad, OTHERS)
    assert not Median().should_stop(bad, OTHERS[:3])


def test_trials_that_run_or_were_stopped_set_no_median() -> None:
    others = [_curve(1.0, number=k, is_finished=k < 3) for k in range(8)]
    assert not Median().should_stop(_curve(9.0), others)
    assert Median(min_trials=3).should_stop(_curve(9.0), others)


def test_a_curve_is_turned_and_holds_no_nan_and_steps_do_not_fall() -> None:
    curve = Curve(0, [(1, 2.0), (2, math.nan)], is_max=True)
    curve.add(3, 5.0)
    assert curve.steps == [1, 2, 3]
    assert curve.values[0] == 2.0
    assert curve.losses == [-2.0, math.inf, -5.0]
    assert [curve.best(s) for s in (1, 2, 7)] == [-2.0, -2.0, -5.0]
    assert curve.mean(1) == -2.0
    assert curve.mean(3) == math.inf
    assert curve.count(0) == 0
    curve.add(2, 1.0)
    assert curve.steps == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("options", "value", "stop"),
    [
        ({"upper": 3.0}, 3.0, False),
        ({"upper": 3.0}, 3.1, True),
        ({"lower": 1.0}, 0.9, True),
        ({"lower": 1.0}, 1.0, False),
        ({"lower": 1.0, "upper": 3.0}, 2.0, False),
        ({"upper": 3.0}, math.nan, True),
        ({"lower": 0.0}, math.inf, True),
        ({"upper": 3.0, "warmup_steps": 1}, 9.0, False),
    ],
)
@pytest.mark.parametrize("is_max", [False, True])
def test_a_threshold_is_in_the_objectives_own_unit(
    options: Any, value: float, stop: bool, is_max: bool
) -> None:
    assert Threshold(**options).should_stop(_curve(value, is_max=is_max), []) is stop


@pytest.mark.parametrize(
    ("losses", "stop"),
    [
        ([3, 2, 1], False),
        ([3, 4, 5], False),  # not enough reports after the best
        ([3, 4, 5, 3], True),
        ([3, 4, 5, 2.9], False),
        ([3, 1, 2, 2, 2], True),
    ],
)
def test_patience_ends_so_many_reports_after_the_last_improvement(
    losses: list[float], stop: bool
) -> None:
    assert Patience(patience=3).should_stop(_curve(*losses), OTHERS) is stop


def test_an_improvement_has_a_least_size() -> None:
    curve = _curve(3.0, 2.9, 2.8)
    assert not Patience(patience=2, min_delta=0.19).should_stop(curve, [])
    assert Patience(patience=2, min_delta=0.21).should_stop(curve, [])


@given(st.lists(st.floats(-100, 100), min_size=8, max_size=8), st.floats(0, 4))
def test_a_plateau_is_a_slope_within_its_standard_errors(losses: list[float], z: float) -> None:
    found = linregress(range(1, 9), losses)
    assume(abs(found.slope + z * found.stderr) > 1e-6)
    curve = _curve(*[50.0, 60.0, *losses])
    stops = PlateauNoise(window=8, errors=z).should_stop(curve, OTHERS)
    assert stops is bool(found.slope > -z * found.stderr)


def test_noise_ends_no_trial_that_falls_and_lucky_values_keep_none_that_does_not() -> None:
    rng = np.random.default_rng(0)
    rule, stopped = PlateauNoise(window=20, errors=2.0), {"falls": 0, "flat": 0, "patient": 0}
    for _ in range(200):
        noise = rng.normal(0, 1.0, 20)
        stopped["falls"] += rule.should_stop(_curve(*(-0.5 * np.arange(20) + noise)), [])
        flat = _curve(*(rng.normal(0, 1.0, 20) + 5), *(noise + 5))
        stopped["flat"] += rule.should_stop(flat, [])
        stopped["patient"] += Patience(patience=20).should_stop(flat, [])
    # Of level curves a share of P(t_18 < -2) = 0.030 goes on; half of them have a lucky value.
    assert stopped["falls"] == 0
    assert stopped["flat"] >= 185
    assert stopped["patient"] < 130


def test_a_plateau_needs_a_full_window_of_numbers() -> None:
    rule = PlateauNoise(window=4)
    assert not rule.should_stop(_curve(1.0, 1.0, 1.0), [])
    assert rule.should_stop(_curve(1.0, 1.0, 1.0, 1.0), [])
    assert not rule.should_stop(_curve(4.0, 3.0, 2.0, 1.0), [])
    nan = float("nan")
    assert not rule.should_stop(_curve(nan, nan, 1.0, 1.0), [])
    assert rule.should_stop(_curve(1.0, nan, 1.0, 1.0), [])
    assert rule.should_stop(_curve(1.0, 2.0, 3.0, 4.0), [])
    assert not rule.should_stop(_curve(1.0, 2.0, 3.0, 4.0, is_max=True), [])
    assert not PlateauNoise(window=4, warmup_steps=4).should_stop(_curve(1.0, 1.0, 1.0, 1.0), [])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Median, {"min_trials": 0}, r"min_trials=0 must be at least 1 \(Median\)"),
        (Median, {"warmup_steps": -1}, "warmup_steps=-1"),
        (Percentile, {"percentile": 100}, "percentile=100 must be above 0 and below 100"),
        (Percentile, {"min_trials": 0}, r"\(Percentile\)"),
        (Threshold, {}, "give lower or upper"),
        (Threshold, {"lower": 2, "upper": 1}, "lower=2 is above upper=1"),
        (Threshold, {"lower": 2, "warmup_steps": -1}, "warmup_steps=-1"),
        (Patience, {"patience": 0}, "patience=0"),
        (Patience, {"min_delta": -1}, "min_delta=-1"),
        (PlateauNoise, {"window": 2}, "window=2 must be at least 3"),
        (PlateauNoise, {"errors": -1}, "errors=-1"),
        (PlateauNoise, {"warmup_steps": -1}, "warmup_steps=-1"),
    ],
)
def test_options_out_of_range_are_refused(kind: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options)
