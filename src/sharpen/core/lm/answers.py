"""What OpenAI-compatible servers answer, read with distrust.

A server may send no JSON, no choices, fewer than were asked for, or counts of tokens that cannot
be; an error may come in a body of any shape, or with the status of a success.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sharpen.core.lm.errors import AccessError, RequestError, ServiceError
from sharpen.core.lm.messages import ChatRequest, ChatResponse, Usage
from sharpen.core.lm.pace import retry_after_s

__all__ = ["ask_body", "piece_of", "read_answer", "read_refusal"]

_AGAIN = (408, 409, 429)
_NO_ACCESS = (401, 403, 404, 405)
_SPENT = ("insufficient_quota", "billing_hard_limit_reached")
_SHOWN = 300
_FIXED = ("model", "messages", "stream")


def ask_body(
    request: ChatRequest, model: str, *, with_format: bool = True, limit: str = "max_tokens"
) -> dict[str, Any]:
    """The body of a request.

    Args:
        request: what is asked.
        model: the name there.
        with_format: whether to send ``response_format``.
        limit: the field for ``max_tokens``.

    Raises:
        RequestError: ``extra`` holds what has a field of its own.
    """
    body: dict[str, Any] = {"model": model, "messages": [dict(m) for m in request.messages]}
    body["temperature"] = request.temperature
    given = {"top_p": request.top_p, limit: request.max_tokens, "seed": request.seed}
    body |= {name: value for name, value in given.items() if value is not None}
    if request.stop:
        body["stop"] = list(request.stop)
    if request.n != 1:
        body["n"] = request.n
    if request.response_format is not None and with_format:
        body["response_format"] = dict(request.response_format)
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    for name, value in request.extra.items():
        if name in _FIXED:
            raise RequestError(f"extra must not hold '{name}'.")
        body[name] = value
    return body


def read_answer(data: bytes, request: ChatRequest, model: str, latency_s: float) -> ChatResponse:
    """The response in a body that came with status 200.

    Raises:
        ServiceError: it is none; asking again may help.
        RequestError: there are fewer replies than were asked for.
    """
    answer = _json(data)
    if not isinstance(answer, Mapping):
        raise _broken(f"no JSON object: {data[:_SHOWN]!r}")
    if "choices" not in answer and "error" in answer:
        raise _broken(f"an error: {_message(answer, data)}")
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _broken(f"no choices: {data[:_SHOWN]!r}")
    if all(isinstance(one, Mapping) and isinstance(one.get("index"), int) for one in choices):
        choices = sorted(choices, key=lambda one: one["index"])
    texts = [_content(choice) for choice in choices]
    if len(texts) < request.n:
        raise RequestError(
            f"the server gave {len(texts)} of n={request.n} replies. Ask several times, with "
            "repeat=0, 1, ..."
        )
    reasons = [str(choice.get("finish_reason") or "") for choice in choices]
    usage = _usage(answer.get("usage"), has_text=any(texts))
    name = answer.get("model")
    return ChatResponse(
        texts=texts,
        usage=usage,
        finish_reasons=reasons,
        model=name if isinstance(name, str) else model,
        latency_s=latency_s,
        raw=answer,
    )


def read_refusal(
    status: int, headers: Mapping[str, str], data: bytes
) -> ServiceError | RequestError:
    """The error of an answer whose status is no success."""
    answer = _json(data)
    body = answer.get("error") if isinstance(answer, Mapping) else None
    code = body.get("code") if isinstance(body, Mapping) else None
    told = f"HTTP {status}: {_message(answer, data)}"
    if status in _NO_ACCESS:
        return AccessError(f"{told}. Check the address, the key and the model's name.", status)
    if status == 429 and code in _SPENT:
        return AccessError(f"{told}. The account has nothing left.", status)
    if status in _AGAIN or status >= 500:
        return ServiceError(
            told,
            status,
            may_have_cost=status >= 500 and status != 503,
            is_transient=True,
            after_s=retry_after_s(headers.get("retry-after")),
        )
    if 300 <= status < 400:
        to = headers.get("location", "another address")
        return AccessError(f"HTTP {status}: the server sends to {to}. Give that address.", status)
    return RequestError(f"{told}.", status)


def piece_of(line: str) -> tuple[str, bool] | None:
    """Text of a line of a stream, and whether the reply is whole; None where it says neither.

    Raises:
        ServiceError: it is an error, or no JSON.
    """
    if not line.startswith("data:"):
        return None
    text = line.removeprefix("data:").strip()
    if text == "[DONE]":
        return "", True
    event = _json(text.encode())
    if not isinstance(event, Mapping):
        raise _broken(f"an event that is no JSON: {text[:_SHOWN]!r}")
    if "error" in event:
        raise _broken(f"an error: {_message(event, text.encode())}")
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    choice = choices[0] if isinstance(choices[0], Mapping) else {}
    delta = choice.get("delta")
    content = delta.get("content") if isinstance(delta, Mapping) else None
    return content if isinstance(content, str) else "", bool(choice.get("finish_reason"))


def _broken(what: str) -> ServiceError:
    return ServiceError(f"the server answered with {what}", may_have_cost=True, is_transient=True)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _message(answer: Any, data: bytes) -> str:
    """What an error's body says."""
    found = answer.get("error", answer) if isinstance(answer, Mapping) else None
    if isinstance(found, Mapping):
        found = found.get("message") or found.get("detail") or found
    text = found if isinstance(found, str) else data.decode("utf-8", "replace")
    return " ".join(text.split())[:_SHOWN].rstrip(".") or "no reason given"


def _content(choice: Any) -> str:
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise _broken(f"a choice without a message: {str(choice)[:_SHOWN]!r}")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "".join(part for part in parts if isinstance(part, str))
    if content is None:
        return ""  # calls of functions stand in the raw answer
    if not isinstance(content, str):
        raise _broken(f"a content that is no text: {str(content)[:_SHOWN]!r}")
    return content


def _usage(told: Any, *, has_text: bool) -> Usage | None:
    """Tokens, where the server says what can be."""
    if not isinstance(told, Mapping):
        return None
    prompt, completion = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    if not prompt or completion is None or (has_text and not completion):
        return None
    details = told.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    if cached is None or cached > prompt:
        cached = 0
    return Usage(prompt=prompt, completion=completion, cached=cached)


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else None
