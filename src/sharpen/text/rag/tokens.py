"""Words and tokens of texts: one counter for what chunks cost and for what the budget allows.

Counting chunks one way and the prompt another exceeds budgets; so everything here takes one
``TokenCounter``, and the finished prompt is counted with it, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sharpen.core.errors import ConfigError

__all__ = ["TokenCounter", "as_counter", "estimate_tokens", "words_of"]

TokenCounter = Callable[[str], int]
"""Tokens of a text."""

_WORD = re.compile(r"\w+")
_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_LETTERS = 6  # of a token in a long word: subword tokens of English have about so many


def words_of(text: str) -> list[str]:
    """Words in lower case, for search."""
    return _WORD.findall(text.lower())


def estimate_tokens(text: str) -> int:
    """About the tokens that a byte-pair tokenizer makes of a text.

    A word takes one token for each six characters begun (for each byte pair outside ASCII), a digit
    and a sign one. It is an estimate: give your model's tokenizer where the budget is a hard one.

    Examples:
        >>> estimate_tokens("Which chunks, in which order?")
        7
    """
    count = 0
    for piece in _PIECE.findall(text):
        size = len(piece) if piece.isascii() else 3 * len(piece.encode()) // 2
        count += -(-size // _LETTERS)
    return count


def as_counter(tokenizer: Any = None) -> TokenCounter:
    """A counter of what a user gives.

    Args:
        tokenizer: a function of a text to a number; an object with ``encode(text)`` that returns
            token ids (tiktoken, transformers, ``sharpen.models`` tokenizers) or something with
            ``.ids`` (tokenizers); None for :func:`estimate_tokens`.

    Raises:
        ConfigError: none of these.
    """
    if tokenizer is None:
        return estimate_tokens
    if hasattr(tokenizer, "encode"):

        def count(text: str) -> int:
            coded = tokenizer.encode(text)
            return len(getattr(coded, "ids", coded))

        return count
    if callable(tokenizer):
        counter: TokenCounter = tokenizer
        return counter
    raise ConfigError(
        f"tokenizer={tokenizer!r:.80} must be a function text -> number of tokens, or have"
        " encode(text)."
    )
