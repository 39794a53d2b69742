"""Log-probabilities of tokens, for all rows of a round in one call, where the logits lie.

For logits l [V] of a row, in float32: log p = l - log sum exp(l). What leaves the device is a
number a row and the most likely tokens that are asked for. Memory: 4 V bytes a row, of at most
16 million numbers at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Score", "score_rows"]

Score = tuple[float, tuple[tuple[int, float], ...]]
"""A token's log-probability, and the most likely tokens with theirs, likeliest first."""

_AT_ONCE = 1 << 24


def score_rows(logits: Tensor, tokens: Sequence[int], tops: Sequence[int]) -> list[Score]:
    """Of a token in each row.

    Args:
        logits: [R, V], any float type.
        tokens: R.
        tops: R, how many of the most likely tokens are wanted.
    """
    height = max(1, _AT_ONCE // logits.shape[1])
    found: list[Score] = []
    for begin in range(0, len(tokens), height):
        rows = slice(begin, begin + height)
        found += _score(logits[rows], tokens[rows], tops[rows])
    return found


def _score(logits: Tensor, tokens: Sequence[int], tops: Sequence[int]) -> list[Score]:
    logprobs = torch.log_softmax(logits.float(), -1)
    chosen = torch.tensor(tokens, device=logits.device)[:, None]
    own = logprobs.gather(1, chosen)[:, 0].tolist()
    if not any(tops):
        return [(value, ()) for value in own]
    values, ids = torch.topk(logprobs, max(tops))
    likely = [
        tuple(zip(i[:top], v[:top], strict=True))
        for i, v, top in zip(ids.tolist(), values.tolist(), tops, strict=True)
    ]
    return list(zip(own, likely, strict=True))
