"""Train a language model of n-grams on texts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.data.columns import Given, columns_of
from sharpen.data.ngram.counting import BEGIN, read_corpus
from sharpen.data.ngram.estimate import estimate
from sharpen.data.ngram.model import NgramModel, build_model
from sharpen.data.ngram.tables import insert, keys_of

__all__ = ["train"]

_MOST_ORDER = 8  # of the kernels
_NEVER = -99.0  # log10 of a probability that is not asked for: that of <s>


def train(
    texts: Given,
    order: int = 5,
    *,
    prune: Sequence[int] | None = None,
    lines: bool = False,
    text_key: str = "text",
) -> NgramModel:
    """Interpolated modified Kneser-Ney (:mod:`sharpen.data.ngram.estimate`).

    Args:
        texts: a file, folder or pattern, several of them as ``Path``, a data set, or the texts
            themselves.
        order: most words of an n-gram, 1 to 8.
        prune: for each order, n-grams that occur so often or less are left out, as with lmplz:
            ``(0, 0, 1)``; the last number holds for longer ones, too.
        lines: each line is a sentence; else each text is one, as where perplexity is measured.
        text_key: where a row's text stands in files.

    Raises:
        ConfigError: an order or prune that cannot be.
        DataError: there is nothing to learn from, or a row is bad.
    """
    if not 1 <= order <= _MOST_ORDER:
        raise ConfigError(f"order={order} must lie between 1 and {_MOST_ORDER}.")
    limits = list(prune or [0])
    limits = (limits + [limits[-1]] * order)[:order]
    if limits[0] != 0 or any(a > b for a, b in itertools.pairwise(limits)):
        raise ConfigError(
            f"prune={tuple(limits)} must begin with 0 (words are kept) and not decrease."
        )
    corpus = read_corpus(columns_of(texts, text_key), lines=lines)
    found = estimate(corpus, order, tuple(limits))
    with np.errstate(divide="ignore"):
        unigrams = np.log10(np.stack([found.unigrams, found.backoffs], 1)).astype(np.float32)
        orders = [
            np.log10(np.stack([one.probability, one.backoff], 1)).astype(np.float32)
            for one in found.orders
        ]
    unigrams[BEGIN, 0] = _NEVER
    tables, slots = [], np.arange(len(unigrams), dtype=np.uint32)
    for one, values in zip(found.orders, orders, strict=True):
        table, slots = insert(keys_of(slots[one.context], one.word), values)
        tables.append(table)
    about = {
        "tokens": int((corpus.tokens != BEGIN).sum()),
        "sentences": int((corpus.tokens == BEGIN).sum()),
        "prune": limits,
        "lines": lines,
        "discounts": [list(d) for d in found.discounts],
    }
    return build_model(corpus.offsets, corpus.data, unigrams, tables, closed=True, about=about)
