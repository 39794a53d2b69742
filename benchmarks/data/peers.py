"""Other packages' tools for texts, in an interpreter of their own; nothing here needs Sharpen.

python peers.py TASK INPUT.json OUTPUT.json

Each task reads its input, does its work, and writes what came of it with the CPU seconds of the
work alone, imports and reading left out.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

__all__: list[str] = []


def kenlm_score(given: dict[str, Any]) -> dict[str, Any]:
    """log10 of texts under an ARPA file."""
    import kenlm

    begin = time.process_time()
    model = kenlm.Model(given["arpa"])
    loaded = time.process_time() - begin
    begin = time.process_time()
    scores = [model.score(text) for text in given["texts"]]
    spent = time.process_time() - begin
    parts = [[s for s, _, _ in model.full_scores(text)] for text in given["texts"][:3]]
    return {"cpu_s": spent, "load_cpu_s": loaded, "scores": scores, "parts": parts}


def nltk_train(given: dict[str, Any]) -> dict[str, Any]:
    """Interpolated Kneser-Ney of one discount, and the log2 it gives to texts."""
    from nltk.lm import KneserNeyInterpolated
    from nltk.lm.preprocessing import padded_everygram_pipeline

    sentences = [text.split() for text in given["texts"]]
    begin = time.process_time()
    grams, words = padded_everygram_pipeline(given["order"], sentences)
    model = KneserNeyInterpolated(given["order"])
    model.fit(grams, words)
    return {"cpu_s": time.process_time() - begin}


def fasttext_quality(given: dict[str, Any]) -> dict[str, Any]:
    """Supervised fastText with bigrams of words; scores of the texts of the test."""
    import os
    import tempfile

    import fasttext

    def line(text: str) -> str:
        return " ".join(text.lower().split())

    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
        for text, good in zip(given["train"], given["good"], strict=True):
            file.write(f"__label__{'good' if good else 'bad'} {line(text)}\n")
    begin = time.process_time()
    model = fasttext.train_supervised(
        file.name, wordNgrams=2, thread=1, verbose=0, seed=given["seed"], **given["options"]
    )
    spent = time.process_time() - begin
    os.unlink(file.name)  # noqa: PTH108
    begin = time.process_time()
    scores = []
    for text in given["test"]:
        pairs = model.f.predict(line(text) + "\n", 2, 0.0, "strict")
        found = {label: p for p, label in pairs}
        scores.append(min(1.0, found.get("__label__good", 0.0)))
    return {"train_cpu_s": spent, "score_cpu_s": time.process_time() - begin, "scores": scores}


def sklearn_quality(given: dict[str, Any]) -> dict[str, Any]:
    """HashingVectorizer and LogisticRegression; scores of the texts of the test."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    begin = time.process_time()
    vectorizer = HashingVectorizer(ngram_range=(1, 2), n_features=1 << given["bits"])
    model = LogisticRegression(C=given["C"], max_iter=500)
    model.fit(vectorizer.transform(given["train"]), given["good"])
    spent = time.process_time() - begin
    begin = time.process_time()
    scores = model.predict_proba(vectorizer.transform(given["test"]))[:, 1].tolist()
    return {"train_cpu_s": spent, "score_cpu_s": time.process_time() - begin, "scores": scores}


TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "kenlm_score": kenlm_score,
    "nltk_train": nltk_train,
    "fasttext_quality": fasttext_quality,
    "sklearn_quality": sklearn_quality,
}


def main() -> None:
    task, source, target = sys.argv[1:]
    with open(source) as file:  # noqa: PTH123
        given = json.load(file)
    found = TASKS[task](given)
    from importlib import metadata

    names = ("kenlm", "nltk", "gensim", "scikit-learn", "fasttext-wheel", "numpy", "scipy")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    with open(target, "w") as file:  # noqa: PTH123
        json.dump({**found, "versions": versions}, file)


if __name__ == "__main__":
    main()
