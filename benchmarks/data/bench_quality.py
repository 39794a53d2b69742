"""Classifiers of texts: accuracy and CPU time beside fastText and scikit-learn.

    BENCH_CORPORA=FOLDER BENCH_PEERS_PYTHON=/path/to/python python -m benchmarks.data.bench_quality

Two real sets: e-mails that are spam or not (SpamAssassin's, each text once) and sentences of film
reviews (Pang and Lee), in five folds by a hash of the text; each method learns from four and is
judged by the fifth. All see n-grams of one and two words and run on one thread; CPU seconds are
those of learning and of scoring, reading left out.
"""

from __future__ import annotations

import statistics
import sys
import time
import zlib
from typing import Any

import numpy as np
from benchmarks.common import arguments, draw_bars, save
from benchmarks.data import corpora
from benchmarks.data.beside import ask_peer, has_peers

FOLDS = 5
BITS, STRENGTH = 18, 100.0
FASTTEXT: dict[str, dict[str, Any]] = {
    "fasttext": {},
    "fasttext-small": {"dim": 10, "bucket": 1 << BITS, "epoch": 25, "lr": 0.5},
}


def _ours(given: dict[str, Any]) -> dict[str, Any]:
    from sharpen.data.quality.features import hashed_words
    from sharpen.data.quality.logistic import fit, sigmoid
    from sharpen.data.statistics import Texts

    begin = time.process_time()
    rows = hashed_words(Texts(given["train"]).words, 2, BITS)
    model = fit(rows, np.array(given["good"]), strength=STRENGTH)
    spent = time.process_time() - begin
    begin = time.process_time()
    held = hashed_words(Texts(given["test"]).words, 2, BITS)
    scores = sigmoid(held.times(model.weights) + model.intercept).tolist()
    return {"train_cpu_s": spent, "score_cpu_s": time.process_time() - begin, "scores": scores}


def _measure(texts: list[str], good: list[bool], folds: int) -> dict[str, Any]:
    from sharpen.data.quality import evaluate

    fold = [zlib.crc32(text.encode()) % FOLDS for text in texts]
    found: dict[str, dict[str, list[Any]]] = {}
    for k in range(folds):
        given = {
            "train": [t for t, f in zip(texts, fold, strict=True) if f != k],
            "good": [g for g, f in zip(good, fold, strict=True) if f != k],
            "test": [t for t, f in zip(texts, fold, strict=True) if f == k],
            "bits": BITS,
            "C": STRENGTH,
            "seed": k,
        }
        labels = np.array([g for g, f in zip(good, fold, strict=True) if f == k])
        answers = {"sharpen": _ours(given)}
        if has_peers():
            answers["scikit-learn"] = ask_peer("sklearn_quality", given)
            for name, options in FASTTEXT.items():
                answers[name] = ask_peer("fasttext_quality", {**given, "options": options})
        for name, answer in answers.items():
            row = found.setdefault(name, {"train_cpu_s": [], "score_cpu_s": [], "metrics": []})
            row["train_cpu_s"].append(answer["train_cpu_s"])
            row["score_cpu_s"].append(answer["score_cpu_s"])
            row["metrics"].append(evaluate(np.array(answer["scores"]), labels).to_json())
            if "versions" in answer:
                row["versions"] = answer["versions"]
    summary = {}
    for name, row in found.items():
        each = row["metrics"]
        summary[name] = {
            key: statistics.mean(m[key] for m in each)
            for key in ("auc", "accuracy", "log_loss", "calibration_error")
        }
        for key in ("train_cpu_s", "score_cpu_s"):
            summary[name][key] = statistics.median(row[key])
    return {"texts": len(texts), "good": int(sum(good)), "rows": found, "summary": summary}


def main() -> int:
    args = arguments(__doc__, "data_quality")
    results: dict[str, Any] = {}
    if args.quick:
        pages = corpora.own_pages()
        lines = [line for page in pages for line in page.splitlines() if len(line) > 40]
        marked = [line.startswith(("|", "- ", "#")) for line in lines]
        results["lines"] = _measure(lines, marked, 1)
    else:
        texts, spam = corpora.mails()
        once = {text: not bad for text, bad in zip(texts, spam, strict=True)}
        results["mails"] = _measure(list(once), list(once.values()), FOLDS)
        results["reviews"] = _measure(*corpora.reviews(), FOLDS)

    def plot(figure: Any) -> None:
        one, two = figure.subplots(1, 2)
        groups = list(results)
        names = list(results[groups[0]]["summary"])
        for axes, key, label in (
            (one, "accuracy", "accuracy"),
            (two, "train_cpu_s", "CPU seconds of learning"),
        ):
            series = {n: [results[g]["summary"][n][key] for g in groups] for n in names}
            draw_bars(axes, y_label=label, groups=groups, series=series)
        two.set_yscale("log")
        one.set_ylim(0.4, 1.1)

    save(args, results, config={"bits": BITS, "C": STRENGTH, "fasttext": FASTTEXT}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
