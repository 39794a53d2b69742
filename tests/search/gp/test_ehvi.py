import os
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback
from sharpen.core.files import cache_home
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.gp.ehvi import EHVI, log_hypervolume_improvement
from sharpen.search.gp.model import GaussianProcess, Hyperparameters
from sharpen.search.gp.parego import ParEGO
from sharpen.search.pareto import free_boxes, hypervolume
from sharpen.search.sobol import Sobol
from sharpen.testing import OptimizerConformance

OBJECTIVES = (Objective("a"), Objective("b"))
SPACE = Space(x=Float(0, 1), y=Float(0, 1))


class TestEHVI(OptimizerConformance):
    optimizer = partial(EHVI, samples=64, restarts=2)
    evaluations = 25
    regret = 0.5


def models(m: int) -> list[GaussianProcess]:
    x = torch.from_numpy(np.random.default_rng(0).random((9, 2)))
    scales = torch.full((2,), 0.5, dtype=torch.float64)
    hyper = Hyperparameters(lengthscales=scales, scale=1.2, noise=1e-4)
    return [GaussianProcess(x, torch.sin((j + 2) * x).sum(1) * (-1) ** j, hyper) for j in range(m)]


FRONT = {
    1: np.array([[0.4]]),
    2: np.array([[0.2, -0.9], [0.9, -1.4], [1.2, -1.5]]),
    3: np.array([[0.2, -0.9, 0.5], [0.9, -1.4, 0.4], [0.3, -1.0, 0.1], [0.6, -0.7, -0.4]]),
}
REFERENCE = np.array([1.8, 0.3, 1.5])


@pytest.mark.parametrize("m", [1, 2, 3])
def test_free_boxes_cover_what_no_point_dominates_once(m: int) -> None:
    front, reference = FRONT[m], REFERENCE[:m]
    low, high = free_boxes(front, reference)
    drawn = np.random.default_rng(0).uniform(-3, 2, (4000, m))
    inside = ((drawn[:, None] >= low) & (drawn[:, None] < high)).all(2).sum(1)
    dominated = (front[None] <= drawn[:, None]).all(2).any(1)
    wanted = ~dominated & (drawn < reference).all(1)
    assert np.array_equal(inside, wanted.astype(int))


@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_expected_volume_is_the_mean_over_draws(m: int) -> None:
    at = torch.from_numpy(np.random.default_rng(3).random((4, 2)))
    front, reference = FRONT[m], REFERENCE[:m]
    got = log_hypervolume_improvement(models(m), front, reference)(at).exp()
    before = hypervolume(front, reference)
    moments = [model.posterior(at) for model in models(m)]
    rng = np.random.default_rng(4)
    for i in range(len(at)):
        sample = np.column_stack(
            [rng.normal(float(mean[i]), float(v[i]) ** 0.5, 4000) for mean, v in moments]
        )
        gains = np.array([hypervolume(np.vstack([front, y]), reference) for y in sample]) - before
        error = gains.std() / np.sqrt(len(gains))
        assert float(got[i]) == pytest.approx(gains.mean(), abs=4 * error + 1e-6)


def test_gradients_are_those_of_finite_differences_and_do_not_vanish() -> None:
    at = torch.from_numpy(np.random.default_rng(3).random((5, 2))).requires_grad_()
    volume = log_hypervolume_improvement(models(2), FRONT[2], REFERENCE[:2])
    assert torch.autograd.gradcheck(volume, at, atol=1e-5, rtol=1e-4)
    hopeless = log_hypervolume_improvement(models(2), FRONT[2] - 40, REFERENCE[:2] - 40)
    value = hopeless(at)
    assert float(value.detach().max()) < -200
    (slope,) = torch.autograd.grad(value.sum(), at)
    assert slope.isfinite().all()
    assert (slope.abs() > 0.1).any()


def schaffer(config: dict[str, Any]) -> dict[str, float]:
    x, y = 4 * config["x"] - 1, config["y"]
    return {"a": x**2 + y, "b": (x - 2) ** 2 + y}


def volume_of(optimizer: Any, trials: int) -> float:
    for _ in range(trials):
        candidate = optimizer.ask()[0]
        optimizer.tell([candidate.result(schaffer(candidate.config))])
    losses = [list(trial.values.values()) for trial in optimizer.history.values()]
    return hypervolume(np.array(losses), np.array([4.0, 4.0]))


def test_it_covers_more_than_random_weights_and_than_even_samples() -> None:
    found = {
        made: np.median([volume_of(made(SPACE, OBJECTIVES, seed=s, **o), 20) for s in range(2)])
        for made, o in (
            (EHVI, {"samples": 64, "restarts": 2, "n_init": 5}),
            (ParEGO, {"samples": 64, "restarts": 2, "n_init": 5}),
            (Sobol, {}),
        )
    }
    assert found[EHVI] > found[ParEGO] > found[Sobol]


def test_a_reference_point_says_what_counts() -> None:
    optimizer = EHVI(SPACE, OBJECTIVES, n_init=5, reference={"a": 0.5, "b": 4.0}, samples=64)
    for _ in range(14):
        candidate = optimizer.ask()[0]
        optimizer.tell([candidate.result(schaffer(candidate.config))])
    late = optimizer.seen.loss[7:, 0]
    assert (late < 0.6).mean() > 0.7


def test_constraints_and_maxima_and_batches() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1))
    objectives = (Objective("a", "max"), Objective("b"))
    optimizer = EHVI(space, objectives, [Constraint("c", "<=", 0.5)], n_init=5, samples=64)
    for _ in range(16):
        candidate = optimizer.ask()[0]
        x, y = candidate.config["x"], candidate.config["y"]
        optimizer.tell([candidate.result({"a": x, "b": x**2 + y, "c": x})])
    good = optimizer.seen.good
    assert good.sum() >= 6
    assert -optimizer.seen.loss[good, 0].min() > 0.45
    assert len({c.config["x"] for c in optimizer.ask(3)}) == 3


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="for each of a, b"):
        EHVI(SPACE, OBJECTIVES, reference={"a": 1.0})
    with pytest.raises(ConfigError, match="ehvi"):
        EHVI(SPACE, OBJECTIVES, acquisition="log_ei")


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("m", [2, 3])
def test_the_volume_is_that_of_botorch(m: int) -> None:
    analytic = pytest.importorskip("botorch.acquisition.multi_objective.analytic")
    from botorch.models import ModelListGP
    from botorch.utils.multi_objective.box_decompositions.non_dominated import (
        NondominatedPartitioning,
    )

    from sharpen.search.gp.bridge import to_botorch

    at = torch.from_numpy(np.random.default_rng(3).random((10, 2)))
    reference = torch.from_numpy(-REFERENCE[:m])
    boxes = NondominatedPartitioning(ref_point=reference, Y=torch.from_numpy(-FRONT[m]))
    peer = analytic.ExpectedHypervolumeImprovement(
        ModelListGP(*[to_botorch(model, negate=True) for model in models(m)]),
        ref_point=reference,
        partitioning=boxes,
    )
    got = log_hypervolume_improvement(models(m), FRONT[m], REFERENCE[:m])(at).exp()
    np.testing.assert_allclose(got, peer(at[:, None]).detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_noisy_volume_by_botorch_covers_the_front() -> None:
    pytest.importorskip("botorch")
    options = {"acquisition": "nehvi", "samples": 32, "restarts": 2, "n_init": 5}
    found = volume_of(EHVI(SPACE, OBJECTIVES, seed=1, **options), 8)
    assert found > volume_of(Sobol(SPACE, OBJECTIVES, seed=1), 8)


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_a_process_killed_while_it_compiled_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it leaves would be waited for without end."""
    pytest.importorskip("botorch")
    from botorch.acquisition.multi_objective import logei

    from sharpen.search.gp.bridge import noisy_hypervolume_improvement

    left = cache_home() / "torch_extensions" / "logei_fused_ext" / "lock"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    monkeypatch.setattr(logei, "_load_attempted", False)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "elsewhere")
    at = torch.from_numpy(np.random.default_rng(3).random((3, 2)))
    volume = noisy_hypervolume_improvement(models(2), at, torch.from_numpy(REFERENCE[:2]), 0)
    assert bool(volume(at).isfinite().all())
    assert not left.exists()
    assert os.environ["TORCH_EXTENSIONS_DIR"] == "elsewhere"


def test_data_that_tell_little_are_survived() -> None:
    made = partial(EHVI, SPACE, OBJECTIVES, samples=32, restarts=2)
    for outcome in ({"a": 1.0, "b": 2.0}, {"a": 1e100, "b": -1e-100}, float("nan")):
        optimizer = made(n_init=2)
        for _ in range(5):
            candidate = optimizer.ask()[0]
            told = outcome if isinstance(outcome, dict) else Feedback(status="failed")
            optimizer.tell([candidate.result(told)])
        assert SPACE.validate(optimizer.ask()[0].config)
    one = made(n_init=1)
    candidate = one.ask()[0]
    one.tell([candidate.result({"a": 1.0, "b": 1.0})])
    again = replace(candidate.result({"a": 1.0, "b": 1.0}), number=1)
    one.tell([again, replace(again, number=2)])
    assert one.ask()[0].config != candidate.config
