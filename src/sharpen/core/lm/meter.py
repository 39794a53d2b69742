"""What calls took, counted where they are made; and the budget that they must keep to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from sharpen.core.errors import ConfigError
from sharpen.core.lm.budget import Budget
from sharpen.core.lm.errors import CassetteMiss, RequestError, ServiceError, UnexpectedPrompt
from sharpen.core.lm.messages import ChatRequest, ChatResponse, Engine, ThreadedEngine
from sharpen.core.lm.prices import Prices

__all__ = ["Meter", "MeteredEngine", "Totals"]

_FREE = (RequestError, UnexpectedPrompt, CassetteMiss, ConfigError)
"""Errors of calls of which nothing was worked on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What the calls of a client took; what a cache answered is not among them."""

    calls: int = 0
    """Requests to the engine, with every retry."""

    cache_hits: int = 0
    """Requests that the cache answered."""

    failed: int = 0
    """Of the calls, those that ended without a reply."""

    unknown: int = 0
    """Calls of which the engine did not say the tokens; they are missing from the counts."""

    prompt_tokens: int = 0

    completion_tokens: int = 0

    cached_tokens: int = 0
    """Of the prompts, those that the engine had at hand."""

    cost: float | None = 0.0
    """By the table of prices; None as soon as the cost of one call is unknown."""

    seconds: float = 0.0
    """Waited for replies, over all calls."""

    @property
    def tokens(self) -> int:
        """Of prompts and completions."""
        return self.prompt_tokens + self.completion_tokens


class Meter:
    """Counts; shared by threads."""

    def __init__(self) -> None:
        self._totals = Totals(cost=0.0)
        self._lock = threading.Lock()

    @property
    def totals(self) -> Totals:
        """So far."""
        return self._totals

    def add(self, response: ChatResponse, cost: float | None) -> None:
        """Count a call and its reply."""
        usage = response.usage
        with self._lock:
            old = self._totals
            self._totals = replace(
                old,
                calls=old.calls + 1,
                unknown=old.unknown + (usage is None),
                prompt_tokens=old.prompt_tokens + (usage.prompt if usage else 0),
                completion_tokens=old.completion_tokens + (usage.completion if usage else 0),
                cached_tokens=old.cached_tokens + (usage.cached if usage else 0),
                cost=None if old.cost is None or cost is None else old.cost + cost,
                seconds=old.seconds + response.latency_s,
            )

    def fail(self, *, free: bool) -> None:
        """Count a call without a reply; one that may have been worked on has an unknown cost."""
        with self._lock:
            old = self._totals
            self._totals = replace(
                old,
                calls=old.calls + 1,
                failed=old.failed + 1,
                unknown=old.unknown + (not free),
                cost=old.cost if free else None,
            )


class MeteredEngine(ThreadedEngine):
    """An engine whose calls are counted and kept within a budget.

    Args:
        inner: the engine.
        meter: counts.
        budget: is asked before each call.
        prices: of its models.
    """

    def __init__(
        self,
        inner: Engine,
        meter: Meter,
        budget: Budget | None = None,
        prices: Prices | None = None,
    ) -> None:
        self.model = inner.model
        self.capabilities = inner.capabilities
        self.scope = str(getattr(inner, "scope", ""))
        self._inner = inner
        self._meter = meter
        self._budget = budget
        self._price = prices.find(inner.model) if prices is not None else None

    def complete(self, request: ChatRequest) -> ChatResponse:
        """The reply; raises what the engine raises. Each try of an engine that retries is a call.

        Raises:
            BudgetExhausted: the call could exceed a limit; it was not made.
            ConfigError: what the budget needs to know is not there.
        """
        retry = getattr(self._inner, "retry", None)
        if retry is None:
            return self._counted(self._inner.complete, request)
        attempt = self._inner.attempt  # type: ignore[attr-defined]
        found: ChatResponse = retry(lambda one: self._counted(attempt, one), request)
        return found

    def _counted(
        self, call: Callable[[ChatRequest], ChatResponse], request: ChatRequest
    ) -> ChatResponse:
        budget, reserved = self._budget, None
        if budget is not None:
            most = budget.tokens_of(request)
            reserved = budget.reserve(sum(most), budget.cost_of(self._price, self.model, most))
        try:
            response = call(request)
        except BaseException as error:
            free = isinstance(error, _FREE) or (
                isinstance(error, ServiceError) and not error.may_have_cost
            )
            if budget is not None and reserved is not None and free:
                budget.cancel(reserved)
            self._meter.fail(free=free)
            raise
        usage = response.usage
        cost = self._price.of(usage) if self._price is not None and usage is not None else None
        if budget is not None and reserved is not None and usage is not None:
            budget.settle(reserved, usage.total, cost)
        self._meter.add(response, cost)
        return response
