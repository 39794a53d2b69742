"""Bodies of requests: the fields of OpenAI's API, and those that other servers add to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sharpen.core.errors import ConfigError, DataError, did_you_mean
from sharpen.serve.api.errors import ApiError
from sharpen.serve.grammar import Grammar
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.tools import FORMATS

__all__ = ["ChatRequest", "CompletionRequest", "StreamOptions"]

_IGNORED = {
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
    "verbosity",
}
_UNSUPPORTED = {
    "audio",
    "best_of",
    "function_call",
    "functions",
    "modalities",
    "prediction",
    "suffix",
    "web_search_options",
}


Input = str | list[str] | list[int] | list[list[int]]
"""A text, token ids, or a list of either."""


class StreamOptions(BaseModel):
    """``stream_options``."""

    model_config = ConfigDict(strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchema(BaseModel):
    """``response_format.json_schema``; enforced whether ``strict`` or not."""

    model_config = ConfigDict(strict=True)

    name: str = ""
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """``response_format``."""

    model_config = ConfigDict(strict=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class _Request(BaseModel):
    """What both kinds of request share."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    priority: float | None = None
    cache_salt: str | None = None
    response_format: ResponseFormat | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None

    def refuse_unknown(self) -> None:
        """Refuse fields that would change the answer but are not understood.

        Raises:
            ApiError: status 400, with the field.
        """
        for name, value in (self.model_extra or {}).items():
            plain = name == "response_format" and value == {"type": "text"}
            if name in _IGNORED or value in (None, [], {}) or plain:
                continue
            if name in _UNSUPPORTED:
                raise ApiError(
                    400, f"{name} is not supported by this server.", param=name, code="unsupported"
                )
            known = [*type(self).model_fields, *_IGNORED]
            hint = did_you_mean(name, known)
            raise ApiError(
                400, f"unknown field {name!r}.{hint}", param=name, code="unknown_parameter"
            )

    def grammar(self) -> Grammar | None:
        """What the answer must be; None for any text.

        Raises:
            ApiError: it is said twice, or is wrong.
        """
        asked: list[tuple[str, Callable[[], Grammar]]] = []
        form = self.response_format
        if form is not None and form.type == "json_object":
            asked.append(("response_format", Grammar.json))
        elif form is not None and form.type == "json_schema":
            schema = form.json_schema
            if schema is None:
                raise ApiError(400, "response_format lacks 'json_schema'.", param="response_format")
            asked.append(("response_format", lambda: Grammar.json(schema.json_schema)))
        for name, make in (
            ("guided_json", Grammar.json),
            ("guided_regex", Grammar.regex),
            ("guided_choice", Grammar.choice),
            ("guided_grammar", Grammar.lark),
        ):
            value = getattr(self, name)
            if value is not None:
                asked.append((name, partial(make, value)))
        if not asked:
            return None
        name, form_of = asked[0]
        if len(asked) > 1:
            raise ApiError(400, f"{name} and {asked[1][0]} exclude each other.", param=name)
        try:
            return form_of()
        except ConfigError as error:
            raise ApiError(400, f"{name}: {error}", param=name) from None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def params(
        self,
        max_tokens: int,
        logprobs: int | None,
        adapter: str | None = None,
        grammar: Grammar | None = None,
        prompt_logprobs: int | None = None,
    ) -> SamplingParams:
        """The sampling parameters it asks for.

        Args:
            max_tokens: the limit to use.
            logprobs: how many alternatives, or None for no log-probabilities.
            adapter: name of the adapter to continue with.
            grammar: what the answer must be; default what the fields say.
            prompt_logprobs: as ``logprobs``, for the prompt.

        Raises:
            ApiError: it says twice what the answer must be, or wrongly.
            ConfigError: a value is out of range.
            DataError: ``logit_bias`` has a key that is no token id.
        """
        names = (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "n",
            "seed",
            "min_tokens",
            "ignore_eos",
            "presence_penalty",
            "frequency_penalty",
            "repetition_penalty",
            "priority",
            "cache_salt",
        )
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if given.get("top_k") == -1:
            given["top_k"] = 0  # what other servers call "all"
        stop = self.stop if isinstance(self.stop, str) else tuple(self.stop or ())
        try:
            bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        except ValueError:
            raise DataError("logit_bias must map token ids to numbers.") from None
        return SamplingParams(
            max_tokens=max_tokens,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            logit_bias=bias,
            adapter=adapter,
            grammar=grammar or self.grammar(),
            **given,
        )


class ToolFunction(BaseModel):
    """A function that a model may call."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """One of ``tools``."""

    model_config = ConfigDict(strict=True)

    type: Literal["function"]
    function: ToolFunction


class FunctionName(BaseModel):
    """The function of a ``tool_choice``."""

    model_config = ConfigDict(strict=True)

    name: str


class ToolChoice(BaseModel):
    """A ``tool_choice`` that names a function."""

    model_config = ConfigDict(strict=True)

    type: Literal["function"]
    function: FunctionName


class ChatRequest(_Request):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def num_logprobs(self) -> int | None:
        """Alternatives a token; None when no log-probabilities are wanted.

        Raises:
            ApiError: ``top_logprobs`` without ``logprobs``.
        """
        if not self.logprobs:
            if self.top_logprobs:
                raise ApiError(400, "top_logprobs needs logprobs=true.", param="top_logprobs")
            return None
        return self.top_logprobs or 0

    def used_tools(self) -> list[Tool]:
        """The functions that may be called; none where ``tool_choice`` says so.

        Raises:
            ApiError: two have one name, or ``tool_choice`` names another.
        """
        tools, choice = self.tools or [], self.tool_choice
        names = [tool.function.name for tool in tools]
        if len(set(names)) < len(names):
            raise ApiError(400, "two tools have the same name.", param="tools")
        if isinstance(choice, ToolChoice) and choice.function.name not in names:
            known, name = ", ".join(names) or "none", choice.function.name
            raise ApiError(
                400, f"tool_choice names {name!r}; tools has {known}.", param="tool_choice"
            )
        if choice == "required" and not tools:
            raise ApiError(400, "tool_choice='required' needs tools.", param="tool_choice")
        return [] if choice == "none" else tools

    def call_grammar(self, kind: str, tools: Sequence[Tool]) -> Grammar | None:
        """What the answer must be so that it is a call; None where it need not be one.

        Args:
            kind: a name of :data:`~sharpen.serve.tools.FORMATS`.
            tools: from :meth:`used_tools`.

        Raises:
            ApiError: ``response_format`` or the like asks for something else.
        """
        choice = self.tool_choice
        if not tools or choice is None or (isinstance(choice, str) and choice != "required"):
            return None
        if self.grammar() is not None:
            raise ApiError(
                400,
                "an answer that must be a tool call can have no format of its own.",
                param="tool_choice",
            )
        named = choice.function.name if isinstance(choice, ToolChoice) else None
        functions = [tool.function for tool in tools]
        return FORMATS[kind].grammar(
            [
                {"name": function.name, "parameters": function.parameters}
                for function in functions
                if named in (None, function.name)
            ],
            several=named is None and self.parallel_tool_calls is not False,
        )


class CompletionRequest(_Request):
    """Body of ``POST /v1/completions``."""

    prompt: Input
    echo: bool | None = None
    logprobs: int | None = None


def plain_messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as templates want them: content as one text, arguments as objects.

    Raises:
        ApiError: a part is not text, or a call is none.
    """
    plain = []
    for i, message in enumerate(messages):
        one = {**message, "content": _text(message.get("content"), i)}
        if message.get("tool_calls"):
            one["tool_calls"] = _calls(message["tool_calls"], i)
        plain.append(one)
    return plain


def prompts_of(value: Input) -> list[str | list[int]]:
    """The texts of a field, each a text or token ids."""
    if isinstance(value, str):
        return [value]
    if value and isinstance(value[0], int):
        return [value]
    return list(value)  # type: ignore[arg-type]


class UnloadAdapterRequest(BaseModel):
    """Body of ``POST /v1/unload_lora_adapter``."""

    model_config = ConfigDict(strict=True)

    lora_name: str


class LoadAdapterRequest(UnloadAdapterRequest):
    """Body of ``POST /v1/load_lora_adapter``."""

    lora_path: str


def _calls(calls: Any, index: int) -> list[dict[str, Any]]:
    made = []
    for call in calls if isinstance(calls, list) else [{}]:
        function: Any = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                arguments = None
        if not isinstance(arguments, dict) or not isinstance(function.get("name"), str):
            raise ApiError(
                400,
                f"messages[{index}].tool_calls must hold functions with a name and arguments that "
                "are a JSON object.",
                param="messages",
            )
        made.append({**call, "function": {**function, "arguments": arguments}})
    return made


def _text(content: Any, index: int) -> Any:
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            raise ApiError(
                400,
                f"messages[{index}].content has a part of type {kind!r}; only 'text' is supported.",
                param="messages",
            )
        texts.append(str(part.get("text", "")))
    return "".join(texts)
