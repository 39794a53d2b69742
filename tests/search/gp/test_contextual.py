from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.optimizer import Candidate, make_optimizer
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.gp.acquisition import noisy_expected_improvement, value_and_slopes
from sharpen.search.gp.contextual import AtContext, ContextualGP, OverContexts
from sharpen.search.gp.model import GaussianProcess, Hyperparameters
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import branin

SPACE = Space(x=Float(0, 1))
LOADS = Space(w=Float(0, 1))


class TestContextualGPWithoutContexts(OptimizerConformance):
    optimizer = partial(ContextualGP, samples=32, restarts=2)
    evaluations = 25
    regret = 0.05


@pytest.mark.slow
class TestContextualGPWithContexts(OptimizerConformance):
    optimizer = partial(
        ContextualGP, contexts=Space(w=Categorical("a", "b")), samples=32, restarts=2
    )
    evaluations = 25
    regret = 0.5

    def test_finds_a_known_optimum(self) -> None:
        for seed in range(2):
            optimizer = self.make(seed=seed)
            self.play(optimizer, self.evaluations)
            assert branin(**optimizer.recommend().config) < 0.397887 + self.regret

    def test_survives_failures_and_values_that_are_not_finite(self) -> None:
        optimizer = self.make()
        for outcome in (1.0, Feedback(status="failed"), float("nan"), 2.0, float("inf"), 3.0):
            candidate = optimizer.ask()[0]
            optimizer.tell([candidate.result(outcome)])
        assert optimizer.recommend().config
        assert optimizer.ask(3)[2].config


def joint_model(n: int = 12) -> GaussianProcess:
    drawn = torch.from_numpy(np.random.default_rng(0).random((n, 3)))
    y = torch.sin(6 * drawn[:, 0]) + drawn[:, 1] * drawn[:, 2]
    scales = torch.tensor([0.4, 0.5, 0.8], dtype=torch.float64)
    return GaussianProcess(drawn, y, Hyperparameters(lengthscales=scales, noise=1e-3))


def test_the_mean_over_contexts_is_that_of_the_joint_posterior() -> None:
    model = joint_model()
    contexts = torch.from_numpy(np.random.default_rng(1).random((5, 1)))
    weights = torch.tensor([0.1, 0.3, 0.2, 0.15, 0.25], dtype=torch.float64)
    at = torch.from_numpy(np.random.default_rng(2).random((4, 2)))
    over = OverContexts(model, contexts, weights)
    pairs = torch.cat([at.repeat_interleave(5, 0), contexts.repeat(4, 1)], 1)
    shares = torch.block_diag(*[weights] * 4)  # [4, 20]
    covariance = shares @ model.covariance(pairs, pairs) @ shares.T
    mean, variance = over.posterior(at)
    np.testing.assert_allclose(mean, shares @ model.posterior(pairs)[0], atol=1e-10)
    np.testing.assert_allclose(variance, covariance.diagonal(), atol=1e-10)
    np.testing.assert_allclose(over.covariance(at, at), covariance, atol=1e-10)
    at.requires_grad_()
    assert torch.autograd.gradcheck(over.posterior, at, atol=1e-6)


def test_noisy_improvement_over_contexts_has_the_gradient_of_its_values() -> None:
    model = joint_model()
    rng = np.random.default_rng(5)
    contexts = torch.from_numpy(rng.random((3, 1)))
    over = OverContexts(model, contexts, torch.full((3,), 1 / 3, dtype=torch.float64))
    seen, at = torch.from_numpy(rng.random((6, 2))), rng.random((4, 2))
    wanted = noisy_expected_improvement(over, seen, 0.1)
    values, slopes = value_and_slopes(wanted, at)
    h = 1e-5
    for k in range(2):
        step = np.zeros(2)
        step[k] = h
        high, low = (value_and_slopes(wanted, at + sign * step)[0] for sign in (1, -1))
        np.testing.assert_allclose(slopes[:, k], (high - low) / (2 * h), rtol=1e-3, atol=1e-6)
    assert np.isfinite(values).all()


def test_a_view_at_a_context_is_the_process_there() -> None:
    model, context = joint_model(), torch.tensor([0.3], dtype=torch.float64)
    at = torch.from_numpy(np.random.default_rng(2).random((4, 2)))
    whole = torch.cat([at, context.expand(4, 1)], 1)
    view = AtContext(model, context)
    for mine, theirs in zip(view.posterior(at), model.posterior(whole), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    np.testing.assert_allclose(view.covariance(at, at), model.covariance(whole, whole), atol=1e-12)
    more = view.append(at[:1], torch.tensor([5.0], dtype=torch.float64))
    assert float(more.posterior(at[:1])[0]) == pytest.approx(5.0, abs=0.1)


def loss(candidate: Candidate) -> float:
    w = candidate.context["w"]
    return float((candidate.config["x"] - 0.2 - 0.6 * w) ** 2 + 0.3 * w)


def test_each_context_gets_its_own_configuration() -> None:
    optimizer = ContextualGP(SPACE, contexts=LOADS, seed=1, n_init=5)
    for w in np.random.default_rng(0).random(18):
        candidate = optimizer.ask(context={"w": float(w)})[0]
        assert candidate.context == {"w": float(w)}
        optimizer.tell([candidate.result(loss(candidate))])
    for w in (0.1, 0.5, 0.9):
        found = optimizer.ask(context={"w": w}, number=100)[0]
        optimizer.abandon([100])
        assert found.config["x"] == pytest.approx(0.2 + 0.6 * w, abs=0.06)
        recommended = optimizer.recommend_in({"w": w})
        assert recommended.config["x"] == pytest.approx(0.2 + 0.6 * w, abs=0.15)
        assert "under the context" in recommended.why


def test_the_mean_over_a_weighted_context_is_made_small() -> None:
    contexts = Space(w=Categorical("low", "high", weights=[3, 1]))
    optimizer = ContextualGP(SPACE, contexts=contexts, seed=2, n_init=4)
    place = {"low": 0.2, "high": 1.0}
    seen = []
    for _ in range(16):
        candidate = optimizer.ask()[0]
        seen.append(candidate.context["w"])
        value = (candidate.config["x"] - place[candidate.context["w"]]) ** 2
        optimizer.tell([candidate.result(value)])
    # The mean of the two parabolas is least at 0.75 * 0.2 + 0.25 * 1.
    assert optimizer.recommend().config["x"] == pytest.approx(0.4, abs=0.05)
    assert set(seen) == {"low", "high"}
    np.testing.assert_allclose(optimizer._weights, [0.75, 0.25])


def test_few_trials_find_the_mean_over_a_real_context() -> None:
    optimizer = ContextualGP(SPACE, contexts=LOADS, seed=3, n_init=5)
    for _ in range(18):
        candidate = optimizer.ask()[0]
        optimizer.tell([candidate.result(loss(candidate))])
    assert optimizer.recommend().config["x"] == pytest.approx(0.5, abs=0.05)
    # F(x) = (x - 1/2)^2 + 0.36 / 12 + 0.15
    predicted = optimizer.recommend().predicted["value"]
    assert predicted == pytest.approx(0.18, abs=0.02)


def test_pending_trials_and_constraints_count() -> None:
    constraint = Constraint("g", "<=", 0.0)
    optimizer = ContextualGP(SPACE, constraints=[constraint], contexts=LOADS, seed=4, n_init=5)
    for _ in range(14):
        candidate = optimizer.ask()[0]
        values = {"value": loss(candidate), "g": candidate.config["x"] - 0.35}
        optimizer.tell([candidate.result(values)])
    assert optimizer.recommend().config["x"] == pytest.approx(0.35, abs=0.05)
    batch = optimizer.ask(3)
    pairs = {(round(c.config["x"], 3), round(c.context["w"], 3)) for c in batch}
    assert len(pairs) == 3


def test_state_goes_on_and_a_study_runs_it() -> None:
    made = partial(ContextualGP, SPACE, contexts=LOADS, seed=5, n_init=4, samples=32, restarts=2)
    first = made()
    for _ in range(7):
        candidate = first.ask()[0]
        first.tell([candidate.result(loss(candidate))])
    other = made()
    other.load_state_dict(first.state_dict())
    mine, theirs = first.ask()[0], other.ask()[0]
    assert (mine.config, mine.context) == (theirs.config, theirs.context)

    @sh.problem(SPACE, minimize="value", contexts=Space(w=Int(0, 3)))
    def shifted(config: dict[str, Any], trial: Any) -> float:
        return float((config["x"] - trial.context["w"] / 3) ** 2)

    study = sh.Study(
        shifted, optimizer="contextual-gp", store="sqlite://", budget=sh.Budget(trials=10)
    )
    study.run()
    assert {t.context["w"] for t in study.trials()} == {0, 1, 2, 3}


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="without contexts"):
        ContextualGP(SPACE).recommend_in({"w": 0.5})
    with pytest.raises(ConfigError, match="none of auto"):
        ContextualGP(SPACE, contexts=LOADS, acquisition="kg")
    with pytest.raises(ConfigError, match="contexts"):
        make_optimizer("gp", SPACE, (Objective("value"),), contexts=LOADS)


def test_data_that_tell_little_are_survived() -> None:
    made = partial(ContextualGP, SPACE, contexts=LOADS, samples=32, restarts=2)
    for outcome in (1.0, Feedback(status="failed"), 1e100):
        optimizer = made(n_init=2)
        for _ in range(5):
            candidate = optimizer.ask()[0]
            optimizer.tell([candidate.result(outcome)])
        assert SPACE.validate(optimizer.ask()[0].config)
        assert SPACE.validate(optimizer.ask(context={"w": 0.5})[0].config)
    same = made(n_init=1)
    candidate = same.ask(context={"w": 0.5})[0]
    same.tell(replace(candidate.result(1.0), number=k) for k in range(4))
    assert SPACE.validate(same.ask()[0].config)
    without = Trial(
        number=9, config={"x": 0.3}, state="ok", feedback=Feedback(objectives={"value": 0.5})
    )
    same.tell([without])  # a context that nobody noted
    assert same.recommend().config == {"x": 0.3}
