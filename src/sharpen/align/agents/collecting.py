"""Collecting trajectories: episodes side by side, and branches off what was done.

With ``explore="branch"`` every task is played once; then, at each of its steps, other actions that
the policy draws there are tried and played to the end. All trajectories are kept, failed ones too:
they form a tree by what they share (:func:`~sharpen.align.agents.step_pairs`).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from sharpen.align.agents.environment import MakeWorld
from sharpen.align.agents.memory import ReflectionMemory
from sharpen.align.agents.policies import Move, Policy, State
from sharpen.align.agents.trajectory import Step, Trajectory
from sharpen.core.errors import ConfigError

__all__ = ["Episode", "collect", "play"]

_DRAWS = 8  # of other actions at a step, until there are enough different ones


class Episode:
    """A world under way and what was done in it.

    Args:
        make: makes the world.
        task: seed of the task.
        draw: number of the episode among those of its task; decides what a policy draws.
        memory: gives lessons at the beginning.
        instructions: what the agent is told before its goal.
    """

    def __init__(
        self,
        make: MakeWorld,
        task: int,
        draw: int = 0,
        memory: ReflectionMemory | None = None,
        instructions: str = "",
    ) -> None:
        self.world = make()
        self.task = task
        self.observation, info = self.world.reset(seed=task)
        self.goal = str(info.get("goal", ""))
        self.actions = tuple(info.get("actions", ()))
        self.random = np.random.default_rng((task, draw))
        self.steps: tuple[Step, ...] = ()
        self.is_over = self.success = False
        found = () if memory is None else memory.recall(self.goal, self.observation)
        self.lessons = tuple(entry.lesson for entry in found)
        self.instructions = instructions

    def state(self) -> State:
        """What the agent knows now."""
        return State(
            goal=self.goal,
            observation=self.observation,
            actions=self.actions,
            random=self.random,
            steps=self.steps,
            lessons=self.lessons,
            instructions=self.instructions,
        )

    def do(self, move: Move, time_s: float = 0.0) -> None:
        """Act once."""
        begin = time.perf_counter()
        seen, reward, ended, cut, info = self.world.step(move.action)
        step = Step(
            observation=self.observation,
            action=move.action,
            thought=move.thought,
            reward=float(reward),
            cost=float(info.get("cost", 0.0)),
            time_s=time_s + time.perf_counter() - begin,
            is_violation=bool(info.get("violation", False)),
            ids=move.ids,
            logp=move.logp,
        )
        self.steps = (*self.steps, step)
        self.observation = seen
        self.actions = tuple(info.get("actions", ()))
        self.is_over = ended or cut
        self.success = bool(info.get("success", False))

    def copy(self, draw: int) -> Episode:
        """The same situation, from where other things may be done.

        Raises:
            ConfigError: the world cannot be copied.
        """
        other = copy.copy(self)
        try:
            other.world = copy.deepcopy(self.world)
        except Exception as error:
            raise ConfigError(
                f"the world {type(self.world).__name__} cannot be copied ({error}), which trying "
                "other actions at a step needs: keep its state in plain attributes, or take a "
                "method without branches, such as grpo."
            ) from error
        other.random = np.random.default_rng((self.task, len(self.steps), draw))
        return other

    def trajectory(self, source: str = "policy") -> Trajectory:
        """What was done so far."""
        return Trajectory(
            goal=self.goal,
            steps=self.steps,
            success=self.success,
            reward=sum(step.reward for step in self.steps),
            task=self.task,
            source=source,
            lessons=self.lessons,
            instructions=self.instructions,
        )


def play(episodes: Sequence[Episode], policy: Policy) -> None:
    """Play episodes to their ends, side by side."""
    while going := [one for one in episodes if not one.is_over]:
        begin = time.perf_counter()
        moves = policy([one.state() for one in going])
        each = (time.perf_counter() - begin) / len(going)
        for one, move in zip(going, moves, strict=True):
            one.do(move, each)


def collect(
    make: MakeWorld,
    policy: Policy,
    n: int = 1,
    *,
    tasks: Iterable[int] = range(16),
    explore: Literal["sample", "branch"] = "sample",
    width: int = 2,
    points: int | None = None,
    seed: int = 0,
    memory: ReflectionMemory | None = None,
    instructions: str = "",
    source: str = "policy",
) -> list[Trajectory]:
    """Trajectories of some tasks, failed ones too.

    Args:
        make: makes a world.
        policy: acts.
        n: trajectories a task; with ``branch`` rollouts of each branch.
        tasks: seeds of the tasks.
        explore: ``sample`` plays each task ``n`` times; ``branch`` plays it once and then tries
            others at every step.
        width: other actions at a step, where ``branch`` finds so many.
        points: steps of an episode at which ``branch`` tries others, drawn by chance; None takes
            all.
        seed: of what is drawn.
        memory: gives lessons at the beginning of every episode.
        instructions: what the agent is told before its goal.
        source: who acts, in the trajectories.

    Raises:
        ConfigError: a number is below 1, or there is no such exploration.
    """
    if (
        n < 1
        or width < 1
        or (points is not None and points < 1)
        or explore not in ("sample", "branch")
    ):
        raise ConfigError(
            f"n={n}, width={width} and points={points} must be at least 1, explore={explore!r}"
            " sample or branch."
        )
    each = n if explore == "sample" else 1
    found = [
        Episode(make, task, seed * 1_000_003 + i, memory, instructions)
        for task in tasks
        for i in range(each)
    ]
    if explore == "sample":
        play(found, policy)
    else:
        found = _branches(found, policy, n, width, points, seed)
    return [one.trajectory(source) for one in found]


def _branches(
    roots: Sequence[Episode],
    policy: Policy,
    n: int,
    width: int,
    points: int | None,
    seed: int,
) -> list[Episode]:
    """Episodes played to their ends, each before those that do something else at its steps."""
    before: list[list[Episode]] = [[] for _ in roots]
    while going := [
        (one, some) for one, some in zip(roots, before, strict=True) if not one.is_over
    ]:
        for one, some in going:
            some.append(one.copy(seed))
        for (one, _), move in zip(going, policy([one.state() for one, _ in going]), strict=True):
            one.do(move)
    tried = [
        (i, at, some[at])
        for i, some in enumerate(before)
        for at in _drawn(len(some), points, (roots[i].task, seed))
    ]
    moves: list[dict[str, Move]] = [{} for _ in tried]
    for draw in range(_DRAWS):
        places = [place for place, known in enumerate(moves) if len(known) < width]
        asked = [tried[place][2].copy(seed * _DRAWS + draw).state() for place in places]
        for place, move in zip(places, policy(asked) if asked else (), strict=True):
            i, at, _ = tried[place]
            if move.action != roots[i].steps[at].action:
                moves[place].setdefault(move.action, move)
    others: list[list[Episode]] = [[] for _ in roots]
    for (i, _, point), known in zip(tried, moves, strict=True):
        for number, move in enumerate(known.values()):
            for rollout in range(n):
                other = point.copy(seed + 7919 * (number * n + rollout + 1))
                other.do(move)
                others[i].append(other)
    play([other for some in others for other in some], policy)
    return [one for root, some in zip(roots, others, strict=True) for one in (root, *some)]


def _drawn(steps: int, points: int | None, seed: tuple[int, int]) -> list[int]:
    """Which steps of an episode others are tried at, ascending."""
    if points is None or points >= steps:
        return list(range(steps))
    return sorted(np.random.default_rng(seed).choice(steps, points, replace=False).tolist())
