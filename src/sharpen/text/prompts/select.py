"""The best of some instructions that the user wrote, by successive halving.

Jamieson and Talwalkar, *Non-stochastic Best Arm Identification and Hyperparameter Optimization*,
AISTATS 2016; see :mod:`sharpen.text.prompts.racing`. The last ones are judged on all validation
examples. Needs no model that writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.text.prompts.racing import halving
from sharpen.text.prompts.search import Search
from sharpen.text.prompts.task import Candidate

__all__ = ["improve"]


def improve(search: Search, instructions: Sequence[str]) -> None:
    """Choose among instructions until one round judges all validation examples.

    Args:
        search: what is searched.
        instructions: the first instruction is among them already.
    """
    first = search.full(search.seed_prompt).candidate
    texts = [text for text in dict.fromkeys(instructions) if text != first.instruction]
    if not texts:
        return
    race = halving(
        search,
        [Candidate(text, first.exemplars, first.nearest) for text in texts],
        search.val,
    )
    for candidate, judged in zip(race.ranked, race.judged, strict=True):
        if judged == len(search.val):
            search.full(candidate)
