r"""Language models of n-grams: training beside NLTK's, scores beside KenLM's.

    BENCH_CORPORA=FOLDER BENCH_PEERS_PYTHON=/path/to/python BENCH_LMPLZ=/path/to/lmplz \
        python -m benchmarks.data.bench_ngram

Training is compared with lmplz, KenLM's trainer, which its Python package does not build: ``pip
download --no-binary :all: kenlm==0.3.0``, unpack, ``cmake``, ``make lmplz``. lmplz writes an ARPA
file and may keep counts on a disk; it is given memory enough, and ours is measured with such a file
and with its own. NLTK's ``KneserNeyInterpolated`` has one discount for all counts: another, simpler
smoothing. CPU seconds, alternating; ours runs on one thread.
"""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import arguments, draw_bars, save
from benchmarks.data import corpora
from benchmarks.data.beside import ask_peer, has_peers

REPEATS = 5


def _ours_train(texts: list[str], order: int) -> float:
    from sharpen.data.ngram import train

    begin = time.process_time()
    train(texts, order)
    return time.process_time() - begin


def _large() -> dict[str, Any]:
    """The documentation at order 5, in a process of its own, for its memory."""
    program = (
        "import json, resource, time; from benchmarks.data import corpora; "
        "from sharpen.data.ngram import train; texts = corpora.documentation(); "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; begin = time.process_time(); "
        "m = train(texts, 5); spent = time.process_time() - begin; "
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "print(json.dumps({'cpu_s': spent, 'tokens': m.about['tokens'], 'ngrams': m.ngrams, "
        "'rss_before': before * 1024, 'rss_peak': after * 1024}))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _beside_lmplz(texts: list[str]) -> dict[str, Any]:
    """The same models by lmplz: CPU seconds of each, and the largest gap of a word's score."""
    from sharpen.data.ngram import read_arpa, train, write_arpa

    lines = [" ".join(line.split()) for text in texts for line in text.splitlines()]
    found: dict[str, Any] = {"words": sum(len(line.split()) + 1 for line in lines)}
    for name, prune in (("whole", [0]), ("pruned", [0, 0, 1])):
        row: dict[str, list[float]] = {"lmplz": [], "sharpen, ARPA": [], "sharpen, own file": []}
        with tempfile.TemporaryDirectory() as folder:
            source, theirs = Path(folder) / "in.txt", Path(folder) / "theirs.arpa"
            source.write_text("\n".join(lines) + "\n")
            line = [os.environ["BENCH_LMPLZ"], "-o", "5", "-S", "2G", "-T", folder]
            line += ["--text", str(source), "--arpa", str(theirs)]
            line += ["--prune", *map(str, prune)] if len(prune) > 1 else []
            for _ in range(3):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(line, check=True, capture_output=True)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                row["lmplz"].append(
                    after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                )
                begin = time.process_time()
                model = train(source, 5, prune=prune, lines=True)
                trained = time.process_time() - begin
                begin = time.process_time()
                write_arpa(model, Path(folder) / "ours.arpa")
                row["sharpen, ARPA"].append(trained + time.process_time() - begin)
                begin = time.process_time()
                model.save(Path(folder) / "ours.bin")
                row["sharpen, own file"].append(trained + time.process_time() - begin)
            peer = read_arpa(theirs)
        assert peer.ngrams == model.ngrams
        some = [line.split() for line in lines[::100]]
        gap = max(float(np.abs(model.scores(s) - peer.scores(s)).max()) for s in some)
        assert gap < 1e-4, gap
        found[name] = {"cpu_s": row, "largest_gap_a_word": gap, "ngrams": model.ngrams}
    return found


def main() -> int:
    args = arguments(__doc__, "data_ngram")
    from sharpen.data.ngram import load_model, train, write_arpa
    from sharpen.data.statistics import Texts

    if args.quick:
        texts = corpora.own_pages()
    else:
        texts = [
            "\n".join(" ".join(word for word, _ in sentence) for sentence in document)
            for document in corpora.brown()
        ]
    held = texts[::10]
    learned = [text for i, text in enumerate(texts) if i % 10]
    joined = [" ".join(text.split()) for text in held]
    tokens = sum(len(text.split()) for text in held)
    column = Texts(held)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = train(learned, 3 if args.quick else 5, prune=[0, 0, 1])
        arpa, binary = Path(folder) / "m.arpa", Path(folder) / "m.bin"
        write_arpa(model, arpa)
        model.save(binary)
        begin = time.perf_counter()
        mapped = load_model(binary)
        results["files"] = {
            "arpa_bytes": arpa.stat().st_size,
            "binary_bytes": binary.stat().st_size,
            "load_s": time.perf_counter() - begin,
            "ngrams": model.ngrams,
        }
        ours, peer, found = [], [], {}
        for _ in range(1 if args.quick else REPEATS):
            begin = time.process_time()
            perplexities = mapped.perplexities(column)
            ours.append(time.process_time() - begin)
            if has_peers():
                found = ask_peer("kenlm_score", {"arpa": str(arpa), "texts": joined})
                peer.append(found["cpu_s"])
        scoring: dict[str, Any] = {"tokens": tokens, "sharpen_cpu_s": ours, "kenlm_cpu_s": peer}
        scoring["sharpen_tokens_per_s"] = tokens / statistics.median(ours)
        scoring["median_perplexity"] = float(np.median(perplexities))
        if found:
            mine = [mapped.scores(text.split()) for text in joined]
            scoring["kenlm_tokens_per_s"] = tokens / statistics.median(peer)
            scoring["ratio"] = statistics.median(p / o for p, o in zip(peer, ours, strict=True))
            scoring["largest_gap_a_word"] = max(
                float(np.abs(m - np.array(theirs)).max())
                for m, theirs in zip(mine, found["parts"], strict=False)
            )
            scoring["largest_gap_a_text_relative"] = max(
                abs(m.sum() - s) / abs(s) for m, s in zip(mine, found["scores"], strict=True)
            )
            results["versions"] = found["versions"]
            assert scoring["largest_gap_a_word"] < 1e-4, scoring
        results["scoring"] = scoring
    some = learned[:50]
    counted = sum(len(text.split()) + 1 for text in some)
    ours, peer = [], []
    for _ in range(1 if args.quick else 3):
        ours.append(_ours_train(some, 3))
        if has_peers() and not args.quick:
            peer.append(ask_peer("nltk_train", {"texts": some, "order": 3})["cpu_s"])
    results["training"] = {
        "tokens": counted,
        "sharpen_cpu_s": ours,
        "nltk_cpu_s": peer,
        "sharpen_tokens_per_s": counted / statistics.median(ours),
        "ratio": statistics.median(p / o for p, o in zip(peer, ours, strict=True))
        if peer
        else None,
    }
    if "BENCH_LMPLZ" in os.environ and not args.quick:
        results["lmplz"] = _beside_lmplz(texts)
    if not args.quick:
        whole = [_ours_train(texts, 5) for _ in range(3)]
        counted = sum(len(text.split()) + 1 for text in texts)
        results["brown"] = {"tokens": counted, "cpu_s": whole}
        results["documentation"] = _large()

    def plot(figure: Any) -> None:
        one, two = figure.subplots(1, 2)
        for axes, part, name in ((one, "training", "nltk"), (two, "scoring", "kenlm")):
            row = results[part]
            shown = {"sharpen": [row["tokens"] / statistics.median(row["sharpen_cpu_s"]) / 1e6]}
            if row[f"{name}_cpu_s"]:
                shown[name] = [row["tokens"] / statistics.median(row[f"{name}_cpu_s"]) / 1e6]
            draw_bars(axes, y_label="million tokens a CPU second", groups=[part], series=shown)
            axes.set_title(f"{part}: {row.get('ratio') or math.nan:.1f} x {name}", fontsize=9)

    save(args, results, config={"order": 5, "prune": [0, 0, 1], "repeats": REPEATS}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
