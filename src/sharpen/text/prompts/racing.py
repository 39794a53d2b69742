"""Races: the best of several prompts without judging each on everything.

Successive halving: Karnin, Koren and Somekh, *Almost Optimal Exploration in Multi-Armed Bandits*,
ICML 2013. UCB: Auer, Cesa-Bianchi and Fischer, *Finite-time Analysis of the Multiarmed Bandit
Problem*, 2002, as Pryzant et al. use it for prompts (arXiv 2305.03495, algorithm 3).

::

    halving   judge all on a few examples, keep the better half, double the examples, ...
    ucb       judge argmax mean_i + c sqrt(ln t / n_i) on its next minibatch, t = 1 .. plays

Prompts are judged on the same examples (common random numbers), so that what differs between two of
them is the prompts; what was judged before costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.text.prompts.search import Search
from sharpen.text.prompts.task import Candidate, Example

__all__ = ["Race", "halving", "ucb"]

_FEWEST = 4


@dataclass(frozen=True, slots=True)
class Race:
    """How a race ended."""

    ranked: tuple[Candidate, ...]
    """All that ran, best first: those that came further, then by mean score."""

    judged: tuple[int, ...]
    """On how many examples each of them was judged."""


def halving(
    search: Search, candidates: Sequence[Candidate], examples: Sequence[Example], *, last: int = 2
) -> Race:
    """Judge all on a few examples, the better half on twice as many, and so on.

    Args:
        search: what is searched; its budget pays.
        candidates: at least one.
        examples: in the order in which they are used; the last round uses all.
        last: a round with no more candidates than this is the last one.

    Raises:
        BudgetSpent: a round does not fit into the budget.
    """
    kept = list({candidate.key: candidate for candidate in candidates}.values())
    sizes = [len(kept)]
    while sizes[-1] > last:
        sizes.append(math.ceil(sizes[-1] / 2))
    ranked: list[Candidate] = []
    judged: list[int] = []
    for level in range(len(sizes)):
        size = min(len(examples), max(_FEWEST, len(examples) >> (len(sizes) - 1 - level)))
        scores = [search.on(candidate, examples[:size]).score for candidate in kept]
        order = sorted(range(len(kept)), key=lambda k: (-scores[k], k))
        stay = sizes[level + 1] if level + 1 < len(sizes) else 0
        ranked = [kept[k] for k in order[stay:]] + ranked
        judged = [size] * (len(order) - stay) + judged
        kept = [kept[k] for k in order[:stay]]
    return Race(tuple(ranked), tuple(judged))


def ucb(
    search: Search, candidates: Sequence[Candidate], *, batch: int, plays: int, c: float = 1.0
) -> Race:
    """Judge the most promising candidate on its next minibatch, ``plays`` times.

    Args:
        search: what is searched; its budget pays.
        candidates: at least one.
        batch: training examples in a minibatch; the k-th minibatch is the same for all.
        plays: judgements of minibatches.
        c: how much the bandit explores.

    Raises:
        BudgetSpent: a minibatch does not fit into the budget.
    """
    batches = [search.minibatch(batch) for _ in range(plays)]
    sums, counts = [0.0] * len(candidates), [0] * len(candidates)
    for t in range(1, plays + 1):

        def bound(k: int, t: int = t) -> float:
            if counts[k] == 0:
                return math.inf
            return sums[k] / counts[k] + c * math.sqrt(math.log(t) / counts[k])

        chosen = max(range(len(candidates)), key=lambda k: (bound(k), -k))
        evaluation = search.on(candidates[chosen], batches[counts[chosen]])
        sums[chosen] += evaluation.score
        counts[chosen] += 1
    means = [s / n if n else -1.0 for s, n in zip(sums, counts, strict=True)]
    order = sorted(range(len(candidates)), key=lambda k: -means[k])
    size = len(batches[0]) if batches else 0
    return Race(tuple(candidates[k] for k in order), tuple(size * counts[k] for k in order))
