"""The numbers of the page on cleaning a corpus, from ``benchmarks/results``."""

from __future__ import annotations

import statistics
from typing import Any

__all__ = ["minhash", "minhash_recall", "recipe"]


def recipe(document: dict[str, Any], where: str) -> str:
    """Whole recipes beside Data-Juicer and datatrove, and what size does to memory."""
    r = document["results"]
    lines = [
        f"MB a CPU second on {r['typical']['documents']:,} documents of "
        f"{r['typical']['bytes'] / 1e6:.1f} MB, starting left out:",
        "",
        "| recipe | Sharpen | peer | ratio | starting, wall seconds | memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    names = {
        "typical": (
            "3 mappers, 10 filters, exact and MinHash",
            "data-juicer",
            "py-data-juicer 1.6.1",
        ),
        "quality": ("rules of C4, Gopher and FineWeb", "datatrove", "datatrove 0.10.1"),
    }
    for part, (title, key, version) in names.items():
        row = r[part]
        ours, theirs = row["sharpen"], row[key]
        rates = [row["bytes"] / 1e6 / statistics.median(s["net_cpu_s"]) for s in (ours, theirs)]
        lines.append(
            f"| {title}; {version} | {rates[0]:.1f} | {rates[1]:.2f} | {row['ratio']:.1f} x | "
            f"{ours['start_wall_s']:.1f} / {theirs['start_wall_s']:.1f} | "
            f"{ours['memory_bytes'] / 1e6:.0f} / {theirs['memory_bytes'] / 1e6:.0f} |"
        )
    typical, quality = r["typical"], r["quality"]
    lines += [
        "",
        f"Of the first recipe Data-Juicer kept {typical['data-juicer']['kept']:,} rows, Sharpen "
        f"{typical['sharpen']['kept']:,}, {typical['only_theirs']} and {typical['only_ours']} of "
        "them alone: MinHash draws other hashes. Of the second datatrove kept "
        f"{quality['datatrove']['kept']:,}, Sharpen {quality['sharpen']['kept']:,}: it takes "
        "punctuation for words (it parts them by spaCy), which many of Gopher's rules count. "
        "Data-Juicer ran two processes with its fusion of operators, datatrove one.",
        "",
    ]
    for size in r["sizes"]:
        lines.append(
            f"- {size['bytes'] / 1e6:,.0f} MB, {size['documents']:,} documents, first recipe: "
            f"{size['cpu_s']:.1f} CPU seconds, {size['wall_s']:.1f} s, "
            f"{size['documents'] / size['wall_s']:,.0f} documents a second, "
            f"{size['memory_bytes'] / 1e6:.0f} MB of memory."
        )
    lines += ["", f"{where}; `benchmarks/data/bench_recipe.py`."]
    return "\n".join(lines)


def minhash(document: dict[str, Any], where: str) -> str:
    """Signatures beside rensa and datasketch, precision and recall, a million documents."""
    r = document["results"]
    row = r["signatures"]
    rates = {
        name: row["bytes"] / 1e6 / statistics.median(row[name])
        for name in ("sharpen", "rensa", "datasketch")
    }
    quality, whole = r["quality"], r["whole"]
    lines = [
        f"MinHash with 256 hashes and shingles of five words, on {row['documents']:,} documents of "
        f"{row['bytes'] / 1e6:.0f} MB, one thread, tokens and shingles made inside: Sharpen "
        f"{rates['sharpen']:.1f} MB a CPU second, rensa 0.5.0 {rates['rensa']:.1f} "
        f"({row['rensa_ratio']:.1f} x), datasketch 2.0.0 {rates['datasketch']:.2f} "
        f"({row['datasketch_ratio']:.0f} x).",
        "",
        "| verify | precision | recall |",
        "| --- | ---: | ---: |",
        *(
            f"| `{name}` | {quality[name]['precision']:.3f} | {quality[name]['recall']:.3f} |"
            for name in ("none", "signature", "exact")
        ),
        "",
        f"Against the exact similarities of all pairs of {quality['documents']:,} documents, "
        f"{quality['true_pairs']} of them at 0.7 or more; the bands promise a recall of "
        f"{quality['recall_by_formula']:.3f}.",
        "",
        f"{whole['documents']:,} short documents and {whole['exact']['rows_dropped']:,} copies, "
        f"{whole['bytes'] / 1e6:.0f} MB, from file to file with two workers: exact duplicates in "
        f"{whole['exact']['wall_s']:.1f} s ({whole['exact']['bytes_per_minute'] / 1e9:.1f} GB a "
        f"minute, {whole['exact']['memory_bytes'] / 1e6:.0f} MB of memory), near ones in "
        f"{whole['near']['wall_s']:.1f} s ({whole['near']['memory_bytes'] / 1e6:.0f} MB).",
        "",
        f"{where}; `benchmarks/data/bench_minhash.py`.",
    ]
    return "\n".join(lines)


def minhash_recall(document: dict[str, Any], where: str) -> str:
    """Pairs that become candidates, against the formula."""
    r = document["results"]
    whole, every = r["default_seed"], r["all_seeds"]
    bands, rows = r["bands"]
    lines = [
        f"Of {whole['pairs']:,} real texts and their edited copies with exact similarities of 0.7 "
        f"or more, {whole['found']:.4f} become candidates in {bands} bands of {rows} lanes; the "
        f"formula says {whole['formula']:.4f}, chance leaves it {whole['low']:.4f} to "
        f"{whole['high']:.4f}. With {r['seeds']} other seeds {every['found']:.4f} "
        f"({every['low']:.4f} to {every['high']:.4f}). By similarity, all seeds:",
        "",
        "| exact similarity | pairs | found | formula | chance |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in r["by_similarity"]:
        lines.append(
            f"| {row['from']:g} to {row['to']:g} | {row['pairs']:,} | {row['found']:.3f} | "
            f"{row['formula']:.3f} | {row['low']:.3f} to {row['high']:.3f} |"
        )
    lines += ["", f"{where}; `benchmarks/data/bench_minhash_recall.py`."]
    return "\n".join(lines)
