import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback
from sharpen.core.parameters import Bool, Categorical, Float, Int
from sharpen.core.problem import Constraint, Fidelity, Objective, TrialContext
from sharpen.core.space import Space
from sharpen.problems import Synthetic, synthetic
from sharpen.search.gp import GP
from sharpen.search.gp.acquire import ACQUISITIONS
from sharpen.search.gp.surrogates import due_of
from sharpen.search.gp.turbo import TuRBO
from sharpen.testing import OptimizerConformance

SQUARE = Space(x=Float(0, 1), y=Float(0, 1))


class TestGP(OptimizerConformance):
    optimizer = partial(GP, samples=128, restarts=4)
    evaluations = 25
    regret = 0.05


@pytest.mark.slow
class TestGPOfWarpedInputsAveragedOverHyperparameters(OptimizerConformance):
    optimizer = partial(GP, hyper="bayes", warp=True, n_init=5, samples=32, restarts=2)
    evaluations = 20
    proposals = 25
    regret = 1.0


@pytest.mark.slow
class TestGPOfJointEntropy(OptimizerConformance):
    optimizer = partial(GP, acquisition="jes", n_init=5, samples=64, restarts=2)
    evaluations = 30
    proposals = 25
    regret = 0.5


class TestGPWithFewInitialTrials(OptimizerConformance):
    """The model proposes nearly all, in the space of every kind of parameter too."""

    optimizer = partial(GP, n_init=3, samples=32, restarts=2)
    evaluations = 25
    regret = 0.05


def play(optimizer: GP, loss: Callable[[dict[str, Any]], Any], trials: int) -> list[dict[str, Any]]:
    configs = []
    for _ in range(trials):
        candidate = optimizer.ask()[0]
        configs.append(candidate.config)
        optimizer.tell([candidate.result(loss(candidate.config))])
    return configs


def solve(problem: Synthetic, trials: int, seed: int = 0, **options: Any) -> tuple[GP, float]:
    optimizer = GP(problem.space, constraints=problem.constraints, seed=seed, **options)
    for k in range(trials):
        candidate = optimizer.ask()[0]
        value = problem.evaluate(candidate.config, TrialContext(number=k, seed=seed))
        optimizer.tell([candidate.result(value)])
    return optimizer, problem.regret(optimizer.recommend().config)


def bowl(config: dict[str, Any]) -> float:
    return float((config["x"] - 0.3) ** 2 + (config["y"] - 0.8) ** 2)


@pytest.mark.parametrize(
    "acquisition",
    [
        pytest.param(a, marks=[pytest.mark.peer, pytest.mark.filterwarnings("ignore")])
        if a == "pes"
        else a
        for a in ACQUISITIONS
    ],
)
def test_every_acquisition_finds_the_bottom_of_a_bowl(acquisition: str) -> None:
    found = []
    for seed in (1, 2, 3):
        optimizer = GP(SQUARE, acquisition=acquisition, n_init=5, seed=seed)
        play(optimizer, bowl, 18)
        found.append(bowl(optimizer.recommend().config))
    assert np.median(found) < 1e-3


@pytest.mark.parametrize("acquisition", ["log_ei", "mes", "ts"])
def test_acquisitions_are_averaged_over_draws_of_the_hyperparameters(acquisition: str) -> None:
    optimizer = GP(SQUARE, acquisition=acquisition, hyper="bayes", n_init=5, seed=1, samples=64)
    play(optimizer, bowl, 10)
    assert bowl(optimizer.recommend().config) < 0.05
    found = optimizer._all_models(optimizer.seen.imputed()[:, 0])["loss"]
    scales = torch.stack([m.hyper.lengthscales for m in found.draws])
    assert len(scales) == 16
    assert (scales.std(0) > 0).all()


def test_what_is_feasible_under_noise_follows_from_the_expected_margin() -> None:
    rng = np.random.default_rng(1)
    optimizer = GP(SQUARE, constraints=[Constraint("far", "<=", 0.0)], n_init=5, seed=2)

    def values(c: dict[str, Any]) -> dict[str, float]:
        return {"value": c["x"], "far": 0.5 - c["x"] + 0.1 * rng.normal()}

    play(optimizer, values, 40)
    models = optimizer._all_models(optimizer.seen.imputed()[:, 0])
    good = optimizer._good(models)
    x = optimizer.seen.x[:, 0]
    # By single measurements, more trials of the forbidden side pass.
    assert (x[good] < 0.5).sum() < (x[optimizer.seen.good] < 0.5).sum()
    assert optimizer.recommend().config["x"] > 0.42


@pytest.mark.parametrize("options", [{}, {"hyper": "bayes"}, {"warp": True}, {"acquisition": "kg"}])
def test_data_that_tell_little_are_survived(options: dict[str, Any]) -> None:
    made = partial(GP, SQUARE, samples=32, restarts=2, **options)
    equal = made(n_init=2)
    play(equal, lambda c: 3.0, 5)
    assert equal.ask()[0].config
    one = made(n_init=1)
    play(one, bowl, 1)
    assert one.ask()[0].config
    twice = made(n_init=2)
    for value in (1.0, 1.0, 5.0, 5.5):
        candidate = twice.ask()[0]
        twice.tell([replace(candidate.result(value), config={"x": 0.25, "y": 0.5})])
    assert twice.ask()[0].config != {"x": 0.25, "y": 0.5}
    huge = made(n_init=2)
    play(huge, lambda c: 1e30 * c["x"] - 1e100 * (c["y"] > 0.99), 5)
    assert huge.ask()[0].config


def test_three_hundred_trials_are_modelled() -> None:
    optimizer = GP(SQUARE, n_init=3, samples=64, restarts=2)
    candidate = optimizer.ask()[0]
    drawn = np.random.default_rng(0).random((300, 2)).tolist()
    optimizer.tell(
        replace(candidate.result(bowl({"x": x, "y": y})), number=k, config={"x": x, "y": y})
        for k, (x, y) in enumerate(drawn)
    )
    assert bowl(optimizer.ask()[0].config) < 1e-3


def test_hartmann_is_nearly_solved_in_fifty_trials_and_random_search_is_far() -> None:
    _, regret = solve(synthetic("hartmann6"), 50, seed=2, budget=50)
    assert regret < 0.25  # a local minimum is 0.12 away; random search has about 1.4


def test_keeps_constraints_and_finds_the_minimum_on_their_border() -> None:
    problem = synthetic("gramacy")
    optimizer, regret = solve(problem, 30, budget=30)
    assert 0 <= regret < 1e-3
    assert optimizer.seen.good.sum() >= 5


def test_looks_for_a_feasible_trial_before_all_else() -> None:
    constraint = Constraint("far", "<=", 0.15)
    optimizer = GP(SQUARE, constraints=[constraint], n_init=5)

    def values(c: dict[str, Any]) -> dict[str, float]:
        return {"value": c["x"], "far": math.hypot(c["x"] - 0.9, c["y"] - 0.1)}

    play(optimizer, values, 20)
    assert optimizer.seen.good.any()
    assert optimizer.recommend().predicted["value"] < 0.85


def test_a_maximum_is_found_like_a_minimum() -> None:
    small = GP(SQUARE, n_init=5)
    large = GP(SQUARE, [Objective("value", "max")], n_init=5)
    assert play(small, bowl, 10) == play(large, lambda c: -bowl(c), 10)
    assert large.recommend().predicted["value"] == -small.recommend().predicted["value"]


def test_learns_to_avoid_where_trials_fail() -> None:
    optimizer = GP(SQUARE, n_init=6, seed=3)

    def half(config: dict[str, Any]) -> Feedback:
        if config["x"] > 0.63:
            return Feedback(status="failed")
        return Feedback(objectives={"value": -config["x"]})

    configs = play(optimizer, half, 30)
    late = [c["x"] for c in configs[15:]]
    assert np.median(late) < 0.7  # of the whole range it asks near the border
    assert 0.59 < optimizer.recommend().config["x"] <= 0.63


def test_few_failures_count_as_bad_and_pruned_trials_always_do() -> None:
    optimizer = GP(SQUARE, n_init=4)
    play(optimizer, bowl, 6)
    worst = optimizer.seen.loss.max()
    for status in ("failed", "pruned", "pruned", "pruned", "pruned"):
        candidate = optimizer.ask()[0]
        optimizer.tell([candidate.result(Feedback(status=status))])  # type: ignore[arg-type]
    models = optimizer._all_models(optimizer.seen.imputed()[:, 0])
    assert set(models) == {"loss"}
    assert len(models["loss"].model) == 11
    lowest = models["loss"].transform.inverse(models["loss"].model.targets.numpy()[6:]).min()
    assert lowest > worst


def test_noisy_losses_are_recommended_by_their_expected_value() -> None:
    problem = synthetic("branin", noise=10.0)
    regrets = []
    for seed in range(3):
        optimizer, regret = solve(problem, 30, seed=seed, budget=30)
        assert "posterior mean" in optimizer.recommend().why
        regrets.append(regret)
    assert np.median(regrets) < 4


def test_known_noise_is_not_learnt() -> None:
    rng = np.random.default_rng(0)

    def told(config: dict[str, Any]) -> Feedback:
        value = bowl(config) + 0.05 * rng.normal()
        return Feedback(objectives={"value": value}, std={"value": 0.05})

    optimizer = GP(SQUARE, n_init=5)
    play(optimizer, told, 12)
    model = optimizer._all_models(optimizer.seen.imputed()[:, 0])["loss"]
    deviation = model.model.known_noise.sqrt().numpy()
    expected = 0.05 * model.transform.slope(optimizer.seen.loss[:, 0])
    np.testing.assert_allclose(deviation, expected, rtol=1e-9)
    given = GP(SQUARE, n_init=5, noise=0.05)
    play(given, lambda c: bowl(c) + 0.05 * rng.normal(), 12)
    found = given._all_models(given.seen.imputed()[:, 0])["loss"].model
    assert found.hyper.noise == pytest.approx(1e-8)
    assert (found.known_noise > 0).all()


def test_a_batch_avoids_its_own_pending_trials() -> None:
    optimizer = GP(SQUARE, n_init=5, seed=4)
    play(optimizer, bowl, 10)
    batch = [[c.config["x"], c.config["y"]] for c in optimizer.ask(4)]
    gaps = [math.dist(batch[i], batch[j]) for i in range(4) for j in range(i)]
    assert min(gaps) > 0.02


def test_the_same_history_gives_the_same_proposal_in_any_order_and_with_any_threads() -> None:
    first = GP(SQUARE, n_init=4, seed=5)
    told = []
    for _ in range(24):
        candidate = first.ask()[0]
        told.append(candidate.result(bowl(candidate.config)))
        first.tell(told[-1:])
    expected = first.ask(number=24)[0].config
    other = GP(SQUARE, n_init=4, seed=5)
    other.tell(told[12:][::-1])
    other.ask(number=30)
    other.abandon([30])
    other.tell(told[:12])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert other.ask(number=24)[0].config == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_hyperparameters_are_fitted_at_every_trial_and_later_at_each_tenth_more() -> None:
    assert [due_of(n) for n in (1, 7, 20, 21, 22, 23, 30, 50)] == [1, 7, 20, 20, 22, 22, 30, 50]
    assert all(due_of(n) <= n <= 1.11 * due_of(n) for n in range(2, 600))
    optimizer = GP(SQUARE, n_init=4)
    play(optimizer, bowl, 21)
    kept = optimizer._fits["loss"]
    optimizer.ask()
    assert optimizer._fits["loss"] is kept
    assert [len(model) for model in kept.models] == [20]
    play(optimizer, bowl, 2)
    assert [len(model) for model in optimizer._fits["loss"].models] == [22]


@pytest.mark.parametrize("exponent", [-1000, 1000])
def test_the_unit_of_the_loss_does_not_matter(exponent: int) -> None:
    space = Space(x=Float(-1, 2), y=Float(0, 3))
    configs = [
        play(GP(space, seed=3), lambda config, e=e: math.ldexp(bowl(config), e), 20)
        for e in (0, exponent)
    ]
    assert configs[0] == configs[1]


def test_an_exhausted_space_repeats_and_a_space_with_values_left_does_not() -> None:
    space = Space(kind=Categorical("a", "b", "c"), flag=Bool())
    optimizer = GP(space, n_init=2)
    score = {"a": 3.0, "b": 1.0, "c": 2.0}
    configs = play(optimizer, lambda c: score[c["kind"]] + c["flag"], 6)
    assert len({space.canonical(c) for c in configs}) == 6
    assert optimizer.ask()[0].config in configs


def test_integers_are_found_among_many() -> None:
    space = Space(n=Int(1, 500), m=Int(1, 8))
    optimizer = GP(space, n_init=6)
    play(optimizer, lambda c: (c["n"] / 100 - 3.21) ** 2 + (c["m"] - 6) ** 2, 25)
    assert optimizer.recommend().config == {"n": 321, "m": 6}


def test_only_trials_at_the_highest_fidelity_count() -> None:
    fidelity = Fidelity("epochs", 1, 10)
    optimizer = GP(SQUARE, n_init=4, fidelity=fidelity)
    play(optimizer, bowl, 6)
    plain = optimizer.ask(number=6)[0].config
    optimizer.abandon([6])
    candidate = optimizer.ask(number=7)[0]
    cheap = replace(candidate.result(-100.0), fidelity=1.0)
    optimizer.tell([cheap])
    assert optimizer.ask(number=6)[0].config == plain


def test_more_than_five_hundred_trials_are_thinned() -> None:
    optimizer = GP(Space(x=Float(0, 1)), n_init=3)
    loss = np.random.default_rng(0).random(700)
    optimizer.tell(
        replace(optimizer.ask()[0].result(float(v)), config={"x": k / 700})
        for k, v in enumerate(loss)
        for _ in [optimizer.pending.clear()]
    )
    rows = optimizer._nearest(np.arange(700), loss)
    assert len(rows) == len(set(rows)) == 500
    assert set(np.argsort(loss)[:50]) <= set(rows)
    assert int(np.argmin(loss)) + 1 in rows


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="log_ei"):
        GP(SQUARE, acquisition="logei")
    with pytest.raises(ConfigError, match="kernel"):
        play(GP(SQUARE, kernel="linear", n_init=2), bowl, 3)
    with pytest.raises(ConfigError, match="bayes"):
        GP(SQUARE, hyper="bays")
    for options in ({"n_init": 0}, {"restarts": 0}, {"samples": 0}, {"noise": -1.0}):
        with pytest.raises(ConfigError, match="at least"):
            GP(SQUARE, **options)


def test_the_initial_design_is_planned_by_parameters_and_budget() -> None:
    assert GP(SQUARE).n_init == 5
    wide = Space({f"x{i}": Float(0, 1) for i in range(10)})
    assert GP(wide).n_init == 5
    assert GP(wide, budget=12).n_init == 3
    switches = Space({f"s{i}": Bool() for i in range(10)})
    assert GP(switches).n_init == 21
    assert GP(switches, budget=40).n_init == 10
    assert TuRBO(wide).n_init == 21
    assert TuRBO(wide, budget=40).n_init == 10
    assert GP(wide, seed=3).ask()[0].config == wide.default()
    forbidding = SQUARE.forbid("x + y > 0.9")
    assert forbidding.validate(GP(forbidding).ask()[0].config)
