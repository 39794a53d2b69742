import numpy as np
import pytest

from sharpen.core.conditions import Eq
from sharpen.core.optimizer import Optimizer
from sharpen.core.parameters import Categorical, Float
from sharpen.core.problem import TrialContext
from sharpen.core.space import Space
from sharpen.problems import synthetic
from sharpen.search.gp import GP
from sharpen.search.gp.branches import GAIN, are_tailed, has_to_gain

BRANCHES = Space(kind=Categorical("a", "b"), x=Float(0, 1).active_if(Eq("kind", "a")))


def spread(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 4))


def test_few_trials_far_above_the_others_are_a_tail() -> None:
    x, losses = np.arange(40.0)[:, None], np.linspace(1, 2, 40)
    assert not are_tailed(x, losses)
    for worst, tailed in ((8.9, False), (9.1, True)):  # 1.5 + 15 x 0.5 is the border
        losses[-1] = worst
        middle = np.median(losses)
        assert (worst - middle > 15 * (middle - losses.min())) == tailed
        assert are_tailed(x, losses) == tailed


def test_trials_next_to_each_other_count_once() -> None:
    x, losses = spread(30), np.linspace(1, 2, 30)
    near = np.clip(x[:1] + 0.01 * np.random.default_rng(1).normal(size=(100, 4)), 0, 1)
    many, flat = np.concatenate([x, near]), np.concatenate([losses, np.full(100, 1.0)])
    middle = np.median(flat)
    assert flat.max() - middle > 15 * (middle - flat.min())  # all of them would be
    assert not are_tailed(many, flat)


def test_equal_losses_and_one_trial_have_no_tail() -> None:
    assert not are_tailed(spread(9), np.full(9, 3.0))
    assert not are_tailed(spread(1), np.array([3.0]))


@pytest.mark.parametrize(
    ("space", "acquisition", "gains"),
    [
        (BRANCHES, "auto", [GAIN, 0.0]),
        (BRANCHES, "log_ei", [0.0, 0.0]),
        (Space(x=Float(0, 1)), "auto", [0.0, 0.0]),
    ],
)
def test_every_other_step_has_to_gain_in_spaces_with_conditions(
    space: Space, acquisition: str, gains: list[float]
) -> None:
    optimizer: Optimizer = GP(space, acquisition=acquisition)
    found = []
    for _ in range(4):
        found.append(optimizer._gain())
        [candidate] = optimizer.ask()
        if len(found) != 2:  # the second is under way
            optimizer.tell([candidate.result(1.0 + len(found))])
    assert found == gains * 2
    assert [has_to_gain(k) for k in range(3)] == [True, False, True]


def test_the_best_branch_is_found_though_another_one_is_tuned_first() -> None:
    problem, solved = synthetic("conditional"), 0
    for seed in range(5):
        optimizer = GP(problem.space, seed=seed, budget=60)
        for number in range(60):
            [candidate] = optimizer.ask()
            value = problem.evaluate(candidate.config, TrialContext(number=number, seed=seed))
            optimizer.tell([candidate.result(value)])
        solved += problem.regret(optimizer.recommend().config) < 0.01
    assert solved >= 4  # three with bent losses and no gain
