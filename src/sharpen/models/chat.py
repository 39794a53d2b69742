"""Chat templates: messages to text, in a jinja2 sandbox, as ``transformers`` renders them.

Templates come from model files, which nobody trusts: they run in an immutable sandbox, with bounded
ranges, and cannot reach Python objects.
"""

from __future__ import annotations

import datetime
import functools
import json
import secrets
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from sharpen.core.errors import DataError, DependencyNotInstalled, SharpenError

if TYPE_CHECKING:
    from sharpen.models.tokenizer import Tokenizer

__all__ = ["Message", "assistant_mask", "check_messages", "render", "render_chat"]

Message = Mapping[str, Any]
_MAX_CHARS = 50_000_000
_MAX_POWER = 1000


def check_messages(messages: Any, where: str = "messages") -> list[dict[str, Any]]:
    """Check that ``messages`` is a non-empty list of ``{"role": ..., "content": ...}``.

    Raises:
        DataError: it is not; the message names the entry.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise DataError(f"{where} must be a non-empty list of messages, got {messages!r:.80}.")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise DataError(f"{where}[{i}] must have a 'role', got {message!r:.80}.")
        content = message.get("content")
        if content is not None and not isinstance(content, (str, list)):
            raise DataError(f"{where}[{i}].content must be text, got {content!r:.80}.")
        if content is None and not message.get("tool_calls"):
            raise DataError(f"{where}[{i}] must have 'content'.")
    return [dict(message) for message in messages]


def render(
    messages: Sequence[Message],
    template: str,
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> str:
    """Render messages with a chat template.

    Args:
        messages: ``{"role": ..., "content": ...}`` each.
        template: jinja2, as in ``tokenizer_config.json``.
        add_generation_prompt: end with the opening of an assistant turn.
        tools: JSON schemas of functions.
        variables: further names the template may use, such as ``bos_token``.

    Raises:
        DataError: the messages or the template cannot be rendered; says why.
    """
    return _render(messages, template, add_generation_prompt, tools, variables)[0]


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """Render messages with a tokenizer's own template and special tokens.

    Raises:
        DataError: it has no template, or rendering fails.
    """
    if tokenizer.chat_template is None:
        raise DataError(
            "this tokenizer has no chat template, so messages cannot be rendered. "
            "Use a chat model, or plain prompts."
        )
    return render(
        messages,
        tokenizer.chat_template,
        add_generation_prompt=add_generation_prompt,
        tools=tools,
        **_token_variables(tokenizer),
    )


def _token_variables(tokenizer: Tokenizer) -> dict[str, str]:
    names = ("bos_token", "eos_token", "pad_token")
    return {name: tokenizer.token_text(name) or "" for name in names}


def assistant_mask(
    tokenizer: Tokenizer, messages: Sequence[Message]
) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and which of them an assistant wrote.

    Templates with ``{% generation %}`` blocks say it themselves. For others an assistant's turn is
    the text that it adds after the generation prompt, its end-of-turn token included.

    Returns:
        ids and mask, of equal length.

    Raises:
        DataError: the template gives no consistent turns.
    """
    template = tokenizer.chat_template
    if template is None:
        raise DataError("this tokenizer has no chat template, so messages cannot be rendered.")
    text, spans = _render(messages, template, False, None, _token_variables(tokenizer))
    if not spans:
        spans = _spans_by_prefix(tokenizer, messages, text)
    ids, offsets = tokenizer.encode_offsets(text)
    mask = [
        any(a <= start and end <= b and end > start for a, b in spans) for start, end in offsets
    ]
    return ids, mask


def _spans_by_prefix(
    tokenizer: Tokenizer, messages: Sequence[Message], text: str
) -> list[tuple[int, int]]:
    spans = []
    for i, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        opening = _opening(tokenizer, messages[:i], text)
        closing = render_chat(tokenizer, messages[: i + 1])
        if not (text.startswith(opening) and text.startswith(closing) and opening < closing):
            raise DataError(
                "the chat template renders earlier turns differently once later ones follow, so "
                "an assistant's tokens cannot be told apart. Mark them with {% generation %} in "
                "the template, or train on all tokens with mask_prompt: false."
            )
        end = len(closing.rstrip("\n")) if tokenizer.eos_id is not None else len(closing)
        spans.append((len(opening), end))
    return spans


def _opening(tokenizer: Tokenizer, earlier: Sequence[Message], text: str) -> str:
    """What stands before an assistant's own words; empty where a first turn's is not told."""
    if earlier:
        return render_chat(tokenizer, earlier, add_generation_prompt=True)
    try:
        opening = render_chat(tokenizer, earlier, add_generation_prompt=True)
    except DataError:  # many templates cannot render no messages
        return ""
    return opening if text.startswith(opening) else ""


def _render(
    messages: Sequence[Message],
    template: str,
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any],
) -> tuple[str, list[tuple[int, int]]]:
    marks = _Marks()
    token = _marks.set(marks)
    try:
        compiled = _compile(template)
        pieces: list[str] = []
        size = 0
        for piece in compiled.generate(
            messages=[dict(m) for m in messages],
            tools=list(tools) if tools else None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **variables,
        ):
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_CHARS:
                raise DataError("the chat template gives more than 50 million characters.")
    except SharpenError:
        raise
    except Exception as error:  # a template is a program from outside and may raise anything
        from jinja2 import TemplateError

        kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
        raise DataError(f"the chat template cannot render these messages: {kind}{error}") from error
    finally:
        _marks.reset(token)
    return marks.place("".join(pieces))


class _Marks:
    """Finds what ``{% generation %}`` blocks gave in one rendering, by secret marks around it."""

    def __init__(self) -> None:
        self.used = False
        self.open = f"<{secrets.token_hex(16)}>"
        self.close = f"</{self.open[1:]}"

    def put(self, text: str) -> str:
        """``text`` between marks."""
        self.used = True
        return f"{self.open}{text}{self.close}"

    def place(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """The text without marks, and the spans between them."""
        if not self.used:
            return text, []
        spans: list[tuple[int, int]] = []
        clean, *parts = text.split(self.open)
        for part in parts:
            inside, _, outside = part.partition(self.close)
            spans.append((len(clean), len(clean) + len(inside)))
            clean += inside + outside
        return clean, spans


_marks: ContextVar[_Marks] = ContextVar("marks")


@functools.lru_cache(maxsize=32)
def _compile(template: str) -> Any:
    try:
        import jinja2
        from jinja2.ext import Extension, loopcontrols
        from jinja2.nodes import CallBlock
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("a chat template", "models") from None

    class Sandbox(ImmutableSandboxedEnvironment):
        """Also refuses products and powers that would fill the memory."""

        intercepted_binops = frozenset(("*", "**"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            a, b = (len(v) if hasattr(v, "__len__") else abs(v) for v in (left, right))
            if a * b > _MAX_CHARS or (operator == "**" and max(a, b) > _MAX_POWER):
                raise OverflowError(f"{operator} of {a} and {b} is too large")
            return super().call_binop(context, operator, left, right)

    class Generation(Extension):
        """``{% generation %} ... {% endgeneration %}`` marks an assistant's text."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 reads a class attribute

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

        def _mark(self, caller: Any) -> str:
            return _marks.get().put(caller())

    def fail(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, **options)

    environment = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = fail
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template)
