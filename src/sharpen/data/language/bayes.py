"""A naive Bayes classifier of languages by hashed n-grams of letters, trained on texts of yours.

William Cavnar, John Trenkle, "N-gram-based text categorization", 1994, showed that such n-grams
tell languages; Marco Lui, Timothy Baldwin, "langid.py: An Off-the-shelf Language Identification
Tool", ACL 2012, that naive Bayes over them does. With c the counts of bucket g in texts of language
l, B buckets and a = 1/2::

    log p(g | l) = log (c_lg + a) / (sum_g c_lg + a B)
    p(l | text) = softmax_l( t sum over its n-grams g of log p(g | l) )

All languages are equally likely before. n-grams overlap and are not independent, so that t = 1
would be far too sure; t is the number up to 1 that makes held-out snippets of texts likeliest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError, FileFormatError
from sharpen.data.columns import Given, columns_of
from sharpen.data.language.base import UNKNOWN
from sharpen.data.language.letters import count_letters, score_letters
from sharpen.data.model_file import load_arrays, reading, save_arrays
from sharpen.data.statistics import Texts

__all__ = ["LanguageModel", "train"]

Floats = npt.NDArray[np.float64]

_KIND = "sharpen-language"
_ADDED = 0.5
_HELD_OUT = 10  # every tenth text
_SNIPPET = 200  # code points of a held-out one
_SHARPNESS = np.geomspace(0.005, 1.0, 60)  # values of t that are tried


@dataclass(frozen=True)
class LanguageModel:
    """Log probabilities of n-grams by language; a :class:`~sharpen.data.language.base.Detector`."""

    table: npt.NDArray[np.float32]
    """[2^bits, languages] log p(g | l)."""

    languages: tuple[str, ...]

    order: int
    """Most letters of an n-gram."""

    sharpness: float
    """t."""

    about: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on, and how often it was right."""

    def probabilities(self, texts: Texts) -> Floats:
        """[n, languages] of each text; equal for a text without letters."""
        return _softmax(self.sharpness * score_letters(texts, self.order, self.table))

    def detect(self, texts: Texts) -> tuple[list[str], Floats]:
        """[n] the likeliest language of each text, and [n] its probability; 0 without letters."""
        logits = score_letters(texts, self.order, self.table)
        found = _softmax(self.sharpness * logits)
        best = found.argmax(1)
        known: npt.NDArray[np.bool_] = np.abs(logits).max(1) > 0
        codes = [self.languages[b] if k else UNKNOWN for b, k in zip(best, known, strict=True)]
        return codes, np.where(known, found.max(1), 0.0)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file.

        Raises:
            StorageError: the disk is full, or may not be written.
        """
        about = {
            "languages": list(self.languages),
            "order": self.order,
            "sharpness": self.sharpness,
            "about": dict(self.about),
        }
        save_arrays(path, _KIND, {"table": self.table}, about)

    @classmethod
    def load(cls, path: str | Path) -> LanguageModel:
        """A model of a file that :meth:`save` wrote.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: it is something else, or damaged.
        """
        arrays, about = load_arrays(path, _KIND)
        with reading(path):
            table, languages = arrays["table"], tuple(map(str, about["languages"]))
            order, sharpness = int(about["order"]), float(about["sharpness"])
            made = cls(table, languages, order, sharpness, about["about"])
        buckets = table.shape[0]
        if table.ndim != 2 or table.shape[1] != len(languages) or buckets & (buckets - 1):
            raise FileFormatError(f"{path} is damaged: a table of {table.shape}.")
        return made


def train(
    texts: Mapping[str, Given], *, order: int = 4, bits: int = 17, text_key: str = "text"
) -> LanguageModel:
    """Learn languages; every tenth text of each is held out and judges the model.

    Args:
        texts: by the language's code; see :data:`~sharpen.data.columns.Given`.
        order: most letters of an n-gram.
        bits: n-grams share 2^bits places; 8 to 24.
        text_key: where a row's text stands in files.

    Raises:
        ConfigError: a setting that cannot be, or fewer than two languages.
        DataError: a language has fewer than two texts, or texts without letters.
    """
    if order < 1:
        raise ConfigError(f"order={order} must be at least 1.")
    if not 8 <= bits <= 24:
        raise ConfigError(f"bits={bits} must lie between 8 and 24.")
    if len(texts) < 2:
        raise ConfigError(f"{len(texts)} languages cannot be told apart; give two or more.")
    counts = np.zeros((1 << bits, len(texts)), np.int64)
    snippets: list[str] = []
    labels: list[int] = []
    numbers = {}
    for i, (code, given) in enumerate(texts.items()):
        number = 0
        for column in columns_of(given, text_key):
            where = np.arange(number, number + len(column))
            number += len(column)
            held = where % _HELD_OUT == _HELD_OUT - 1 if number >= _HELD_OUT else where == 1
            strings = column.strings
            learned = Texts([t for t, h in zip(strings, held, strict=True) if not h])
            counts[:, i] += count_letters(learned, order, bits)
            snippets += [t[:_SNIPPET] for t, h in zip(strings, held, strict=True) if h]
            labels += [i] * int(held.sum())
        if number < 2 or not counts[:, i].any():
            raise DataError(f"language {code} has {number} texts; it needs two with letters.")
        numbers[code] = number
    smoothed = counts + _ADDED
    table = np.log(smoothed / smoothed.sum(0)).astype(np.float32)
    logits, label = score_letters(Texts(snippets), order, table), np.array(labels)
    losses = [_loss(t * logits, label) for t in _SHARPNESS]
    about = {
        "texts": numbers,
        "held_out": len(label),
        "accuracy": float((logits.argmax(1) == label).mean()),
    }
    return LanguageModel(table, tuple(texts), order, float(_SHARPNESS[np.argmin(losses)]), about)


def _softmax(logits: Floats) -> Floats:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)  # type: ignore[no-any-return]


def _loss(logits: Floats, label: npt.NDArray[np.int64]) -> float:
    right = _softmax(logits)[np.arange(len(label)), label]
    return float(-np.log(np.maximum(right, 1e-300)).mean())
