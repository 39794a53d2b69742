"""Instructions for an agent: a text before its goal that optimizers of programs make better.

Nothing is trained. The agent is a program of :mod:`sharpen.text` with one parameter, its
instructions; running it on a task plays an episode, and what critics and proposers read is what was
seen and done there, with the reward. After Cheng et al., *Trace is the next AutoDiff*, NeurIPS 2024
(arXiv 2406.16218), which treats agents so.

Three sets of tasks, none in two of them::

    train   episodes that feedback is given on, a few a turn
    val     what proposals are compared on; the best so far goes on
    test    found instructions against the given ones, once, by McNemar's exact test

Found instructions are accepted only where they are better on ``test`` and chance alone would do so
in no more than ``alpha`` of all cases.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sharpen.align.agents.collecting import Episode, play
from sharpen.align.agents.environment import MakeWorld
from sharpen.align.agents.policies import LMPolicy
from sharpen.align.agents.trajectory import WORLD, Trajectory
from sharpen.core.errors import ConfigError, DataError, did_you_mean
from sharpen.core.files import atomic_write_text
from sharpen.core.lm.client import LM
from sharpen.core.lm.errors import BudgetExhausted, ServiceError
from sharpen.text import OPRO, BasicSearch, Module, Node, OptoPrime, Parameter, TextGrad, op
from sharpen.text.asking import as_lm, usage_of
from sharpen.text.listing import elided
from sharpen.text.optimizers.base import TextOptimizer
from sharpen.text.problem import TextProblem
from sharpen.text.prompts.confidence import Interval, mcnemar, mean_interval, paired_difference
from sharpen.text.textual import TextualPropagator

__all__ = ["OPTIMIZERS", "Instructed", "InstructedAgent", "most_episodes", "tune_instructions"]

MakeOptimizer = Callable[[Module, LM], TextOptimizer]

OPTIMIZERS: dict[str, MakeOptimizer] = {
    "textgrad": lambda module, lm: TextGrad(module, lm, temperature=_TEMPERATURE),
    "opro": lambda module, lm: OPRO(module, lm, max_tokens=None),
    "optoprime": lambda module, lm: OptoPrime(module, lm, max_tokens=None),
}
"""Ways of proposing instructions, by name; the client limits their replies."""

_TEMPERATURE = 0.7  # so that the proposals of a turn differ
_SHOWN = 3000  # characters of an episode


class _Told(str):
    """An episode as text, with the episode."""

    trajectory: Trajectory


class InstructedAgent(Module):
    """A language model that acts in a world, with instructions that may be changed.

    Args:
        make: makes the world.
        lm: acts.
        instructions: the first ones; there may be none.
        on_episode: is called after each episode.
        sampling: parameters of its requests.
    """

    def __init__(
        self,
        make: MakeWorld,
        lm: LM,
        instructions: str = "",
        *,
        on_episode: Callable[[], None] | None = None,
        **sampling: Any,
    ) -> None:
        self.lm = lm
        self.instructions = Parameter(
            instructions,
            "instructions",
            role="instructions that an agent reads before its goal, in every task",
            kind="text",
        )
        self._make, self._on_episode = make, on_episode
        self._sampling = {"stop": (WORLD,), **sampling}
        self._lock = threading.Lock()
        self.episodes = self.turns = self.violations = 0
        """Played so far; turns, and those with a violation, of episodes that came to their ends."""
        self.highest = -math.inf
        """The highest reward of an episode."""
        self.errors: list[str] = []
        """Of episodes that could not be played to their ends."""

    @op
    def episode(self, instructions: str, task: int) -> str:
        """Play a task by the instructions; what was seen, done and earned."""
        with self._lock:
            self.episodes += 1
        try:
            one = Episode(self._make, task, instructions=instructions)
            could = ", ".join(one.actions)
            play([one], LMPolicy(lambda prompts: [self.lm(p, **self._sampling) for p in prompts]))
        except (BudgetExhausted, ServiceError):
            raise  # no fault of the episode
        except Exception as error:
            self._tell(None, f"{type(error).__name__}: {error}")
            raise
        found = one.trajectory()
        self._tell(found)
        told = _Told(_words(found, could))
        told.trajectory = found
        return told

    def _tell(self, played: Trajectory | None, error: str = "") -> None:
        with self._lock:
            if played is None:
                self.errors.append(error)
            else:
                self.turns += len(played.steps)
                self.violations += sum(step.is_violation for step in played.steps)
                self.highest = max(self.highest, played.reward)
            if self._on_episode is not None:
                self._on_episode()

    def forward(self, task: int) -> Node:
        """An episode of a task."""
        played: Node = self.episode(self.instructions, task)
        return played


def _words(one: Trajectory, could: str) -> str:
    lines = [f"Goal: {one.goal}"]
    if could:
        lines.append(f"What may be done at first: {could}")
    for step in one.steps:
        forbidden = " (forbidden)" if step.is_violation else ""
        lines += [f"Saw: {step.observation}", f"Did: {step.text}{forbidden}"]
    end = "Reached the goal" if one.success else "Did not reach the goal"
    lines.append(f"{end} in {len(one.steps)} turns. Reward: {one.reward:g}")
    return elided("\n".join(lines), _SHOWN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Instructed:
    """What :func:`tune_instructions` found."""

    instructions: str
    """What to use: the found ones where they are accepted, else the given ones."""

    accepted: bool
    found: str
    """The best on the validation tasks."""

    given: str
    score_given: float
    """Mean reward on the validation tasks, as the next."""

    score_found: float
    test: dict[str, Any] | None
    """Mean rewards of both on the test tasks with intervals of 95 %, their paired difference and
    McNemar's p; None where nothing better was found, or calls ran out before."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    """Turns of the search: what was held after each, and its score."""

    refused: dict[str, str] = field(default_factory=dict)
    """Why the last proposal could not be used, if so."""

    episodes: int = 0
    allowed: int = 0
    """Episodes that might have been played, at most."""

    failed: int = 0
    """Episodes that could not be played to their ends; they count as earning nothing."""

    highest: float = 0.0
    """Reward of the best episode of all."""

    violations: float = 0.0
    """Share of all turns with something that the world forbids, such as words that are no call."""

    usage: dict[str, Any] = field(default_factory=dict)
    """Calls, cache hits, tokens and cost of all models."""

    stopped: str = ""
    """The limit that ended the search early."""

    def summary(self) -> str:
        """A few lines."""
        lines = [
            f"validation: {self.score_given:.3f} -> {self.score_found:.3f}, {self.episodes} of at"
            f" most {self.allowed} episodes, {self._spent()}"
        ]
        if self.test is not None:
            change = self.test["difference"]
            lines.append(
                f"test: {self.test['score_given']['value']:.3f} ->"
                f" {self.test['score_found']['value']:.3f}, difference {change['value']:+.3f}"
                f" [{change['low']:+.3f}, {change['high']:+.3f}], p = {self.test['p_mcnemar']:.3g}"
            )
        lines.append("accepted" if self.accepted else "not accepted: the given ones stay")
        if self.refused:
            lines.append(f"the last proposal could not be used: {'; '.join(self.refused.values())}")
        if self.highest <= 0:
            lines.append(
                "no episode earned anything, so that no instructions are better than others: begin"
                " with some that show an episode, a larger model, or an easier world"
            )
        if self.violations:
            lines.append(f"the world forbids {self.violations:.0%} of what was done")
        if self.failed:
            lines.append(f"{self.failed} episodes could not be played to their ends")
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        return "\n".join(lines)

    def _spent(self) -> str:
        cost = self.usage.get("cost")
        told = f"{self.usage.get('calls', 0)} calls, {self.usage.get('tokens', 0):,} tokens"
        return told if cost is None else f"{told}, {cost:.4g} USD"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def tune_instructions(
    make: MakeWorld,
    lm: Any,
    instructions: str = "",
    *,
    optimizer: str | MakeOptimizer = "textgrad",
    proposer: Any = None,
    train: Sequence[int] = range(16),
    val: Sequence[int] = range(1000, 1016),
    test: Sequence[int] = range(2000, 2050),
    steps: int = 5,
    proposals: int = 2,
    batch: int = 4,
    alpha: float = 0.05,
    seed: int = 0,
    concurrency: int = 8,
    reply_tokens: int = 1024,
    run_dir: str | Path | None = None,
    on_episode: Callable[[], None] | None = None,
    **sampling: Any,
) -> Instructed:
    """Search for instructions with which a language model earns more in a world.

    With a cache in ``lm`` a run that was stopped goes on without paying for a call twice; a budget
    in it is never exceeded.

    Args:
        make: makes the world.
        lm: acts: a client, an address, or a function of a prompt.
        instructions: the first ones.
        optimizer: a name of ``OPTIMIZERS``, or what makes one of the agent and the proposer.
        proposer: criticizes and writes instructions; ``lm`` without one.
        train: tasks that feedback is given on.
        val: tasks that proposals are compared on.
        test: tasks that decide whether what was found is accepted.
        steps: turns of the search.
        proposals: new instructions a turn.
        batch: episodes a turn that the proposer reads.
        alpha: the p-value that is accepted, at most.
        seed: of the order of tasks and of proposals.
        concurrency: episodes at once, where none is criticized.
        reply_tokens: of a reply of the proposer, at most.
        run_dir: where ``result.json`` and ``instructions.txt`` go.
        on_episode: is called after each of :func:`most_episodes` at most.
        sampling: parameters of the agent's requests, such as ``max_tokens``.

    Raises:
        ConfigError: an unknown optimizer, or a number out of range.
        DataError: a task is in two sets, a set is empty, or no episode can be played.
        ServiceError: a model does not answer.
    """
    _check(optimizer, train, val, test, steps, proposals, alpha, reply_tokens)
    client = as_lm(lm)
    proposing = client if proposer is None else as_lm(proposer)
    writer = proposing.with_(max_tokens=reply_tokens)
    agent = InstructedAgent(make, client, instructions, on_episode=on_episode, **sampling)
    critic = TextualPropagator(writer) if optimizer == "textgrad" else None

    def problem(tasks: Sequence[int], **options: Any) -> TextProblem:
        return TextProblem(agent, [(task, None) for task in tasks], guide=_guide, **options)

    # What is read is played one by one, so that it has one order and prompts are found in a cache.
    learning = problem(train, propagator=critic)
    maker = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    search = BasicSearch(
        learning,
        maker(agent, writer),
        proposals=proposals,
        batch=batch,
        validation=problem(val, concurrency=concurrency),
        seed=seed,
    )
    search.validate(learning.space.default())
    if agent.errors and len(agent.errors) == agent.episodes:
        raise DataError(
            f"none of {agent.episodes} episodes could be played: {agent.errors[-1]} Take a world "
            "with fewer or shorter turns, or shorter instructions, where they are too long for the "
            "model."
        )
    done = search.train(steps)
    found = str(done.best["instructions"])
    stopped, compared = done.stopped, None
    if not stopped and found != instructions and done.score > done.start:
        try:
            compared = _compare(problem(test, concurrency=concurrency), found, instructions)
        except BudgetExhausted as error:
            stopped = str(error)
    accepted = (
        compared is not None
        and compared["difference"]["value"] > 0
        and compared["p_mcnemar"] <= alpha
    )
    result = Instructed(
        instructions=found if accepted else instructions,
        accepted=accepted,
        found=found,
        given=instructions,
        score_given=done.start,
        score_found=done.score,
        test=compared,
        steps=[
            {"score": one.score, "kept": one.accepted, **dict(one.values)} for one in done.steps
        ],
        refused=dict(search.optimizer.report.rejected),
        episodes=agent.episodes,
        allowed=most_episodes(len(train), len(val), len(test), steps, proposals, batch),
        failed=len(agent.errors),
        highest=agent.highest,
        violations=agent.violations / max(1, agent.turns),
        usage=usage_of(client, proposing),
        stopped=stopped,
    )
    if run_dir is not None:
        folder = Path(run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result.to_dict(), ensure_ascii=False, indent=1)
        atomic_write_text(folder / "result.json", text + "\n")
        atomic_write_text(folder / "instructions.txt", result.instructions + "\n")
    return result


def most_episodes(train: int, val: int, test: int, steps: int, proposals: int, batch: int) -> int:
    """How many episodes :func:`tune_instructions` plays at most; numbers as it is given them."""
    return val * (1 + steps * proposals) + steps * min(batch, train) + 2 * test


def _guide(task: int, told: _Told, reference: Any) -> tuple[float, str]:
    return told.trajectory.reward, str(told)


def _compare(problem: TextProblem, found: str, given: str) -> dict[str, Any]:
    places = range(len(problem.dataset))
    ours, theirs = (
        problem.judge({"instructions": text}, places).info["per_example"] for text in (found, given)
    )
    return {
        "tasks": len(ours),
        "score_found": _plain(mean_interval(ours)),
        "score_given": _plain(mean_interval(theirs)),
        "difference": _plain(paired_difference(ours, theirs)),
        "p_mcnemar": mcnemar(ours, theirs),
    }


def _plain(interval: Interval) -> dict[str, float]:
    return asdict(interval)


def _check(
    optimizer: str | MakeOptimizer,
    train: Sequence[int],
    val: Sequence[int],
    test: Sequence[int],
    steps: int,
    proposals: int,
    alpha: float,
    reply_tokens: int,
) -> None:
    if isinstance(optimizer, str) and optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"there is no optimizer {optimizer!r} of instructions."
            f"{did_you_mean(optimizer, OPTIMIZERS)} There are: {', '.join(OPTIMIZERS)}."
        )
    if min(steps, proposals, reply_tokens) < 1 or not 0 < alpha < 1:
        raise ConfigError(
            f"steps={steps}, proposals={proposals} and reply_tokens={reply_tokens} must be at least"
            f" 1 and alpha={alpha} between 0 and 1."
        )
    if not train or not val or not test:
        raise DataError("there must be tasks to learn from (train), to compare on (val) and test.")
    shared = (set(train) & set(val)) | (set(test) & (set(train) | set(val)))
    if shared:
        raise DataError(
            f"{len(shared)} tasks are in two of train, val and test, such as {min(shared)}: keep "
            "them apart, or the test measures nothing."
        )
