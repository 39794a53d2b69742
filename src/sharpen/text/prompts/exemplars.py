"""Solved examples to show: where they come from, and which are alike.

A pool fills itself from evaluations: a reply that was right becomes an exemplar of its example, at
no cost. Before anything was evaluated the labels of the training examples stand in for replies.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sharpen.text.listing import shown
from sharpen.text.prompts.task import Example, Exemplar

if TYPE_CHECKING:
    from sharpen.text.prompts.evaluator import Evaluation

__all__ = ["ExemplarPool", "Nearest", "vectors"]

_WORD = re.compile(r"\w+")
_RIGHT = 1.0 - 1e-9


class ExemplarPool:
    """Exemplars by the example they are of; the first right reply of each is kept.

    Args:
        labelled: examples whose labels are exemplars from the start.
    """

    def __init__(self, labelled: Sequence[Example] = ()) -> None:
        self._found = {e.id: Exemplar(e.input, shown(e.output), e.id) for e in labelled}
        self._inputs = {_text(e.input) for e in labelled}

    def add(self, evaluation: Evaluation) -> int:
        """Take the right replies of an evaluation; returns how many were new."""
        before = len(self._found)
        for outcome in evaluation.outcomes:
            example = outcome.example
            text = _text(example.input)
            if (
                outcome.score >= _RIGHT
                and example.id not in self._found
                and (text not in self._inputs)
            ):
                self._found[example.id] = Exemplar(example.input, outcome.reply.strip(), example.id)
                self._inputs.add(text)
        return len(self._found) - before

    @property
    def exemplars(self) -> list[Exemplar]:
        """All, in order of arrival."""
        return list(self._found.values())

    def __len__(self) -> int:
        return len(self._found)


def _text(values: Mapping[str, Any]) -> str:
    return " ".join(shown(value) for value in values.values())


def vectors(texts: Sequence[str]) -> tuple[np.ndarray, dict[str, int], np.ndarray]:
    """Texts as directions: TF-IDF of their words, each of length 1.

    Returns:
        [n, v] float64 vectors, the column of each word, and [v] the weight of each word,
        ``1 + ln((1 + n) / (1 + documents with it))``.
    """
    counts = [Counter(_WORD.findall(text.casefold())) for text in texts]
    words = {word: k for k, word in enumerate(dict.fromkeys(w for c in counts for w in c))}
    documents = Counter(word for count in counts for word in count)
    idf = np.array([1 + math.log((1 + len(texts)) / (1 + documents[w])) for w in words])
    x = np.zeros((len(texts), len(words)))
    for row, count in enumerate(counts):
        for word, k in count.items():
            x[row, words[word]] = k
    x *= idf
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1), words, idf


class Nearest:
    """Finds the exemplars most like an input, by the cosine of TF-IDF vectors.

    Args:
        exemplars: to choose from.
    """

    def __init__(self, exemplars: Sequence[Exemplar]) -> None:
        self.exemplars = list(exemplars)
        self._x, self._words, self._idf = vectors([_text(one.input) for one in self.exemplars])

    def find(self, example: Example, count: int) -> list[Exemplar]:
        """The ``count`` nearest that are not of the example itself, the nearest last."""
        query = np.zeros(len(self._words))
        for word, k in Counter(_WORD.findall(_text(example.input).casefold())).items():
            if word in self._words:
                query[self._words[word]] = k
        order = np.argsort(-(self._x @ (query * self._idf)), kind="stable")
        near = [self.exemplars[k] for k in order if self.exemplars[k].id != example.id]
        return near[:count][::-1]
