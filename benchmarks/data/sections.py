"""The numbers of the pages on data, from ``benchmarks/results``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def ngram(document: dict[str, Any], where: str) -> str:
    """Training and scoring beside NLTK and KenLM."""
    r = document["results"]
    train, score, large, versions = r["training"], r["scoring"], r["documentation"], r["versions"]
    nltk = train["tokens"] / statistics.median(train["nltk_cpu_s"])
    lines = [
        "| million words a CPU second, one thread | Sharpen | peer | ratio |",
        "| --- | ---: | ---: | ---: |",
        f"| training, order 3, {train['tokens']:,} words of Brown; NLTK {versions['nltk']}, one "
        f"discount | {train['sharpen_tokens_per_s'] / 1e6:.2f} | {nltk / 1e6:.3f} | "
        f"{train['ratio']:.0f} x |",
        f"| scoring, order 5, {score['tokens']:,} words of Brown that training has not seen; KenLM "
        f"{versions['kenlm']} | {score['sharpen_tokens_per_s'] / 1e6:.1f} | "
        f"{score['kenlm_tokens_per_s'] / 1e6:.1f} | {score['ratio']:.2f} x |",
        "",
        f"The scores of a word differ by {score['largest_gap_a_word']:.1g} at most. Order 5 on "
        f"{large['tokens'] / 1e6:.1f} million words of manuals: {large['cpu_s']:.1f} CPU seconds, "
        f"{sum(large['ngrams']) / 1e6:.1f} million n-grams, "
        f"{(large['rss_peak'] - large['rss_before']) / 2**20:.0f} MiB beside the texts. KenLM's "
        f"own trainer is not in its Python package and was not measured. {where}; "
        "`benchmarks/data/bench_ngram.py`.",
    ]
    return "\n".join(lines)


_QUALITY = {
    "sharpen": "Sharpen, 2^18 buckets",
    "scikit-learn": "HashingVectorizer + LogisticRegression, 2^18 buckets",
    "fasttext": "fastText, its defaults",
    "fasttext-small": "fastText, 2^18 buckets, 10 dimensions, 25 epochs, rate 0.5",
}


def quality(document: dict[str, Any], where: str) -> str:
    """Classifiers beside scikit-learn and fastText."""
    r = document["results"]
    lines = [
        "| | AUC | accuracy | calibration error | CPU s to learn | to score |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, label in _QUALITY.items():
        row = r["mails"]["summary"][name]
        lines.append(
            f"| {label} | {row['auc']:.4f} | {row['accuracy']:.2%} | "
            f"{row['calibration_error']:.4f} | {row['train_cpu_s']:.2f} | "
            f"{row['score_cpu_s']:.3f} |"
        )
    peers = r["mails"]["rows"]["scikit-learn"]["versions"]
    reviews = [f"{name} {row['accuracy']:.0%}" for name, row in r["reviews"]["summary"].items()]
    lines += [
        "",
        f"{r['mails']['texts']:,} e-mails, spam or not, in five folds, n-grams of one and two "
        f"words, one thread; scikit-learn {peers['scikit-learn']}, fastText "
        f"{peers['fasttext-wheel']}. {r['reviews']['texts']} sentences of film reviews are too "
        f"few for any of them: accuracy {', '.join(reviews)}. {where}; "
        "`benchmarks/data/bench_quality.py`.",
    ]
    return "\n".join(lines)


def language(document: dict[str, Any], where: str) -> str:
    """Languages of snippets beside fastText, lingua and CLD2."""
    r, versions = document["results"], document["results"]["versions"]
    names = {
        "sharpen": "`ngram`, trained on such pages",
        "fasttext": "fastText's lid.176.ftz",
        "lingua": f"lingua {versions['lingua-language-detector']}",
        "cld2": f"pycld2 {versions['pycld2']}",
    }
    lines = [
        f"| share told right | {' | '.join(f'{n} characters' for n in r['rows'])} | "
        "texts of 300 a CPU s |",
        f"| --- |{' ---: |' * (len(r['rows']) + 1)}",
    ]
    for name, label in names.items():
        cells = [f"{row[name]['accuracy']:.1%}" for row in r["rows"].values()]
        speed = r["rows"]["300"][name]["texts_per_cpu_s"]
        lines.append(f"| {label} | {' | '.join(cells)} | {speed:,.0f} |")
    train = r["training"]
    lines += [
        "",
        f"Snippets of Linux manual pages in {train['languages']} languages, "
        f"{r['rows']['300']['snippets']} of each length, from pages that training has not seen; it "
        f"took {train['cpu_s']:.1f} CPU seconds for {train['characters'] / 1e6:.0f} million "
        "characters. The others know more languages and have not learned from manual pages, so "
        "this shows what texts of your own kind are worth, no more. Pages hold commands and "
        "paragraphs that nobody has translated yet: nobody can be right about all. "
        f"{where}; `benchmarks/data/bench_language.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "data_language": ("data_language", language),
    "data_ngram": ("data_ngram", ngram),
    "data_quality": ("data_quality", quality),
}
