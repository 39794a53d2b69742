"""A classifier of texts by their hashed n-grams of words.

Tom Brown et al., "Language Models are Few-Shot Learners", 2020, appendix A: logistic regression
tells good texts (a corpus of repute) from others, and a text is kept if its score is high, or by
chance a little lower.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from sharpen.core.errors import ConfigError, DataError, FileFormatError
from sharpen.data.columns import Given, columns_of
from sharpen.data.model_file import load_arrays, reading, save_arrays
from sharpen.data.quality.features import Sparse, hashed_words, joined
from sharpen.data.quality.logistic import fit, sigmoid
from sharpen.data.quality.metrics import Metrics, evaluate
from sharpen.data.statistics import Texts

__all__ = ["QualityModel", "train"]

_KIND = "sharpen-quality"


@dataclass(frozen=True)
class QualityModel:
    """Weights of hashed n-grams."""

    weights: npt.NDArray[np.float32]
    """[2^bits]"""

    intercept: float

    order: int
    """Most words of an n-gram."""

    metrics: Metrics
    """Of the texts that were held out."""

    about: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on."""

    @property
    def bits(self) -> int:
        """Of the number of buckets."""
        return len(self.weights).bit_length() - 1

    def score(self, texts: Texts) -> npt.NDArray[np.float64]:
        """[n] probability that each text is good, if good ones are as frequent as in training."""
        rows = hashed_words(texts.words, self.order, self.bits)
        return sigmoid(rows.times(self.weights.astype(np.float64)) + self.intercept)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file.

        Raises:
            StorageError: the disk is full, or may not be written.
        """
        about = {
            "intercept": self.intercept,
            "order": self.order,
            "metrics": self.metrics.to_json(),
            "about": dict(self.about),
        }
        save_arrays(path, _KIND, {"weights": self.weights}, about)

    @classmethod
    def load(cls, path: str | Path) -> QualityModel:
        """A model of a file that :meth:`save` wrote.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: it is something else, or damaged.
        """
        arrays, about = load_arrays(path, _KIND)
        with reading(path):
            weights = arrays["weights"]
            metrics = Metrics(**about["metrics"])
            made = cls(
                weights, float(about["intercept"]), int(about["order"]), metrics, about["about"]
            )
        if weights.ndim != 1 or len(weights) != 1 << made.bits or made.order < 1:
            raise FileFormatError(f"{path} is damaged: {weights.shape} weights.")
        return made


def train(
    good: Given,
    bad: Given,
    *,
    order: int = 2,
    bits: int = 18,
    strength: float = 100.0,
    held_out: float = 0.1,
    seed: int = 0,
    text_key: str = "text",
) -> QualityModel:
    """Learn to tell good texts from bad ones; the same texts give the same model.

    Args:
        good: what is wanted; see :data:`~sharpen.data.columns.Given`.
        bad: what is not.
        order: most words of an n-gram.
        bits: the n-grams share 2^bits weights; 10 to 28.
        strength: C of the regression; less shrinks the weights more.
        held_out: share of the texts that are not learned from but judge the model, chosen by a hash
            of the text, so that equal texts are on one side.
        seed: of that hash.
        text_key: where a row's text stands in files.

    Raises:
        ConfigError: a setting that cannot be.
        DataError: there are no good texts, or no bad ones, to learn from or to judge by.
    """
    if order < 1:
        raise ConfigError(f"order={order} must be at least 1.")
    if not 10 <= bits <= 28:
        raise ConfigError(f"bits={bits} must lie between 10 and 28.")
    if not strength > 0:
        raise ConfigError(f"strength={strength:g} must be above 0.")
    if not 0 < held_out < 1:
        raise ConfigError(f"held_out={held_out:g} must lie between 0 and 1.")
    parts: list[Sparse] = []
    labels, tests = [], []
    for is_good, given in ((True, good), (False, bad)):
        for texts in columns_of(given, text_key):
            parts.append(hashed_words(texts.words, order, bits))
            labels.append(np.full(len(texts), is_good))
            tests.append(_drawn(texts, seed) < held_out)
    if not parts:
        raise DataError("there are no texts to learn from.")
    rows, label, test = joined(parts), np.concatenate(labels), np.concatenate(tests)
    for name, some in (("learn from", ~test), ("judge by", test)):
        if not (label & some).any() or not (~label & some).any():
            raise DataError(
                f"of {label.sum()} good and {(~label).sum()} bad texts, {(label & some).sum()} and "
                f"{(~label & some).sum()} are there to {name}; give more, or another held_out."
            )
    found = fit(rows.take(~test), label[~test], strength=strength)
    weights = found.weights.astype(np.float32)
    held = rows.take(test)
    scores = sigmoid(held.times(weights.astype(np.float64)) + found.intercept)
    about = {
        "good": int(label.sum()),
        "bad": int((~label).sum()),
        "strength": strength,
        "held_out": held_out,
        "seed": seed,
        "iterations": found.iterations,
        "loss": found.loss,
    }
    return QualityModel(weights, found.intercept, order, evaluate(scores, label[test]), about)


def _drawn(texts: Texts, seed: int) -> npt.NDArray[np.float64]:
    """[n] numbers in [0, 1) by the texts' hashes."""
    whole, ends = texts.data.tobytes(), texts.offsets
    hashes = [xxhash.xxh3_64_intdigest(whole[a:b], seed) for a, b in itertools.pairwise(ends)]
    return (np.array(hashes, np.uint64) >> np.uint64(11)) / 2.0**53
