"""Interpolated modified Kneser-Ney smoothing.

Stanley Chen, Joshua Goodman, "An empirical study of smoothing techniques for language modeling",
Computer Speech and Language 13, 1999, section 3; as Heafield et al., "Scalable Modified Kneser-Ney
Language Model Estimation", ACL 2013, sections 3 and 4, write it. With c the counts and N the
highest order, the adjusted count of an n-gram is::

    a(w_1 .. w_n) = c(w_1 .. w_n)                         for n = N, or w_1 = <s>
                  = number of v with c(v w_1 .. w_n) > 0  else

    t_k = n-grams of this order with a = k,   Y = t_1 / (t_1 + 2 t_2)
    D_k = k - (k + 1) Y t_{k+1} / t_k   for k = 1, 2, 3;   D(a) = D_min(a, 3),   D(0) = 0

    p(w_n | w_1^{n-1}) = (a(w_1^n) - D(a)) / sum_x a(w_1^{n-1} x)
                         + gamma(w_1^{n-1}) p(w_n | w_2^{n-1})
    gamma(w_1^{n-1})   = sum_x D(a(w_1^{n-1} x)) / sum_x a(w_1^{n-1} x)

and below the words all of the vocabulary but ``<s>`` are equally likely, ``<unk>`` among them. An
n-gram that is pruned gives its whole adjusted count to gamma, so that probabilities sum to 1.

Differs from the papers: where a corpus is so small that t_1, t_2 or t_3 is 0 or a D_k is outside
[0, k], the discounts of that order are 0.5, 1 and 1.5, as those of KenLM's lmplz with
``--discount_fallback``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.data.ngram.counting import BEGIN, Corpus, Counted, count_ngrams

__all__ = ["Estimated", "Order", "discounts", "estimate"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_FALLBACK = (0.5, 1.0, 1.5)


@dataclass(slots=True)
class Order:
    """The n-grams of an order n >= 2 that were kept."""

    context: npt.NDArray[np.uint32]
    """[m] the first n - 1 words: which of the n-grams kept of the order below, or a word."""

    word: npt.NDArray[np.uint32]
    """[m] the last word."""

    probability: Floats
    """[m] p(w_n | w_1 .. w_{n-1})."""

    backoff: Floats
    """[m] gamma(w_1 .. w_n); 1 where nothing follows."""


@dataclass(slots=True)
class Estimated:
    """Probabilities of all orders."""

    discounts: list[tuple[float, float, float]]
    """D_1, D_2 and D_3 of each order."""

    unigrams: Floats = field(default_factory=lambda: np.zeros(0))
    """[words] p(w); 0 for ``<s>``."""

    backoffs: Floats = field(default_factory=lambda: np.zeros(0))
    """[words] gamma(w)."""

    orders: list[Order] = field(default_factory=list)
    """Of 2 .. N words."""


def discounts(adjusted: npt.NDArray[Any]) -> tuple[float, float, float]:
    """D_1, D_2 and D_3 of an order, from its adjusted counts."""
    t = np.bincount(np.minimum(adjusted, 5), minlength=6)[:5].astype(float)
    if not t[1:4].all():
        return _FALLBACK
    y = t[1] / (t[1] + 2 * t[2])
    one, two, three = (k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))
    fits = 0 <= one <= 1 and 0 <= two <= 2 and 0 <= three <= 3
    return (float(one), float(two), float(three)) if fits else _FALLBACK


def estimate(corpus: Corpus, order: int, prune: tuple[int, ...]) -> Estimated:
    """Count the n-grams of a corpus and smooth what was counted.

    Args:
        corpus: of sentences.
        order: N, at least 1.
        prune: [N] n-grams that occur so often or less are left out; 0 for words, not decreasing.
    """
    words = len(corpus.offsets) - 1
    count = np.bincount(corpus.tokens, minlength=words)
    count[BEGIN] = 0  # it is never predicted
    counted: list[Counted] = []
    node, contexts = corpus.tokens, words
    for n in range(2, order + 1):
        one, node = count_ngrams(corpus.tokens, node, contexts, n)
        counted.append(one)
        contexts = len(one.word)
    adjusted = _adjusted(count, counted)
    made = Estimated(discounts=[discounts(a[a > 0]) for a in adjusted])
    made.unigrams = below = _words(adjusted[0], made.discounts[0])
    made.backoffs = np.ones(words)
    kept = number = np.arange(words)  # those of the order below, and their new numbers
    for n, one in enumerate(counted, start=2):
        keep = one.count > prune[n - 1]
        below, gamma = _smoothed(one, adjusted[n - 1], keep, below, made.discounts[n - 1])
        if n == 2:
            made.backoffs = gamma
        else:
            made.orders[-1].backoff = gamma[kept]
        context = number[one.context[keep]].astype(np.uint32)
        kept = np.nonzero(keep)[0]
        made.orders.append(Order(context, one.word[keep], below[keep], np.ones(len(kept))))
        number = np.cumsum(keep) - 1
    return made


def _adjusted(count: Counts, counted: list[Counted]) -> list[Counts]:
    """[N] of each order, the adjusted counts."""
    found, raw = [], [count, *(one.count.astype(np.int64) for one in counted)]
    for n, one in enumerate(raw):
        if n == len(counted):
            found.append(one)
            continue
        before = np.bincount(counted[n].suffix, minlength=len(one))
        found.append(np.where(counted[n - 1].begins, one, before) if n else before)
    if counted:
        found[0][BEGIN] = 0
    return found


def _words(adjusted: Counts, d: tuple[float, float, float]) -> Floats:
    """[words] p(w)."""
    total = adjusted.sum()
    discount = np.array([0.0, *d])[np.minimum(adjusted, 3)]
    probability = (adjusted - discount) / total + discount.sum() / total / (len(adjusted) - 1)
    probability[BEGIN] = 0.0
    return probability  # type: ignore[no-any-return]


def _smoothed(
    counted: Counted,
    adjusted: Counts,
    kept: Mask,
    below: Floats,
    d: tuple[float, float, float],
) -> tuple[Floats, Floats]:
    """[m] p of each n-gram, and [contexts] gamma."""
    discount = np.array([0.0, *d])[np.minimum(adjusted, 3)]
    contexts = len(below)
    total = np.bincount(counted.context, adjusted, contexts)
    left = np.bincount(counted.context, np.where(kept, discount, adjusted), contexts)
    gamma = np.divide(left, total, out=np.ones(contexts), where=total > 0)
    own = (adjusted - discount) / total[counted.context]
    return own + gamma[counted.context] * below[counted.suffix], gamma
