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


TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "kenlm_score": kenlm_score,
    "nltk_train": nltk_train,
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
