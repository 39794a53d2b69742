"""Rows to token ids and the mask of what is to be learned.

Formats and the keys they need:

- ``text``: ``text``. Every token is learned; long texts are cut into pieces.
- ``prompt_completion``: ``prompt`` and ``completion``. With a chat template they become a user's
  and an assistant's turn, so that the tuned model answers chat requests.
- ``chat``: ``messages``, each with ``role`` and ``content``.
- ``alpaca``: ``instruction``, optional ``input``, and ``output``; becomes prompt and completion.

Only the assistant's tokens (its end token included) are learned, unless ``mask_prompt`` is off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sharpen.core.errors import DataError
from sharpen.models.chat import assistant_mask, check_messages, render_chat
from sharpen.models.tokenizer import Tokenizer

__all__ = ["FORMATS", "Document", "encode_rows", "normalize"]

Format = Literal["text", "prompt_completion", "chat", "alpaca"]
FORMATS: tuple[Format, ...] = ("text", "prompt_completion", "chat", "alpaca")
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Document:
    """One training example as tokens."""

    ids: list[int]
    """All tokens."""
    learned: list[bool]
    """Which of them are to be predicted."""


def normalize(row: Mapping[str, Any], form: Format, where: str) -> dict[str, Any]:
    """A row with just the keys of its format, checked; ``alpaca`` becomes ``prompt_completion``.

    Raises:
        DataError: a key is missing, empty or of the wrong type.
    """
    if form == "text":
        return {"text": _text(row, "text", where)}
    if form == "chat":
        messages = check_messages(row.get("messages"), f"{where}: messages")
        if not any(m["role"] == "assistant" for m in messages):
            raise DataError(f"{where}: no message has the role 'assistant', so nothing is learned.")
        try:
            json.dumps(messages, ensure_ascii=False).encode("utf-8")
        except (TypeError, ValueError) as error:  # half a surrogate pair is a ValueError
            raise DataError(f"{where}: messages cannot be written as JSON: {error}.") from None
        return {"messages": messages}
    if form == "alpaca":
        prompt = _text(row, "instruction", where)
        if row.get("input"):
            prompt += "\n\n" + _text(row, "input", where)
        return {"prompt": prompt, "completion": _text(row, "output", where)}
    return {key: _text(row, key, where) for key in ("prompt", "completion")}


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    if key not in row:
        found = ", ".join(map(str, row)) or "none"
        raise DataError(f"{where}: the key '{key}' is missing; found: {found}.")
    value = row[key]
    if not isinstance(value, str):
        raise DataError(f"{where}: '{key}' must be text, got {value!r:.60}.")
    if not value.strip():
        raise DataError(f"{where}: '{key}' is empty.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{where}: '{key}' holds half a surrogate pair, not text.") from None
    return value


def encode_rows(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    *,
    mask_prompt: bool = True,
    use_template: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[Document]:
    """Tokenize normalized rows, in order.

    Args:
        rows: as :func:`normalize` gives them, all of one format.
        tokenizer: of the model to be trained.
        mask_prompt: learn only what the assistant writes.
        use_template: render prompts and completions as chat turns if there is a template.
        on_progress: is told how many rows are done.

    Raises:
        DataError: a conversation cannot be rendered.
    """
    templated = use_template and tokenizer.chat_template is not None
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        if "messages" in batch[0]:
            for row in batch:
                ids, mask = assistant_mask(tokenizer, row["messages"])
                yield Document(ids, mask if mask_prompt else [True] * len(ids))
        elif "text" in batch[0]:
            for ids in tokenizer.encode_batch([row["text"] for row in batch]):
                ids = ids + _ending(tokenizer)
                yield Document(ids, [True] * len(ids))
        else:
            yield from _pairs(batch, tokenizer, templated, mask_prompt)
        if on_progress is not None:
            on_progress(len(batch))


def _ending(tokenizer: Tokenizer) -> list[int]:
    return [] if tokenizer.eos_id is None else [tokenizer.eos_id]


def _pairs(
    rows: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, templated: bool, mask_prompt: bool
) -> Iterator[Document]:
    """Prompt and completion are tokenized apart, just as they meet when the model is used."""
    openings, endings = [], []
    for row in rows:
        opening, ending = row["prompt"], row["completion"]
        if templated:
            turn = {"role": "user", "content": row["prompt"]}
            reply = {"role": "assistant", "content": row["completion"]}
            opening = render_chat(tokenizer, [turn], add_generation_prompt=True)
            whole = render_chat(tokenizer, [turn, reply])
            if not whole.startswith(opening):
                raise DataError(
                    "the chat template does not continue its own generation prompt, so prompt and "
                    "completion cannot be told apart. Use template: none."
                )
            ending = whole[len(opening) :].rstrip("\n")
        openings.append(opening)
        endings.append(ending)
    close = [] if templated else _ending(tokenizer)
    encoded = zip(tokenizer.encode_batch(openings), tokenizer.encode_batch(endings), strict=True)
    for prompt, completion in encoded:
        completion = completion + close
        yield Document(
            prompt + completion, [not mask_prompt] * len(prompt) + [True] * len(completion)
        )
