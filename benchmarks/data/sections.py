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


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "data_ngram": ("data_ngram", ngram),
}
