"""Limits that hold: a call that could exceed one is not made.

A call is counted before it is made, with the most that it may take: the tokens of its messages are
at most their bytes (a token of a byte-level vocabulary has at least one) and a little for the chat
template, those of its replies at most ``n * max_tokens``. When the reply is there, the count is
corrected to what the engine says; where it says nothing, or the call may have been worked on
without a reply, the larger count stays. Every retry is a call; one that was refused before anything
was done (no connection, HTTP 429) is not counted.

Threads share an object; processes share a file, which also keeps the count between runs. A process
that is killed leaves its calls under way counted as the most they may have taken.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import BudgetExhausted
from sharpen.core.lm.messages import ChatRequest
from sharpen.core.lm.prices import Price

if TYPE_CHECKING:
    from sharpen.core.lm.budget_file import BudgetFile

__all__ = ["Budget", "Reservation", "Spent", "prompt_bound"]

_TEMPLATE_TOKENS = 64
_MESSAGE_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What calls have taken, with what those under way may take."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a call under way may take."""

    tokens: int
    cost: float


class Budget:
    """Limits of calls to language models, hard and shared.

    Args:
        max_calls: requests.
        max_tokens: of messages and replies; every request then needs its own ``max_tokens``.
        max_cost: in the money of the table of prices, which must list the model.
        max_seconds: from the first call of this process; no call begins later.
        file: where the count is kept for all processes that name the same file.

    Raises:
        ConfigError: a limit is not positive, or there is none.

    Examples:
        >>> budget = Budget(max_calls=2)
        >>> _ = budget.reserve(0, 0.0)
        >>> budget.spent.calls
        1
    """

    def __init__(
        self,
        *,
        max_calls: int | None = None,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        max_seconds: float | None = None,
        file: str | Path | None = None,
    ) -> None:
        limits = {
            "max_calls": max_calls,
            "max_tokens": max_tokens,
            "max_cost": max_cost,
            "max_seconds": max_seconds,
        }
        for name, value in limits.items():
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name}={value} must be positive (Budget).")
        if all(value is None for value in limits.values()):
            raise ConfigError(f"a Budget needs one of {', '.join(limits)}.")
        self.max_calls = max_calls
        self.max_tokens = max_tokens
        self.max_cost = max_cost
        self.max_seconds = max_seconds
        self.file = None if file is None else Path(file)
        self._spent = Spent()
        self._lock = threading.Lock()
        self._ledger: BudgetFile | None = None
        self._began: float | None = None

    @classmethod
    def of(cls, limits: Budget | Mapping[str, Any]) -> Budget:
        """A budget of plain data, such as a recipe holds.

        Raises:
            ConfigError: an unknown limit, or one that is no number.
        """
        if isinstance(limits, Budget):
            return limits
        known = ("max_calls", "max_tokens", "max_cost", "max_seconds", "file")
        for name, value in limits.items():
            if name not in known:
                raise ConfigError(f"a budget has no {name!r}; it has {', '.join(known)}.")
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (isinstance(value, str | Path) if name == "file" else is_number):
                raise ConfigError(f"{name}={value!r} of a budget must be a number.")
        return cls(**limits)

    @property
    def spent(self) -> Spent:
        """So far, by all who share it."""
        if self.file is not None:
            return self._open(self.file).spent()
        return self._spent

    def tokens_of(self, request: ChatRequest) -> tuple[int, int]:
        """The most tokens that a request's messages and replies may have.

        Raises:
            ConfigError: the request does not limit its replies.
        """
        if request.max_tokens is not None:
            return prompt_bound(request), request.n * request.max_tokens
        if self.max_tokens is None and self.max_cost is None:
            return prompt_bound(request), 0
        limit = "max_tokens" if self.max_tokens is not None else "max_cost"
        raise ConfigError(
            f"a budget with {limit} needs to know how long a reply may be. Give the request, or "
            "the LM, max_tokens."
        )

    def cost_of(self, price: Price | None, model: str, tokens: tuple[int, int]) -> float:
        """The most that a call of so many tokens costs.

        Raises:
            ConfigError: cost is limited and unknown.
        """
        if price is not None:
            return price.bound(*tokens)
        if self.max_cost is not None:
            raise ConfigError(
                f"max_cost={self.max_cost} cannot be held: the table of prices does not list the "
                f"model '{model}'. Add it, or limit max_tokens."
            )
        return 0.0

    def reserve(self, tokens: int, cost: float) -> Reservation:
        """Count a call that may take so much.

        Raises:
            BudgetExhausted: it could exceed a limit; nothing was counted.
        """
        now = time.monotonic()
        with self._lock:
            if self._began is None:
                self._began = now
        if self.max_seconds is not None and now - self._began >= self.max_seconds:
            raise _exhausted(f"max_seconds={self.max_seconds:g} are over", "max_seconds")

        def take(spent: Spent) -> Spent:
            if self.max_calls is not None and spent.calls >= self.max_calls:
                raise _exhausted(f"max_calls={self.max_calls:,} is used up", "max_calls")
            _hold("max_tokens", self.max_tokens, spent.tokens, tokens, "tokens")
            _hold("max_cost", self.max_cost, spent.cost, cost, "of cost")
            return Spent(
                calls=spent.calls + 1, tokens=spent.tokens + tokens, cost=spent.cost + cost
            )

        self._change(take)
        return Reservation(tokens=tokens, cost=cost)

    def settle(self, reserved: Reservation, tokens: int, cost: float | None) -> None:
        """Correct the count of a call that has ended to what it took; a None cost stays."""
        paid = reserved.cost if cost is None else cost

        def correct(spent: Spent) -> Spent:
            return replace(
                spent,
                tokens=spent.tokens + tokens - reserved.tokens,
                cost=max(0.0, spent.cost + paid - reserved.cost),
            )

        self._change(correct)

    def cancel(self, reserved: Reservation) -> None:
        """Take back the count of a call that was refused before anything was done."""
        self._change(
            lambda spent: Spent(
                calls=spent.calls - 1,
                tokens=spent.tokens - reserved.tokens,
                cost=max(0.0, spent.cost - reserved.cost),
            )
        )

    def _change(self, change: Callable[[Spent], Spent]) -> None:
        if self.file is not None:
            self._open(self.file).change(change)
            return
        with self._lock:
            self._spent = change(self._spent)

    def _open(self, file: Path) -> BudgetFile:
        with self._lock:
            if self._ledger is None:
                from sharpen.core.lm.budget_file import BudgetFile

                self._ledger = BudgetFile(file)
            return self._ledger

    def __repr__(self) -> str:
        limits = ("max_calls", "max_tokens", "max_cost", "max_seconds")
        given = [f"{n}={getattr(self, n)}" for n in limits if getattr(self, n) is not None]
        return f"Budget({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process, which shares the file.

        Raises:
            ConfigError: there is no file.
        """
        if self.file is None:
            raise ConfigError("a budget that processes share needs a file: Budget(..., file=PATH).")
        limits = (self.max_calls, self.max_tokens, self.max_cost, self.max_seconds, self.file)
        return _again, limits


def _again(*limits: Any) -> Budget:
    names = ("max_calls", "max_tokens", "max_cost", "max_seconds", "file")
    return Budget(**dict(zip(names, limits, strict=True)))


def _hold(name: str, limit: float | None, spent: float, more: float, unit: str) -> None:
    if limit is not None and spent + more > limit:
        left = max(0.0, limit - spent)
        raise _exhausted(
            f"{name}={limit:,g} would be exceeded: {left:,g} {unit} are left, and the next call "
            f"may take {more:,g}",
            name,
        )


def _exhausted(what: str, limit: str) -> BudgetExhausted:
    return BudgetExhausted(
        f"{what}. Raise it and run the same again: what was answered is kept in the cache, where "
        "there is one.",
        limit,
    )


def prompt_bound(request: ChatRequest) -> int:
    """The most tokens that a request's messages may come to."""
    rest = [request.response_format, request.extra.get("tools")]
    told = [*request.messages, *(one for one in rest if one is not None)]
    texts = [json.dumps(one, ensure_ascii=False) for one in told]
    num_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return num_bytes + _TEMPLATE_TOKENS + _MESSAGE_TOKENS * len(request.messages)
