r"""Trajectories: what an agent was asked, saw, thought and did, and what came of it.

As JSONL, one trajectory a line, with ``"schema": 1``. As tokens, a trajectory is one sequence: the
goal and what the agent saw stand between its own words, and only those are actions::

    Goal: ...\nObservation: ...\n>| go east <end>|\nObservation: ...\n>| take key <end>
    context                        model          context                model

The space after ``>`` is the model's: tokenizers join it to the word that follows, and models that
read it alone go on with what is no word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.core.errors import DataError, FileFormatError, MissingFileError
from sharpen.core.files import atomic_write_text
from sharpen.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sharpen.align.batch import RolloutBatch, RowBatch

__all__ = [
    "SCHEMA",
    "WORLD",
    "Step",
    "Trajectory",
    "context_ids",
    "context_of",
    "episode_ids",
    "read_trajectories",
    "to_rollout",
    "to_rows",
    "write_trajectories",
]

SCHEMA = 1
WORLD = "\nObservation:"
"""Where a world's words begin, after the agent's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One turn."""

    observation: str
    """What the agent saw before it acted."""

    action: str
    thought: str = ""
    """What it said before the action, on lines of its own."""

    reward: float = 0.0
    cost: float = 0.0
    """What the action cost, as the environment counts it."""

    time_s: float = 0.0
    """Seconds of the action, the model's time included."""

    is_violation: bool = False
    """Whether the environment says that the action was forbidden."""

    ids: tuple[int, ...] | None = None
    """The tokens that the model drew, the end included; None where they are not known."""

    logp: tuple[float, ...] | None = None
    """[ids] their log-probabilities then."""

    @property
    def text(self) -> str:
        """The model's words."""
        return f"{self.thought}\n{self.action}" if self.thought else self.action


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One episode."""

    goal: str
    steps: tuple[Step, ...]
    success: bool
    reward: float
    """Sum over the steps."""

    task: int = 0
    """The seed of the task; trajectories of one task begin alike."""

    source: str = "policy"
    """Who acted: ``policy``, ``expert``, or another word."""

    lessons: tuple[str, ...] = ()
    """What the agent was reminded of at the beginning."""

    instructions: str = ""
    """What the agent was told before its goal."""

    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def actions(self) -> tuple[str, ...]:
        """The action of each step."""
        return tuple(step.action for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """Plain data of schema 1."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "trajectory") -> Trajectory:
        """From plain data.

        Raises:
            FileFormatError: another schema, or a key is missing, unknown or of another type.
        """
        if data.get("schema") != SCHEMA:
            raise FileFormatError(
                f"{where}: schema {data.get('schema')!r} of a trajectory; this version reads"
                f" {SCHEMA}."
            )
        values = {key: value for key, value in data.items() if key != "schema"}
        try:
            steps = tuple(_step(one) for one in values.pop("steps"))
            lessons = tuple(values.pop("lessons", ()))
            for name, kinds in _TYPES.items():
                if not isinstance(values.get(name), kinds):
                    raise TypeError(f"'{name}' is {values.get(name)!r:.40}")
            return cls(**values, steps=steps, lessons=lessons)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"{where}: no trajectory: {error}.") from None


_TYPES: dict[str, tuple[type, ...]] = {
    "goal": (str,),
    "success": (bool,),
    "reward": (int, float),
}


def _step(data: Mapping[str, Any]) -> Step:
    values = dict(data)
    for name in ("ids", "logp"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    for one in fields(Step):
        if one.name in ("observation", "action") and not isinstance(values.get(one.name), str):
            raise TypeError(f"'{one.name}' of a step must be text")
    if not all(isinstance(token, int) for token in values.get("ids") or ()):
        raise TypeError("'ids' of a step must be token ids")
    return Step(**values)


def write_trajectories(path: str | Path, trajectories: Iterable[Trajectory]) -> None:
    """Write JSONL; the file is there whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    lines = [json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in trajectories]
    atomic_write_text(Path(path), "".join(lines))


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """Read JSONL.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: a line is no trajectory (file, line).
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}.") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
        except ValueError as error:
            raise FileFormatError(f"{path}:{number}: no JSON: {error}.") from None
        if not isinstance(data, dict):
            raise FileFormatError(f"{path}:{number}: an object is needed.")
        found.append(Trajectory.from_json(data, f"{path}:{number}"))
    return found


def context_of(
    goal: str,
    steps: Sequence[Step],
    observation: str,
    lessons: Sequence[str] = (),
    instructions: str = "",
) -> str:
    """What a language model reads before it acts: all that came before, as text."""
    opening = _opening(goal, lessons, instructions)
    pieces = [text for text, _ in _pieces(opening, steps)]
    return "".join(pieces) + _before(opening, len(steps), observation)


def context_ids(
    goal: str,
    steps: Sequence[Step],
    observation: str,
    tokenizer: Tokenizer,
    lessons: Sequence[str] = (),
    instructions: str = "",
) -> list[int]:
    """The same as tokens: just what stands before the action in :func:`to_rollout`."""
    opening = _opening(goal, lessons, instructions)
    ids, _, _ = _tokens(opening, steps, tokenizer)
    return ids + tokenizer.encode(_before(opening, len(steps), observation))


def _opening(goal: str, lessons: Sequence[str], instructions: str) -> str:
    """What an episode begins with: instructions, goal, lessons."""
    told = f"{instructions}\nGoal: {goal}" if instructions else f"Goal: {goal}"
    return told + "".join(f"\nLesson: {lesson}" for lesson in lessons)


def _before(opening: str, number: int, observation: str) -> str:
    """Context right before an action."""
    return (opening if number == 0 else "") + f"{WORLD} {observation}\n>"


def _pieces(opening: str, steps: Sequence[Step]) -> list[tuple[str, Step | None]]:
    """Texts in order; with the step where they are the model's own words."""
    found: list[tuple[str, Step | None]] = []
    for number, step in enumerate(steps):
        found.append((_before(opening, number, step.observation), None))
        found.append((f" {step.text}", step))
    return found


_Tokens = tuple[list[int], list[bool], list[float]]
"""Ids, which of them are the model's, and their log-probabilities."""


def _tokens(opening: str, steps: Sequence[Step], tokenizer: Tokenizer) -> _Tokens:
    ids: list[int] = []
    mask: list[bool] = []
    logp: list[float] = []
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    for text, step in _pieces(opening, steps):
        if step is None:
            some = tokenizer.encode(text)
        else:
            some = list(step.ids) if step.ids is not None else [*tokenizer.encode(text), *end]
        known = None if step is None else step.logp
        if known is not None and len(known) != len(some):
            raise DataError(
                f"a step has {len(known)} log-probabilities for {len(some)} tokens: {text!r:.60}."
            )
        ids += some
        mask += [step is not None] * len(some)
        logp += known or [0.0] * len(some)
    return ids, mask, logp


def episode_ids(one: Trajectory, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """A trajectory's tokens, and which are the agent's, for any model to imitate.

    The tokens that were drawn are taken where they say the same to this tokenizer, and the end
    after those that had none; the words of another model are encoded anew.

    Args:
        one: the trajectory.
        tokenizer: of the model that learns.
    """
    end: tuple[int, ...] = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    steps = []
    for step in one.steps:
        drawn = step.ids if _says_the_same(step, tokenizer) else None
        if drawn is not None and drawn[-1:] != end:
            drawn = (*drawn, *end)
        steps.append(replace(step, ids=drawn, logp=None))
    ids, mask, _ = _tokens(_opening_of(one), steps, tokenizer)
    return ids, mask


def _opening_of(one: Trajectory) -> str:
    return _opening(one.goal, one.lessons, one.instructions)


def _says_the_same(step: Step, tokenizer: Tokenizer) -> bool:
    if step.ids is None:
        return True
    if not all(0 <= token < tokenizer.vocab_size for token in step.ids):
        return False
    return tokenizer.decode(list(step.ids)).split() == step.text.split()


def to_rollout(
    trajectories: Sequence[Trajectory], tokenizer: Tokenizer, *, version: int = 0
) -> RolloutBatch:
    """Trajectories as one batch; trajectories of one task are a group.

    Where the tokens that a model drew are known they are used, never text that is tokenized again.
    Log-probabilities that are not known are 0: compute them before a method with a ratio.

    Args:
        trajectories: with at least one step each.
        tokenizer: of the model.
        version: of its weights.

    Raises:
        DataError: there are none, one has no steps, or its log-probabilities do not fit.
    """
    import torch  # which playing with a language model does not need

    from sharpen.align.batch import RolloutBatch
    from sharpen.align.rows.batches import pad_rows

    _check(trajectories)
    found = [_tokens(_opening_of(one), one.steps, tokenizer) for one in trajectories]
    ids, text, actions = pad_rows([([], ids, mask) for ids, mask, _ in found], _pad(tokenizer))
    logp = torch.zeros(ids.shape, dtype=torch.float32)
    for i, (_, _, known) in enumerate(found):
        logp[i, : len(known)] = torch.tensor(known)
    groups = {task: i for i, task in enumerate(dict.fromkeys(one.task for one in trajectories))}
    ended = [
        tokenizer.eos_id is not None and bool(row) and row[-1] == tokenizer.eos_id
        for row, _, _ in found
    ]
    return RolloutBatch(
        input_ids=ids,
        attention_mask=text,
        action_mask=actions,
        logp_old=logp,
        reward=torch.tensor([one.reward for one in trajectories], dtype=torch.float32),
        group_id=torch.tensor([groups[one.task] for one in trajectories]),
        finish_reason=["stop" if one else "length" for one in ended],
        meta=[
            {"goal": one.goal, "task": one.task, "success": one.success, **one.meta}
            for one in trajectories
        ],
        version=torch.full((len(trajectories),), version, dtype=torch.int64),
    )


def to_rows(trajectories: Sequence[Trajectory], tokenizer: Tokenizer) -> RowBatch:
    """Trajectories to learn by heart: the model's words alone; raises as :func:`to_rollout`."""
    from sharpen.align.batch import RowBatch
    from sharpen.align.rows.batches import pad_rows

    _check(trajectories)
    rows: list[tuple[list[int], list[int], list[bool]]] = []
    for one in trajectories:
        ids, mask, _ = _tokens(_opening_of(one), one.steps, tokenizer)
        rows.append(([], ids, mask))
    ids_, text, actions = pad_rows(rows, _pad(tokenizer))
    return RowBatch(input_ids=ids_, attention_mask=text, action_mask=actions)


def _check(trajectories: Sequence[Trajectory]) -> None:
    if not trajectories:
        raise DataError("there are no trajectories.")
    for one in trajectories:
        if not one.steps:
            raise DataError(f"the trajectory of task {one.task} has no steps.")


def _pad(tokenizer: Tokenizer) -> int:
    return tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id or 0
