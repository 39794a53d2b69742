"""Policies as code with numbers: a pole, a car on a hill, and shots at hidden ships.

A policy is a function whose source is a parameter, beside the numbers that it uses. It starts as
one that fails, and is improved on a few episodes; the best is then judged on fresh ones against the
mark at which gymnasium calls the task solved (CartPole-v1 475, MountainCarContinuous-v0 90).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from benchmarks.text.task_numeric import play

import sharpen.text as st
from sharpen.core.parameters import Float

__all__ = ["POLICIES", "policies"]


class Pole(st.Module):
    """Pushes a cart left or right so that its pole stays up."""

    environment = "CartPole-v1"
    solved = 475.0
    most = 500.0

    def __init__(self) -> None:
        for name in ("by_place", "by_speed", "by_angle", "by_spin"):
            setattr(self, name, st.Parameter(0.0, space=Float(-2.0, 2.0)))

    @st.op(trainable=True, trust="inline")
    def act(self, place, speed, angle, spin, a, b, c, d):  # type: ignore[no-untyped-def]
        """1 pushes right, 0 left."""
        return 1 if a * place + b * speed - c * angle - d * spin > 1 else 0

    @st.op(allow_external=True)
    def forward(self, seed: int) -> float:
        """The reward of an episode."""
        weights = [getattr(self, n).value for n in ("by_place", "by_speed", "by_angle", "by_spin")]
        return _episode(self.environment, seed, lambda seen: self.act(*seen, *weights).value)


class Car(st.Module):
    """Drives a car up a hill that is too steep for its engine."""

    environment = "MountainCarContinuous-v0"
    solved = 90.0
    most = np.inf

    def __init__(self) -> None:
        self.gain = st.Parameter(20.0, space=Float(-100.0, 100.0))
        self.bias = st.Parameter(0.0, space=Float(-1.0, 1.0))

    @st.op(trainable=True, trust="inline")
    def act(self, place, speed, gain, bias):  # type: ignore[no-untyped-def]
        """The push of the engine."""
        return gain * place + bias

    @st.op(allow_external=True)
    def forward(self, seed: int) -> list[float]:
        """The reward of an episode, and the farthest place."""
        gain, bias, top = self.gain.value, self.bias.value, -1.2

        def act(seen: list[float]) -> list[float]:
            nonlocal top
            top = max(top, seen[0])
            return [min(max(float(self.act(*seen, gain, bias).value), -1.0), 1.0)]

        reward = _episode(self.environment, seed, act)
        return [reward, max(top, 0.45) if reward > 0 else top]


_SIZE, _SHIPS = 8, (4, 3, 3, 2)


class Ships(st.Module):
    """Shoots at the cell that is worth most until all ships are sunk; fewer shots are better."""

    solved = -40.0
    most = np.inf

    def __init__(self) -> None:
        self.near = st.Parameter(0.0, space=Float(-3.0, 3.0))
        self.colour = st.Parameter(0.0, space=Float(-3.0, 3.0))

    @st.op(trainable=True, trust="inline")
    def worth(self, hits, line, misses, row, column, near, colour):  # type: ignore[no-untyped-def]
        """Of a shot at a cell: hits beside it, hits in line, misses beside it, its place."""
        value = near * misses - line
        if (row + column) % 2 == 0:
            value = value + colour
        return value

    @st.op(allow_external=True)
    def forward(self, seed: int) -> float:
        """Shots until all ships are sunk, negative."""
        rng = np.random.default_rng([seed, 11])
        ships = _placed(rng)
        order = rng.random((_SIZE, _SIZE)) * 1e-6  # ties are broken by chance
        shot = np.zeros((_SIZE + 4, _SIZE + 4))  # 1 hit, -1 miss, with a margin of two
        left, shots = int(ships.sum()), 0
        cells = list(itertools.product(range(_SIZE), range(_SIZE)))
        near, colour = self.near.value, self.colour.value
        with st.no_trace():
            worths = {cell: self._worth(shot, cell, near, colour) for cell in cells}
            while left:
                row, column = max(worths, key=lambda cell: worths[cell] + order[cell])
                del worths[row, column]
                shots += 1
                left -= int(ships[row, column])
                shot[row + 2, column + 2] = 1 if ships[row, column] else -1
                for step in (-2, -1, 1, 2):
                    for cell in ((row + step, column), (row, column + step)):
                        if cell in worths:
                            worths[cell] = self._worth(shot, cell, near, colour)
        return -float(shots)

    def _worth(self, shot: Any, cell: tuple[int, int], near: float, colour: float) -> float:
        row, column = cell[0] + 2, cell[1] + 2
        hits = misses = line = 0
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            beside = shot[row + down, column + right]
            hits += int(beside == 1)
            misses += int(beside == -1)
            line += int(beside == 1 and shot[row + 2 * down, column + 2 * right] == 1)
        return float(self.worth(hits, line, misses, *cell, near, colour).value)


def _placed(rng: np.random.Generator) -> Any:
    """A board with ships at random, none over another."""
    board = np.zeros((_SIZE, _SIZE), dtype=bool)
    for length in _SHIPS:
        while True:
            row = int(rng.integers(_SIZE))
            column = int(rng.integers(_SIZE - length + 1))
            view = board if rng.random() < 0.5 else board.T
            if not view[row, column : column + length].any():
                view[row, column : column + length] = True
                break
    return board


def _episode(environment: str, seed: int, act: Any) -> float:
    """The sum of rewards."""
    world = _WORLDS.get(environment)
    if world is None:
        import gymnasium

        world = _WORLDS[environment] = gymnasium.make(environment)
    seen, _ = world.reset(seed=seed)
    total, over = 0.0, False
    with st.no_trace():
        while not over:
            seen, reward, ended, cut, _ = world.step(act([float(v) for v in seen]))
            total += float(reward)
            over = ended or cut
    return total


_WORLDS: dict[str, Any] = {}


def _height(response: Any, _: Any) -> float:
    """What the car is improved by: the reward, or how far it came where it failed."""
    reward, top = response
    return float(reward if reward > 0 else 10 * top - 20)


def _reward(response: Any, _: Any) -> float:
    return float(response[0] if isinstance(response, list) else response)


POLICIES: dict[str, tuple[type[st.Module], int, float]] = {
    "pole": (Pole, 500, 0.0),
    "car": (Car, 150, -100.0),
    "ships": (Ships, 200, -float(_SIZE * _SIZE)),
}
"""By name, the program, its evaluations, and the score of an episode in which it raised."""


def _improvements(scores: Sequence[float]) -> list[list[float]]:
    """Pairs of evaluation and score, where it was better than all before."""
    found: list[list[float]] = []
    for number, score in enumerate(scores, start=1):
        if not found or score > found[-1][1]:
            found.append([number, float(score)])
    return found


def policies(
    seeds: Sequence[int],
    share: float = 1.0,
    fresh: int = 100,
    names: Sequence[str] = tuple(POLICIES),
) -> dict[str, Any]:
    """The mean of fresh episodes with the first and the best policy, by task and seed.

    Args:
        seeds: of the search, and of the episodes.
        share: of the evaluations.
        fresh: episodes that judge.
        names: of the tasks.
    """
    found: dict[str, Any] = {}
    for name in names:
        program, evaluations, on_error = POLICIES[name]
        budget = max(5, int(share * evaluations))
        runs: list[dict[str, Any]] = []
        for seed in seeds:
            module = program()
            first = 10_000 * (seed + 1)
            seen = [(first + k, None) for k in range(5)]
            unseen = [(first + 1000 + k, None) for k in range(fresh)]
            improve = _height if name == "car" else _reward
            problem = st.TextProblem(module, seen, improve, on_error=on_error)
            judge = st.TextProblem(module, unseen, _reward, on_error=on_error)
            most = program.most  # type: ignore[attr-defined]
            scores, best = play(problem, st.SearchProposer, seed, budget, most)
            runs.append(
                {
                    "start": judge.evaluate(problem.space.default()).objectives["score"],
                    "best": judge.evaluate(best).objectives["score"],
                    "values": best,
                    "improvements": _improvements(scores),
                }
            )
        mark = program.solved  # type: ignore[attr-defined]
        found[name] = {
            "evaluations": budget,
            "mark": mark,
            "solved": sum(run["best"] >= mark for run in runs) / len(runs),
            "start": float(np.mean([run["start"] for run in runs])),
            "best": float(np.mean([run["best"] for run in runs])),
            "runs": runs,
        }
    return found
