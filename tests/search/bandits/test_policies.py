"""Policies against their formulas."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.search.bandits.binned import Binned
from sharpen.search.bandits.chebcb import ChebCB, bounded_least_squares
from sharpen.search.bandits.exp3 import Exp3
from sharpen.search.bandits.linear import LinearBandit
from sharpen.search.bandits.policy import Policy
from sharpen.search.bandits.rejects import SuccessiveRejects
from sharpen.search.bandits.thompson import Thompson
from sharpen.search.bandits.tsallis_inf import TsallisINF, tsallis_probabilities
from sharpen.search.bandits.ucb import UCB

MAKERS: dict[str, Any] = {
    "ucb1": UCB,
    "ucb-tuned": lambda arms: UCB(arms, tuned=True),
    "thompson": Thompson,
    "exp3": Exp3,
    "exp3-ix": lambda arms: Exp3(arms, implicit=True),
    "tsallis": TsallisINF,
    "rejects": lambda arms: SuccessiveRejects(arms, budget=500),
    "binned": Binned,
    "chebcb": ChebCB,
    "linucb": LinearBandit,
    "lints": lambda arms: LinearBandit(arms, rule="ts"),
    "square": lambda arms: LinearBandit(arms, rule="square"),
}


def played(policy: Policy, rounds: int, seed: int = 0) -> Policy:
    rng = np.random.default_rng(seed)
    means = rng.random(policy.arms)
    for _ in range(rounds):
        context = float(rng.random())
        arm, p = policy.choose(float(rng.random()), context)
        policy.learn(arm, float(means[arm] * 3 + rng.random()), p, context)
    return policy


@pytest.mark.parametrize("name", MAKERS)
def test_probabilities_are_a_distribution_and_the_state_is_plain(name: str) -> None:
    policy = MAKERS[name](7)
    for rounds in (0, 1, 10, 60):
        played(policy, rounds)
        for context in (0.0, 0.3, 1.0):
            p = policy.probabilities(context)
            assert p.shape == (7,)
            assert (p >= 0).all()
            assert p.sum() == pytest.approx(1, abs=1e-12)
    again = MAKERS[name](7)
    again.load_state_dict(policy.state_dict())
    np.testing.assert_array_equal(again.probabilities(0.4), policy.probabilities(0.4))
    played(again, 20, seed=3)
    played(policy, 20, seed=3)
    np.testing.assert_array_equal(again.probabilities(0.7), policy.probabilities(0.7))
    with pytest.raises(ConfigError, match="the state is not of"):
        MAKERS[name](8).load_state_dict(policy.state_dict())


@pytest.mark.parametrize("native", ["1", "0"])
@given(
    u=st.lists(st.floats(0, 1e6), min_size=1, max_size=40).map(lambda x: np.array([0.0, *x])),
)
def test_tsallis_probabilities_sum_to_one_and_minimize(native: str, u: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if native == "0":
            patch.setenv("SHARPEN_NATIVE", "0")
        p = tsallis_probabilities(u)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    # Stationary: u_i - 2 / sqrt(p_i) is the same for all arms.
    level = u - 2 / np.sqrt(p)
    np.testing.assert_allclose(level, level[0], rtol=1e-7, atol=1e-9)


def test_tsallis_weights_what_it_learns_by_the_probability_it_played() -> None:
    policy = TsallisINF(3)
    policy.learn(1, 2.0, 1 / 3)
    policy.learn(0, 4.0, 0.5)
    np.testing.assert_allclose(policy.losses, [8, 6, 0])
    eta, mean = 2 / math.sqrt(3), 3.0
    u = eta / mean * policy.losses
    np.testing.assert_allclose(policy.probabilities(), tsallis_probabilities(u), rtol=1e-12)


def test_ucb_plays_the_least_lower_bound() -> None:
    for tuned in (False, True):
        policy, rng = UCB(4, tuned=tuned), np.random.default_rng(1)
        losses: list[list[float]] = [[] for _ in range(4)]
        for _ in range(40):
            arm, p = policy.choose(0.5)
            assert p == 1.0
            losses[arm].append(float(rng.random() * (arm + 1)))
            policy.learn(arm, losses[arm][-1], p)
        largest = max(map(max, losses))
        bounds = []
        for mine in losses:
            x = np.array(mine) / largest
            reach = math.sqrt(2 * math.log(40) / len(x))
            if tuned:
                width = min(0.25, float(x.var()) + reach)
                reach = math.sqrt(math.log(40) / len(x) * width)
            bounds.append(x.mean() - reach)
        assert policy.choose(0.5)[0] == int(np.argmin(bounds))


def test_thompson_samples_each_arm_as_often_as_it_is_likely_the_best() -> None:
    policy = Thompson(2)
    first, second = [1.0, 2.0, 1.5, 1.2, 1.8], [1.4, 1.9, 2.4, 1.6]
    for loss in first:
        policy.learn(0, loss, 1.0)
    for loss in second:
        policy.learn(1, loss, 1.0)
    means = np.ldexp(policy.means, policy.unit)
    np.testing.assert_allclose(means, [np.mean(first), np.mean(second)])
    rng = np.random.default_rng(9)

    def draws(x: list[float]) -> Any:
        scale = np.std(x, ddof=1) / math.sqrt(len(x))
        return np.mean(x) + scale * rng.standard_t(len(x) - 1, 200_000)

    likely = float((draws(first) < draws(second)).mean())
    seen = policy.probabilities()[0]
    assert seen == pytest.approx(likely, abs=4 * math.sqrt(likely * (1 - likely) / 256))


def test_exp3_weights_are_exponential_in_estimated_losses() -> None:
    for implicit in (False, True):
        policy = Exp3(3, implicit=implicit)
        policy.learn(2, 2.0, 0.25)
        policy.learn(0, 4.0, 0.5)
        gammas = [math.sqrt(math.log(3) / (3 * t)) / 2 if implicit else 0 for t in (1, 2)]
        estimates = np.array([4 / (0.5 + gammas[1]), 0, 2 / (0.25 + gammas[0])]) / 4.0
        weights = np.exp(-math.sqrt(math.log(3) / 9) * estimates)
        np.testing.assert_allclose(policy.probabilities(), weights / weights.sum(), rtol=1e-12)


def test_successive_rejects_keeps_the_published_schedule() -> None:
    policy = SuccessiveRejects(4, budget=100)
    harmonic = 0.5 + 1 / 2 + 1 / 3 + 1 / 4
    ends = [math.ceil(96 / (harmonic * (5 - k))) for k in (1, 2, 3)]
    assert [policy.wanted(k) for k in (1, 2, 3)] == ends
    for _ in range(100):
        arm, p = policy.choose(0.5)
        policy.learn(arm, [0.3, 0.1, 0.2, 0.4][arm], p)
    assert policy.counts.astype(int).tolist() == [ends[1], 100 - sum(ends), ends[2], ends[0]]
    assert policy.left.tolist() == [False, True, False, False]
    with pytest.raises(ConfigError, match="at least the number of arms"):
        SuccessiveRejects(4, budget=3)


@pytest.mark.parametrize("native", ["1", "0"])
def test_bounded_least_squares_are_those_of_scipy(
    native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native == "0":
        monkeypatch.setenv("SHARPEN_NATIVE", "0")
    rng = np.random.default_rng(2)
    for case in range(20):
        a, y = rng.standard_normal((30, 5)), rng.standard_normal(30) * 3
        bounds = rng.random(5) * (0.3 if case % 2 else 3.0)
        theta = np.zeros(5)
        bounded_least_squares(a.T @ a, a.T @ y, bounds, theta, 1e-14)
        found = scipy.optimize.lsq_linear(a, y, (-bounds, bounds), tol=1e-14, method="bvls")
        np.testing.assert_allclose(theta, found.x, atol=1e-8)


def test_chebcb_fits_each_arm_and_weights_by_the_inverse_gap() -> None:
    policy, rng = ChebCB(3, terms=4), np.random.default_rng(3)
    rounds = []
    for _ in range(200):
        context = float(rng.random())
        arm, p = policy.choose(float(rng.random()), context)
        loss = 2 + math.cos(3 * context + arm)
        rounds.append((arm, context, loss))
        policy.learn(arm, loss, p, context)
    losses = [loss for _, _, loss in rounds]
    largest, spread = max(losses), max(losses) - min(losses)
    bounds = np.array([largest, *(2 * spread / j for j in (1, 2, 3))])
    fits, predicted = np.ldexp(policy.fits, policy.unit), []
    residuals = np.ldexp(policy.residuals, 2 * policy.unit)
    for arm in range(3):
        mine = [(c, loss) for i, c, loss in rounds if i == arm]
        t = np.polynomial.chebyshev.chebvander([2 * c - 1 for c, _ in mine], 3)
        y = np.array([loss for _, loss in mine])
        fit = scipy.optimize.lsq_linear(t, y, (-bounds, bounds), tol=1e-14, method="bvls").x
        if len(mine) > 8:  # fewer have more than one best fit
            np.testing.assert_allclose(fits[arm], fit, atol=1e-3)
        assert residuals[arm] == pytest.approx(((t @ fit - y) ** 2).sum(), abs=1e-5)
        predicted.append(np.polynomial.chebyshev.chebval(2 * 0.3 - 1, fits[arm]))
    m, d, n = 4, 3, 200
    scale = largest * (2 + 4 * spread / largest * (1 + math.log(m)))
    alpha = (math.pi + 2 / math.pi * math.log(2 * m + 1)) * spread / (2 * scale * (m + 1))
    regret = max(0.0, math.ldexp(policy.errors, 2 * policy.unit) - residuals.sum()) / scale**2
    eta = 2 * n * math.sqrt(d * n / (regret + 2 * alpha**2 * n))
    gaps = (np.array(predicted) - min(predicted)) / scale
    wanted = 1 / (d + eta * gaps)
    wanted[gaps.argmin()] = 0
    wanted[gaps.argmin()] = 1 - wanted.sum()
    np.testing.assert_allclose(policy.probabilities(0.3), wanted, rtol=1e-4)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("exponent", [-1000, 1000])
def test_the_unit_of_the_losses_does_not_matter(name: str, exponent: int) -> None:
    first, other = MAKERS[name](5), MAKERS[name](5)
    rng = np.random.default_rng(0)
    for k in range(120):
        context, loss = float(rng.random()), float(rng.random() * 2 ** (k // 12))
        loss *= k > 0  # the first is nothing
        arm, p = first.choose(float(rng.random()), context)
        first.learn(arm, loss, p, context)
        other.learn(arm, math.ldexp(loss, exponent), p, context)
        np.testing.assert_array_equal(first.probabilities(0.4), other.probabilities(0.4))


def test_linear_bandits_regress_on_polynomials_of_the_context() -> None:
    rng = np.random.default_rng(4)
    policies = {rule: LinearBandit(3, rule=rule, terms=3) for rule in ("ucb", "ts", "square")}  # type: ignore[arg-type]
    rows: list[list[tuple[float, float]]] = [[], [], []]
    for _ in range(60):
        arm, context, loss = int(rng.integers(3)), float(rng.random()), float(rng.random() * 2)
        rows[arm].append((context, loss))
        for policy in policies.values():
            policy.learn(arm, loss, 1.0, context)
    f = np.polynomial.chebyshev.chebvander([2 * 0.8 - 1], 2)[0]
    means, reaches = [], []
    largest = max(loss for row in rows for _, loss in row)
    for row in rows:
        t = np.polynomial.chebyshev.chebvander([2 * c - 1 for c, _ in row], 2)
        v = np.eye(3) + t.T @ t
        theta = np.linalg.solve(v, t.T @ np.array([loss for _, loss in row]))
        means.append(f @ theta / largest)
        reaches.append(0.5 * math.sqrt(f @ np.linalg.solve(v, f)))
    lower = np.array(means) - np.array(reaches)
    assert policies["ucb"].choose(0.5, 0.8)[0] == int(lower.argmin())
    draws = np.array(means) + np.array(reaches) * rng.standard_normal((100_000, 3))
    likely = np.bincount(draws.argmin(axis=1), minlength=3) / 100_000
    np.testing.assert_allclose(policies["ts"].probabilities(0.8), likely, atol=0.13)
    gap = np.array(means) - min(means)
    wanted = 1 / (3 + math.sqrt(180) * gap)
    wanted[gap.argmin()] += 1 - wanted.sum()
    np.testing.assert_allclose(policies["square"].probabilities(0.8), wanted, rtol=1e-9)
    with pytest.raises(ConfigError, match="must be ucb, ts or square"):
        LinearBandit(3, rule="other")  # type: ignore[arg-type]


def test_bins_learn_apart() -> None:
    policy = Binned(2, bins=2)
    for _ in range(200):
        policy.learn(0, 1.0, 0.5, 0.1)
        policy.learn(1, 0.0, 0.5, 0.1)
    assert policy.probabilities(0.2)[1] > 0.9
    np.testing.assert_allclose(policy.probabilities(0.9), [0.5, 0.5])
    assert policy.rounds == 400
