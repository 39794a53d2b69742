"""Task files: JSONL rows, each a question with its answer.

Two kinds of row, told apart by ``choices``; a file holds one kind::

    {"prompt": "2 + 2 =", "choices": [" 3", " 4"], "answer": 1}        multiple choice
    {"prompt": "Capital of France?", "answer": "Paris"}                exact match
    {"messages": [{"role": "user", "content": "..."}], "answer": ["4", "four"]}

``prompt`` is given to the model as it stands, so a choice usually begins with the space that
separates it. ``messages`` are rendered by the model's chat template. ``answer`` is the index of the
right choice, counted from 0, or the accepted text or texts. Further keys are kept and ignored when
they are ``id`` or ``info``; any other key is an error, so that a misspelt one is found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sharpen.core.errors import DataError, MissingFileError, did_you_mean
from sharpen.models.chat import check_messages, render_chat
from sharpen.models.tokenizer import Tokenizer

__all__ = ["Question", "Task", "load_task"]

_KEYS = ("prompt", "messages", "choices", "answer", "id", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row of a task file, checked."""

    where: str
    """``file:line`` it stands at."""

    prompt: str | None
    """What the model is given; None when there are messages."""

    messages: tuple[dict[str, Any], ...] = ()
    """A conversation, rendered by the model's chat template."""

    choices: tuple[str, ...] = ()
    """Continuations to choose from; empty for exact match."""

    answer: int | None = None
    """Index of the right choice."""

    answers: tuple[str, ...] = ()
    """Accepted texts, for exact match."""

    def text(self, tokenizer: Tokenizer) -> str:
        """The prompt as the model sees it.

        Raises:
            DataError: there are messages and the tokenizer has no chat template.
        """
        if self.prompt is not None:
            return self.prompt
        try:
            return render_chat(tokenizer, self.messages, add_generation_prompt=True)
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task file, checked."""

    name: str
    """The file's name without its ending."""

    kind: Literal["choice", "exact_match"]
    """What its rows are."""

    questions: tuple[Question, ...]
    """At least one."""


def load_task(path: str | Path) -> Task:
    """Read and check a task file.

    Args:
        path: JSONL, UTF-8; empty lines are skipped.

    Raises:
        MissingFileError: no such file.
        DataError: no rows, or a bad row (file and line, reason, what is allowed).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no such task file: {path}")
    questions: list[Question] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            questions.append(_question(line, f"{path}:{number}"))
    if not questions:
        raise DataError(f"{path} is empty; a task file has one JSON object a line.")
    for question in questions:
        if bool(question.choices) != bool(questions[0].choices):
            kinds = ("with 'choices'", "without")
            this, first = kinds if question.choices else kinds[::-1]
            raise DataError(
                f"{question.where}: a row {this} in a file whose first row is {first}. "
                "Put multiple choice and exact match into files of their own."
            )
    kind: Literal["choice", "exact_match"] = "choice" if questions[0].choices else "exact_match"
    return Task(name=path.name.removesuffix(".jsonl"), kind=kind, questions=tuple(questions))


def _question(line: bytes, where: str) -> Question:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} of the line is not UTF-8.") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}.") from None
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a row must be a JSON object, got {row!r:.60}.")
    for key in row:
        if key not in _KEYS:
            raise DataError(
                f"{where}: unknown key {key!r}.{did_you_mean(key, _KEYS)} "
                f"Allowed: {', '.join(_KEYS)}."
            )
    if ("prompt" in row) == ("messages" in row):
        raise DataError(f"{where}: give exactly one of 'prompt' and 'messages'.")
    if "answer" not in row:
        raise DataError(f"{where}: the key 'answer' is missing.")
    prompt: str | None = None
    messages: tuple[dict[str, Any], ...] = ()
    if "prompt" in row:
        prompt = _text(row["prompt"], "prompt", where)
    else:
        messages = tuple(check_messages(row["messages"], f"{where}: messages"))
    answer = row["answer"]
    if "choices" not in row:
        given = answer if isinstance(answer, list) and answer else [answer]
        accepted = tuple(_text(text, "answer", where) for text in given)
        return Question(where=where, prompt=prompt, messages=messages, answers=accepted)
    choices = row["choices"]
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError(
            f"{where}: 'choices' must be a list of at least 2 texts, got {choices!r:.60}."
        )
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise DataError(
            f"{where}: 'answer' must be the index of the right choice, 0 to {len(choices) - 1}, "
            f"got {answer!r:.60}."
        )
    texts = tuple(_text(choice, "choices", where) for choice in choices)
    return Question(where=where, prompt=prompt, messages=messages, choices=texts, answer=answer)


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: '{key}' must be a text that is not empty, got {value!r:.60}.")
    return value
