"""Which of many programs are like one: TF-IDF over tokens, names and numbers made alike.

Shypula et al., *Learning Performance-Improving Code Edits*, ICLR 2024, section 3.1, retrieve with
embeddings of a code model; an ``embed`` function brings those.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sharpen.code.training_data.prompts import Pair
from sharpen.core.errors import ConfigError

__all__ = ["Retriever", "normalized_tokens"]

_WORD = re.compile(r"[A-Za-z_]\w*|\d[\w.]*|\S")
Embed = Callable[[Sequence[str]], npt.ArrayLike]


def normalized_tokens(program: str) -> list[str]:
    """Tokens of a program: names that it chooses are ``name``, numbers ``number``, texts ``text``.

    Names after a dot, keywords, and what is called stay, since these are what programs share. What
    is no Python is split at words and signs.
    """
    try:
        stream = list(tokenize.generate_tokens(io.StringIO(program).readline))
    except (tokenize.TokenError, SyntaxError):
        return _WORD.findall(program)
    found: list[str] = []
    for at, token in enumerate(stream):
        if token.type == tokenize.NAME:
            before = stream[at - 1].string if at else ""
            after = stream[at + 1].string if at + 1 < len(stream) else ""
            stays = keyword.iskeyword(token.string) or before == "." or after == "("
            found.append(token.string if stays and before != "def" else "name")
        elif token.type == tokenize.NUMBER:
            found.append("number")
        elif token.type == tokenize.STRING:
            found.append("text")
        elif token.type == tokenize.OP:
            found.append(token.string)
    return found


class Retriever:
    """Finds the pairs whose slow programs are most like a program.

    Args:
        pairs: to choose from.
        embed: from programs to vectors [programs, width]; TF-IDF over single tokens and pairs of
            neighbours without it.

    Raises:
        ConfigError: there are no pairs.
    """

    def __init__(self, pairs: Sequence[Pair], *, embed: Embed | None = None) -> None:
        if not pairs:
            raise ConfigError("there are no pairs to choose examples from.")
        self.pairs = list(pairs)
        slow = [pair.slow for pair in pairs]
        if embed is None:
            self._terms, self._weights = _vocabulary(slow)
            embed = self._tf_idf
        self._embed = embed
        self._vectors = _unit(embed(slow))

    def nearest(self, program: str, k: int = 4) -> list[Pair]:
        """The k most like it, the most like last, as examples of a prompt stand best.

        Args:
            program: to make faster; a pair of exactly it is left out.
            k: how many; fewer where there are not so many.
        """
        likeness = self._vectors @ _unit(self._embed([program]))[0]
        order = np.argsort(-likeness, kind="stable")
        chosen = [self.pairs[i] for i in order if self.pairs[i].slow != program][:k]
        return chosen[::-1]

    def _tf_idf(self, programs: Sequence[str]) -> npt.NDArray[np.float64]:
        found = np.zeros((len(programs), len(self._terms)))
        for row, program in zip(found, programs, strict=True):
            for term, count in Counter(_terms(program)).items():
                place = self._terms.get(term)
                if place is not None:
                    row[place] = (1 + np.log(count)) * self._weights[place]
        return found


def _terms(program: str) -> list[str]:
    tokens = normalized_tokens(program)
    return [*tokens, *map(" ".join, pairwise(tokens))]


def _vocabulary(programs: Sequence[str]) -> tuple[dict[str, int], npt.NDArray[np.float64]]:
    """The place of each term, and ``ln((1 + n) / (1 + n of the term)) + 1``."""
    counts: Counter[str] = Counter()
    for program in programs:
        counts.update(set(_terms(program)))
    places = {term: i for i, term in enumerate(sorted(counts))}
    having = np.array([counts[term] for term in places], np.float64)
    return places, np.log((1 + len(programs)) / (1 + having)) + 1


def _unit(vectors: npt.ArrayLike) -> npt.NDArray[np.float64]:
    x = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1.0)
