from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from sharpen.core.feedback import Feedback
from sharpen.core.optimizer import Optimizer
from sharpen.core.parameters import Bool, Float
from sharpen.core.problem import Constraint
from sharpen.core.space import Space
from sharpen.problems import synthetic
from sharpen.search.gp import GP
from sharpen.search.gp.local import Region, _nearest, _widths, is_near, length
from sharpen.search.gp.surrogates import one_thread

CUBE = Space({f"x{i}": Float(0, 1) for i in range(3)})


def play(optimizer: Optimizer, loss: Any, trials: int) -> None:
    for _ in range(trials):
        candidate = optimizer.ask()[0]
        optimizer.tell([candidate.result(loss(candidate.config))])


def valley(config: dict[str, Any]) -> float:
    """Long and bent, like Rosenbrock's, with its minimum at 0.7."""
    x = [4 * (v - 0.7) + 1 for v in config.values() if isinstance(v, float)]
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(x))


def region_of(optimizer: GP, number: int) -> Region | None:
    losses = optimizer.seen.imputed()[:, 0]
    with one_thread():
        models = optimizer._all_models(losses)
        region: Region | None = optimizer._region(models, losses, number, optimizer.n_init)
    return region


def test_of_four_steps_the_first_is_over_the_whole_space() -> None:
    assert [is_near(step) for step in range(8)] == [False, True, True, True] * 2


def steps(merits: list[float], first: int = 1) -> list[tuple[int, float]]:
    """Merits of steps near the best, those over the whole space left out."""
    numbers = (k for k in range(first, 1000) if k < 0 or is_near(k))
    return list(zip(numbers, merits, strict=False))


def test_the_region_doubles_where_a_step_improves_and_halves_after_patience() -> None:
    begin = [(-1, 5.0)]
    assert length([], 3) == length(begin, 3) == 0.2
    assert length(begin + steps([4.0]), 3) == pytest.approx(0.4)
    assert length(begin + steps([4.0, 3.0, 2.0, 1.0]), 3) == 1.0  # no larger than the cube
    assert length(begin + steps([6.0]), 3) == 0.2
    assert length(begin + steps([6.0, 5.0]), 3) == pytest.approx(0.1)
    # An improvement in between begins the count anew; patience grows with the dimensions.
    assert length(begin + steps([6.0, 4.0, 6.0]), 3) == pytest.approx(0.4)
    assert length(begin + steps([6.0] * 3), 12) == 0.2
    assert length(begin + steps([6.0] * 4), 12) == pytest.approx(0.1)
    # 0.2 / 2^4 is above 2^-7, the next half is not: all begins again.
    assert length(begin + steps([6.0] * 8), 3) == pytest.approx(0.0125)
    assert length(begin + steps([6.0] * 10), 3) == 0.2


def test_initial_trials_and_steps_over_the_whole_space_leave_the_region_as_it_is() -> None:
    begin = [(-3, 5.0), (-2, 4.0), (-1, 9.0), (0, 3.0), (4, 2.0), (8, 9.0), (12, 9.0)]
    assert length(begin, 3) == 0.2
    # But what they found is what a step near the best has to improve on.
    assert length([*begin[:5], (5, 2.5), (6, 2.5)], 3) == pytest.approx(0.1)


def test_sides_follow_the_lengthscales_within_limits() -> None:
    widths = _widths(np.array([0.5, 1.0, 2.0]))
    assert widths == pytest.approx([0.5, 1, 2])
    assert np.prod(_widths(np.array([3.0, 5.0, 7.0]))) == pytest.approx(1)
    assert _widths(np.array([1e-2, 1.0, 1e2])) == pytest.approx([0.25, 1, 4])


def test_the_nearest_by_scaled_distance_are_modelled() -> None:
    rng = np.random.default_rng(0)
    points, centre, widths = rng.random((60, 5)), rng.random(5), np.array([0.25, 1, 1, 2, 4])
    rows = _nearest(points, centre, widths)
    gaps = [float(np.linalg.norm((p - centre) / widths)) for p in points]
    assert list(rows) == sorted(sorted(range(60), key=lambda k: gaps[k])[:20])
    assert len(_nearest(points[:, :2], centre[:2], widths[:2])) == 15
    assert list(_nearest(points[:9], centre, widths)) == list(range(9))


def test_steps_near_the_best_keep_to_the_region_and_others_do_not() -> None:
    optimizer = GP(CUBE, seed=1, n_init=5)
    play(optimizer, valley, 25)
    inside = []
    for number in range(25, 41):
        region = region_of(optimizer, number)
        candidate = optimizer.ask()[0]
        x = CUBE.encode([candidate.config]).x[0]
        assert (region is not None) == is_near(number - 5)
        if region is not None:
            assert region.centre == pytest.approx(optimizer._anchors(optimizer.seen.loss[:, 0])[0])
            assert ((region.lower <= x + 1e-12) & (x - 1e-12 <= region.upper)).all()
            inside.append(np.prod(region.upper - region.lower))
        optimizer.tell([candidate.result(valley(candidate.config))])
    assert max(inside) < 1


@pytest.mark.parametrize(
    ("loss", "kernel"),
    [
        (lambda x: float(((x - 0.4) ** 2).sum()), "rbf"),
        (lambda x: float(np.abs(x - 0.4).max()), "matern52"),
    ],
)
def test_the_model_of_the_region_has_the_kernel_of_the_likelier_losses(
    loss: Callable[[Any], float], kernel: str
) -> None:
    square = Space(x=Float(0, 1), y=Float(0, 1))
    optimizer = GP(square, seed=2, n_init=5)
    candidate = optimizer.ask()[0]
    drawn = np.random.default_rng(0).random((40, 2))
    optimizer.tell(
        replace(candidate.result(loss(x)), number=k, config=square.decode(x[None])[0])
        for k, x in enumerate(drawn)
    )
    rows = np.arange(10, 40)
    losses, x = optimizer.seen.loss[rows, 0], optimizer.seen.x[rows]
    groups = optimizer._features.groups
    likelihoods = {}
    for name in ("matern52", "rbf"):
        fitted = optimizer._fit(f"own {name}", x, groups, losses, None, True, kernels=(name,))
        likelihoods[name] = float(fitted.model.log_likelihood())
    found = optimizer._likelier(rows, losses).model
    assert found.kernel == max(likelihoods, key=lambda name: likelihoods[name]) == kernel
    assert float(found.log_likelihood()) == pytest.approx(likelihoods[kernel])
    assert torch.equal(found.features, torch.from_numpy(x))


def test_there_is_no_region_while_trials_run_nor_among_choices_nor_without_a_feasible_trial() -> (
    None
):
    optimizer = GP(CUBE, seed=1, n_init=5)
    play(optimizer, valley, 10)
    assert region_of(optimizer, 10) is not None
    optimizer.ask()
    assert region_of(optimizer, 11) is None
    mixed = GP(Space(on=Bool(), x=Float(0, 1), y=Float(0, 1)), seed=1, n_init=5)
    play(mixed, lambda c: (c["x"] - 0.3) ** 2 + c["y"] + c["on"], 10)
    assert region_of(mixed, 10) is None
    infeasible = GP(CUBE, constraints=[Constraint("g", "<=", 0.0)], seed=1, n_init=5)
    play(infeasible, lambda c: {"value": valley(c), "g": 1.0}, 10)
    assert region_of(infeasible, 10) is None


def test_slopes_and_other_acquisitions_are_searched_for_over_the_whole_space() -> None:
    told = GP(CUBE, seed=1, n_init=5)
    slopes = {"value": dict.fromkeys(CUBE, 1.0)}
    for _ in range(10):
        candidate = told.ask()[0]
        value = sum(candidate.config.values())
        feedback = Feedback(objectives={"value": value}, gradients=slopes)
        told.tell([candidate.result(feedback)])
    assert region_of(told, 10) is None
    same = [GP(CUBE, seed=1, n_init=5, acquisition=a) for a in ("auto", "log_ei")]
    for optimizer in same:
        play(optimizer, valley, 6)
    first = [[trial.config for trial in optimizer.history.values()] for optimizer in same]
    assert first[0] == first[1]  # five initial trials and a step over the whole space
    assert same[0].ask()[0].config != same[1].ask()[0].config


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_noisy_losses_are_searched_over_the_whole_space(noise: float) -> None:
    rng = np.random.default_rng(3)
    optimizer = GP(CUBE, seed=1, n_init=5)
    play(optimizer, lambda c: sum((v - 0.4) ** 2 for v in c.values()) + noise * rng.normal(), 30)
    models = optimizer._all_models(optimizer.seen.imputed()[:, 0])
    assert (models["loss"].model.noise > 1e-3) == (noise > 0)
    assert (region_of(optimizer, 30) is None) == (noise > 0)


def test_waves_that_look_like_noise_from_afar_have_a_region_around_the_least_expected_loss() -> (
    None
):
    problem = synthetic("ackley", dimensions=10, shifted=True, seed=1)
    optimizer = GP(problem.space, seed=1, n_init=5)
    play(optimizer, problem.evaluate, 40)
    region = region_of(optimizer, 42)
    models = optimizer._all_models(optimizer.seen.imputed()[:, 0])
    assert models["loss"].model.noise > 1e-3
    assert region is not None
    mean = models["loss"].model.posterior(torch.from_numpy(optimizer.seen.x.copy()))[0]
    assert region.centre == pytest.approx(optimizer.seen.x[int(mean.argmin())])
