"""Who may wait for the engine: bounds on the queue, and an estimate of how long it takes.

::

    w_i = prompt tokens + min(max_tokens, n)      n: moving average of tokens that answers had
    wait = (sum of w_i of all that wait) / r      r: moving average of tokens/s of busy rounds

A request that would wait longer than the limit is refused at once, and told when to come back:
better a second's refusal than a minute's silence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sharpen.core.errors import BusyError, ConfigError

__all__ = ["Admission", "OverloadedError", "QueueLimits"]

_WEIGHT = 0.1  # of a new observation
_FIRST_GUESS_TOKENS = 128.0


class OverloadedError(BusyError):
    """A request that may not even wait.

    Args:
        message: what is full.
        reason: a word for measurements: ``queue_full``, ``queue_tokens`` or ``queue_timeout``.
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, *, reason: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueLimits:
    """What may wait; None for no limit."""

    requests: int | None = None
    """Continuations."""

    tokens: int | None = None
    """Tokens of their prompts."""

    seconds: float | None = None
    """Estimated time until one starts."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, least in (
            ("max_queue", self.requests, 0),
            ("max_queue_tokens", self.tokens, 1),
            ("queue_timeout", self.seconds, 0),
        ):
            if value is not None and not least <= value:
                raise ConfigError(f"{name}={value} must be at least {least}.")


class Admission:
    """Lets requests wait, or refuses them. Not safe from several threads at once.

    Args:
        limits: what may wait.
    """

    def __init__(self, limits: QueueLimits | None = None) -> None:
        self.limits = limits or QueueLimits()
        self._waiting: dict[object, tuple[int, int]] = {}
        self._prompt_tokens = 0
        self._work = 0.0
        self._tokens_per_s: float | None = None
        self._answer_tokens = _FIRST_GUESS_TOKENS

    @property
    def wait_s(self) -> float:
        """Estimated time until one more would start, behind all that wait."""
        return self._work / self._tokens_per_s if self._tokens_per_s else 0.0

    def check(self, count: int, prompt_tokens: int, waiting: int, free: int) -> None:
        """Refuse ``count`` sequences of a prompt where they may not wait.

        Args:
            count: sequences.
            prompt_tokens: of each.
            waiting: sequences that wait already.
            free: sequences that could start at once.

        Raises:
            OverloadedError: a limit is reached.
        """
        limits, late = self.limits, waiting + count - free
        if late <= 0:
            return
        if limits.requests is not None and late > limits.requests:
            raise self._refusal(
                f"{waiting} requests already wait, {limits.requests} may.", "queue_full"
            )
        tokens = self._prompt_tokens + count * prompt_tokens
        if limits.tokens is not None and self._waiting and tokens > limits.tokens:
            raise self._refusal(
                f"prompts of {self._prompt_tokens} tokens already wait, {limits.tokens} may.",
                "queue_tokens",
            )
        if limits.seconds is not None and self.wait_s > limits.seconds:
            raise self._refusal(
                f"it would take about {self.wait_s:.0f} s until this request starts, "
                f"{limits.seconds:g} s may be.",
                "queue_timeout",
            )

    def enter(self, sequence: object, prompt_tokens: int, max_tokens: int) -> None:
        """A sequence waits from now on."""
        work = prompt_tokens + min(max_tokens, math.ceil(self._answer_tokens))
        self._waiting[sequence] = (prompt_tokens, work)
        self._prompt_tokens += prompt_tokens
        self._work += work

    def leave(self, sequence: object) -> None:
        """It has started, or is gone."""
        prompt_tokens, work = self._waiting.pop(sequence, (0, 0))
        self._prompt_tokens -= prompt_tokens
        self._work -= work

    def answered(self, num_tokens: int) -> None:
        """An answer had so many tokens."""
        self._answer_tokens += _WEIGHT * (num_tokens - self._answer_tokens)

    def computed(self, num_tokens: int, seconds: float) -> None:
        """A round took so long."""
        speed = num_tokens / max(seconds, 1e-9)
        if self._tokens_per_s is None:
            self._tokens_per_s = speed
        else:
            self._tokens_per_s += _WEIGHT * (speed - self._tokens_per_s)

    def _refusal(self, message: str, reason: str) -> OverloadedError:
        limit = self.limits.seconds or 0.0
        retry = max(1, math.ceil(self.wait_s - limit))
        return OverloadedError(
            f"{message} Try again in {retry} s.", reason=reason, retry_after_s=retry
        )
