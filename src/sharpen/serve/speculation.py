"""Guessing next tokens from the text itself.

Saxena, Prompt Lookup Decoding, 2023: what followed the last few tokens before, follows them again.
The guesses are computed together with the next token; those that the sampler would have chosen are
kept, so that the text is the same as without guesses (Leviathan et al., Fast Inference from
Transformers via Speculative Decoding, ICML 2023, arXiv 2211.17192, for a guess that is certain)::

    t_1 .. t_k <- tokens after the latest earlier place of the last n tokens, the longest n first
    keep t_i while the token chosen at its place is t_i

A step then reads the weights once for up to k + 1 tokens. It pays where reading them is the cost:
few sequences, and texts that repeat themselves (code, edits, summaries).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.core.errors import ConfigError

__all__ = ["NgramGuesser", "Speculation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """How much is guessed."""

    tokens: int = 4
    """k: guesses a step, at most."""

    longest: int = 3
    """n: tokens that must have occurred before, tried first."""

    shortest: int = 2
    """And tried last."""

    max_sequences: int = 4
    """No guesses while more sequences run: their tokens fill a step already."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("tokens", "shortest", "max_sequences"):
            if getattr(self, name) < 1:
                raise ConfigError(f"speculation: {name}={getattr(self, name)} must be at least 1.")
        if self.longest < self.shortest:
            raise ConfigError(
                f"speculation: longest={self.longest} must be at least shortest={self.shortest}."
            )

    @classmethod
    def parse(cls, text: str) -> Speculation:
        """From ``ngram`` or ``ngram:k=4,n=3``.

        Raises:
            ConfigError: anything else.

        Examples:
            >>> Speculation.parse("ngram:k=5").tokens
            5
        """
        kind, _, options = text.partition(":")
        names = {"k": "tokens", "n": "longest", "min": "shortest", "max": "max_sequences"}
        values: dict[str, int] = {}
        for option in filter(None, options.split(",")):
            name, _, value = option.partition("=")
            if name not in names or not value.isdecimal():
                raise ConfigError(
                    f"{option!r} is no option of speculation; write k=4 (guesses), n=3 and min=2 "
                    "(tokens to find again) or max=4 (sequences)."
                )
            values[names[name]] = int(value)
        if kind != "ngram":
            raise ConfigError(f"speculation {text!r} is unknown; write ngram or ngram:k=4,n=3.")
        return cls(**values)


class NgramGuesser:
    """Finds the last tokens again; a token costs O(n), whatever the length.

    Args:
        settings: how much is guessed.
    """

    def __init__(self, settings: Speculation) -> None:
        self._settings = settings
        self._ends: dict[tuple[int, ...], int] = {}
        self._seen = 0

    def guess(self, tokens: Sequence[int], count: int) -> list[int]:
        """Up to ``count`` tokens that may follow; ``tokens`` must extend those of the last call."""
        settings = self._settings
        for end in range(max(self._seen, 1), len(tokens)):  # the last place is not an earlier one
            for n in range(settings.shortest, min(settings.longest, end) + 1):
                self._ends[tuple(tokens[end - n : end])] = end
        self._seen = max(self._seen, len(tokens))
        for n in range(min(settings.longest, len(tokens)), settings.shortest - 1, -1):
            found = self._ends.get(tuple(tokens[-n:]))
            if found is not None:
                return list(tokens[found : found + min(count, settings.tokens)])
        return []
