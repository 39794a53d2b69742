"""What can go wrong between a program and a language model.

::

    SharpenError
    ├── BudgetExhausted  (RuntimeError)      the next call could exceed a limit; it was not made
    ├── ServiceError     (ConnectionError)   the endpoint does not answer, or fails again and again
    │   └── AccessError                      it refuses the key, or has no such model (exit 2)
    └── UserError
        ├── RequestError (DataError)         it refuses this request, whatever is tried
        ├── ReplyError   (DataError)         the reply is not what was asked for, after all tries
        ├── UnexpectedPrompt (DataError)     a script has no reply to a prompt
        └── CassetteMiss (DataError)         a recording has no reply to a request

The first two and their kinds concern every request that would follow; the others one request.
"""

from __future__ import annotations

from typing import Any

from sharpen.core.errors import DataError, SharpenError

__all__ = [
    "AccessError",
    "BudgetExhausted",
    "CassetteMiss",
    "ReplyError",
    "RequestError",
    "ServiceError",
    "UnexpectedPrompt",
]


class BudgetExhausted(SharpenError, RuntimeError):
    """The next call could exceed a limit, so it was not made.

    Attributes:
        limit: ``max_calls``, ``max_tokens``, ``max_cost`` or ``max_seconds``.
    """

    def __init__(self, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        """With the limit, to other processes too."""
        return type(self), (str(self), self.limit)


class ServiceError(SharpenError, ConnectionError):
    """An endpoint does not answer, or fails again and again.

    Attributes:
        status: of HTTP, where it answered.
        may_have_cost: whether it may have worked on the request all the same.
        is_transient: whether the same request may be answered later.
        after_s: seconds after which it wants to be asked again, where it said so.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        *,
        may_have_cost: bool = False,
        is_transient: bool = False,
        after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.may_have_cost = may_have_cost
        self.is_transient = is_transient
        self.after_s = after_s


class AccessError(ServiceError):
    """An endpoint refuses the key, or has no such model or address."""

    exit_code = 2


class RequestError(DataError):
    """An endpoint refuses this request; the same again would be refused again.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ReplyError(DataError):
    """A reply is not what was asked for.

    Attributes:
        reply: the last one.
    """

    def __init__(self, message: str, reply: str = "") -> None:
        super().__init__(message)
        self.reply = reply


class UnexpectedPrompt(DataError):
    """A script has no reply to a prompt."""


class CassetteMiss(DataError):
    """A recording has no reply to a request."""
