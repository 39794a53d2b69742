import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from sharpen.core.errors import ConfigError, DataError
from sharpen.optim.bench.halton import draw, halton_points
from sharpen.optim.bench.scoring import (
    geometric_speedup,
    hold_out,
    performance_profile,
    score,
    workload_time,
)

WORKLOADS = ("criteo", "fastmri", "resnet", "vit", "conformer", "deepspeech", "ogbg", "wmt")
INF = math.inf
# Published seconds to the targets of AlgoPerf v0.6, external tuning.
PUBLISHED = {
    "shampoo": (7692.0, 641.0, INF, 41095.0, INF, INF, 2868.0, 33605.0),
    "baseline": (7491.0, 873.0, INF, INF, INF, INF, 4576.0, 35319.0),
}
TIMES = {name: dict(zip(WORKLOADS, row, strict=True)) for name, row in PUBLISHED.items()}
seconds = st.one_of(st.floats(0.1, 1e4), st.just(INF))


def test_published_logs_score_as_published() -> None:
    published = score(TIMES, integral="trapezoid100")
    assert {n: round(x, 4) for n, x in published.items()} == {"shampoo": 0.6244, "baseline": 0.459}
    exact = {n: round(x, 4) for n, x in score(TIMES).items()}
    assert exact == {"shampoo": 0.6239, "baseline": 0.458}


@given(
    st.integers(2, 4).flatmap(lambda n: st.lists(st.tuples(*[seconds] * n), min_size=1, max_size=5))
)
def test_the_closed_form_is_the_integral_of_the_profile(rows: list[tuple[float, ...]]) -> None:
    times = {f"s{i}": {f"w{j}": row[i] for j, row in enumerate(rows)} for i in range(len(rows[0]))}
    exact, rough = score(times), score(times, integral="trapezoid100")
    fine = np.linspace(1, 4, 20_001)
    for name, profile in performance_profile(times, fine.tolist()).items():
        assert exact[name] == pytest.approx(np.mean(profile[1:]), abs=2e-4)
        assert abs(exact[name] - rough[name]) <= 1 / 99 + 1e-9


def test_hand_made_tables() -> None:
    times = {"a": {"x": 2.0, "y": INF}, "b": {"x": 4.0, "y": INF}}
    assert score(times) == {"a": 0.5, "b": pytest.approx((4 - 2) / 3 / 2)}
    assert workload_time([[3.0], [INF], [INF]]) == INF
    assert workload_time([[1.0], [2.0], [INF]]) == 2.0
    assert geometric_speedup(times, "b")["a"] == pytest.approx(2.0)
    variants = {"a": {"x'": 9.0}, "b": {"x'": 2.0}}
    held = hold_out(times, variants, {"x'": "x"})
    assert held["a"]["x"] == INF and held["b"]["x"] == 4.0 and times["a"]["x"] == 2.0


def test_wrong_times_are_named() -> None:
    with pytest.raises(DataError, match="other workloads: y"):
        score({"a": {"x": 1.0}, "b": {"x": 1.0, "y": 2.0}})
    with pytest.raises(DataError, match="b on x: nan"):
        score({"a": {"x": 1.0}, "b": {"x": math.nan}})
    with pytest.raises(DataError, match="no submission"):
        score({})
    with pytest.raises(DataError, match="no submission 'c'"):
        geometric_speedup({"a": {"x": 1.0}}, "c")


def test_plain_points_are_halton_s() -> None:
    expected = qmc.Halton(4, scramble=False).random(60)
    np.testing.assert_allclose(halton_points(60, 4), expected, atol=1e-12)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_shuffled_points_fill_every_interval_of_a_base(seed: int, dimensions: int) -> None:
    points = np.array(halton_points(30, dimensions, seed=seed))
    assert ((points >= 0) & (points < 1)).all()
    for column, base in zip(points.T, (2, 3, 5), strict=False):
        counts = np.bincount((column[: base * (30 // base)] * base).astype(int), minlength=base)
        assert (counts == 30 // base).all()


def test_settings_are_drawn_within_their_ranges() -> None:
    space = {
        "lr": {"min": 1e-4, "max": 1e-2, "scaling": "log"},
        "beta": {"min": 0.8, "max": 0.9},
        "smooth": {"feasible_points": [0.0, 0.1]},
    }
    points = draw(space, 15, seed=3)
    assert points == draw(space, 15, seed=3) != draw(space, 15, seed=4)
    assert all(1e-4 <= p["lr"] <= 1e-2 and 0.8 <= p["beta"] <= 0.9 for p in points)
    assert sum(p["lr"] < 1e-3 for p in points) in (7, 8)
    assert {p["smooth"] for p in points} == {0.0, 0.1}
    assert draw([{"lr": 1}, {"lr": 2}], 1, seed=0) == [{"lr": 1}]
    for wrong, text in (
        ({"lr": {"min": 0, "max": 1, "scaling": "log"}}, "no range for log"),
        ({"lr": {"min": 0}}, "needs min and max"),
        ({"lr": {"feasible_points": []}}, "empty"),
        ([{"lr": 1}], "has 1 settings"),
    ):
        with pytest.raises(ConfigError, match=text):
            draw(wrong, 2, seed=0)
