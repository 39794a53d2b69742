"""The best of some instructions that the user wrote, by successive halving.

Karnin, Koren and Somekh, *Almost Optimal Exploration in Multi-Armed Bandits*, ICML 2013; Jamieson
and Talwalkar, *Non-stochastic Best Arm Identification and Hyperparameter Optimization*, AISTATS
2016.

::

    judge all on a few validation examples, keep the better half, double the examples, ...
    the last ones are judged on all of them

All candidates of a round are judged on the same examples, and what was judged counts on, so a round
costs half of its examples. Needs no model that writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sharpen.text.prompts.search import Search
from sharpen.text.prompts.task import Candidate

__all__ = ["improve"]

_FEWEST = 4


def improve(search: Search, instructions: Sequence[str]) -> None:
    """Choose among instructions until one round judges all validation examples.

    Args:
        search: what is searched.
        instructions: the first instruction is among them already.
    """
    first = search.full(search.seed_prompt).candidate
    texts = [text for text in dict.fromkeys(instructions) if text != first.instruction]
    kept = [Candidate(text, first.exemplars, first.nearest) for text in texts]
    rounds = max(1, math.ceil(math.log2(max(2, len(kept)))))
    for level in range(rounds):
        size = max(_FEWEST, len(search.val) >> (rounds - 1 - level))
        judged = [search.on(candidate, search.val[:size]) for candidate in kept]
        order = sorted(range(len(kept)), key=lambda k: (-judged[k].score, k))
        if level < rounds - 1:
            kept = [kept[k] for k in order[: math.ceil(len(kept) / 2)]]
    for candidate in kept:
        search.full(candidate)
