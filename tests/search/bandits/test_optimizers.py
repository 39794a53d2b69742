"""Bandits keep the contract of optimizers, and learn what they are meant to."""

import functools
from typing import Any

import numpy as np
import pytest

import sharpen as sh
from sharpen.core.conditions import Eq, P
from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback
from sharpen.core.optimizer import find_optimizer
from sharpen.core.space import random_stream
from sharpen.search.bandits import optimizers as module
from sharpen.testing import OptimizerConformance

PLAIN = ("ucb1", "ucb-tuned", "thompson", "exp3", "exp3-ix", "tsallis-inf", "successive-rejects")
CONTEXTUAL = ("binned-tsallis", "chebcb", "linucb", "lints", "squarecb")


def coarse(kind: Any) -> Any:
    """With fewer arms, so that policies that do much in a round are tested in seconds."""
    return staticmethod(functools.partial(kind, resolution=9))


class BanditConformance(OptimizerConformance):
    def mixed_space(self) -> sh.Space:
        return sh.Space(
            x=sh.Float(-1, 1, step=0.5),
            lr=sh.Float(1e-3, 1e-1, log=True),
            grid=sh.Float(0, 1, step=0.5),
            kind=sh.Categorical("a", "b"),
            depth=sh.Int(1, 3).active_if(Eq("kind", "b")),
            chosen=sh.Subset(2),
        ).forbid(P("x") + P("grid") > 1.5)


class TestUCB1(BanditConformance):
    optimizer = coarse(module.UCB1Optimizer)


class TestUCBTuned(BanditConformance):
    optimizer = coarse(module.UCBTunedOptimizer)


class TestThompson(BanditConformance):
    optimizer = coarse(module.ThompsonOptimizer)


class TestExp3(BanditConformance):
    optimizer = coarse(module.Exp3Optimizer)


class TestExp3IX(BanditConformance):
    optimizer = coarse(module.Exp3IXOptimizer)


class TestTsallisINF(BanditConformance):
    optimizer = coarse(module.TsallisINFOptimizer)


class TestSuccessiveRejects(BanditConformance):
    optimizer = coarse(module.SuccessiveRejectsOptimizer)


class TestBinnedTsallis(BanditConformance):
    optimizer = coarse(module.BinnedTsallis)


class TestChebCB(BanditConformance):
    optimizer = coarse(module.ChebCBOptimizer)


class TestLinUCB(BanditConformance):
    optimizer = coarse(module.LinUCBOptimizer)


class TestLinTS(BanditConformance):
    optimizer = coarse(module.LinTSOptimizer)


class TestSquareCB(BanditConformance):
    optimizer = coarse(module.SquareCBOptimizer)


ARMS = sh.Space(arm=sh.Int(0, 7))
MEANS = np.array([0.9, 0.5, 0.2, 0.7, 0.6, 0.8, 0.55, 0.65])


@pytest.mark.parametrize("name", PLAIN)
def test_the_best_arm_is_played_more_and_more_and_recommended(name: str) -> None:
    optimizer = find_optimizer(name)(ARMS, seed=1, budget=600)
    played = []
    for number in range(600):
        (candidate,) = optimizer.ask()
        arm = candidate.config["arm"]
        loss = float(random_stream(5, number).random() < MEANS[arm])
        optimizer.tell([candidate.result(loss)])
        played.append(arm)
    late = np.bincount(played[300:], minlength=8)
    assert late.argmax() == 2
    assert late[2] > 90
    assert optimizer.recommend().config == {"arm": 2}
    assert optimizer.recommend().predicted["value"] == pytest.approx(0.2, abs=0.08)


@pytest.mark.parametrize("name", CONTEXTUAL)
def test_the_best_arm_of_each_context_is_found(name: str) -> None:
    contexts = sh.Space(c=sh.Float(0, 1))
    optimizer = find_optimizer(name)(ARMS, seed=1, contexts=contexts)

    def regret(last: int, first: int) -> float:
        return float(np.mean(losses[first:last]))

    losses = []
    for number in range(2500):
        c = float(random_stream(7, number).random())
        (candidate,) = optimizer.ask(context={"c": c})
        assert candidate.context == {"c": c}
        loss = abs(candidate.config["arm"] / 7 - c)
        optimizer.tell([candidate.result(loss)])
        losses.append(loss)
    fixed = np.mean([abs(3.5 / 7 - random_stream(7, n).random()) for n in range(2500)])
    assert regret(2500, 2000) < 0.85 * regret(300, 0)
    assert regret(2500, 2000) < fixed


@pytest.mark.parametrize("name", [*PLAIN, *CONTEXTUAL])
def test_late_tells_lead_to_the_same_state_as_tells_in_order(name: str) -> None:
    """More trials than copies of the state reach back."""
    rng = np.random.default_rng(0)
    trials = []
    for number in range(1200):
        arm = int(rng.integers(8))
        ok = number % 50 != 7
        trials.append(
            sh.Trial(
                number=number,
                config={"arm": arm},
                state="ok" if ok else "failed",
                feedback=Feedback(
                    objectives={"value": float(rng.random() + MEANS[arm])} if ok else {},
                    status="ok" if ok else "failed",
                ),
            )
        )
    straight, mixed = (find_optimizer(name)(ARMS, seed=3, budget=2000) for _ in range(2))
    straight.tell(trials)
    late = {3, 600, 1150, 1199}
    mixed.tell(t for t in trials if t.number not in late)
    mixed.ask(number=1200)
    for number in sorted(late, reverse=True):
        mixed.tell([trials[number]])
        mixed.abandon([1200])
    for number in (1200, 1300):
        wanted = straight.ask(number=number)[0].config
        straight.abandon([number])
        assert mixed.ask(number=number)[0].config == wanted
        mixed.abandon([number])
    ours, theirs = (o._go_on(1200).state_dict() for o in (mixed, straight))  # type: ignore[attr-defined]
    assert str(ours) == str(theirs)


def test_what_is_no_finite_number_of_arms_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"about 1,000,000 arms at resolution 100"):
        module.UCB1Optimizer(sh.Space({f"x{i}": sh.Float(0, 1) for i in range(3)}), resolution=100)
    with pytest.raises(ConfigError, match="at least 2"):
        module.UCB1Optimizer(ARMS, resolution=1)
    with pytest.raises(ConfigError, match="two arms or more"):
        module.UCB1Optimizer(sh.Space(one=sh.Fixed(1)))
    with pytest.raises(ConfigError, match="'ucb1' cannot handle contexts"):
        module.UCB1Optimizer(ARMS, contexts=sh.Space(c=sh.Float(0, 1)))


def test_trials_between_the_arms_are_kept_but_not_learnt_from() -> None:
    optimizer = module.TsallisINFOptimizer(sh.Space(x=sh.Float(0, 1)), resolution=3)
    feedback: Any = Feedback(objectives={"value": 0.1})
    optimizer.tell([sh.Trial(number=0, config={"x": 0.3}, state="ok", feedback=feedback)])
    assert {c.config["x"] for c in optimizer.ask(30)} == {0.0, 0.5, 1.0}
    assert optimizer.recommend().config == {"x": 0.3}
