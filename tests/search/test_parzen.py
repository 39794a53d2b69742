import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from scipy.stats import chisquare, kstest, norm, truncnorm

from sharpen.core.collections import Permutation, Subset
from sharpen.core.conditions import Eq
from sharpen.core.errors import DependencyNotInstalled
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal
from sharpen.core.space import Space
from sharpen.search.parzen import Axes, Parzen, bandwidths
from sharpen.testing.search import mixed_space

SPACE = Space(
    x=Float(-1, 3),
    n=Int(1, 7),
    width=Int(1, 64, log=True),
    grid=Float(0, 1, step=0.25),
    kind=Categorical("a", "b", "c", weights=[1, 2, 1]),
    flag=Bool(),
    size=Ordinal([8, 16, 32]),
    version=Fixed(1),
)


def _fit(space: Space, n: int, seed: int = 0, prior_weight: float = 1.0) -> tuple[Parzen, Any]:
    seen = space.encode(space.sample(n, seed=seed))
    weights = np.linspace(0.5, 1, n)
    return Parzen(Axes(space), seen.x, seen.mask, weights, prior_weight), seen


@given(
    st.lists(st.lists(st.sampled_from([0, 0.1, 0.25, 0.5, 0.7, 1]), min_size=2, max_size=2)),
    st.randoms(use_true_random=False),
)
def test_bandwidths_are_distances_to_neighbours_within_bounds(rows: Any, random: Any) -> None:
    mu = np.array(rows, dtype=float).reshape(-1, 2)
    mask = np.array([[random.random() < 0.7 for _ in row] for row in mu], dtype=bool)
    found = bandwidths(mu, mask.reshape(mu.shape))
    for j in range(2):
        rows_j = [i for i in range(len(mu)) if mask[i, j]]
        ranked = sorted(rows_j, key=lambda i: mu[i, j])
        narrowest = 1 / min(100, len(rows_j) + 2)
        # Of equal points, which is first does not matter to the whole: compare the sets.
        wanted = []
        for place, i in enumerate(ranked):
            gaps = [abs(mu[i, j] - mu[ranked[k], j]) for k in (place - 1, place + 1)
                    if 0 <= k < len(ranked)]  # fmt: skip
            alone = max(mu[i, j], 1 - mu[i, j])
            wanted.append((mu[i, j], min(max(max(gaps, default=alone), narrowest), 1.0)))
        got = [(mu[i, j], found[i, j]) for i in rows_j]
        np.testing.assert_allclose(sorted(got), sorted(wanted), atol=1e-15)


def _by_the_formula(space: Space, seen: Any, prior_weight: float, config: Any) -> float:
    """The mixture's density, kernel by kernel in float64 with SciPy's distributions."""
    n = len(seen.x)
    s = bandwidths(seen.x, seen.mask)
    total = 0.0
    weights = np.append(np.linspace(0.5, 1, n), prior_weight)
    for i, weight in enumerate(weights / weights.sum()):
        kernel = 1.0
        for name, value in config.items():
            parameter, column = space[name], space.columns[name].start
            if isinstance(parameter, Fixed) or (i < n and not seen.mask[i, column]):
                continue
            if isinstance(parameter, (Categorical, Bool)):
                choices = getattr(parameter, "choices", (False, True))
                shares = np.array(getattr(parameter, "weights", None) or [1] * len(choices))
                shares = shares / shares.sum()
                if i < n:
                    a = len(choices) * prior_weight / (n + 1)
                    own = parameter.from_unit(seen.x[i, column]) == value
                    q = shares[choices.index(value)]
                    kernel *= (own + a * q) / (1 + a) / q
                continue
            mu, sd = (seen.x[i, column], s[i, column]) if i < n else (0.5, 1.0)
            whole = norm.cdf(1, mu, sd) - norm.cdf(0, mu, sd)
            if parameter.cardinality == math.inf:
                kernel *= truncnorm.pdf(
                    parameter.to_unit(value), -mu / sd, (1 - mu) / sd, loc=mu, scale=sd
                )
            else:
                if isinstance(parameter, Int) and parameter.log:
                    ends = [math.log((v + h) / 0.5) / math.log(64.5 / 0.5)
                            for v, h in ((value, -0.5), (value, 0.5))]  # fmt: skip
                else:
                    count = parameter.cardinality
                    k = parameter.values_on_grid(int(count)).index(value)
                    ends = [k / count, (k + 1) / count]
                mass = norm.cdf(ends[1], mu, sd) - norm.cdf(ends[0], mu, sd)
                kernel *= mass / whole / (ends[1] - ends[0])
        total += weight * kernel
    return total


@pytest.mark.parametrize("n", [0, 1, 2, 30])
@pytest.mark.parametrize("prior_weight", [1.0, 0.2])
def test_density_is_the_formula_for_every_kind_of_parameter(n: int, prior_weight: float) -> None:
    found, seen = _fit(SPACE, n, prior_weight=prior_weight)
    configs = SPACE.sample(12, seed=9)
    at = SPACE.encode(configs)
    wanted = [math.log(_by_the_formula(SPACE, seen, prior_weight, c)) for c in configs]
    np.testing.assert_allclose(found.log_density(at.x, at.mask), wanted, rtol=1e-9, atol=1e-9)


def test_density_is_the_formula_where_parameters_are_conditional() -> None:
    space = Space(
        kind=Categorical("a", "b"),
        x=Float(0, 1).active_if(Eq("kind", "a")),
        n=Int(1, 4).active_if(Eq("kind", "b")),
    )
    found, seen = _fit(space, 15)
    configs = space.sample(10, seed=4)
    at = space.encode(configs)
    wanted = [math.log(_by_the_formula(space, seen, 1.0, c)) for c in configs]
    np.testing.assert_allclose(found.log_density(at.x, at.mask), wanted, rtol=1e-9, atol=1e-9)


def test_density_has_the_mass_one() -> None:
    plane = Space(x=Float(0, 1), y=Float(0, 1))
    found, _ = _fit(plane, 6)
    both = np.ones((1, 2), dtype=bool)
    whole, error = dblquad(
        lambda y, x: math.exp(found.log_density(np.array([[x, y]]), both)[0]), 0, 1, 0, 1
    )
    assert whole == pytest.approx(1, abs=max(1e-6, error))
    found, _ = _fit(SPACE, 20)
    values = {name: SPACE[name].values_on_grid(7) for name in SPACE if name != "width"}
    values |= {"x": [0.0], "width": list(range(1, 65))}
    rows = itertools.product(*(values[name] for name in SPACE))
    grid = [dict(zip(SPACE, row, strict=True)) for row in rows]
    at = SPACE.encode(grid)
    at.mask[:, 0] = False  # what is left out is summed over
    shares = {
        "n": lambda v: 1 / 7,
        "width": lambda v: math.log((v + 0.5) / (v - 0.5)) / math.log(129),
        "grid": lambda v: 1 / 5,
        "kind": lambda v: {"a": 0.25, "b": 0.5, "c": 0.25}[v],
        "flag": lambda v: 1 / 2,
        "size": lambda v: 1 / 3,
    }
    random = [math.prod(share(c[name]) for name, share in shares.items()) for c in grid]
    assert np.exp(found.log_density(at.x, at.mask)) @ random == pytest.approx(1, abs=1e-9)


def test_draws_follow_the_density() -> None:
    space = Space(x=Float(0, 1), n=Int(1, 5), kind=Categorical("a", "b", "c", weights=[1, 2, 5]))
    found, _ = _fit(space, 5)
    points = found.draw(np.random.default_rng(1), 4000)
    alone = np.array([[True, False, False]] * 401)
    grid = np.linspace(0, 1, 401)
    density = np.exp(found.log_density(np.array([[u, 0.5, 0.5] for u in grid]), alone))
    cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 / 400)])
    assert kstest(points[:, 0], lambda u: np.interp(u, grid, cdf)).pvalue > 1e-3
    configs = space.decode(points)
    for column, name, shares in ((1, "n", [0.2] * 5), (2, "kind", [1 / 8, 2 / 8, 5 / 8])):
        values = space[name].values_on_grid(10)
        at = np.full((len(values), 3), 0.5)
        at[:, column] = [space[name].encode(v)[0] for v in values]
        one = np.zeros((len(values), 3), dtype=bool)
        one[:, column] = True
        mass = np.exp(found.log_density(at, one)) * shares
        counts = [sum(c[name] == v for c in configs) for v in values]
        assert chisquare(counts, 4000 * mass).pvalue > 1e-3


def test_inactive_coordinates_are_drawn_at_random() -> None:
    space = Space(on=Bool(), x=Float(0, 1).active_if(Eq("on", True)))
    configs = [{"on": False}] * 8
    seen = space.encode(configs)
    found = Parzen(Axes(space), seen.x, seen.mask, np.ones(8), 0.01)
    points = found.draw(np.random.default_rng(0), 2000)
    assert kstest(points[:, 1], "uniform").pvalue > 1e-3
    assert np.mean(points[:, 0] < 0.5) > 0.99


def test_takes_every_kind_of_space_and_ranges_of_any_width() -> None:
    wide = Space(
        a=Int(0, 2**44), b=Int(1, 2**44, log=True), c=Permutation(5), d=Subset(4, min=1, max=2)
    )
    for space in (mixed_space(), wide):
        found, _ = _fit(space, 40)
        points = found.draw(np.random.default_rng(0), 20)
        assert ((points >= 0) & (points <= 1)).all()
        at = space.encode(space.decode(points))
        assert np.isfinite(found.log_density(at.x, at.mask)).all()


def test_a_narrow_bin_has_the_density_at_its_centre() -> None:
    fine = Space(n=Int(0, 999_999))
    found, seen = _fit(fine, 10)
    real = Parzen(Axes(Space(x=Float(0, 1))), seen.x, seen.mask, np.linspace(0.5, 1, 10), 1.0)
    at = fine.encode(fine.sample(20, seed=3))
    np.testing.assert_allclose(
        found.log_density(at.x, at.mask), real.log_density(at.x, at.mask), atol=1e-8
    )
    top, _ = quad(lambda u: math.exp(real.log_density(np.array([[u]]), at.mask[:1])[0]), 0, 1)
    assert top == pytest.approx(1, abs=1e-6)


def test_without_scipy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(DependencyNotInstalled, match=r"sharpen\[search\]"):
        _fit(SPACE, 3)


@pytest.mark.peer
def test_density_is_that_of_optuna() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters

    # Wide enough that no value comes twice: of equal ones, theirs gives each another bandwidth
    # by an order that is not defined.
    space = Space(
        x=Float(-1, 3),
        lr=Float(1e-4, 1, log=True),
        n=Int(1, 70_000),
        width=Int(600, 64_000, log=True),
        grid=Float(0, 1, step=0.0001),
        kind=Categorical("a", "b", "c"),
    )
    theirs = {
        "x": FloatDistribution(-1, 3),
        "lr": FloatDistribution(1e-4, 1, log=True),
        "n": IntDistribution(1, 70_000),
        "width": IntDistribution(600, 64_000, log=True),
        "grid": FloatDistribution(0, 1, step=0.0001),
        "kind": CategoricalDistribution(("a", "b", "c")),
    }

    def arrays(configs: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            name: np.array([theirs[name].to_internal_repr(c[name]) for c in configs])
            for name in theirs
        }

    seen, asked = space.sample(40, seed=1), space.sample(30, seed=2)
    assert all(len({c[name] for c in seen}) == 40 for name in space if name != "kind")
    parameters = _ParzenEstimatorParameters(1.0, True, False, np.ones, True)
    wanted = _ParzenEstimator(arrays(seen), theirs, parameters).log_pdf(arrays(asked))
    encoded, at = space.encode(seen), space.encode(asked)
    ours = Parzen(Axes(space), encoded.x, encoded.mask, np.ones(40), 1.0)
    # Theirs is a density of x and log lr and a mass of the rest; ours is relative to uniform.
    bottom, top = math.log(599.5), math.log(64_000.5)
    random = [
        math.log((math.log(c["width"] + 0.5) - math.log(c["width"] - 0.5)) / (top - bottom))
        - math.log(4 * math.log(1e4) * 70_000 * 10_001 * 3)
        for c in asked
    ]
    np.testing.assert_allclose(ours.log_density(at.x, at.mask) + random, wanted, atol=1e-6)
