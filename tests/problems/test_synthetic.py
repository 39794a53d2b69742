import math
import pickle

import numpy as np
import pytest
from scipy.optimize import minimize

from sharpen.core.errors import ConfigError
from sharpen.core.problem import Problem, TrialContext, evaluate
from sharpen.core.study import Budget, Study
from sharpen.problems import SYNTHETIC, Synthetic, synthetic

REAL = [n for n in SYNTHETIC if n not in ("mixed_ackley", "conditional")]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_the_minimizer_is_allowed_and_has_the_minimum(name: str) -> None:
    problem = synthetic(name)
    assert isinstance(problem, Problem)
    assert problem.space.validate(problem.minimizer) == problem.minimizer
    assert abs(problem.regret(problem.minimizer)) < 1e-7


@pytest.mark.parametrize("name", SYNTHETIC)
def test_no_random_configuration_beats_the_minimum(name: str) -> None:
    problem = synthetic(name)
    assert min(problem.regret(config) for config in problem.space.sample(300, seed=1)) >= -1e-9


@pytest.mark.parametrize("name", REAL)
def test_a_local_search_from_the_minimizer_finds_nothing_lower(name: str) -> None:
    problem = synthetic(name)
    names = list(problem.space)
    low = np.array([problem.space[k].low for k in names])  # type: ignore[attr-defined]
    high = np.array([problem.space[k].high for k in names])  # type: ignore[attr-defined]

    def loss(x: np.ndarray) -> float:
        config = dict(zip(names, map(float, np.clip(x, low, high)), strict=True))
        regret = problem.regret(config)
        return regret if math.isfinite(regret) else 1e6

    start = np.array([problem.minimizer[k] for k in names])
    found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13})
    assert found.fun >= -1e-9


def test_published_values() -> None:
    # Surjanovic and Bingham 2013, minima as they print them; Gramacy et al. 2016, section 2.3.
    for name, value in (
        ("branin", 0.397887),
        ("hartmann3", -3.86278),
        ("hartmann6", -3.32237),
        ("michalewicz", -4.687658),
        ("shekel", -10.5364),
    ):
        assert synthetic(name).minimum == pytest.approx(value, abs=5e-5)
    assert synthetic("gramacy").minimum == pytest.approx(0.5998, abs=5e-5)
    assert synthetic("styblinski_tang", dimensions=3).minimum == pytest.approx(
        -39.16617 * 3, abs=1e-4
    )


@pytest.mark.parametrize("name", ["ackley", "levy", "rosenbrock", "rastrigin", "styblinski_tang"])
def test_shifts_and_rotations_move_the_minimizer_and_keep_the_minimum(name: str) -> None:
    plain = synthetic(name, dimensions=5)
    moved = [synthetic(name, dimensions=5, shifted=True, rotated=True, seed=k) for k in range(4)]
    for problem in moved:
        assert problem.space.validate(problem.minimizer) == problem.minimizer
        assert problem.minimum == plain.minimum
        assert problem.regret(problem.minimizer) == pytest.approx(0, abs=1e-9)
        assert problem.minimizer != plain.minimizer
    assert len({str(p.minimizer) for p in moved}) == 4


def test_a_rotation_turns_the_axes() -> None:
    turned = synthetic("rosenbrock", dimensions=4, rotated=True, seed=1)
    x = {**turned.minimizer, "x0": turned.minimizer["x0"] + 0.3}
    assert turned.regret(x) != pytest.approx(synthetic("rosenbrock").regret(x), rel=1e-3)


def test_noise_has_its_deviation_follows_the_seed_and_leaves_the_truth() -> None:
    problem = synthetic("branin", noise=2.0)
    config = {"x0": 1.0, "x1": 1.0}
    truth = problem.true_values(config)["value"]
    draws = [problem.evaluate(config, TrialContext(seed=s))["value"] - truth for s in range(2000)]
    assert np.std(draws) == pytest.approx(2.0, rel=0.06)  # 4 standard errors
    assert abs(np.mean(draws)) < 4 * 2 / math.sqrt(2000)
    again = problem.evaluate(config, TrialContext(seed=5))["value"] - truth
    assert again == draws[5]


def test_low_fidelities_are_cheaper_and_wrong() -> None:
    problem = synthetic("augmented_hartmann")
    assert problem.fidelity is not None
    assert problem.fidelity.cost(0.0) < 0.02
    low = evaluate(problem, problem.minimizer, TrialContext(fidelity=0.0)).objectives["value"]
    high = evaluate(problem, problem.minimizer, TrialContext(fidelity=1.0)).objectives["value"]
    assert high == pytest.approx(problem.minimum, abs=1e-9)
    assert low > high


def test_a_study_runs_one() -> None:
    study = Study(
        synthetic("gramacy"), optimizer="random", store="sqlite://", budget=Budget(trials=5)
    )
    study.run()
    assert len(study.trials()) == 5


def test_a_pickle_is_the_same_problem() -> None:
    problem = synthetic("ackley", dimensions=3, shifted=True, rotated=True, seed=4)
    again = pickle.loads(pickle.dumps(problem))
    config = problem.space.sample(seed=2)[0]
    assert again.true_values(config) == problem.true_values(config)
    assert again.minimizer == problem.minimizer


def test_an_infeasible_configuration_has_infinite_regret() -> None:
    assert synthetic("gramacy").regret({"x0": 0.0, "x1": 0.0}) == math.inf


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="Known: ackley"):
        synthetic("brannin")
    with pytest.raises(ConfigError, match="neither"):
        synthetic("branin", shifted=True)
    with pytest.raises(ConfigError, match="6 dimensions"):
        synthetic("hartmann6", dimensions=4)
    with pytest.raises(ConfigError, match="cube alone"):
        synthetic("michalewicz", rotated=True)
    with pytest.raises(ConfigError, match="at least 2"):
        synthetic("levy", dimensions=1)
    assert isinstance(synthetic("levy", dimensions=16), Synthetic)
