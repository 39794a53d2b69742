"""Games of which theory says who can win them, and what a centralized critic is for."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from sharpen.core.conditions import Eq
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.space import Space
from sharpen.search.generations import Generation
from sharpen.search.marl import IPPO, MAPPO, SequentialMARL
from sharpen.search.rl import PPO, Reinforce

# Caroline Claus and Craig Boutilier, "The Dynamics of Reinforcement Learning in Cooperative
# Multiagent Systems", AAAI 1998: the best pair, (0, 0), is ruinous as soon as one agent leaves it.
CLIMBING = np.array([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])
QUICK = {"learning_rate": 3e-3}


def play(kind: Any, space: Space, reward: Any, trials: int, **options: Any) -> list[Any]:
    """[trials] configurations and rewards, in order."""
    optimizer, found = kind(space, **{"seed": 0, "budget": trials, **options}), []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        found.append((candidate.config, float(reward(candidate.config))))
        optimizer.tell([candidate.result(-found[-1][1])])
    return found


def late(found: list[Any]) -> float:
    return float(np.mean([reward for _, reward in found[-100:]]))


def test_independent_learners_settle_below_the_peak_that_sequential_ones_climb() -> None:
    space = Space(a=Categorical(0, 1, 2), b=Categorical(0, 1, 2))

    def climb(config: dict[str, Any]) -> float:
        return float(CLIMBING[config["a"], config["b"]])

    # Beside a partner that acts at random the safe choice is best, so gradients lead there.
    assert CLIMBING.mean(axis=1).argmax() != 0
    for kind, options in (
        (IPPO, QUICK),
        (MAPPO, {**QUICK, "critic_rate": 3e-3}),
        (PPO, QUICK),
        (Reinforce, {"learning_rate": 0.1}),
    ):
        assert late(play(kind, space, climb, 1000, **options)) <= 7.01
    heights = [
        late(play(SequentialMARL, space, climb, 1200, seed=s, critic_rate=3e-3, **QUICK))
        for s in range(3)
    ]
    assert sorted(heights)[1] > 10.5


@pytest.mark.parametrize("kind", [IPPO, MAPPO, SequentialMARL])
@pytest.mark.parametrize("size", [2, 4])
def test_parity_is_solved_once_chance_has_broken_its_symmetry(kind: Any, size: int) -> None:
    """At the uniform policy no parameter alone tells anything: the gradient is zero there."""
    space = Space({f"p{i}": Categorical(0, 1) for i in range(size)})
    rewards = [[sum(c) % 2 for c in itertools.product((0, 1), repeat=size) if c[0] == v]
               for v in (0, 1)]  # fmt: skip
    assert np.mean(rewards[0]) == np.mean(rewards[1]) == 0.5
    found = play(kind, space, lambda c: sum(c.values()) % 2, 900, **QUICK)
    assert late(found) > 0.95


@pytest.mark.parametrize("kind", [MAPPO, SequentialMARL])
def test_agents_agree_on_one_of_several_ways(kind: Any) -> None:
    space = Space({f"p{i}": Categorical(*"abcd") for i in range(4)})
    found = play(kind, space, lambda c: len(set(c.values())) == 1, 1500, **QUICK)
    assert np.mean([r for _, r in found[:50]]) < 0.2  # by chance 1/64
    assert late(found) > 0.95


def test_only_agents_that_see_each_other_keep_both_solutions_of_xor() -> None:
    """A product of two distributions wins with both of its solutions half of the time at most."""
    space = Space(a=Categorical(0, 1), b=Categorical(0, 1))
    shares = {}
    for kind in (IPPO, SequentialMARL):
        found = play(kind, space, lambda c: c["a"] != c["b"], 1600, entropy=0.3, budget=10**6,
                     **QUICK)  # fmt: skip
        shares[kind] = np.mean([c["a"] for c, _ in found[-300:]]), late(found)
    share, success = shares[SequentialMARL]
    assert 0.2 < share < 0.8
    assert success > 0.85
    share, success = shares[IPPO]
    # 1 - success >= 2 p (1 - p) for the best partner of an agent that plays p.
    assert success <= max(share, 1 - share) + 0.1


def test_a_central_critic_takes_the_noise_of_the_others_away_and_not_ones_own() -> None:
    """In a sum of equal terms an advantage has one term's variance, not that of all."""
    size, letters = 8, "abcd"
    space = Space({f"p{i}": Categorical(*letters) for i in range(size)})
    options = {"learning_rate": 1e-9, "critic_rate": 3e-3, "rollout": 64}
    optimizer = MAPPO(space, seed=1, **options)
    spreads: list[float] = []
    whole = MAPPO.advantages_over

    def watch(self: Any, values: Any, rewards: Any, active: Any) -> Any:
        found = whole(self, values, rewards, active)
        spreads.append(float(found.var(dim=0, correction=0).mean() / rewards.var(correction=0)))
        return found

    MAPPO.advantages_over = watch
    try:
        for _ in range(1600):
            [candidate] = optimizer.ask()
            value = sum(letters.index(v) for v in candidate.config.values())
            optimizer.tell([candidate.result(-float(value))])
    finally:
        MAPPO.advantages_over = whole
    assert spreads[0] > 0.8  # nothing is known yet
    assert 1 / size * 0.7 < np.mean(spreads[-4:]) < 2.5 / size


def test_advantages_in_turn_are_telescoping_and_skip_who_has_no_turn() -> None:
    space = Space(
        kind=Categorical("a", "b"),
        n=Int(1, 4).active_if(Eq("kind", "b")),
        m=Int(1, 3),
    )
    optimizer = SequentialMARL(space, trace=1.0)
    optimizer.ask()
    rng = np.random.default_rng(0)
    values, rewards = (
        torch.from_numpy(rng.normal(size=(5, 3))),
        torch.from_numpy(rng.normal(size=5)),
    )
    active = torch.tensor([[1.0, k % 2, 1.0] for k in range(5)], dtype=torch.float64)
    found = optimizer.advantages_over(values, rewards, active)
    # With l = 1 what is left of the sum is r - V_k, here less its mean over the agent's trials.
    expected = (rewards[:, None] - values).numpy()
    for k in range(3):
        rows = active[:, k] > 0
        mean = expected[rows.numpy(), k].mean()
        np.testing.assert_allclose(found[rows, k].numpy(), expected[rows.numpy(), k] - mean)
    one_step = SequentialMARL(space, trace=0.0)
    one_step.ask()
    found = one_step.advantages_over(values, rewards, active)
    v = values.numpy()
    following = np.where(active[:, 1].numpy() > 0, v[:, 1], v[:, 2])
    first = following - v[:, 0]
    np.testing.assert_allclose(found[:, 0].numpy(), first - first.mean(), rtol=1e-12)


def test_orders_put_the_important_first_and_conditions_before_what_they_decide() -> None:
    space = Space(
        n=Int(1, 4).active_if(Eq("kind", "b")),
        x=Float(0, 1),
        big=Categorical(0, 1, 2),
        kind=Categorical("a", "b"),
        idle=Int(1, 5),
    )

    def reward(config: dict[str, Any]) -> float:
        return float(10 * config["big"] + 3 * config["x"] + (config.get("n", 0) == 4))

    optimizer = SequentialMARL(space, order="importance", seed=2, learning_rate=1e-9)
    for _ in range(200):
        [candidate] = optimizer.ask()
        optimizer.tell([candidate.result(-reward(candidate.config))])
    names = [optimizer.names[k] for k in optimizer._turns]
    assert names[:2] == ["big", "x"]
    assert names.index("kind") < names.index("n")
    turns = set()
    for seed in range(6):
        drawn = SequentialMARL(space, order="random", seed=seed)
        drawn.ask()
        order = [drawn.names[k] for k in drawn._turns]
        assert order.index("kind") < order.index("n")
        turns.add(tuple(order))
    assert len(turns) > 3
    given = SequentialMARL(space)
    given.ask()
    assert [given.names[k] for k in given._turns] == ["x", "big", "kind", "n", "idle"]


def test_groups_share_a_ratio_and_one_group_is_ppo() -> None:
    space = Space({f"p{i}": Categorical(*"abc") for i in range(4)})

    def reward(config: dict[str, Any]) -> float:
        return float(sum("abc".index(v) for v in config.values()))

    options: dict[str, Any] = {"ranges": "bins", "resolution": 16}
    together = play(IPPO, space, reward, 200, agents={"all": list(space)}, **options)
    alone = play(PPO, space, reward, 200, **options)
    assert together == alone
    pairs = IPPO(space, agents={"left": ["p0", "p1"], "right": ["p2", "p3"]})
    pairs.ask()
    assert pairs.groups == [[0, 1], [2, 3]]


def test_reinforce_steps_along_the_score_times_leave_one_out_advantages() -> None:
    space = Space(a=Categorical(0, 1, 2), b=Categorical(0, 1))
    optimizer = Reinforce(space, seed=1, rollout=5, learning_rate=0.3, entropy=0.0)
    optimizer.begin()
    points = optimizer.plan(0)
    losses = np.random.default_rng(0).normal(size=5)
    keys = np.stack([np.zeros(5), losses], axis=1)
    mask = np.ones_like(points, dtype=bool)
    generation = Generation(np.arange(5), points, mask, mask[:, 0], keys, losses[:, None])
    optimizer.absorb(generation)
    r = (losses.mean() - losses) / losses.std()
    gradient = np.zeros(5)
    for i, config in enumerate(space.decode(points)):
        advantage = r[i] - np.delete(r, i).mean()
        score = np.array([config["a"] == k for k in range(3)]) - 1 / 3
        gradient[:3] += advantage * score / 5
        gradient[3:] += advantage * (np.array([config["b"] == k for k in range(2)]) - 0.5) / 5
    assert optimizer.theta.grad is not None
    np.testing.assert_allclose(-optimizer.theta.grad.numpy()[0], gradient, rtol=1e-10, atol=1e-12)
    # The first step of Adam has the learning rate's length in every coordinate.
    np.testing.assert_allclose(
        optimizer.theta.detach().numpy()[0], 0.3 * np.sign(gradient), rtol=1e-5
    )
