"""When a sequence drops keys and values, and how many it then stores: numbers only.

A prompt of n tokens is computed up to borders, after each of which every head of every layer keeps
``budget`` of what it stores (Huang et al., Locret, 2024, arXiv 2410.01805, algorithm 1)::

    borders    chunk, 2 chunk, ... below n - local, and n - local itself
    stored     after c tokens, b the last border up to c:    min(b, budget) + c - b

The last ``local`` tokens of the prompt, and all that follow, are stored whole; a prompt that fits
the budget before its last ``local`` tokens never drops anything. All heads store equally many, so
they share one table of blocks, and blocks that nobody needs any more are free for others.

Borders depend on nothing but the prompt's length: what a sequence keeps does not depend on how its
prompt was cut into parts, or who ran beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharpen.core.errors import ConfigError

__all__ = ["EvictionConfig", "EvictionPlan"]

_CHUNK = 3072


@dataclass(frozen=True, kw_only=True, slots=True)
class EvictionConfig:
    """How much is stored. Units are the key and value of one token in one head."""

    budget: int = 6000
    """Units that each head keeps (the paper's for Phi-3-mini-128K)."""

    chunk: int | None = None
    """Tokens between borders; default the paper's 3072, or the budget where that is less."""

    stabilizers: int | None = None
    """Of the newest units, so many are kept whatever their scores, except at the last border;
    default 5/12 of the budget, the paper's 2500 of 6000."""

    local: int = 100
    """Last tokens of a prompt, computed after the last border."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.budget < 1:
            raise ConfigError(f"budget={self.budget} must be at least 1.")
        if self.chunk is not None and self.chunk < 1:
            raise ConfigError(f"chunk={self.chunk} must be at least 1.")
        if self.local < 1:
            raise ConfigError(f"local={self.local} must be at least 1.")
        if self.stabilizers is not None and not 0 <= self.stabilizers < self.budget:
            raise ConfigError(
                f"stabilizers={self.stabilizers} must be from 0 to {self.budget - 1}, below the "
                f"budget of {self.budget}: what is kept whatever its score leaves no choice."
            )

    @property
    def chunk_tokens(self) -> int:
        """Tokens between borders."""
        return self.chunk or min(_CHUNK, self.budget)

    @property
    def num_stabilizers(self) -> int:
        """Newest units that are kept."""
        return 5 * self.budget // 12 if self.stabilizers is None else self.stabilizers

    def plan(self, prompt_tokens: int) -> EvictionPlan:
        """What a prompt of so many tokens does."""
        return EvictionPlan(prompt_tokens, self)


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """Of one prompt.

    Examples:
        >>> from sharpen.compress.kv import EvictionConfig
        >>> plan = EvictionConfig(budget=8, chunk=6, stabilizers=2, local=3).plan(30)
        >>> plan.next_border(0), plan.next_border(12), plan.next_border(24), plan.next_border(27)
        (12, 18, 27, None)
        >>> plan.dropped(27), plan.most(0, 30)
        (19, 14)
    """

    prompt_tokens: int
    config: EvictionConfig

    @property
    def last_border(self) -> int:
        """After which nothing is dropped; 0 where nothing ever is."""
        last = self.prompt_tokens - self.config.local
        return last if last > self.config.budget else 0

    @property
    def evicts(self) -> bool:
        """Whether anything is ever dropped."""
        return self.last_border > 0

    def next_border(self, computed: int) -> int | None:
        """The first border after so many tokens at which units are dropped; None after the last."""
        last, chunk = self.last_border, self.config.chunk_tokens
        if computed >= last:
            return None
        return min((max(computed, self.config.budget) // chunk + 1) * chunk, last)

    def dropped(self, computed: int) -> int:
        """Of the first tokens, so many are no longer stored in each head."""
        last, chunk = self.last_border, self.config.chunk_tokens
        border = last if computed >= last else computed // chunk * chunk
        return max(0, border - self.config.budget)

    def most(self, start: int, end: int) -> int:
        """Units in a head, at most, while tokens ``start`` to ``end`` are computed."""
        most = end - self.dropped(end)
        first = self.next_border(start)
        second = self.next_border(first) if first is not None else None
        for border in (first, second, self.last_border):
            if border is not None and start < border <= end:
                most = max(most, border - self.dropped(border - 1))
        return most
