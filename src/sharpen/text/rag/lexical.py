"""A reranker without a model: what of the question a text covers, less what it says twice.

::

    U(text) = [ sum over units u of q in the text:  w_u / (1 + x_u / H) ] / W
              - rho / W * [ weight of all words of the text - weight of its distinct words ]

Units are the question's distinct words and pairs of neighbouring words, where words that more than
half of the chunks have (idf below ln 2) are passed over: "mayor of Arlen" holds the pair "mayor
Arlen". ``w`` is the idf of a word, the mean of both for a pair; ``W`` is the sum over all units of
the question, ``x_u`` the words before the first place of u, ``H`` the ``horizon``. Pairs do not
cross blank lines.

The first sum makes what is relevant and early count, and once; the second makes each repeated word
cost, so a chunk that adds nothing lowers the score. It counts words and does not read: where an
older text contradicts a newer one in a single common word, use a cross-encoder.

The score of a path of chunks extended by each of n others takes one product of a [n, vocabulary]
matrix and a vector: no text is read again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError
from sharpen.text.rag.bm25 import BM25Index
from sharpen.text.rag.tokens import words_of

__all__ = ["LexicalCoverage"]

Floats = npt.NDArray[np.float64]

_PASSED_OVER = math.log(2)
_BLANK = re.compile(r"\n\s*\n")


class LexicalCoverage:
    """Coverage of a question's words and pairs of words, less redundancy.

    Args:
        weights: the idf of words; others weigh as much as the rarest of these. None weighs all 1.
        redundancy: rho, what a repeated word costs.
        horizon: words before a unit at which it counts half.

    Raises:
        ConfigError: ``redundancy`` is negative or ``horizon`` is not positive.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        redundancy: float = 0.02,
        horizon: float = 1000.0,
    ) -> None:
        if not redundancy >= 0 or not horizon > 0:
            raise ConfigError(
                f"redundancy={redundancy} must be at least 0 and horizon={horizon} above 0"
                " (LexicalCoverage)."
            )
        self._weights = dict(weights or {})
        self._rarest = max(self._weights.values(), default=1.0)
        self.redundancy, self.horizon = redundancy, horizon

    @classmethod
    def of(cls, texts: Sequence[str]) -> LexicalCoverage:
        """With the idf of words among some texts."""
        return cls(BM25Index(texts).weights())

    def weight(self, word: str) -> float:
        """Its idf."""
        return self._weights.get(word, self._rarest)

    def units(self, query: str) -> dict[str, float]:
        """Words and pairs of a question and their weights."""
        words = words_of(query)
        units = {word: self.weight(word) for word in words}
        for i, j in self._pairs(words):
            a, b = words[i], words[j]
            units[f"{a} {b}"] = (self.weight(a) + self.weight(b)) / 2
        return units

    def _pairs(self, words: Sequence[str]) -> Iterable[tuple[int, int]]:
        """Places of neighbours among the words that are not passed over."""
        return pairwise(i for i, word in enumerate(words) if self.weight(word) >= _PASSED_OVER)

    def read(self, text: str, units: Mapping[str, int]) -> tuple[list[str], dict[int, int]]:
        """Words of a text, and of each unit in it the words before its first place."""
        words: list[str] = []
        places: dict[int, int] = {}
        for part in _BLANK.split(text):
            before, some = len(words), words_of(part)
            words += some
            for i, word in enumerate(some):
                if word in units:
                    places.setdefault(units[word], before + i)
            for i, j in self._pairs(some):
                if (pair := f"{some[i]} {some[j]}") in units:
                    places.setdefault(units[pair], before + i)
        return words, places

    def score(self, query: str, texts: Sequence[str]) -> Floats:
        """[texts] scores."""
        one = self.incremental(query, texts)
        return one.scores(one.root(), np.arange(len(texts)))

    def incremental(self, query: str, texts: Sequence[str]) -> LexicalStates:
        """For paths of these texts."""
        return LexicalStates(self, query, texts)


@dataclass(frozen=True, slots=True)
class _State:
    covered: Floats  # [units] of the weight, what the path has
    open: Floats  # [units] weights of what it has not
    fresh: Floats  # [vocabulary] weights of words that it has not
    words: int
    repeated: float


class LexicalStates:
    """Coverage of paths of chunks, extended one by one.

    Args:
        reranker: weights and constants.
        query: the question.
        texts: the chunks.
    """

    def __init__(self, reranker: LexicalCoverage, query: str, texts: Sequence[str]) -> None:
        units = reranker.units(query)
        number = {unit: i for i, unit in enumerate(units)}
        vocabulary: dict[str, int] = {}
        found = [reranker.read(text, number) for text in texts]
        distinct = [sorted(set(words)) for words, _ in found]
        for words in distinct:
            for word in words:
                vocabulary.setdefault(word, len(vocabulary))
        self._weights = np.array([reranker.weight(word) for word in vocabulary], np.float64)
        self._unit_weights = np.array(list(units.values()), np.float64)
        self._whole = max(float(self._unit_weights.sum()), 1e-300)
        self._holds = np.zeros((len(texts), len(vocabulary)))
        self._first = np.full((len(texts), len(units)), np.inf)  # [chunks, units] words before
        self._all = np.zeros(len(texts))  # [chunks] weight of all words
        self._length = [len(words) for words, _ in found]
        for i, (words, places) in enumerate(found):
            self._holds[i, [vocabulary[word] for word in distinct[i]]] = 1
            self._all[i] = sum(self._weights[vocabulary[word]] for word in words)
            for unit, place in places.items():
                self._first[i, unit] = place
        self._rho, self._horizon = reranker.redundancy, reranker.horizon

    def root(self) -> _State:
        """Of no chunks."""
        return _State(np.zeros_like(self._unit_weights), self._unit_weights, self._weights, 0, 0.0)

    def _gain(self, state: _State, chunks: np.ndarray) -> Floats:
        """[chunks, units] what each adds to the coverage."""
        gain: Floats = state.open / (1 + (state.words + self._first[chunks]) / self._horizon)
        return gain

    def _repeats(self, state: _State, chunks: np.ndarray) -> Floats:
        """[chunks] weight of the words that each says again."""
        repeats: Floats = self._all[chunks] - self._holds[chunks] @ state.fresh
        return repeats

    def extend(self, state: _State, chunk: int) -> _State:
        """With one chunk more."""
        one = np.array([chunk])
        return _State(
            covered=state.covered + self._gain(state, one)[0],
            open=np.where(np.isfinite(self._first[chunk]), 0.0, state.open),
            fresh=state.fresh * (1 - self._holds[chunk]),
            words=state.words + self._length[chunk],
            repeated=state.repeated + float(self._repeats(state, one)[0]),
        )

    def scores(self, state: _State, chunks: np.ndarray) -> Floats:
        """[chunks] scores of the state with each of them appended."""
        covered = state.covered.sum() + self._gain(state, chunks).sum(axis=1)
        repeated = state.repeated + self._repeats(state, chunks)
        scores: Floats = (covered - self._rho * repeated) / self._whole
        return scores
