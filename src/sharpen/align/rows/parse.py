"""Rows of feedback, in the formats of TRL and RRHF: prompts, completions, preferences, labels.

Episodes of agents are rows as well, as :mod:`sharpen.align.agents.trajectory` writes them.

==============  ===========================================================================
kind            keys
==============  ===========================================================================
``completion``  ``prompt``, ``completion``
``messages``    ``messages``: a conversation, of which the assistant's words are learned
``preference``  ``chosen``, ``rejected`` and ``prompt``; without one, what both begin with
``label``       ``prompt``, ``completion``, ``label``: true where the completion is desirable
``ranked``      ``query``, ``responses``, ``scores``: candidates of one prompt, each scored
``prompt``      ``prompt``
``trajectory``  ``goal``, ``steps`` and what else an episode has; the agent's words are learned
==============  ===========================================================================

Texts may be conversations, lists of ``{"role", "content"}``; then all texts of a row are. Other
keys are kept: rewards see them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

from sharpen.core.errors import DataError, FileFormatError
from sharpen.models.chat import check_messages

if TYPE_CHECKING:
    from sharpen.align.agents.trajectory import Trajectory

__all__ = ["KINDS", "BadRow", "Kind", "Row", "Text", "kind_of", "parse_row"]

Kind = Literal["completion", "messages", "preference", "label", "ranked", "prompt", "trajectory"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Text = str | tuple[dict[str, Any], ...]
"""Plain text, or a conversation."""

_KEYS: dict[Kind, tuple[str, ...]] = {  # the first kind whose keys are all there
    "trajectory": ("goal", "steps"),
    "ranked": ("query", "responses"),
    "preference": ("chosen", "rejected"),
    "label": ("completion", "label"),
    "completion": ("completion",),
    "messages": ("messages",),
    "prompt": ("prompt",),
}


class BadRow(DataError):
    """A row that cannot be used.

    Attributes:
        reason: a few words, the same for all rows with the same fault.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One example."""

    where: str
    """``file:line``."""

    kind: Kind
    prompt: Text = ""
    """Empty where there is none, as of ``messages``."""

    completions: tuple[Text, ...] = ()
    """None of a ``prompt``; chosen and rejected of a ``preference``; all candidates of a
    ``ranked`` row; the whole conversation of ``messages``; all words of the agent of a
    ``trajectory``, whose prompt is the goal; else one."""

    label: bool | None = None
    scores: tuple[float, ...] = ()
    trajectory: Trajectory | None = None
    """Of a ``trajectory``: the episode."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The keys that no format knows."""

    @property
    def is_conversation(self) -> bool:
        """Whether its texts are lists of messages."""
        return not isinstance((self.completions or (self.prompt,))[0], str)


def kind_of(row: Mapping[str, Any], where: str) -> Kind:
    """The kind of a row, by its keys.

    Raises:
        BadRow: none fits.
    """
    for kind, keys in _KEYS.items():
        if all(key in row for key in keys):
            return kind
    found = ", ".join(map(str, row)) or "none"
    raise BadRow(
        f"{where}: the keys ({found}) fit no format. Formats: prompt and completion; messages;"
        " prompt, chosen and rejected; prompt, completion and label; query, responses and scores;"
        " goal and steps of an episode; or prompt alone.",
        "no known format",
    )


def parse_row(row: Mapping[str, Any], where: str, kind: Kind | None = None) -> Row:
    """A row, checked.

    Args:
        row: plain data.
        where: ``file:line``, for messages.
        kind: of the file; the row's own without it.

    Raises:
        BadRow: a key is missing, empty or of another type; the message names it.
    """
    own = kind_of(row, where)
    if kind is not None and own == "prompt" != kind:
        own = kind  # a key is missing: its parser says which
    if kind is not None and own != kind:
        raise BadRow(
            f"{where}: a row of the format '{own}' in a file of '{kind}'. Keep formats in files of"
            " their own.",
            "another format",
        )
    return _PARSERS[own](_Reader(row, where))


class _Reader:
    """Takes keys of a row, checked; what nobody took is left."""

    def __init__(self, row: Mapping[str, Any], where: str) -> None:
        self.row = row
        self.where = where
        self.taken: set[str] = set()

    def raw(self, key: str) -> Any:
        self.taken.add(key)
        if key not in self.row:
            found = ", ".join(map(str, self.row))
            raise BadRow(
                f"{self.where}: the key '{key}' is missing; found: {found}.", f"no '{key}'"
            )
        return self.row[key]

    def text(self, key: str) -> Text:
        return self.as_text(self.raw(key), key)

    def as_text(self, value: Any, key: str) -> Text:
        if isinstance(value, (list, tuple)):
            try:
                return tuple(check_messages(value, f"{self.where}: {key}"))
            except DataError as error:
                raise BadRow(str(error), f"'{key}' is no conversation") from None
        if not isinstance(value, str):
            self.fail(key, f"must be text or a list of messages, got {value!r:.60}", "no text")
        if not value.strip():
            self.fail(key, "is empty", "empty")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            self.fail(key, "holds half a surrogate pair, not text", "not Unicode")
        return value

    def answer(self, key: str) -> Text:
        """A text that a model is to write."""
        return self.check_answer(self.text(key), key)

    def check_answer(self, value: Text, key: str) -> Text:
        if not isinstance(value, str):
            if value[0]["role"] != "assistant":
                role = value[0]["role"]
                self.fail(key, f"must begin with the assistant, got the role {role!r}", "role")
            last = value[-1]
            if not last.get("content") and not last.get("tool_calls"):
                self.fail(key, "is empty", "empty")
        return value

    def alike(self, first: Text, second: Text, keys: str) -> None:
        if isinstance(first, str) != isinstance(second, str):
            self.fail(keys, "must all be text, or all lists of messages", "mixed")

    def rest(self) -> dict[str, Any]:
        return {key: value for key, value in self.row.items() if key not in self.taken}

    def fail(self, key: str, told: str, reason: str) -> NoReturn:
        raise BadRow(f"{self.where}: '{key}' {told}.", f"'{key}': {reason}")


def _completion(read: _Reader) -> Row:
    prompt, completion = read.text("prompt"), read.answer("completion")
    read.alike(prompt, completion, "prompt, completion")
    return Row(
        where=read.where,
        kind="completion",
        prompt=prompt,
        completions=(completion,),
        meta=read.rest(),
    )


def _label(read: _Reader) -> Row:
    prompt, completion, label = read.text("prompt"), read.answer("completion"), read.raw("label")
    read.alike(prompt, completion, "prompt, completion")
    if type(label) not in (bool, int) or label not in (0, 1):
        read.fail("label", f"must be true or false, got {label!r:.60}", "no label")
    return Row(
        where=read.where,
        kind="label",
        prompt=prompt,
        completions=(completion,),
        label=bool(label),
        meta=read.rest(),
    )


def _messages(read: _Reader) -> Row:
    messages = read.text("messages")
    if isinstance(messages, str):
        read.fail("messages", "must be a list of messages, got text", "no conversation")
    if not any(message["role"] == "assistant" for message in messages):
        read.fail("messages", "has no message of the assistant, so nothing is learned", "role")
    return Row(where=read.where, kind="messages", completions=(messages,), meta=read.rest())


def _preference(read: _Reader) -> Row:
    chosen, rejected = read.text("chosen"), read.text("rejected")
    read.alike(chosen, rejected, "chosen, rejected")
    if chosen == rejected:
        read.fail("chosen, rejected", "are the same", "same")
    prompt: Text
    if "prompt" in read.row:
        prompt = read.text("prompt")
        read.alike(prompt, chosen, "prompt, chosen")
    else:
        shared = _shared(chosen, rejected)
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        if not prompt:
            read.fail("prompt", "is missing, and chosen and rejected begin differently", "missing")
    for key, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer or (isinstance(answer, str) and not answer.strip()):
            read.fail(key, "has nothing that the other has not", "empty")
        read.check_answer(answer, key)
    return Row(
        where=read.where,
        kind="preference",
        prompt=prompt,
        completions=(chosen, rejected),
        meta=read.rest(),
    )


def _shared(chosen: Text, rejected: Text) -> int:
    """How much both begin with: messages, or characters up to a space before they differ."""
    length = min(len(chosen), len(rejected))
    differ = (i for i in range(length) if chosen[i] != rejected[i])
    shared = next(differ, length)
    if isinstance(chosen, str) and 0 < shared < length and chosen[shared - 1] == " ":
        shared -= 1
    return shared


def _ranked(read: _Reader) -> Row:
    query = read.text("query")
    responses, scores = read.raw("responses"), read.raw("scores")
    for key, value in (("responses", responses), ("scores", scores)):
        if not isinstance(value, list):
            read.fail(key, f"must be a list, got {value!r:.60}", "no list")
    if len(responses) != len(scores) or len(responses) < 2:
        told = f"need two or more, as many of each; got {len(responses)} and {len(scores)}"
        read.fail("responses, scores", told, "lengths")
    answers = []
    for i, response in enumerate(responses):
        key = f"responses[{i}]"
        answers.append(read.check_answer(read.as_text(response, key), key))
        read.alike(query, answers[-1], f"query, {key}")
    return Row(
        where=read.where,
        kind="ranked",
        prompt=query,
        completions=tuple(answers),
        scores=tuple(_numbers(read, scores)),
        meta=read.rest(),
    )


def _numbers(read: _Reader, values: Sequence[Any]) -> Iterator[float]:
    for i, value in enumerate(values):
        if type(value) not in (int, float) or not math.isfinite(value):
            read.fail(f"scores[{i}]", f"must be a finite number, got {value!r:.60}", "no number")
        yield float(value)


def _prompt(read: _Reader) -> Row:
    return Row(where=read.where, kind="prompt", prompt=read.text("prompt"), meta=read.rest())


def _trajectory(read: _Reader) -> Row:
    from sharpen.align.agents.trajectory import Trajectory  # which loads torch

    try:
        one = Trajectory.from_json(read.row, read.where)
    except FileFormatError as error:
        raise BadRow(str(error), "no trajectory") from None
    if not one.steps:
        read.fail("steps", "is empty, so there is nothing to learn", "empty")
    return Row(
        where=read.where,
        kind="trajectory",
        prompt=one.goal,
        completions=("\n".join(step.text for step in one.steps),),
        trajectory=one,
        meta=one.meta,
    )


_PARSERS = {
    "completion": _completion,
    "messages": _messages,
    "preference": _preference,
    "label": _label,
    "ranked": _ranked,
    "prompt": _prompt,
    "trajectory": _trajectory,
}
