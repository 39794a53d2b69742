"""Search over rewrites: beams of texts, each step one rewrite of one place.

Which of two texts is faster is looked at briefly, so a difference of some per cent is noise: within
15 % the one with fewer instructions of the interpreter comes first, which are the same in every
run, and then the one that was found first. So the same input gives the same patch.

    beam := {original}
    repeat at most 4 times:
        try all rewrites of all texts in the beam
        beam := the 4 best of those that are right and at least 8 % faster than what they came from,
            without those that the best is more than 8 times as fast as
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sharpen.code.improver.journal import Attempt
from sharpen.code.improver.judge import Judge, Proposal
from sharpen.code.rewrite import Facts, propose
from sharpen.core.errors import ConfigError, FileFormatError

__all__ = ["Budget", "ranked", "search_rewrites"]

_WIDTH, _DEPTH = 4, 4
_CLEARLY = 1.15
_STEP = 1.08
_FEWER = 0.98
_BEHIND = 8.0


class Budget:
    """Time and proposals that may be spent.

    Args:
        seconds: from now on.
        tries: proposals.
        now: a clock.
    """

    def __init__(
        self, seconds: float, tries: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._until, self._now = now() + seconds, now
        self.tries = tries
        self.stopped = ""

    def spend(self) -> bool:
        """Whether one more may be tried."""
        if self._now() >= self._until:
            self.stopped = "the budget of time was used up"
        elif self.tries <= 0:
            self.stopped = "the budget of tries was used up"
        else:
            self.tries -= 1
            return True
        return False


def _before(one: Attempt, other: Attempt) -> bool:
    """Whether the first, which was found later, is clearly better."""
    if one.score > other.score * _CLEARLY:
        return True
    if other.score > one.score * _CLEARLY:
        return False
    return 0 < one.opcodes < other.opcodes * _FEWER


def ranked(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The best first; the order in which they were found decides what nothing else does."""
    found: list[Attempt] = []
    for one in attempts:
        place = len(found)
        while place > 0 and _before(one, found[place - 1]):
            place -= 1
        found.insert(place, one)
    return found


def search_rewrites(judge: Judge, facts: Facts, budget: Budget) -> list[Attempt]:
    """Texts that are right as far as was seen and seemed faster, the best first.

    Args:
        judge: tries texts.
        facts: of the arguments.
        budget: what may be spent.
    """
    target = judge.target
    start = Attempt(
        text=target.text,
        origin="rewrite",
        steps=(),
        explain="",
        risk="exact",
        verdict="kept",
        score=1.0,
    )
    seen = {target.text}
    beam = [start]
    good: list[Attempt] = []
    for _ in range(_DEPTH):
        kept: list[Attempt] = []
        for state in beam:
            try:
                rewrites = propose(state.text, target.entry, facts)
            except (FileFormatError, ConfigError):
                continue
            for rewrite in rewrites:
                if rewrite.text in seen:
                    continue
                if not budget.spend():
                    return ranked([*good, *kept])
                seen.add(rewrite.text)
                attempt = judge.consider(
                    Proposal(
                        text=rewrite.text,
                        origin="rewrite",
                        steps=(*state.steps, rewrite.rewriter),
                        explain=" ".join(filter(None, (state.explain, rewrite.explain))),
                        risk=_worse(state.risk, rewrite.risk),
                    )
                )
                if attempt.verdict == "kept" and attempt.score >= state.score * _STEP:
                    kept.append(attempt)
        if not kept:
            break
        good += kept
        least = max(one.score for one in good) / _BEHIND
        beam = [one for one in ranked(kept)[:_WIDTH] if one.score >= least]
    return ranked(good)


_RISKS = ("exact", "types", "memory", "float-reorder", "overflow")


def _worse(one: str, other: str) -> str:
    return max(one, other, key=_RISKS.index)
