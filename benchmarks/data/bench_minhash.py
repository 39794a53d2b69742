"""MinHash beside datasketch and rensa: signatures, whole deduplication, precision and recall.

    BENCH_CORPORA=FOLDER BENCH_DATATROVE_PYTHON=/path/to/python
        python -m benchmarks.data.bench_minhash

The same documents, 256 hashes, shingles of five words; tokens and shingles are made inside the
measurement on all sides, and every signature is read out. CPU seconds on one thread. Precision and
recall are of pairs, against exact similarities of all pairs of documents of a sample with planted
near copies. Then exact duplicates, and a million short documents.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import arguments, draw_bars, save
from benchmarks.data.corpora import own_pages
from benchmarks.data.processes import measured

REPEATS = 3
LANES, WINDOW, THRESHOLD = 256, 5, 0.7

PEER = """
import json, sys, time
texts, what, lanes, window, threshold = json.load(open(sys.argv[1]))
def shingles(text):
    words = text.lower().replace("\\n", " ").replace("\\t", " ").split(" ")
    words = [w for w in words if w]
    size = min(window, len(words))
    return [" ".join(words[i:i + size]) for i in range(len(words) - size + 1)] if words else []
if what == "rensa":
    from rensa import RMinHash
    def sign(text):
        m = RMinHash(num_perm=lanes, seed=42)
        m.update(shingles(text))
        return m.digest()
else:
    from datasketch import MinHash
    def sign(text):
        m = MinHash(num_perm=lanes)
        m.update_batch([s.encode() for s in shingles(text)])
        return m.digest()
begin = time.process_time()
for text in texts:
    sign(text)
print(json.dumps({"cpu_s": time.process_time() - begin}))
"""


def ours(texts: list[str]) -> float:
    """Seconds for our signatures."""
    from sharpen.data.statistics import Texts
    from sharpen.data.statistics.minhash import minhash
    from sharpen.data.statistics.shingles import Shingling

    begin = time.process_time()
    for start in range(0, len(texts), 1000):
        minhash(Texts(texts[start : start + 1000]), Shingling(WINDOW), LANES)
    return time.process_time() - begin


def theirs(path: Path) -> float:
    """Seconds of a peer."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    python = os.environ["BENCH_DATATROVE_PYTHON"]
    line = [python, "-c", PEER, str(path)]
    done = subprocess.run(line, check=True, capture_output=True, env=environment)
    return float(json.loads(done.stdout)["cpu_s"])


def signatures(texts: list[str], repeats: int) -> dict[str, Any]:
    """CPU seconds of all sides in turn."""
    size = sum(len(text.encode()) for text in texts)
    found: dict[str, Any] = {"documents": len(texts), "bytes": size, "sharpen": []}
    peers = ("rensa", "datasketch") if "BENCH_DATATROVE_PYTHON" in os.environ else ()
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name in peers:
            paths[name] = Path(folder) / f"{name}.json"
            paths[name].write_text(json.dumps([texts, name, LANES, WINDOW, THRESHOLD]))
            found[name] = []
        ours(texts[:10])
        for _ in range(repeats):
            found["sharpen"].append(ours(texts))
            for name in peers:
                found[name].append(theirs(paths[name]))
    for name in peers:
        pairs = zip(found[name], found["sharpen"], strict=True)
        found[f"{name}_ratio"] = statistics.median(p / o for p, o in pairs)
    return found


def planted(texts: list[str], count: int) -> list[str]:
    """Documents, and copies of some with words changed, from few to every third."""
    rng = random.Random(0)
    some = [t for t in texts if 40 <= len(t.split()) <= 2000][:count]
    found = list(some)
    for text in some[::2]:
        words = text.split(" ")
        share = rng.uniform(0.0, 0.08)
        for place in range(len(words)):
            if rng.random() < share:
                words[place] = f"changed{rng.randrange(1000)}"
        found.append(" ".join(words))
    rng.shuffle(found)
    return found


def quality(texts: list[str]) -> dict[str, Any]:
    """Precision and recall of pairs against exact similarities."""
    from sharpen.data import Dataset, ops
    from sharpen.data.statistics import Texts
    from sharpen.data.statistics.minhash import choose_bands
    from sharpen.data.statistics.shingles import Shingling, jaccard, shingle_sets
    from sharpen.data.trace import dropped_rows

    column = Texts(texts)
    before, sets = shingle_sets(column, Shingling(WINDOW))
    one, other = np.triu_indices(len(texts), 1)
    exact = jaccard(before, sets, one, other)
    bands, rows = choose_bands(LANES, THRESHOLD)
    true = exact >= THRESHOLD
    expected = float((1 - (1 - exact[true] ** rows) ** bands).sum() / true.sum())
    table = {(int(a), int(b)): float(s) for a, b, s in zip(one, other, exact, strict=True) if s > 0}
    found: dict[str, Any] = {
        "documents": len(texts),
        "true_pairs": int(true.sum()),
        "recall_by_formula": expected,
        "bands": [bands, rows],
    }
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.jsonl"
        source.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        for verify in ("none", "signature", "exact"):
            found[verify] = {}
            for cluster in ("star", "components"):
                op = ops.minhash_dedup(
                    threshold=THRESHOLD, lanes=LANES, window=WINDOW, verify=verify, cluster=cluster
                )
                out = Path(folder) / f"{verify}-{cluster}"
                Dataset.read(source).apply(op).write(out, trace=True)
                gone = {int(r["id"]): int(r["kept_id"]) for r in dropped_rows(out / "trace")}
                pairs = [(min(a, b), max(a, b)) for a, b in gone.items()]
                if cluster == "star":  # each row that goes is a copy of the one that stays
                    right = sum(table.get(pair, 0.0) >= THRESHOLD for pair in pairs)
                    found[verify]["dropped"] = len(gone)
                    found[verify]["precision"] = right / max(len(gone), 1)
                else:  # a pair is found when both are of one group
                    same = [
                        gone.get(a, a) == gone.get(b, b) for a, b in _pairs(one[true], other[true])
                    ]
                    found[verify]["recall"] = float(np.mean(same)) if same else None
    return found


def _pairs(one: Any, other: Any) -> list[tuple[int, int]]:
    return list(zip(one.tolist(), other.tolist(), strict=True))


def whole(documents: int) -> dict[str, Any]:
    """Exact and near duplicates of many short documents, from file to file."""
    rng = random.Random(1)
    vocabulary = [f"word{i}" for i in range(20_000)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "in.jsonl"
        size = 0
        with source.open("w") as file:
            for i in range(documents):
                text = " ".join(rng.choices(vocabulary, k=rng.randrange(15, 60)))
                line = json.dumps({"text": text}) + "\n"
                for _ in range(1 + (i % 10 == 0)):
                    size += file.write(line)
        program = "from sharpen.cli.main import main; main()"
        base = [sys.executable, "-c", program, "data", "dedup", str(source), "--workers", "2"]
        found: dict[str, Any] = {"documents": documents, "bytes": size}
        for kind, threshold in (("exact", "1"), ("near", str(THRESHOLD))):
            line = [*base, "-o", str(folder / kind), "--threshold", threshold, "--json"]
            found[kind] = measured(line, folder)
            told = json.loads((folder / "log.txt").read_text().splitlines()[-1])
            found[kind]["rows_dropped"] = told["rows_dropped"]
            found[kind]["bytes_per_minute"] = size / found[kind]["wall_s"] * 60
        return found


def main() -> int:
    args = arguments(__doc__, "data_minhash")
    if args.quick:
        texts = [part for page in own_pages() for part in page.split("\n## ")]
    else:
        from benchmarks.data.corpus import documents

        texts = [text for _, text in documents()]
    results: dict[str, Any] = {
        "signatures": signatures(
            texts[:50] if args.quick else texts[:5000], 1 if args.quick else REPEATS
        ),
        "quality": quality(planted(texts, 100 if args.quick else 2000)),
        "whole": whole(2000 if args.quick else 1_000_000),
    }

    def plot(figure: Any) -> None:
        row = results["signatures"]
        series = {
            name: [row["bytes"] / 1e6 / statistics.median(row[name])]
            for name in ("sharpen", "rensa", "datasketch")
            if name in row
        }
        axes = figure.subplots()
        draw_bars(axes, y_label="MB a CPU second", groups=["signatures"], series=series)
        axes.set_yscale("log")

    save(
        args, results, config={"lanes": LANES, "window": WINDOW, "threshold": THRESHOLD}, plot=plot
    )
    print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
