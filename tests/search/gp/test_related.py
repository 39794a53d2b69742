import json
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.problem import Objective
from sharpen.core.space import Space
from sharpen.problems import synthetic
from sharpen.search.gp import GP, ContextualGP, ParEGO
from sharpen.search.gp.features import Features
from sharpen.search.gp.joint import JointProcess
from sharpen.search.gp.related import MOST_SLOPES, Earlier, slope_rows
from sharpen.search.gp.transforms import OutputTransform
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import branin

SPACE = Space(x=Float(-1, 3), rate=Float(1e-4, 1e-1, log=True), k=Int(0, 3))


def loss(config: dict[str, Any]) -> float:
    return float((config["x"] - 1) ** 2 + (math.log10(config["rate"]) + 2) ** 2 + config["k"])


def told(number: int, config: dict[str, Any], sign: int = 1) -> Trial:
    gradients = {
        "value": {
            "x": sign * 2 * (config["x"] - 1),
            "rate": sign * 2 * (math.log10(config["rate"]) + 2) / (config["rate"] * math.log(10)),
            "k": 1.0,
        }
    }
    feedback = Feedback(objectives={"value": sign * loss(config)}, gradients=gradients)
    return Trial(number=number, config=config, state="ok", feedback=feedback)


@pytest.mark.parametrize("sign", [1, -1])
def test_slopes_are_differences_of_the_transformed_loss_in_the_unit_cube(sign: int) -> None:
    features = Features(SPACE)
    configs = SPACE.sample(6, seed=1)
    trials = [told(k, c, sign) for k, c in enumerate(configs)]
    losses = np.array([loss(c) for c in configs])
    transform = OutputTransform.fit(losses, bend=True)
    encoded = SPACE.encode(configs)
    points = features(encoded.x, encoded.mask)
    objective = Objective("value", "min" if sign > 0 else "max")
    rows = slope_rows(trials, points, features, objective, transform)
    assert rows is not None
    assert len(rows.targets) == 12  # an Int has no slope
    for point, axis, slope in zip(rows.points, rows.axes, rows.targets, strict=True):
        k = int((torch.from_numpy(points) - point).abs().sum(1).argmin())
        ends = []
        for step in (-1e-6, 1e-6):
            moved = encoded.x[k].copy()
            moved[features.columns[list(features.moving).index(int(axis))]] += step
            ends.append(float(transform(np.array([loss(SPACE.decode([moved])[0])]))[0]))
        assert float(slope) == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=1e-4, abs=1e-6)


def test_slopes_of_the_best_trials_stay_when_there_are_many() -> None:
    features = Features(SPACE)
    configs = SPACE.sample(400, seed=2)
    trials = [told(k, c) for k, c in enumerate(configs)]
    losses = np.array([loss(c) for c in configs])
    encoded = SPACE.encode(configs)
    points = features(encoded.x, encoded.mask)
    transform = OutputTransform.fit(losses, bend=False)
    rows = slope_rows(trials, points, features, Objective("value"), transform)
    assert rows is not None
    assert len(rows.targets) == MOST_SLOPES
    best = torch.from_numpy(points[np.argsort(losses)[: MOST_SLOPES // 2]])
    kept = rows.points[rows.axes == 0]
    assert {tuple(p) for p in kept.tolist()} == {tuple(p) for p in best.tolist()}
    plain = [Trial(number=0, config=configs[0], state="ok", feedback=Feedback())]
    assert slope_rows(plain, points[:1], features, Objective("value"), transform) is None


def rosenbrock(config: dict[str, Any], with_slopes: bool) -> Feedback:
    x = np.array(list(config.values()))
    a, b = x[:-1], x[1:]
    value = float((10 * (b - a**2) ** 2 + (1 - a) ** 2).sum())
    slope = np.zeros_like(x)
    slope[:-1] += -40 * a * (b - a**2) - 2 * (1 - a)
    slope[1:] += 20 * (b - a**2)
    gradients = {"value": dict(zip(config, slope.tolist(), strict=True))} if with_slopes else {}
    return Feedback(objectives={"value": value}, gradients=gradients)


def test_slopes_save_trials() -> None:
    space = Space({f"x{i}": Float(-2, 2) for i in range(4)})
    best: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(3):
        for with_slopes in best:
            optimizer = GP(space, seed=seed, n_init=4, samples=128, restarts=4)
            for _ in range(18):
                candidate = optimizer.ask()[0]
                optimizer.tell([candidate.result(rosenbrock(candidate.config, with_slopes))])
            best[with_slopes].append(optimizer.recommend().predicted["value"])
            model = optimizer._all_models(optimizer.seen.imputed()[:, 0])["loss"].model
            assert isinstance(model, JointProcess) == with_slopes
    assert np.median(best[True]) < 0.3 * np.median(best[False])


def test_slopes_survive_a_saved_state_and_may_be_left_out() -> None:
    space = Space({f"x{i}": Float(-2, 2) for i in range(2)})
    made = partial(GP, space, seed=3, n_init=3, samples=64, restarts=2)
    first = made()
    for _ in range(6):
        candidate = first.ask()[0]
        first.tell([candidate.result(rosenbrock(candidate.config, True))])
    other = made()
    other.load_state_dict(json.loads(json.dumps(first.state_dict())))
    expected = first.ask(number=6)[0].config
    assert other.ask(number=6)[0].config == expected
    without = made(gradients=False)
    without.load_state_dict(first.state_dict())
    assert without.ask(number=6)[0].config != expected


@pytest.mark.parametrize("acquisition", ["ts", "kg", "jes", "mes", "noisy_ei"])
def test_every_acquisition_takes_slopes(acquisition: str) -> None:
    space = Space({f"x{i}": Float(-2, 2) for i in range(2)})
    optimizer = GP(space, acquisition=acquisition, n_init=3, samples=64, restarts=2)
    for _ in range(12):
        candidate = optimizer.ask()[0]
        optimizer.tell([candidate.result(rosenbrock(candidate.config, True))])
    assert optimizer.recommend().predicted["value"] < 0.5
    assert len({json.dumps(c.config) for c in optimizer.ask(3)}) == 3


def study(shift: float, seed: int, trials: int = 25) -> list[Trial]:
    """Trials of a Branin function that is moved, scaled and lifted."""
    problem = synthetic("branin")
    optimizer = GP(problem.space, seed=seed, samples=128, restarts=4)
    for _ in range(trials):
        candidate = optimizer.ask()[0]
        x, y = candidate.config["x0"] - shift, candidate.config["x1"] + shift
        optimizer.tell([candidate.result(3 * branin(x, y) + 50)])
    return list(optimizer.history.values())


def test_earlier_studies_save_trials() -> None:
    problem = synthetic("branin")
    earlier = [study(0.3, 11), study(-0.3, 12)]
    regrets: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(3):
        for warm in regrets:
            options: dict[str, Any] = {"warm_start": earlier} if warm else {}
            optimizer = GP(problem.space, seed=seed, samples=128, restarts=4, **options)
            for _ in range(9):
                candidate = optimizer.ask()[0]
                optimizer.tell([candidate.result(problem.evaluate(candidate.config))])
            regrets[warm].append(problem.regret(optimizer.recommend().config))
    assert np.median(regrets[True]) < 0.3 * np.median(regrets[False])


@pytest.mark.slow
def test_an_unrelated_study_does_little_harm() -> None:
    problem = synthetic("branin")
    rng = np.random.default_rng(0)
    noise = [
        Trial(
            number=k,
            config=c,
            state="ok",
            feedback=Feedback(objectives={"value": float(rng.normal())}),
        )
        for k, c in enumerate(problem.space.sample(25, seed=9))
    ]
    regrets = []
    for seed in range(3):
        optimizer = GP(problem.space, seed=seed, samples=128, restarts=4, warm_start=[noise])
        for _ in range(20):
            candidate = optimizer.ask()[0]
            optimizer.tell([candidate.result(problem.evaluate(candidate.config))])
        regrets.append(problem.regret(optimizer.recommend().config))
    assert np.median(regrets) < 1.0
    assert optimizer._joint_fit is not None
    assert abs(float(optimizer._joint_fit[2][1])) < 0.7


@pytest.mark.slow
class TestGPWithAnEarlierStudy(OptimizerConformance):
    """Two earlier trials, in whatever space."""

    optimizer = partial(GP, samples=32, restarts=2)
    evaluations = 22
    proposals = 25
    regret = 0.3

    def make(self, space: Space | None = None, *args: Any, **given: Any) -> Any:
        space = space or Space(x=Float(-5, 10), y=Float(0, 15))
        objectives = args[0] if args else given.get("objectives", (Objective("value"),))
        name = objectives[0].name
        trials = [
            Trial(
                number=k,
                config=config,
                state="ok",
                feedback=Feedback(objectives={name: float(k)}),
            )
            for k, config in enumerate(space.sample(3, seed=5))
        ]
        optimizer = type(self).optimizer
        objectives = given.pop("objectives", objectives)
        rest = args[1:]
        return optimizer(space, objectives, *rest, warm_start=[trials], **given)


def test_the_spread_of_earlier_studies_counts_while_there_are_few_trials() -> None:
    problem = synthetic("branin")
    earlier = Earlier(
        [study(0.1, 1, 8), study(0.2, 2, 8)],
        problem.space,
        Features(problem.space),
        Objective("value"),
    )
    pooled = float(np.median(earlier._spreads))
    equal = earlier.transform(np.array([4.0, 4.0]))
    assert equal.scale == pytest.approx(pooled * math.sqrt(5 / 7))
    many = np.random.default_rng(0).normal(size=1000) * 0.1
    assert earlier.transform(many).scale == pytest.approx(0.1, abs=0.1 * pooled)
    assert [int(rows.tasks[0]) for rows in earlier.rows] == [1, 2]
    assert len(earlier.best) == 16


def test_what_does_not_go_together_is_refused() -> None:
    trials = study(0.0, 1, 5)
    problem = synthetic("branin")
    with pytest.raises(ConfigError, match="without warp"):
        GP(problem.space, warm_start=[trials], warp=True)
    with pytest.raises(ConfigError, match="pes"):
        GP(problem.space, warm_start=[trials], acquisition="pes")
    for made in (ContextualGP, ParEGO):
        with pytest.raises(ConfigError, match="'gp'"):
            made(problem.space, warm_start=[trials])
    with pytest.raises(ConfigError, match=r"warm_start\[0\] has 0 of 5"):
        GP(Space(kind=Categorical("a", "b")), warm_start=[trials])
