"""Log-probabilities as JSON holds them: ids and numbers; the texts come from the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sharpen.serve.request import TokenLogprob

__all__ = ["pack_scores", "unpack_scores"]


def pack_scores(scores: Sequence[TokenLogprob]) -> list[Any]:
    """Of each token: its id, its log-probability, and those of the most likely ones."""
    return [[one.id, one.logprob, [[i, value] for i, _, value in one.top]] for one in scores]


def unpack_scores(data: Sequence[Any], text: Callable[[int], str]) -> list[TokenLogprob]:
    """From :func:`pack_scores`.

    Args:
        data: what it made.
        text: the text of a token.
    """
    return [
        TokenLogprob(
            id=token,
            text=text(token),
            logprob=logprob,
            top=tuple((i, text(i), value) for i, value in top),
        )
        for token, logprob, top in data
    ]
