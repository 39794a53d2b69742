"""Agents for gymnasium environments: train, act, save, load.

::

    agent = train_agent("CartPole-v1", "ppo", steps=100_000, seed=0)
    agent.act(observation)
    agent.save("cartpole.npz")
    load_agent("cartpole.npz")

An agent is its policy's layers, as NumPy arrays: it acts without torch, and a saved one is a file
of arrays without code. What trains it: :mod:`sharpen.search.rl.ppo_agent` and
:mod:`sharpen.search.rl.sac_agent`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, storage_errors
from sharpen.search.rl.environments import (
    ActionForm,
    EnvironmentMaker,
    Environments,
    make_environment,
)
from sharpen.search.rl.networks import Activation, run_layers

__all__ = ["Agent", "evaluate_agent", "load_agent", "train_agent"]

_FORMAT = "sharpen.agent/1"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Agent:
    """A trained policy."""

    algorithm: str
    """What trained it."""

    layers: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
    """Weights [inputs, outputs] and bias [outputs] of each layer."""

    activation: Activation
    """Between the layers."""

    form: ActionForm
    """What its actions are."""

    log_sd: npt.NDArray[np.float32] | None = None
    """[size] spread of its actions, where the layers put out their means alone."""

    returns: Sequence[tuple[int, float]] = field(default=(), repr=False)
    """Environment steps so far and mean return of the last 100 episodes, along the training."""

    @property
    def observation_size(self) -> int:
        """Numbers of a flattened observation."""
        return int(self.layers[0][0].shape[0])

    def act(self, observation: Any, rng: np.random.Generator | None = None) -> Any:
        """The action for one observation.

        Args:
            observation: of any shape; flattened.
            rng: draws from the policy; None takes its likeliest action, or its mean.

        Raises:
            ConfigError: the observation has another size.
        """
        x = np.asarray(observation, dtype=np.float32).reshape(1, -1)
        if x.shape[1] != self.observation_size:
            raise ConfigError(
                f"the agent takes observations of {self.observation_size} numbers, "
                f"got {x.shape[1]}."
            )
        return self.form.action(self.choose(x, rng)[0])

    def choose(self, x: npt.NDArray[Any], rng: np.random.Generator | None) -> npt.NDArray[Any]:
        """[B, size] levels, or reals in [-1, 1], for [B, observation size]; see :meth:`act`."""
        outputs = run_layers(self.layers, x, self.activation)
        if self.form.levels:
            if rng is not None:
                outputs = outputs + rng.gumbel(size=outputs.shape)
            ends = np.cumsum(self.form.levels)[:-1]
            parts = np.split(outputs, ends, axis=1)
            return np.stack([part.argmax(axis=1) for part in parts], axis=1)
        if self.log_sd is not None:
            means, log_sd = outputs, self.log_sd
        else:
            means, log_sd = np.split(outputs, 2, axis=1)
        if rng is not None:
            means = means + np.exp(np.clip(log_sd, -20, 2)) * rng.normal(size=means.shape)
        return means if self.log_sd is not None else np.tanh(means)

    def save(self, path: str | Path) -> None:
        """Write it to a file of NumPy arrays (``.npz``).

        Raises:
            StorageError: it cannot be written.
        """
        arrays = {}
        for k, (w, b) in enumerate(self.layers):
            arrays[f"w{k}"], arrays[f"b{k}"] = w, b
        if self.log_sd is not None:
            arrays["log_sd"] = self.log_sd
        if self.form.low is not None and self.form.high is not None:
            arrays["low"], arrays["high"] = self.form.low, self.form.high
        head = {
            "format": _FORMAT,
            "algorithm": self.algorithm,
            "activation": self.activation,
            "levels": self.form.levels,
            "start": self.form.start,
            "is_single": self.form.is_single,
            "returns": self.returns,
        }
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
        with storage_errors(Path(path)), Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)


def load_agent(path: str | Path) -> Agent:
    """The agent that :meth:`Agent.save` wrote.

    Raises:
        MissingFileError: no such file.
        FileFormatError: the file is not an agent's.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"there is no agent {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        head = json.loads(bytes(arrays["head"]))
        if head["format"] != _FORMAT:
            raise FileFormatError(f"{path} is of {head['format']!r}; this version reads {_FORMAT}.")
        count = sum(1 for name in arrays if name[0] == "w")
        form = ActionForm(
            levels=tuple(head["levels"]),
            start=head["start"],
            is_single=head["is_single"],
            low=arrays.get("low"),
            high=arrays.get("high"),
        )
        return Agent(
            algorithm=head["algorithm"],
            layers=[(arrays[f"w{k}"], arrays[f"b{k}"]) for k in range(count)],
            activation=head["activation"],
            form=form,
            log_sd=arrays.get("log_sd"),
            returns=[(int(s), float(r)) for s, r in head["returns"]],
        )
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} is no agent that was saved here: {error}") from error


def train_agent(
    env: EnvironmentMaker,
    algorithm: Literal["ppo", "sac"] = "ppo",
    *,
    steps: int,
    seed: int = 0,
    config: Any = None,
) -> Agent:
    """Train an agent in copies of an environment.

    Args:
        env: an id such as ``"CartPole-v1"``, or a function that makes an environment.
        algorithm: ``"ppo"``, or ``"sac"`` for actions that are real numbers.
        steps: of all copies together; rounded up to whole rollouts.
        seed: of all randomness; the same seed gives the same agent.
        config: a :class:`~sharpen.search.rl.ppo_agent.PPOConfig` or
            :class:`~sharpen.search.rl.sac_agent.SACConfig`, or a mapping of its fields.

    Raises:
        ConfigError: an unknown algorithm or field, or an environment it cannot act in.
        TrainingError: the loss is not finite.

    Examples:
        >>> agent = train_agent("CartPole-v1", steps=512, config={"rollout": 32, "num_envs": 4})
        >>> agent.algorithm
        'ppo'
    """
    from sharpen.search.rl.ppo_agent import PPOConfig, train_ppo
    from sharpen.search.rl.sac_agent import SACConfig, train_sac

    if steps < 1:
        raise ConfigError(f"steps={steps} must be at least 1.")
    if algorithm == "ppo":
        return train_ppo(env, steps, seed, _config(PPOConfig, config))
    if algorithm == "sac":
        return train_sac(env, steps, seed, _config(SACConfig, config))
    raise ConfigError(f"algorithm={algorithm!r} must be 'ppo' or 'sac'.")


def _config(kind: type[Any], given: Any) -> Any:
    if given is None:
        return kind()
    if isinstance(given, Mapping):
        return from_dict(kind, dict(given))
    if not isinstance(given, kind):
        raise ConfigError(f"config must be a {kind.__name__} or a mapping, got {given!r}.")
    return given


def evaluate_agent(
    agent: Agent, env: EnvironmentMaker, *, episodes: int = 100, seed: int = 10_000
) -> npt.NDArray[np.float64]:
    """[episodes] returns of the agent's likeliest actions; episode i begins with ``seed + i``.

    Raises:
        ConfigError: the environment's observations or actions are not the agent's.
    """
    one = make_environment(env)
    flat = Environments(env, 1, seed)
    if flat.observation_size != agent.observation_size or flat.form.size != agent.form.size:
        raise ConfigError(f"the agent was not trained in an environment such as {env!r}.")
    found = np.zeros(episodes)
    for i in range(episodes):
        observation, _ = one.reset(seed=seed + i)
        is_over = False
        while not is_over:
            observation, reward, terminated, truncated, _ = one.step(
                agent.act(flat.flat(observation))
            )
            found[i] += float(reward)
            is_over = terminated or truncated
    one.close()
    flat.close()
    return found
