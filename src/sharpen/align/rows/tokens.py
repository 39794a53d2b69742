"""Rows as token ids: prompts and completions apart, just as they meet when the model is used.

Plain texts are taken as they are, conversations by the tokenizer's chat template. A completion ends
with the token that ends a text, unless its template closed it with another special token. Nothing
is ever cut out of the middle: what is too long is refused, dropped, or loses its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from sharpen.align.rows.parse import Row, Text
from sharpen.core.errors import ConfigError, DataError
from sharpen.models.chat import assistant_mask, render_chat
from sharpen.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sharpen.align.agents.trajectory import Trajectory

__all__ = ["OnLong", "TokenRow", "TokenizedRows", "prompt_ids", "tokenize_rows"]

OnLong = Literal["refuse", "drop", "cut"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRow:
    """A row as token ids."""

    row: Row
    prompt: list[int]
    completions: list[list[int]]
    """As the row's; the end token included."""

    masks: list[list[bool]]
    """Of each completion, which tokens a model wrote: all, but in ``messages`` and in a
    ``trajectory``, whose completion holds what the agent saw on the way."""

    def __len__(self) -> int:
        """Tokens of its longest sequence."""
        return len(self.prompt) + max(map(len, self.completions), default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedRows:
    """Rows that fit, and what became of the others."""

    rows: list[TokenRow]
    dropped: dict[str, int] = field(default_factory=dict)
    """How many rows were left out, by reason."""

    cut: int = 0
    """Completions that lost their end."""

    def __len__(self) -> int:
        return len(self.rows)


def tokenize_rows(
    rows: Iterable[Row],
    tokenizer: Tokenizer,
    *,
    max_length: int | None = None,
    max_prompt: int | None = None,
    on_long: OnLong = "refuse",
    use_template: bool = False,
) -> TokenizedRows:
    """Tokenize rows.

    Args:
        rows: of one kind or several.
        tokenizer: of the model that learns from them.
        max_length: tokens that a prompt and a completion may have together, as the model's
            positions; of rows that are prompts alone, leave room for what is generated.
        max_prompt: tokens of a prompt.
        on_long: of a row that has more: ``refuse`` raises; ``drop`` leaves it out; ``cut`` drops
            rows whose prompt is too long, and else takes the end of the completion off (it then has
            no end token).
        use_template: turn plain prompts and completions into turns of a user and the assistant.

    Raises:
        ConfigError: a limit is below 2, or ``on_long`` is none of these.
        DataError: a row is too long, a completion has no tokens, there is no chat template, or it
            does not fit.
    """
    if on_long not in get_args(OnLong):
        raise ConfigError(f"on_long={on_long!r}: refuse, drop or cut.")
    for name, value in (("max_length", max_length), ("max_prompt", max_prompt)):
        if value is not None and value < 2:
            raise ConfigError(f"{name}={value} must be at least 2.")
    found: list[TokenRow] = []
    dropped: Counter[str] = Counter()
    cut = 0
    for row in rows:
        tokens = _encode(row, tokenizer, use_template)
        fault = _too_long(tokens, max_length, max_prompt)
        if fault:
            if on_long == "refuse":
                raise DataError(
                    f"{row.where}: {fault}. Raise the limit, or leave such rows out with "
                    "on_long=drop, or cut their completions with on_long=cut."
                )
            reason = fault.partition(": ")[0]
            if on_long == "drop" or not reason.startswith("completion"):
                dropped[reason] += 1
                continue
            assert max_length is not None
            tokens, count = _without_end(tokens, max_length)
            cut += count
        found.append(tokens)
    return TokenizedRows(rows=found, dropped=dict(dropped), cut=cut)


def prompt_ids(prompt: Text, tokenizer: Tokenizer, *, use_template: bool = False) -> list[int]:
    """Token ids of a prompt, as a model is given it: a first bos where the tokenizer puts one.

    Raises:
        DataError: a conversation without a chat template.
    """
    if isinstance(prompt, str) and not use_template:
        ids = tokenizer.encode(prompt, add_special=True)
        return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_id else ids
    messages: Sequence[dict[str, Any]]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenizer.encode(render_chat(tokenizer, messages, add_generation_prompt=True))


def _encode(row: Row, tokenizer: Tokenizer, use_template: bool) -> TokenRow:
    if row.kind == "messages":
        messages = row.completions[0]
        assert not isinstance(messages, str)
        try:
            ids, mask = assistant_mask(tokenizer, messages)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from None
        if not any(mask):
            raise DataError(f"{row.where}: no token of the conversation is the assistant's.")
        return TokenRow(row=row, prompt=[], completions=[ids], masks=[mask])
    if row.trajectory is not None:
        return _episode(row, row.trajectory, tokenizer)
    try:
        prompt = prompt_ids(row.prompt, tokenizer, use_template=use_template)
        answers = [_answer(row.prompt, one, tokenizer, use_template) for one in row.completions]
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from None
    return TokenRow(
        row=row, prompt=prompt, completions=answers, masks=[[True] * len(one) for one in answers]
    )


def _episode(row: Row, one: Trajectory, tokenizer: Tokenizer) -> TokenRow:
    from sharpen.align.agents.trajectory import episode_ids  # which stands on these rows

    try:
        ids, mask = episode_ids(one, tokenizer)
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from None
    if not any(mask):
        raise DataError(f"{row.where}: the agent says nothing, so there is nothing to learn.")
    first = mask.index(True)
    return TokenRow(row=row, prompt=ids[:first], completions=[ids[first:]], masks=[mask[first:]])


def _answer(prompt: Text, answer: Text, tokenizer: Tokenizer, use_template: bool) -> list[int]:
    if isinstance(answer, str) and not use_template:
        ids = tokenizer.encode(answer)
        if not ids:
            raise DataError("a completion has no tokens.")
        return ids if tokenizer.eos_id is None else [*ids, tokenizer.eos_id]
    opening, whole = _turns(prompt, answer)
    before = render_chat(tokenizer, opening, add_generation_prompt=True)
    text = render_chat(tokenizer, whole)
    if not text.startswith(before):
        raise DataError(
            "the chat template does not continue its own generation prompt, so prompt and"
            " completion cannot be told apart. Give them as plain text."
        )
    ids = tokenizer.encode(text[len(before) :].rstrip("\n"))
    if not ids:
        raise DataError("a completion has no tokens.")
    closed = ids[-1] in tokenizer.special_ids or tokenizer.eos_id is None
    return ids if closed else [*ids, int(tokenizer.eos_id or 0)]


def _turns(prompt: Text, answer: Text) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    opening = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    reply = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else list(answer)
    return opening, [*opening, *reply]


def _too_long(tokens: TokenRow, max_length: int | None, max_prompt: int | None) -> str:
    """What is too long, in words that begin with the reason; empty where all fits."""
    prompt = len(tokens.prompt)
    if max_prompt is not None and prompt > max_prompt:
        return f"prompt too long: {prompt} tokens, max_prompt={max_prompt}"
    if max_length is None:
        return ""
    if prompt >= max_length:
        return f"prompt leaves no room: {prompt} tokens, max_length={max_length}"
    longest = max(map(len, tokens.completions), default=0)
    if prompt + longest > max_length:
        return f"completion too long: {prompt} + {longest} tokens, max_length={max_length}"
    return ""


def _without_end(tokens: TokenRow, max_length: int) -> tuple[TokenRow, int]:
    room = max_length - len(tokens.prompt)
    count = sum(len(one) > room for one in tokens.completions)
    cut = TokenRow(
        row=tokens.row,
        prompt=tokens.prompt,
        completions=[one[:room] for one in tokens.completions],
        masks=[one[:room] for one in tokens.masks],
    )
    return cut, count
