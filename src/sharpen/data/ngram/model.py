"""A language model of n-grams: scores of words and texts, in memory or mapped from a file.

The score of a word is that of the longest n-gram of the model that ends in it; each word of context
that is given up on the way adds its weight (Katz's recursion, as in ARPA files)::

    log p(w | h) = log p(h w)                 if h w is an n-gram of the model
                 = log b(h) + log p(w | h')   else, with h' all of h but its first word

The perplexity of a text is Data-Juicer's: sentences are those of
:func:`~sharpen.data.ngram.counting.split`, L counts their words (``str.split``) and one end each,
and the result is ``10^(-log10 p / L)``, rounded to one decimal; 0 without sentences.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import FileFormatError, MissingFileError, storage_errors
from sharpen.core.files import follow_umask
from sharpen.data.ngram.counting import BEGIN, END, UNKNOWN, split
from sharpen.data.ngram.tables import NONE, PLACE, SLOT, find, index_words, native
from sharpen.data.statistics import Texts, characters
from sharpen.native.build import load

__all__ = ["NgramModel", "load_model"]

Floats = npt.NDArray[np.float64]

_MAGIC = b"SHARPEN-NGRAM\n\0\0"
_ALIGNED = 64


@dataclass(frozen=True)
class NgramModel:
    """N-grams with log10 of their probabilities and backoffs."""

    offsets: npt.NDArray[np.uint64]
    """[words + 1] into ``data``."""

    data: npt.NDArray[np.uint8]
    """UTF-8 of the words by id: ``<unk>``, ``<s>``, ``</s>``, then others."""

    places: npt.NDArray[Any]
    """Table of the words."""

    unigrams: npt.NDArray[np.float32]
    """[words, 2] log10 of probability and backoff."""

    tables: tuple[npt.NDArray[Any], ...]
    """Of 2 .. order words."""

    closed: bool
    """Whether the last words of each n-gram are an n-gram, too, as in all that Sharpen trains."""

    about: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on, and how."""

    @property
    def order(self) -> int:
        """Most words of an n-gram."""
        return 1 + len(self.tables)

    @property
    def ngrams(self) -> list[int]:
        """[order] how many there are of each length."""
        return [len(self.unigrams), *(self._count(table) for table in self.tables)]

    @staticmethod
    def _count(table: npt.NDArray[Any]) -> int:
        return int((table["key"] != np.uint64(0xFFFFFFFFFFFFFFFF)).sum())

    def __repr__(self) -> str:
        counts = ", ".join(map(str, self.ngrams))
        return f"NgramModel(order={self.order}, ngrams=[{counts}])"

    @functools.cached_property
    def ids(self) -> dict[bytes, int]:
        """Ids by the words' UTF-8."""
        whole, ends = self.data.tobytes(), self.offsets.tolist()
        return {whole[a:b]: i for i, (a, b) in enumerate(itertools.pairwise(ends))}

    def scores(self, tokens: Sequence[str], *, begin: bool = True, end: bool = True) -> Floats:
        """Log10 of the probability of each word, and of the end of the sentence last.

        Args:
            tokens: words; those that the model does not know are ``<unk>``.
            begin: whether a sentence begins here.
            end: whether it ends here.

        Returns:
            [tokens + 1], or [tokens] without an end.
        """
        found = [self.ids.get(token.encode(), UNKNOWN) for token in tokens] + [END] * end
        ids = np.array(found, np.uint32)
        library = load("ngram")
        if library is None:
            return np.array(self._scored(ids.tolist(), begin))
        scores = np.empty(len(ids))
        call = native(library, "ngram_score", "nnpppnnpnp")
        call(*self._pointers, len(ids), ids.ctypes.data, begin, scores.ctypes.data)
        return scores

    def score(self, tokens: Sequence[str], *, begin: bool = True, end: bool = True) -> float:
        """Log10 of the probability of a sentence; arguments as of :meth:`scores`."""
        return float(self.scores(tokens, begin=begin, end=end).sum())

    def perplexity(self, text: str) -> float:
        """Of a text, to one decimal; 0 if it has no sentence."""
        return float(self.perplexities(Texts([text]))[0])

    def perplexities(self, texts: Texts) -> Floats:
        """[n] of each text, to one decimal; 0 for those without a sentence."""
        n = len(texts)
        scores, lengths = np.zeros(n), np.zeros(n, np.int64)
        library = load("ngram")
        if library is not None:
            call = native(library, "ngram_texts", "nnpppn" + "np" + "nppp" + "pp")
            known = (len(self.places), self.places.ctypes.data)
            given = (array.ctypes.data for array in (texts.offsets, texts.data, characters().bits))
            found = (scores.ctypes.data, lengths.ctypes.data)
            call(*self._pointers, *known, n, *given, *found)
        else:
            for i, text in enumerate(texts.strings):
                for sentence in split(text):
                    words = [self.ids.get(word, UNKNOWN) for word in sentence.encode().split()]
                    scores[i] += sum(self._scored([*words, END], True))
                    lengths[i] += len(sentence.split()) + 1
        perplexity: Floats = 10.0 ** (-scores / np.maximum(lengths, 1))
        perplexity[lengths == 0] = 0.0
        return perplexity.round(1)

    @functools.cached_property
    def _pointers(self) -> tuple[Any, ...]:
        """What kernels take of the model."""
        sizes = np.array([0, 0, *map(len, self.tables)], np.int64)
        tables = np.array([0, 0, *(t.ctypes.data for t in self.tables)], np.uint64)
        arrays = (self.unigrams.ctypes.data, sizes.ctypes.data, tables.ctypes.data)
        self.__dict__["_held"] = (sizes, tables)
        return (self.order, len(self.unigrams), *arrays, self.closed)

    def _scored(self, ids: Sequence[int], begin: bool) -> list[float]:
        state = [BEGIN] if begin and self.order > 1 else []
        scores = []
        for word in ids:
            total, matched, made = float(self.unigrams[word, 0]), 0, [word]
            for j, node in enumerate(state, start=1):
                slot = NONE
                if node != NONE:
                    key = np.array([node << 32 | word], np.uint64)
                    slot = int(find(key, self.tables[j - 1])[0])
                made.append(slot)
                if slot != NONE:
                    total, matched = float(self.tables[j - 1]["probability"][slot]), j
            for j, node in enumerate(state[matched:], start=matched + 1):
                if node != NONE:
                    held = self.unigrams[:, 1] if j == 1 else self.tables[j - 2]["backoff"]
                    total += float(held[node])
            scores.append(total)
            state = made[: self.order - 1]
        return scores

    def save(self, path: str | Path) -> None:
        """Write a file that :meth:`load` maps into memory.

        Raises:
            StorageError: the disk is full, or may not be written.
        """
        path = Path(path)
        arrays: list[npt.NDArray[Any]] = [
            self.offsets,
            self.data,
            self.places,
            self.unigrams,
            *self.tables,
        ]
        header = {
            "format_version": 1,
            "order": self.order,
            "closed": self.closed,
            "lengths": [len(array) for array in arrays],
            "about": dict(self.about),
        }
        text = json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            temporary = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_MAGIC + len(text).to_bytes(8, "little") + text)
                    for array in arrays:
                        file.write(b"\0" * (-file.tell() % _ALIGNED))
                        file.write(np.ascontiguousarray(array).view(np.uint8).data)
                    file.flush()
                    os.fsync(file.fileno())
                follow_umask(temporary)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    @classmethod
    def load(cls, path: str | Path) -> NgramModel:
        """A model of a file that :meth:`save` wrote, mapped into memory.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: it is something else, or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(f"no such language model: {path}")
        with path.open("rb") as file:
            start = file.read(len(_MAGIC) + 8)
            if start[: len(_MAGIC)] != _MAGIC:
                raise FileFormatError(
                    f"{path} is no language model of Sharpen. ARPA files end in .arpa or .arpa.gz."
                )
            size = int.from_bytes(start[len(_MAGIC) :], "little")
            try:
                header = json.loads(file.read(size))
                order, lengths = int(header["order"]), list(map(int, header["lengths"]))
                closed, about = bool(header["closed"]), header["about"]
            except (ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
                raise FileFormatError(f"{path} is damaged: its header cannot be read.") from error
        if header.get("format_version") != 1:
            raise FileFormatError(f"{path} has format {header.get('format_version')}, not 1.")
        kinds: list[Any] = [np.dtype("<u8"), np.dtype("u1"), PLACE, np.dtype(("<f4", 2))]
        kinds += [SLOT] * (order - 1)
        whole = np.memmap(path, np.uint8, "r")
        place, arrays = len(start) + size, []
        for kind, length in zip(kinds, lengths, strict=False):
            place += -place % _ALIGNED
            end = place + length * kind.itemsize
            if length < 0 or end > len(whole):
                raise FileFormatError(f"{path} is cut short.")
            base = kind.base if kind.shape else kind
            found = np.asarray(whole[place:end]).view(base)
            arrays.append(found.reshape(length, *kind.shape))
            place = end
        if len(arrays) != order + 3 or place != len(whole) or not all(map(len, arrays)):
            raise FileFormatError(f"{path} is damaged: it is not as long as its header says.")
        offsets, data, places, unigrams, *tables = arrays
        _check(path, offsets, data, places, unigrams)
        return cls(offsets, data, places, unigrams, tuple(tables), closed, about)


def _check(path: Path, offsets: Any, data: Any, places: Any, unigrams: Any) -> None:
    """Refuse what would lead a kernel outside its arrays, or around in them for ever."""
    words = len(offsets) - 1
    ids = places["id"][places["id"] != NONE]
    good = (
        words >= 3
        and len(unigrams) == words
        and bool((offsets[1:] >= offsets[:-1]).all())
        and int(offsets[-1]) == len(data)
        and len(ids) < len(places)
        and bool((ids < words).all())
    )
    if not good:
        raise FileFormatError(f"{path} is damaged: its tables do not fit each other.")


def build_model(
    offsets: npt.NDArray[np.uint64],
    data: npt.NDArray[np.uint8],
    unigrams: npt.NDArray[np.float32],
    tables: Sequence[npt.NDArray[Any]],
    *,
    closed: bool,
    about: Mapping[str, Any],
) -> NgramModel:
    """A model of tables, with an index of its words."""
    places = index_words(offsets, data)
    return NgramModel(offsets, data, places, unigrams, tuple(tables), closed, about)


def load_model(path: str | Path) -> NgramModel:
    """A model of a file: ARPA if it ends in ``.arpa`` or ``.arpa.gz``, else Sharpen's own.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: it cannot be read.
    """
    from sharpen.data.ngram.arpa import read_arpa

    name = str(path).lower()
    return read_arpa(path) if name.endswith((".arpa", ".arpa.gz")) else NgramModel.load(path)
