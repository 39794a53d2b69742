"""Word vectors from codes: fitted in one pass over a corpus, deterministic, without training.

Haoran Zhao, Jake Ryland Williams, "Bit Cipher: A Simple yet Powerful Word Representation System
that Integrates Efficiently with Language Models", 2023; the codes are in
:mod:`sharpen.data.bitcipher.codes`, the sums in :mod:`sharpen.data.bitcipher.contexts`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sharpen.core.config import from_dict, to_dict
from sharpen.core.errors import ConfigError, DataError, DependencyNotInstalled, FileFormatError
from sharpen.data.bitcipher.codes import make_codes, noise
from sharpen.data.bitcipher.contexts import WEIGHTS, context_vectors
from sharpen.data.bitcipher.documents import Documents, rank_words, read_documents
from sharpen.data.model_file import load_arrays, reading, save_arrays

__all__ = ["BitCipher", "WordVectors"]

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_KIND = "sharpen-bitcipher"
_Mode = Literal["sum", "concat"]
_Weight = Literal["count", "log", "ppmi"]
_Order = Literal["colex", "lex", "balanced"]
_Noise = Literal["none", "uniform", "frequency"]


@dataclass(frozen=True, kw_only=True)
class BitCipher:
    """How vectors are made of a corpus."""

    bits: int = 100
    """b; the dimensions of ``sum``."""

    window: int = 4
    """m: words to the left and to the right that count as contexts."""

    mode: _Mode = "sum"
    """All offsets together, or a block of b dimensions for each of 2 m."""

    weight: _Weight = "log"
    """Of a context that occurs c times: c, log(1 + c), or positive pointwise mutual information."""

    order: _Order = "colex"
    """Of codes with equally many bits."""

    noise: _Noise = "none"
    """Chance that other bits than the code's fire: none, q for all, or more for rarer words."""

    q: float = 0.1
    """That chance."""

    own_code: bool = False
    """Put the word's own b code bits before its contexts."""

    center: bool = False
    """Subtract the mean over the corpus, which frequent words have most of."""

    normalize: bool = True
    """Give all vectors length 1."""

    min_count: int = 5
    """Words that occur less often have no vector."""

    max_vocab: int | None = None
    """At most so many words, the most frequent."""

    lowercase: bool = False
    """Take upper and lower case for equal."""

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, least in (("bits", 1), ("window", 1), ("min_count", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least}.")
        if self.max_vocab is not None and self.max_vocab < 1:
            raise ConfigError(f"max_vocab={self.max_vocab} must be at least 1.")
        for name, allowed in (
            ("mode", get_args(_Mode)),
            ("weight", WEIGHTS),
            ("order", get_args(_Order)),
            ("noise", get_args(_Noise)),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} must be one of {', '.join(allowed)}."
                )
        if not 0 <= self.q < 1:
            raise ConfigError(f"q={self.q:g} must be at least 0 and below 1.")

    def fit(self, documents: Documents) -> WordVectors:
        """Vectors of a corpus; the same corpus gives the same bits, whatever the threads.

        Args:
            documents: texts (strings, files, a data set), lists of words, or arrays of token ids,
                whose words are the numbers.

        Raises:
            ConfigError: more words than codes; the message has the least ``bits``.
            DataError: no word is frequent enough, or something else than documents.
        """
        words, tokens = read_documents(documents, window=self.window, lowercase=self.lowercase)
        ranked = rank_words(words, tokens, min_count=self.min_count, max_vocab=self.max_vocab)
        codes = make_codes(ranked.frequencies, self.bits, self.order)
        base, scale = noise(ranked.frequencies, codes, self.noise, self.q)
        vectors = context_vectors(
            ranked.tokens,
            codes,
            base,
            scale,
            window=self.window,
            apart=self.mode == "concat",
            weight=self.weight,
        )
        if self.center:
            share = ranked.frequencies / ranked.frequencies.sum()
            vectors = (vectors - share @ vectors).astype(np.float32)
        if self.own_code:
            own = base[:, None] + scale[:, None] * codes.dense()
            vectors = np.concatenate([own.astype(np.float32), vectors], 1)
        if self.normalize:
            length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            vectors = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
        return WordVectors(ranked.words, vectors, ranked.frequencies, self)


@dataclass(frozen=True)
class WordVectors:
    """A vector for each word of a vocabulary."""

    words: list[str]
    """By rank, the most frequent first."""

    vectors: Vectors
    """[words, dimensions]"""

    frequencies: npt.NDArray[np.int64]
    """[words] how often each occurred."""

    made_by: BitCipher
    """The settings."""

    @functools.cached_property
    def vocab(self) -> dict[str, int]:
        """Rows by word."""
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        """Number of words."""
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        """Whether a word has a vector."""
        return word in self.vocab

    def __getitem__(self, word: str) -> Vectors:
        """[dimensions] the vector of a word."""
        return self.vectors[self._row(word)]  # type: ignore[no-any-return]

    def _row(self, word: str) -> int:
        if word not in self.vocab:
            raise DataError(f"'{word}' has no vector: it is not among the {len(self)} words.")
        return self.vocab[word]

    def most_similar(self, word: str, n: int = 10) -> list[tuple[str, float]]:
        """The words with the largest cosines to a word's vector.

        Raises:
            DataError: the word has no vector.
        """
        row = self._row(word)
        length = np.maximum(np.linalg.norm(self.vectors, axis=1), 1e-12)
        cosine = self.vectors @ self.vectors[row] / (length * length[row])
        cosine[row] = -np.inf
        order = np.argsort(-cosine, kind="stable")[:n]
        return [(self.words[i], float(cosine[i])) for i in order if i != row]

    def transform(self, documents: Iterable[Sequence[str]]) -> Vectors:
        """[n, dimensions] the mean vector of the known words of each; 0 if none is known.

        Args:
            documents: lists of words.
        """
        rows = []
        for document in documents:
            known = [self.vocab[word] for word in document if word in self.vocab]
            mean = self.vectors[known].mean(0) if known else np.zeros(self.vectors.shape[1])
            rows.append(mean.astype(np.float32))
        return np.stack(rows) if rows else np.zeros((0, self.vectors.shape[1]), np.float32)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file.

        Raises:
            StorageError: the disk is full, or may not be written.
        """
        encoded = [word.encode() for word in self.words]
        arrays: dict[str, npt.NDArray[Any]] = {
            "vectors": self.vectors,
            "frequencies": self.frequencies,
            "word_ends": np.cumsum([len(word) for word in encoded], dtype=np.int64),
            "word_bytes": np.frombuffer(b"".join(encoded), np.uint8),
        }
        save_arrays(path, _KIND, arrays, to_dict(self.made_by))

    @classmethod
    def load(cls, path: str | Path) -> WordVectors:
        """Vectors of a file that :meth:`save` wrote.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: it is something else, or damaged.
        """
        arrays, about = load_arrays(path, _KIND)
        with reading(path):
            ends, data = arrays["word_ends"].tolist(), arrays["word_bytes"].tobytes()
            words = [data[a:b].decode() for a, b in itertools.pairwise([0, *ends])]
            made = cls(words, arrays["vectors"], arrays["frequencies"], from_dict(BitCipher, about))
        if len(made.vectors) != len(words) or len(made.frequencies) != len(words):
            raise FileFormatError(f"{path} is damaged: {len(words)} words, other vectors.")
        return made

    def to_gensim(self) -> Any:
        """The same as gensim's ``KeyedVectors``.

        Raises:
            DependencyNotInstalled: gensim is missing.
        """
        try:
            from gensim.models import KeyedVectors  # type: ignore[import-not-found]
        except ModuleNotFoundError:
            raise DependencyNotInstalled(
                "KeyedVectors need the package gensim. Install it: pip install gensim"
            ) from None
        found = KeyedVectors(self.vectors.shape[1])
        found.add_vectors(self.words, self.vectors)
        return found

    def init_embedding(
        self,
        embedding: Any,
        vocab: Mapping[str, int] | None = None,
        *,
        scale: float = 1.0,
        seed: int = 0,
    ) -> int:
        """Put the vectors into a language model's embedding, in place.

        They are taken to its width by a random rotation into more dimensions or by their principal
        components, and to the mean and standard deviation 0 and ``scale`` times that which the
        embedding has. Rows of other tokens stay.

        Args:
            embedding: a ``torch.nn.Embedding``.
            vocab: rows by token, as a tokenizer's ``get_vocab()`` says; by default the words are
                the numbers of rows, as after fitting on arrays of ids.
            scale: of the standard deviation.
            seed: of the rotation.

        Returns:
            How many rows were set.

        Raises:
            DataError: no word is a token.
        """
        weight = embedding.weight.data
        numbers = [
            vocab.get(word) if vocab is not None else int(word) if word.isdecimal() else None
            for word in self.words
        ]
        pairs = [(n, i) for i, n in enumerate(numbers) if n is not None and n < len(weight)]
        if not pairs:
            raise DataError("no word of the vectors is a token of the embedding.")
        rows, which = (list(side) for side in zip(*pairs, strict=True))
        made = _resized(self.vectors[which].astype(np.float64), weight.shape[1], seed)
        made *= scale * float(weight.std()) / max(float(made.std()), 1e-12)
        weight[rows] = weight.new_tensor(made)
        return len(rows)


def _resized(vectors: Floats, width: int, seed: int) -> Floats:
    """[n, width] centered vectors; more dimensions keep all distances, fewer the largest spread."""
    centered: Floats = vectors - vectors.mean(0)
    have = vectors.shape[1]
    if have < width:
        drawn = np.random.Generator(np.random.Philox(seed)).standard_normal((width, have))
        axes: Floats = np.linalg.qr(drawn)[0].T
    else:
        axes = np.linalg.eigh(centered.T @ centered)[1][:, ::-1][:, :width]
    return centered if have == width else centered @ axes
