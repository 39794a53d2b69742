import itertools
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.core.halving_pruners import ASHA, Hyperband
from sharpen.core.pruner import Curve, Pruner


def _curve(number: int, *losses: float) -> Curve:
    return Curve(number, enumerate(losses, 1))


def test_judges_on_rungs_alone() -> None:
    others = [_curve(k, *[0.0] * 30) for k in range(20)]
    stops = [ASHA().should_stop(_curve(99, *[1.0] * n), others) for n in range(1, 31)]
    assert [n for n, stop in enumerate(stops, 1) if stop] == [1, 3, 9, 27]
    later = ASHA(min_steps=4, eta=2)
    stops = [later.should_stop(_curve(99, *[1.0] * n), others) for n in range(1, 31)]
    assert [n for n, stop in enumerate(stops, 1) if stop] == [4, 8, 16]


def test_a_report_beyond_a_rung_is_judged_on_it() -> None:
    others = [Curve(k, [(2, float(k)), (5, float(k))]) for k in range(9)]
    assert ASHA().should_stop(Curve(9, [(2, 8.5)]), others)  # on rung 1, at step 2
    assert not ASHA().should_stop(Curve(9, [(2, 0.5)]), others)
    assert ASHA().should_stop(Curve(9, [(2, 0.5), (4, 6.0)]), others)
    assert not ASHA().should_stop(Curve(9, [(2, 0.5), (4, 6.0), (5, 6.0)]), others)


@given(
    st.lists(st.integers(0, 9), max_size=15),
    st.integers(0, 9),
    st.integers(2, 4),
)
def test_goes_on_among_the_best_of_those_that_came_so_far(
    losses: list[int], mine: int, eta: int
) -> None:
    others = [_curve(k, float(loss)) for k, loss in enumerate(losses)]
    m = len(losses) + 1
    rank = sum(loss < mine for loss in losses) + 1
    wanted = rank > max(1, m // eta)
    assert ASHA(eta=eta).should_stop(_curve(99, float(mine)), others) is wanted


def _play(pruner: Pruner, trials: int, steps: int) -> list[int]:
    """How far each trial comes; the loss of a trial is its quality at every step."""
    rng = random.Random(1)
    others: list[Curve] = []
    for number in range(trials):
        quality, losses = rng.random(), list[float]()
        for _ in range(steps):
            losses.append(quality)
            if pruner.should_stop(_curve(number, *losses), others):
                break
        others.append(_curve(number, *losses))
    return [len(curve) for curve in others]


def test_about_a_third_of_each_rung_goes_on() -> None:
    lengths = _play(ASHA(), 600, 27)
    reached = [sum(n >= step for n in lengths) for step in (1, 2, 4, 10)]
    for below, above in itertools.pairwise(reached):
        assert 0.25 * below < above < 0.5 * below


def test_brackets_share_a_round_by_the_papers_sizes_and_take_turns() -> None:
    rule = Hyperband(max_steps=81)
    assert Counter(rule.bracket(k) for k in range(143)) == {4: 81, 3: 34, 2: 15, 1: 8, 0: 5}
    assert [rule.bracket(k) for k in range(143, 160)] == [rule.bracket(k) for k in range(17)]
    for start in range(0, 130, 10):
        assert 3 <= sum(rule.bracket(k) == 4 for k in range(start, start + 10)) <= 8


def test_each_bracket_begins_at_its_rung_and_minds_its_own_trials() -> None:
    rule = Hyperband(max_steps=81)
    number = {rule.bracket(k): k for k in range(143)}
    every = [_curve(k, *[0.0] * 81) for k in range(143)]
    for s, first in ((4, 1), (3, 3), (2, 9), (1, 27)):
        stops = [rule.should_stop(_curve(number[s], *[1.0] * n), every) for n in range(1, 81)]
        assert stops.index(True) + 1 == first
        foreign = [c for c in every if rule.bracket(c.number) != s]
        assert not rule.should_stop(_curve(number[s], *[1.0] * first), foreign)
    assert not any(rule.should_stop(_curve(number[0], *[1.0] * n), every) for n in range(1, 82))
    # A trial that has come to its end is not stopped there.
    assert not rule.should_stop(_curve(number[4], *[1.0] * 81), every)


def test_hyperband_stops_later_in_sum_than_asha() -> None:
    asha, hyperband = (_play(rule, 300, 27) for rule in (ASHA(), Hyperband(max_steps=27)))
    assert sum(asha) < sum(hyperband) < 300 * 27


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ASHA, {"min_steps": 0}),
        (ASHA, {"eta": 1}),
        (Hyperband, {"max_steps": 0}),
        (Hyperband, {"max_steps": 3, "min_steps": 4}),
        (Hyperband, {"max_steps": 3, "eta": 1}),
    ],
)
def test_options_out_of_range_are_refused(kind: Any, options: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{next(reversed(options))}=.*\({kind.__name__}\)"):
        kind(**options)
