"""BM25: which chunks share rare words with a question.

Robertson, Zaragoza, *The Probabilistic Relevance Framework: BM25 and Beyond*, 2009; the variant of
Lucene 8 and later, which leaves out the constant factor ``k1 + 1``::

    score(q, d) = sum over words t of q:  idf(t) * f / (f + k1 * (1 - b + b * |d| / avg |d|))
    idf(t)      = ln(1 + (N - n(t) + 1/2) / (n(t) + 1/2))

``f`` is how often t is in d, ``n(t)`` how many of the N documents have it.

All scores of word and document are computed while indexing and kept by word in a sparse matrix;
a search adds the columns of the question's words. Memory: 12 bytes for each pair of a document and
a word of it. Time of a search: documents that have one of the words, and N to find the best.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.files import atomic_write_bytes
from sharpen.text.rag.chunks import Chunk, as_chunks
from sharpen.text.rag.tokens import words_of

__all__ = ["BM25Index"]

Scores = npt.NDArray[np.float64]
Words = Callable[[str], Sequence[str]]

_FORMAT = 1


class BM25Index:
    """Scores chunks against questions.

    Args:
        chunks: what is searched, chunks or plain texts.
        k1: how soon more of the same word stops counting.
        b: how much long chunks lose, from 0 to 1.
        words: the words of a text; the default splits at what is no letter, digit or underscore, in
            lower case. A saved index is searched with the same function.

    Raises:
        ConfigError: ``k1`` or ``b`` is out of range, or two chunks have one id.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk | str],
        *,
        k1: float = 1.5,
        b: float = 0.75,
        words: Words = words_of,
    ) -> None:
        if not k1 >= 0 or not 0 <= b <= 1:
            raise ConfigError(f"k1={k1} must be at least 0 and b={b} from 0 to 1 (BM25Index).")
        self.chunks = as_chunks(chunks)
        self.k1, self.b, self._words = k1, b, words
        self.vocabulary: dict[str, int] = {}
        ids, owners = self._read()
        n = len(self.chunks)
        # One key for each pair of word and document, sorted by word: counts are runs of equal keys.
        keys, frequency = np.unique(ids * max(n, 1) + owners, return_counts=True)
        column, self._rows = np.divmod(keys, max(n, 1))
        self._rows = self._rows.astype(np.int32)
        held = np.bincount(column, minlength=len(self.vocabulary))  # documents with the word
        self._starts = np.concatenate([[0], np.cumsum(held)])
        self.idf: Scores = np.log1p((n - held + 0.5) / (held + 0.5))
        length = np.bincount(owners, minlength=n).astype(np.float64)
        norm = k1 * (1 - b + b * length / max(length.mean(), 1e-300)) if n else length
        self._scores = self.idf[column] * frequency / (frequency + norm[self._rows])

    def _read(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The word and the document of every place in the chunks."""
        vocabulary = self.vocabulary
        found: list[int] = []
        lengths = np.zeros(len(self.chunks), np.int64)
        for i, chunk in enumerate(self.chunks):
            words = self._words(chunk.text)
            lengths[i] = len(words)
            found += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
        return np.array(found, np.int64), np.repeat(np.arange(len(lengths)), lengths)

    def __len__(self) -> int:
        return len(self.chunks)

    def scores(self, query: str) -> Scores:
        """[chunks] scores; 0 where no word is shared. A word asked twice counts twice."""
        total = np.zeros(len(self.chunks))
        for word in self._words(query):
            i = self.vocabulary.get(word)
            if i is not None:
                some = slice(self._starts[i], self._starts[i + 1])
                total[self._rows[some]] += self._scores[some]
        return total

    def search(self, query: str, k: int = 60) -> list[tuple[Chunk, float]]:
        """The ``k`` best chunks that share a word with the question, best first.

        Equal scores stay in the order of the chunks.
        """
        total = self.scores(query)
        if 0 < k < len(total):
            least = np.partition(total, len(total) - k)[len(total) - k]
            some = np.flatnonzero((total >= least) & (total > 0))
        else:
            some = np.flatnonzero(total > 0)
        order = some[np.argsort(-total[some], kind="stable")][: max(k, 0)]
        return [(self.chunks[i], float(total[i])) for i in order]

    def weights(self) -> dict[str, float]:
        """The idf of each word."""
        return {word: float(self.idf[i]) for word, i in self.vocabulary.items()}

    def save(self, path: str | Path, **more: np.ndarray) -> None:
        """Write chunks and scores to a file (NumPy's npz); whole, or not at all.

        Args:
            path: the file.
            more: other arrays that belong to the chunks.

        Raises:
            StorageError: it cannot be written.
        """
        buffer = io.BytesIO()
        texts = {
            "vocabulary": list(self.vocabulary),
            "ids": [chunk.id for chunk in self.chunks],
            "texts": [chunk.text for chunk in self.chunks],
            "sources": [chunk.source for chunk in self.chunks],
        }
        arrays = {"format": np.array(_FORMAT), "parameters": np.array([self.k1, self.b])}
        for name, some in texts.items():
            arrays |= _packed(name, some)
        arrays["tokens"] = np.array([chunk.tokens for chunk in self.chunks], np.int64)
        arrays |= {"rows": self._rows, "starts": self._starts, "idf": self.idf}
        arrays["scores"] = self._scores
        np.savez(buffer, allow_pickle=False, **arrays, **more)
        atomic_write_bytes(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path, *, words: Words = words_of) -> BM25Index:
        """Read what :meth:`save` wrote.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: it is damaged, or no index.
        """
        if not Path(path).is_file():
            raise MissingFileError(
                f"there is no index {path}. Make it: sharpen text rag index FOLDER -o {path}"
            )
        index = cls.__new__(cls)
        index._words = words
        try:
            data = io.BytesIO(Path(path).read_bytes())
            with np.load(data, allow_pickle=False) as file:
                if int(file["format"]) != _FORMAT:
                    raise FileFormatError(f"{path} has format {file['format']}, not {_FORMAT}.")
                held = {n: _unpacked(file, n) for n in ("vocabulary", "ids", "texts", "sources")}
                tokens = [int(n) for n in file["tokens"]]
                index.k1, index.b = map(float, file["parameters"])
                index._rows, index._starts = file["rows"], file["starts"]
                index.idf, index._scores = file["idf"], file["scores"]
            index.chunks = [
                Chunk(*one)
                for one in zip(held["ids"], held["texts"], tokens, held["sources"], strict=True)
            ]
            index.vocabulary = {word: i for i, word in enumerate(held["vocabulary"])}
            index._check()
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"{path} is no index of chunks, or damaged: {error}.") from None
        return index

    def _check(self) -> None:
        """That the arrays of a file fit each other."""
        pairs = len(self._rows)
        is_sound = (
            len(self._starts) == len(self.vocabulary) + 1 == len(self.idf) + 1
            and len(self._scores) == pairs == int(self._starts[-1])
            and bool((np.diff(self._starts) >= 0).all())
            and (not pairs or 0 <= self._rows.min() <= self._rows.max() < len(self.chunks))
        )
        if not is_sound:
            raise ValueError("its arrays do not fit each other")


def _packed(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as bytes and where each ends; an array of objects would need pickle."""
    coded = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum([len(one) for one in coded], dtype=np.int64)
    return {name: np.frombuffer(b"".join(coded), np.uint8), f"{name}_ends": ends}


def _unpacked(file: np.lib.npyio.NpzFile, name: str) -> list[str]:
    data, ends = file[name].tobytes(), file[f"{name}_ends"].tolist()
    if len(data) != (ends[-1] if ends else 0):
        raise ValueError(f"{name} is cut off")
    starts = [0, *ends][: len(ends)]
    return [data[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)]
