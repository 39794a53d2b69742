from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, TrainingError
from sharpen.core.parameters import Categorical, Int
from sharpen.core.problem import problem
from sharpen.core.space import Space
from sharpen.search.adapters import ProblemEnv
from sharpen.search.rl import Agent, load_agent, train_agent
from sharpen.search.rl.agents import evaluate_agent
from sharpen.search.rl.environments import Environments, action_form
from sharpen.search.rl.networks import Networks, run_layers
from sharpen.search.rl.ppo_agent import PPOConfig, _Policy
from sharpen.search.rl.sac_agent import SACConfig

SMALL = {"num_envs": 2, "rollout": 32, "minibatch": 32}


class Walk(gymnasium.Env[Any, Any]):
    """Five places in a row; the reward is at the right end; cut off after ten steps."""

    observation_space = gymnasium.spaces.Discrete(5)
    action_space: Any = gymnasium.spaces.Discrete(2, start=3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = 2, 0
        return self.place, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in (3, 4)
        self.place = min(max(self.place + (1 if action == 4 else -1), 0), 4)
        self.steps += 1
        is_there = self.place == 4
        return self.place, float(is_there), is_there, self.steps >= 10, {}


class Aim(gymnasium.Env[Any, Any]):
    """One step an episode: the reward is highest at the observed number."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, shape=(1,), dtype=np.float32)
    action_space: Any = gymnasium.spaces.Box(-3.0, 1.0, shape=(1,), dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.goal = self.np_random.uniform(-1, 1, size=1).astype(np.float32)
        return self.goal, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.goal, -float((action[0] - self.goal[0]) ** 2), True, False, {}


def test_numpy_and_torch_run_the_same_layers() -> None:
    rng = np.random.default_rng(0)
    for activation in ("tanh", "relu"):
        networks = Networks(1, 5, 3, (16, 8), rng, activation=activation)
        for w in networks.weights[:-1]:
            u, v = w[0].shape
            gram = w[0].T @ w[0] if u >= v else w[0] @ w[0].T
            torch.testing.assert_close(gram, 2 * torch.eye(min(u, v), dtype=torch.float64))
        x = rng.normal(size=(7, 5))
        found = run_layers(networks.arrays(), x, activation)
        expected = networks(torch.from_numpy(x)[None])[0].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_copies_keep_what_an_episode_ended_in() -> None:
    copies = Environments(Walk, 2, seed=0)
    assert copies.observation_size == 5  # one-hot
    left, right = np.array([[0], [0]]), np.array([[0], [1]])
    copies.step(right)
    led_to, rewards, terminated, ended = copies.step(right)
    assert rewards.tolist() == [0.0, 1.0]
    assert terminated.tolist() == ended.tolist() == [False, True]
    assert led_to.argmax(1).tolist() == [0, 4]
    assert copies.observations.argmax(1).tolist() == [0, 2]
    for _ in range(8):
        led_to, _, terminated, ended = copies.step(left)
    assert (terminated[0], ended[0]) == (False, True)  # cut off, not final
    assert copies.finished == [1.0, 0.0]


@pytest.mark.parametrize("env", [Walk, Aim])
def test_ppo_learns_and_the_same_seed_gives_the_same_agent(env: Any) -> None:
    config = PPOConfig(num_envs=4, rollout=64, learning_rate=3e-3, discount=0.9, epochs=10)
    agent = train_agent(env, "ppo", steps=6000, seed=1, config=config)
    again = train_agent(env, "ppo", steps=6000, seed=1, config=config)
    for (w, b), (v, c) in zip(agent.layers, again.layers, strict=True):
        assert (w == v).all()
        assert (b == c).all()
    returns = evaluate_agent(agent, env, episodes=20)
    assert returns.mean() > (0.99 if env is Walk else -0.05)
    assert agent.returns[-1][0] == 6144


def test_sac_learns_to_aim() -> None:
    agent = train_agent(Aim, "sac", steps=1500, seed=1, config={"warmup": 200, "batch": 64})
    assert evaluate_agent(agent, Aim, episodes=50).mean() > -0.05
    drawn = {float(agent.act([0.5], np.random.default_rng(s))[0]) for s in range(20)}
    assert len(drawn) > 10
    assert all(-3 <= value <= 1 for value in drawn)


def test_agents_are_saved_and_loaded(tmp_path: Path) -> None:
    for name, env, algorithm in (("a", Walk, "ppo"), ("b", Aim, "ppo"), ("c", Aim, "sac")):
        config = SMALL if algorithm == "ppo" else {"warmup": 50, "batch": 8}
        agent: Agent = train_agent(env, algorithm, steps=100, config=config)
        agent.save(tmp_path / f"{name}.npz")
        loaded = load_agent(tmp_path / f"{name}.npz")
        assert loaded.returns == list(agent.returns)
        for k in range(5):
            x = np.eye(5)[k] if env is Walk else [k / 5]
            rngs = np.random.default_rng(k), np.random.default_rng(k)
            assert agent.act(x) == loaded.act(x)
            assert agent.act(x, rngs[0]) == loaded.act(x, rngs[1])
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "other.npz", w0=np.zeros(3))
    for wrong in ("text.npz", "other.npz"):
        with pytest.raises(FileFormatError, match=wrong):
            load_agent(tmp_path / wrong)
    with pytest.raises(MissingFileError):
        load_agent(tmp_path / "none.npz")


def test_an_agent_learns_to_design() -> None:
    space = Space(n=Int(1, 8), kind=Categorical("a", "b", "c"), flag=Categorical(False, True))

    @problem(space, minimize="loss")
    def design(config: dict[str, Any]) -> float:
        return float(abs(config["n"] - 3) + 2 * (config["kind"] != "b") + config["flag"])

    def make() -> Any:
        return ProblemEnv(design)  # type: ignore[arg-type]

    config = PPOConfig(num_envs=4, rollout=16, learning_rate=3e-3, discount=0.0)
    agent = train_agent(make, "ppo", steps=3000, config=config)
    assert agent.form.levels == (8, 3, 2)
    assert evaluate_agent(agent, make, episodes=3).tolist() == [0.0, 0.0, 0.0]


def test_densities_of_levels_and_reals_are_those_of_their_laws() -> None:
    config = PPOConfig()
    levels = _Policy(3, action_form(gymnasium.spaces.MultiDiscrete([3, 2])), config, 0)
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    actions = torch.tensor([[a, b] for a in range(3) for b in range(2)])
    log_p, entropy = levels.log_prob_and_entropy(x[:1].expand(6, -1), actions)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert entropy[0].item() == pytest.approx(-(log_p.exp() * log_p).sum().item(), abs=1e-6)
    reals = _Policy(3, action_form(gymnasium.spaces.Box(-1, 1, (2,))), config, 0)
    with torch.no_grad():
        reals.log_sd.copy_(torch.tensor([-0.5, 0.3]))
    drawn = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    log_p, entropy = reals.log_prob_and_entropy(x, drawn)
    law = torch.distributions.Normal(reals.actor(x[None])[0], reals.log_sd.exp())
    torch.testing.assert_close(log_p, law.log_prob(drawn).sum(1))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(entropy, law.entropy().sum(1))  # type: ignore[no-untyped-call]


def test_wrong_arguments_are_explained() -> None:
    wrong: Any
    for wrong, message in (
        ({"env": "Nope-v9"}, "Nope"),
        ({"env": Walk()}, "env must be"),
        ({"env": lambda: 3}, "must make"),
        ({"algorithm": "dqn"}, "algorithm"),
        ({"algorithm": "sac"}, "Box"),
        ({"steps": 0}, "steps"),
        ({"config": {"rolout": 3}}, "rollout"),
        ({"config": SACConfig()}, "PPOConfig"),
        ({"config": {"epochs": 0}}, "epochs"),
        ({"config": {"clip": 0.0}}, "clip"),
        ({"config": {"discount": 1.1}}, "discount"),
        ({"config": {"hidden": []}}, "hidden"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_agent(**{"env": Walk, "steps": 64, **wrong})
    for fields in ({"batch": 0}, {"learning_rate": 0.0}, {"smoothing": 2.0}, {"hidden": (0,)}):
        with pytest.raises(ConfigError, match=next(iter(fields))):
            SACConfig(**fields)
    for space in (
        gymnasium.spaces.Box(-np.inf, np.inf, (1,)),
        gymnasium.spaces.MultiBinary(3),
        gymnasium.spaces.MultiDiscrete([2, 2], start=[1, 0]),
    ):
        with pytest.raises(ConfigError, match="agents act in"):
            action_form(space)
    agent = train_agent(Walk, steps=64, config=SMALL)
    with pytest.raises(ConfigError, match="5 numbers"):
        agent.act([1.0])
    with pytest.raises(ConfigError, match="not trained"):
        evaluate_agent(agent, Aim)


def test_rewards_that_are_not_finite_end_the_training() -> None:
    class Broken(Walk):
        def step(self, action: Any) -> Any:
            return 0, float("nan"), False, False, {}

    class BrokenAim(Aim):
        def step(self, action: Any) -> Any:
            return self.goal, float("inf"), True, False, {}

    with pytest.raises(TrainingError, match="not finite"):
        train_agent(Broken, steps=64, config=SMALL)
    with pytest.raises(TrainingError, match="not finite"):
        train_agent(BrokenAim, "sac", steps=80, config={"warmup": 60, "batch": 8})


@pytest.mark.slow
def test_cartpole_is_solved() -> None:
    agent = train_agent("CartPole-v1", "ppo", steps=100_000, seed=0)
    assert evaluate_agent(agent, "CartPole-v1", episodes=100).mean() >= 475


@pytest.mark.nightly
def test_pendulum_is_swung_up() -> None:
    agent = train_agent("Pendulum-v1", "sac", steps=6000, seed=0)
    assert evaluate_agent(agent, "Pendulum-v1", episodes=50).mean() > -200
