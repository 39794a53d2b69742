"""Whether MinHash finds as many pairs as its formula says, over thousands of pairs of real texts.

    BENCH_CORPORA=FOLDER python -m benchmarks.data.bench_minhash_recall

Each text has a copy with words replaced, a passage cut, or a passage of another text put in, to
come near a similarity; the exact similarity s of the pair's shingles is then computed. With b bands
of r lanes a pair becomes a candidate with probability 1 - (1 - s^r)^b; the share that does is set
against the mean of that over the pairs, with the interval of 95% that chance leaves it. Once from
file to file by ``minhash_dedup`` with its default seed, and with further seeds of the lanes by
their bands. The lanes themselves: the mean of (share of equal lanes - s) in standard errors, and
its root mean square against sqrt(s (1 - s) / lanes).
"""

from __future__ import annotations

import itertools
import json
import math
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.common import OURS, PEER, arguments, save
from benchmarks.data.corpora import own_pages

from sharpen.data import Dataset, ops
from sharpen.data.statistics import Texts
from sharpen.data.statistics.minhash import choose_bands, minhash
from sharpen.data.statistics.shingles import Shingling, jaccard, shingle_sets
from sharpen.data.trace import dropped_rows

LANES, WINDOW, THRESHOLD, SEEDS = 256, 5, 0.7, 10
SIMILARITIES = (0.5, 0.6, 0.65, 0.7, 0.725, 0.75, 0.8, 0.85, 0.9, 0.95)
EDGES = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)

Floats = npt.NDArray[np.float64]


def edited(text: str, other: str, similarity: float, kind: int, rng: random.Random) -> str:
    """A copy that has about such a similarity of shingles with the text."""
    words = text.split(" ")
    if kind == 0:  # every shingle outlives with the probability of 5 words
        share = 1 - (2 * similarity / (1 + similarity)) ** (1 / WINDOW)
        return " ".join(f"x{rng.random()}" if rng.random() < share else w for w in words)
    if kind == 1:
        size = round(len(words) * (1 - similarity))
        start = rng.randrange(len(words) - size + 1)
        return " ".join(words[:start] + words[start + size :])
    size = round(len(words) * (1 / similarity - 1))
    passage = (other.split(" ") * (size // max(len(other.split(" ")), 1) + 1))[:size]
    start = rng.randrange(len(words) + 1)
    return " ".join(words[:start] + passage + words[start:])


def pairs_of(texts: list[str], count: int) -> list[str]:
    """Texts and their copies in turn."""
    rng = random.Random(1)
    some = list(dict.fromkeys(t for t in texts if 40 <= len(t.split()) <= 2000))
    rng.shuffle(some)
    some = some[:count]
    found = []
    for i, text in enumerate(some):
        similarity = SIMILARITIES[i % len(SIMILARITIES)]
        kind = i // len(SIMILARITIES) % 3
        found += [text, edited(text, some[i - 1], similarity, kind, rng)]
    return found


def set_against(found: npt.NDArray[np.bool_], expected: Floats) -> dict[str, float]:
    """The share of pairs found, and what the formula leaves to chance."""
    mean, n = float(expected.mean()), len(expected)
    deviation = math.sqrt(float((expected * (1 - expected)).sum())) / n
    return {
        "pairs": n,
        "found": float(found.mean()),
        "formula": mean,
        "low": mean - 1.96 * deviation,
        "high": mean + 1.96 * deviation,
        "deviations": (float(found.mean()) - mean) / deviation if deviation else 0.0,
    }


def from_file_to_file(texts: list[str]) -> npt.NDArray[np.bool_]:
    """[pairs] whether the operator takes a pair for copies, its candidates not verified."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "in.jsonl"
        source.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        operator = ops.minhash_dedup(threshold=THRESHOLD, lanes=LANES, verify="none")
        Dataset.read(source).apply(operator).write(Path(name) / "out", trace=True)
        gone = {int(r["id"]): int(r["kept_id"]) for r in dropped_rows(Path(name) / "out" / "trace")}
    return np.array([gone.get(i, i) == gone.get(i + 1, i + 1) for i in range(0, len(texts), 2)])


def recall(texts: list[str], seeds: int) -> dict[str, Any]:
    """All of it, by similarity."""
    column, shingling = Texts(texts), Shingling(WINDOW)
    even = np.arange(0, len(texts), 2)
    exact: Floats = jaccard(*shingle_sets(column, shingling), even, even + 1)
    bands, rows = choose_bands(LANES, THRESHOLD)
    expected: Floats = 1 - (1 - exact**rows) ** bands
    near = exact >= THRESHOLD
    met, off, deviations = [], [], []
    for seed in range(1, seeds + 1):
        signature = minhash(column, shingling, LANES, seed)
        equal = signature[::2] == signature[1::2]
        in_bands = equal[:, : bands * rows].reshape(len(even), bands, rows)
        met.append(in_bands.all(2).any(1))
        error, variance = equal.mean(1) - exact, exact * (1 - exact) / LANES
        off.append(error.sum() / math.sqrt(variance.sum()))
        deviations.append(math.sqrt((error**2).sum() / variance.sum()))
    every = np.concatenate(met)
    table = []
    for low, high in itertools.pairwise(EDGES):
        some = (exact >= low) & (exact < high)
        if some.any():
            row = set_against(every[np.tile(some, seeds)], np.tile(expected[some], seeds))
            row["pairs"] = int(some.sum())
            table.append({"from": low, "to": high, "similarity": float(exact[some].mean()), **row})
    return {
        "texts": len(even),
        "bands": [bands, rows],
        "seeds": seeds,
        "default_seed": set_against(from_file_to_file(texts)[near], expected[near]),
        "all_seeds": set_against(every[np.tile(near, seeds)], np.tile(expected[near], seeds)),
        "by_similarity": table,
        "lanes_off_in_standard_errors": off,
        "lanes_deviation_to_theory": deviations,
    }


def main() -> int:
    args = arguments(__doc__, "data_minhash_recall")
    if args.quick:
        results = recall(pairs_of([p for t in own_pages() for p in t.split("\n## ")], 100), 1)
    else:
        from benchmarks.data.corpus import documents

        results = recall(pairs_of([text for _, text in documents()], 18_000), SEEDS)

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        table = results["by_similarity"]
        x = [row["similarity"] for row in table]
        grid = np.linspace(0.45, 1, 200)
        bands, rows = results["bands"]
        axes.plot(grid, 1 - (1 - grid**rows) ** bands, color=PEER, label="1 - (1 - s^r)^b")
        axes.plot(x, [row["found"] for row in table], "o", color=OURS, label="found")
        axes.set_xlabel("exact similarity of shingles")
        axes.set_ylabel("share of pairs that become candidates")
        axes.set_title(f"{results['texts']:,} pairs, {bands} bands of {rows}")
        axes.legend()

    config = {"lanes": LANES, "window": WINDOW, "threshold": THRESHOLD}
    save(args, results, config=config, plot=plot)
    print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
