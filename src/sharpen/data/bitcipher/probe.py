"""How much of a word's tag a linear classifier finds in its frozen vector.

Softmax regression from the vector of a word (of those around it, too, with ``context``) to its tag,
on documents; judged on others. Two baselines show what vectors add: the most frequent tag of all,
and for each word the most frequent tag that it has in training, which needs no vectors but tells
nothing of words that training has not seen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.quality.logistic import minimize

__all__ = ["Probed", "probe"]

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Document = Sequence[Sequence[tuple[str, str]]]
"""Sentences of words with their tags."""


@dataclass(frozen=True, slots=True)
class Probed:
    """Shares of tags told right, on the documents of the test."""

    accuracy: float
    """Of the classifier on vectors."""

    accuracy_unseen: float
    """Of the classifier, on words that are not in the documents of training."""

    majority: float
    """Of the most frequent tag."""

    word_majority: float
    """Of each word's most frequent tag in training, else the most frequent of all."""

    tokens: int
    """Words of the test."""

    known: float
    """Share of them that have a vector."""


def probe(
    vectors: npt.NDArray[np.float32],
    vocab: Mapping[str, int],
    train: Sequence[Document],
    test: Sequence[Document],
    *,
    context: int = 0,
    strength: float = 1.0,
    most: int = 200_000,
    lowercase: bool = False,
) -> Probed:
    """Train on some documents, judge on others.

    Args:
        vectors: [words, dimensions].
        vocab: rows by word; words without one have a vector of zeros.
        train: documents.
        test: others.
        context: how many words on each side are seen besides.
        strength: C of the regression, as in scikit-learn.
        most: words of training that are learned from with a context, evenly spread.
        lowercase: look words up in lower case.

    Raises:
        ConfigError: a negative context.
        DataError: no words to learn from or to judge by.
    """
    if context < 0:
        raise ConfigError(f"context={context} must be at least 0.")
    scaled = vectors.astype(np.float64)
    scaled = (scaled - scaled.mean(0)) / np.maximum(scaled.std(0), 1e-9)
    table = np.vstack([scaled, np.zeros(scaled.shape[1])]).astype(np.float32)
    rows = _Reader(vocab, len(table) - 1, context, lowercase)
    learned, judged = rows.read(train), rows.read(test)
    if not len(learned.tags) or not len(judged.tags):
        raise DataError("there are no tagged words to learn from, or none to judge by.")
    names = sorted(set(learned.tags))
    numbers = {name: i for i, name in enumerate(names)}
    wanted = np.array([numbers[tag] for tag in learned.tags])
    windows = learned.windows
    if context and len(windows) > most:
        some = np.linspace(0, len(windows) - 1, most).astype(int)
        windows, wanted = windows[some], wanted[some]
    distinct, which = np.unique(windows, axis=0, return_inverse=True)
    counts = np.zeros((len(distinct), len(names)))
    np.add.at(counts, (which.reshape(-1), wanted), 1.0)
    weights = _fit(_features(table, distinct), counts, strength)
    told = _told(table, judged.windows, weights)
    truth = np.array([numbers.get(tag, -1) for tag in judged.tags])
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for word, tag in zip(learned.words, learned.tags, strict=True):
        tags[word][tag] += 1
    common = Counter(learned.tags).most_common(1)[0][0]
    guesses = [tags[w].most_common(1)[0][0] if w in tags else common for w in judged.words]
    unseen = np.array([word not in tags for word in judged.words])
    right = told == truth
    return Probed(
        accuracy=float(right.mean()),
        accuracy_unseen=float(right[unseen].mean()) if unseen.any() else float("nan"),
        majority=float(np.mean([tag == common for tag in judged.tags])),
        word_majority=float(np.mean([g == t for g, t in zip(guesses, judged.tags, strict=True)])),
        tokens=len(truth),
        known=float((judged.windows[:, context] < len(table) - 1).mean()),
    )


@dataclass(frozen=True, slots=True)
class _Tagged:
    windows: npt.NDArray[np.int64]
    """[n, 2 context + 1] rows of the vectors."""

    words: list[str]
    tags: list[str]


@dataclass(frozen=True, slots=True)
class _Reader:
    vocab: Mapping[str, int]
    none: int
    context: int
    lowercase: bool

    def read(self, documents: Sequence[Document]) -> _Tagged:
        places, words, tags = [], [], []
        gap = [self.none] * self.context
        ids = list(gap)
        for document in documents:
            for sentence in document:
                for word, tag in sentence:
                    word = word.lower() if self.lowercase else word
                    places.append(len(ids))
                    ids.append(self.vocab.get(word, self.none))
                    words.append(word)
                    tags.append(tag)
                ids += gap
        around = np.arange(-self.context, self.context + 1)
        at = np.array(places, np.int64)[:, None] + around
        return _Tagged(np.array(ids, np.int64)[at.reshape(-1, len(around))], words, tags)


def _features(table: Singles, windows: npt.NDArray[np.int64]) -> Singles:
    """[n, dimensions of all words of a window + 1]."""
    n = len(windows)
    return np.hstack([table[windows].reshape(n, -1), np.ones((n, 1), np.float32)])


def _fit(features: Singles, counts: Floats, strength: float) -> Floats:
    """[dimensions, tags] of softmax regression, each row of features with counts of its tags."""
    total, shape = counts.sum(), (features.shape[1], counts.shape[1])
    each = counts.sum(1, keepdims=True)
    penalized = np.ones((shape[0], 1))
    penalized[-1] = 0.0

    def loss(x: Floats) -> tuple[float, Floats]:
        weights = x.reshape(shape)
        logits = (features @ weights.astype(features.dtype)).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        norm = np.log(np.exp(logits).sum(1, keepdims=True))
        value = -((logits - norm) * counts).sum() / total
        excess = (np.exp(logits - norm) * each - counts) / total
        slope = (features.T @ excess.astype(features.dtype)).astype(np.float64)
        decay = penalized * weights / (strength * total)
        return float(value + (decay * weights).sum() / 2), (slope + decay).reshape(-1)

    return minimize(loss, np.zeros(shape[0] * shape[1]), tolerance=1e-5, most=300)[0].reshape(shape)


def _told(
    table: npt.NDArray[np.float32], windows: npt.NDArray[np.int64], weights: Floats
) -> npt.NDArray[np.int64]:
    """[n] number of the likeliest tag."""
    step = 1 << 15
    parts = [
        (_features(table, windows[i : i + step]) @ weights).argmax(1)
        for i in range(0, len(windows), step)
    ]
    return np.concatenate(parts)
