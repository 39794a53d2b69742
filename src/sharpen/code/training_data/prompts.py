"""Prompts that ask for a faster program: plainly, with examples, and for a mark of ten.

Shypula et al., *Learning Performance-Improving Code Edits*, ICLR 2024 (arXiv 2302.07867), section
3. Performance-conditioned: training pairs carry a mark of 1 to 10, the decile of how close the
faster program comes to the best one known; a model that was trained on these is asked for 10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sharpen.core.errors import DataError

__all__ = ["Pair", "prompt_conditioned", "prompt_fewshot", "prompt_instruct", "tag_deciles"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A program and a faster one that does the same."""

    slow: str
    fast: str
    problem: str = ""
    """Its name; pairs of one problem have one best program."""

    fast_s: float = math.nan
    """Seconds of the faster one, as measured here."""


def prompt_instruct(program: str, *, language: str = "python") -> str:
    """Asks for a faster program that does the same."""
    return (
        "Make the program below run faster without changing what it gives.\n\n"
        f"Program:\n```{language}\n{program.rstrip()}\n```\n\nFaster program:\n```{language}\n"
    )


def prompt_fewshot(program: str, examples: Sequence[Pair], *, language: str = "python") -> str:
    """The same after examples; the one most like it should come last.

    Args:
        program: to make faster.
        examples: pairs, as of :meth:`Retriever.nearest`.
        language: of the fences.
    """
    shown = [
        f"Program:\n```{language}\n{one.slow.rstrip()}\n```\n\n"
        f"Faster program:\n```{language}\n{one.fast.rstrip()}\n```\n\n"
        for one in examples
    ]
    return "".join(shown) + prompt_instruct(program, language=language)


def prompt_conditioned(program: str, mark: int = 10, *, language: str = "python") -> str:
    """Asks for a faster program with a mark, 10 for one as fast as the best known.

    Raises:
        DataError: the mark is not 1 to 10.
    """
    if not 1 <= mark <= 10:
        raise DataError(f"mark={mark} must be 1 to 10.")
    return (
        f"Program:\n```{language}\n{program.rstrip()}\n```\n\n"
        f"A version with speed {mark}/10 that gives the same:\n```{language}\n"
    )


def tag_deciles(pairs: Sequence[Pair], best_s: Mapping[str, float] | None = None) -> list[int]:
    """[pairs] the mark of each: how close its faster program is to its problem's best, in tenths.

    With ``c = best time / its time``, the mark is 1 for the tenth of the pairs with the least c, 10
    for the tenth with the greatest; equal values have equal marks, the higher.

    Args:
        pairs: with ``problem`` and ``fast_s``.
        best_s: by problem, seconds of the best known; that of the pairs without it.

    Raises:
        DataError: a time is not above 0.
    """
    if any(not pair.fast_s > 0 for pair in pairs):
        raise DataError("each pair needs fast_s above 0: measure its faster program.")
    best = dict(best_s or {})
    for pair in pairs:
        best[pair.problem] = min(best.get(pair.problem, math.inf), pair.fast_s)
    closeness = [best[pair.problem] / pair.fast_s for pair in pairs]
    ordered = sorted(closeness)
    found = []
    for value in closeness:
        at_most = sum(other <= value for other in ordered)
        found.append(max(1, math.ceil(10 * at_most / len(ordered))))
    return found
