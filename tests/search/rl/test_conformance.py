"""What every optimizer must keep, and those that learn a policy."""

from typing import Any

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback
from sharpen.core.optimizer import Optimizer
from sharpen.core.parameters import Categorical, Fixed, Float
from sharpen.core.space import Space
from sharpen.search.marl import IPPO, MAPPO, SequentialMARL
from sharpen.search.rl import PPO, SAC, Reinforce
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space

KINDS: tuple[Any, ...] = (PPO, SAC, Reinforce, IPPO, MAPPO, SequentialMARL)


class TestPPO(OptimizerConformance):
    optimizer = PPO


class TestSAC(OptimizerConformance):
    optimizer = SAC


class TestReinforce(OptimizerConformance):
    optimizer = Reinforce


class TestIPPO(OptimizerConformance):
    optimizer = IPPO


class TestMAPPO(OptimizerConformance):
    optimizer = MAPPO


class TestSequentialMARL(OptimizerConformance):
    optimizer = SequentialMARL


@pytest.mark.parametrize("kind", KINDS)
def test_options_from_the_space_are_accepted(kind: type[Optimizer]) -> None:
    space, options = mixed_space(), kind.hyperparameters
    assert options is not None
    for config in (options.default(), *options.sample(4, seed=1)):
        optimizer = kind(space, seed=1, **config)
        for candidate in optimizer.ask(140):
            assert space.validate(candidate.config) == candidate.config
            optimizer.tell([candidate.result(float(candidate.number % 7))])
        assert optimizer.ask()[0].number == 140


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_tells_and_what_is_asked_between_change_nothing(kind: Any) -> None:
    first = kind(mixed_space(), seed=1)
    told, running = [], list(first.ask(6))
    for step in range(70):
        done = running.pop((step * 5) % 6)
        value: Any = Feedback(status="failed") if step % 11 == 3 else float(step * 7919 % 101)
        told.append(done.result(value))
        first.tell(told[-1:])
        running += first.ask()
    second = kind(mixed_space(), seed=1)
    second.tell(reversed(told))
    second.tell(c.begun() for c in running)
    for number in (76, 77, 95):
        assert second.propose(number) == first.propose(number)


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_with_one_configuration_is_taken(kind: Any) -> None:
    optimizer = kind(Space(version=Fixed("v1")))
    for _ in range(20):
        [candidate] = optimizer.ask()
        assert candidate.config == {"version": "v1"}
        optimizer.tell([candidate.result(1.0)])


@pytest.mark.parametrize("kind", KINDS)
def test_equal_and_huge_losses_leave_proposals_finite(kind: Any) -> None:
    space = Space(x=Float(0, 1), k=Categorical("a", "b", "c"))
    for scale in (0.0, 1e300, 1e-300):
        optimizer = kind(space, seed=1)
        for i in range(90):
            [candidate] = optimizer.ask()
            assert np.isfinite(candidate.config["x"])
            optimizer.tell([candidate.result(scale * (i % 3))])


@pytest.mark.parametrize("kind", KINDS)
def test_it_improves_on_sums_of_choices(kind: Any) -> None:
    letters = "abcdef"
    space = Space({f"k{i}": Categorical(*letters) for i in range(8)})
    optimizer, losses = kind(space, seed=1, budget=600), []
    for _ in range(600):
        [candidate] = optimizer.ask()
        losses.append(-sum(letters.index(v) for v in candidate.config.values()) / 40)
        optimizer.tell([candidate.result(losses[-1])])
    # By chance the mean is -0.5; the best is -1.
    assert np.mean(losses[:60]) > -0.65
    assert np.mean(losses[-60:]) < -0.75


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        *((kind, {"rollout": 1}) for kind in KINDS),
        *((kind, {"learning_rate": 0.0}) for kind in KINDS),
        *((kind, {"resolution": 1}) for kind in KINDS),
        *((kind, {option: bad}) for kind in (PPO, IPPO) for option, bad in (
            ("clip", 0.0), ("epochs", 0), ("minibatch", 0), ("entropy", -1.0), ("hidden", ()),
            ("ranges", "gauss"),
        )),
        *((SAC, {option: bad}) for option, bad in (
            ("updates", 0), ("batch", 0), ("warmup", 0), ("exploration", 1.0),
            ("temperature", 0.0), ("relaxation", 0.0), ("hidden", (0,)),
        )),
        (Reinforce, {"entropy": -1.0}),
        (MAPPO, {"critic_rate": 0.0}),
        (SequentialMARL, {"order": "best"}),
        (SequentialMARL, {"trace": 2.0}),
        (SequentialMARL, {"ordered_after": 0}),
        (IPPO, {"agents": {"one": ["x"]}}),
        (IPPO, {"agents": {"one": ["x", "y", "z"]}}),
        (IPPO, {"agents": {"one": ["x", "y"], "two": ["y"]}}),
        (IPPO, {"agents": "all"}),
    ],
)  # fmt: skip
def test_wrong_options_are_explained(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        kind(Space(x=Float(0, 1), y=Float(0, 1)), **wrong)
