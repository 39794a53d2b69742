"""Calls of a language model by an optimizer, counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.client import LM
from sharpen.core.lm.errors import RequestError
from sharpen.core.lm.messages import ChatRequest

__all__ = ["Asker", "Reply", "as_lm", "usage_of"]


class Reply(str):
    """What a model wrote.

    Attributes:
        cut: whether its limit of tokens ended it.
    """

    cut = False


def as_lm(lm: Any) -> LM:
    """A client of what a user gives: a client, an engine, an address, or a function of a prompt.

    Raises:
        ConfigError: none of these.
    """
    if isinstance(lm, LM):
        return lm
    if isinstance(lm, str) or hasattr(lm, "complete"):
        return LM(lm)
    if callable(lm):
        from sharpen.core.lm.scripted import Scripted

        function: Callable[[str], str] = lm
        return LM(Scripted(lambda request: function(request.prompt)))
    raise ConfigError(
        f"lm must be a language model, got {lm!r:.80}. Examples: LM('local:smollm2'),"
        " LM('http://127.0.0.1:8000/v1'), Scripted([...])."
    )


class Asker:
    """Asks a model and counts what that took.

    Args:
        lm: the model, as for :func:`as_lm`.
        sampling: parameters of the requests.

    Attributes:
        calls: how many were made.
        tokens: those they took, as far as the model tells.
    """

    def __init__(self, lm: Any, **sampling: Any) -> None:
        self.lm = as_lm(lm)
        self.sampling = {k: v for k, v in sampling.items() if v is not None}
        self.calls = 0
        self.tokens = 0

    def __call__(
        self, messages: str | Sequence[Mapping[str, Any]], *, json: bool = False, **sampling: Any
    ) -> Reply:
        """The text of the reply.

        Args:
            messages: the conversation, or what the user says.
            json: ask for a JSON object, where the model can be held to one.
            sampling: in place of the defaults.
        """
        request = self.lm.request(messages, **{**self.sampling, **sampling})
        if json and "json_mode" in self.lm.capabilities:
            try:
                return self._complete(replace(request, response_format={"type": "json_object"}))
            except RequestError:
                pass  # the server does not know the format: the words of the prompt must do
        return self._complete(request)

    def _complete(self, request: ChatRequest) -> Reply:
        self.calls += 1
        response = self.lm.complete(request)
        if response.usage is not None:
            self.tokens += response.usage.total
        reply = Reply(response.text)
        reply.cut = list(response.finish_reasons[:1]) == ["length"]
        return reply


def usage_of(client: LM, writer: LM) -> dict[str, Any]:
    """Calls, replies from the cache, tokens and cost of two clients, or of one that is both."""
    models = [client] if writer is client else [client, writer]
    totals = [model.usage for model in models]
    costs = [one.cost for one in totals]
    return {
        "calls": sum(one.calls for one in totals),
        "cache_hits": sum(one.cache_hits for one in totals),
        "tokens": sum(one.tokens for one in totals),
        "cost": None if any(cost is None for cost in costs) else sum(c or 0.0 for c in costs),
    }
