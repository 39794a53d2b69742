"""How many examples go through the model in one pass, and how many tokens that computes.

A pass over n rows of a prompt of p tokens and completions of c tokens, r of which share a prompt,
computes p ceil(n / r) + n c tokens (as :mod:`sharpen.align.scoring`, which does not share prompts
below 8 tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.align.config import AlignConfig
from sharpen.align.options.methods import Description
from sharpen.align.rows.tokens import TokenRow

__all__ = ["Lengths", "default_micro_batch", "pass_tokens"]

_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a row."""

    prompt: int
    completion: int

    @classmethod
    def longest(cls, rows: Sequence[TokenRow], room: int) -> Lengths:
        """Of the longest of some rows, with ``room`` for what is generated after its prompt."""
        row = max(rows, key=len)
        return cls(len(row.prompt), len(row) - len(row.prompt) + room)

    @property
    def whole(self) -> int:
        """Both."""
        return self.prompt + self.completion


def pass_tokens(config: AlignConfig, method: Description, lengths: Lengths, size: int) -> int:
    """What a pass over ``size`` examples as long as ``lengths`` computes."""
    rows = size * _width(method)
    shared = config.draws if method.online else _width(method)
    # Of prompts whose completions begin in one pass and end in the next, each has a part.
    aligned = rows % shared == 0 or shared % rows == 0
    prompts = -(-rows // shared) if aligned else 1 + -(-(rows - 1) // shared)
    return prompts * lengths.prompt + rows * lengths.completion


def default_micro_batch(config: AlignConfig, method: Description, lengths: Lengths) -> int:
    """The most examples that divide a process's share and have about 8,192 tokens; at least 1."""
    whole = config.completions // config.data_ranks
    sizes = [size for size in range(1, whole + 1) if whole % size == 0]
    fits = [size for size in sizes if pass_tokens(config, method, lengths, size) <= _TOKENS]
    return max(fits, default=1)


def _width(method: Description) -> int:
    """Rows of an example."""
    return {"preference": 2, "ranked": 4}.get(method.kind, 1)
