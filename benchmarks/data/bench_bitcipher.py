r"""Word vectors of codes beside word2vec and the SVD of PPMI: parts of speech, and time.

    BENCH_CORPORA=FOLDER BENCH_PEERS_PYTHON=/path/to/python OMP_NUM_THREADS=1 \
        python -m benchmarks.data.bench_bitcipher

Vectors are made of the whole Brown corpus (in lower case, 1.16 million words, min_count 5). A
linear classifier learns the twelve universal parts of speech of four fifths of its documents from
the vector of the word alone, and is judged by the others; the most frequent tag of all, and that of
each word, are told beside. ``shuffled`` has the same codes dealt to words at random: what ranking
is worth. CPU seconds are those of making vectors from lists of words, on one thread; the large
corpus is 10 million words of manuals, from texts, on all cores.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import OURS, PEER, arguments, save
from benchmarks.data import corpora
from benchmarks.data.beside import ask_peer, has_peers

LARGE = 10_000_000
CIPHERS: dict[str, dict[str, Any]] = {
    "sum, window 4, 100": {"bits": 100, "window": 4, "mode": "sum"},
    "concat, window 1, 100": {"bits": 50, "window": 1, "mode": "concat"},
    "concat, window 2, 100": {"bits": 25, "window": 2, "mode": "concat"},
    "concat, window 2, 400": {"bits": 100, "window": 2, "mode": "concat"},
}
MAIN = "concat, window 1, 100"
WORD2VEC = {"vector_size": 100, "window": 5, "epochs": 5, "min_count": 5, "workers": 1}
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "word2vec, CBOW": ("word2vec", {"options": WORD2VEC}),
    "word2vec, skip-gram": ("word2vec", {"options": {**WORD2VEC, "sg": 1}}),
    "SVD of PPMI": ("ppmi_svd", {"window": 2, "dimensions": 100, "min_count": 5}),
}

Documents = list[list[list[tuple[str, str]]]]


def _shuffled(words: list[list[str]], settings: dict[str, Any], min_count: int) -> Any:
    """Vectors of the same codes, dealt at random."""
    from sharpen.data.bitcipher import Codes, WordVectors, make_codes
    from sharpen.data.bitcipher.codes import noise
    from sharpen.data.bitcipher.contexts import context_vectors
    from sharpen.data.bitcipher.documents import rank_words, read_documents
    from sharpen.data.bitcipher.model import BitCipher

    cipher = BitCipher(min_count=min_count, **settings)
    names, tokens = read_documents(words, window=cipher.window, lowercase=False)
    ranked = rank_words(names, tokens, min_count=min_count, max_vocab=None)
    codes = make_codes(ranked.frequencies, cipher.bits)
    order = np.random.default_rng(0).permutation(len(ranked.words))
    sets = [codes.active[codes.first[i] : codes.first[i + 1]] for i in order]
    first = np.concatenate([[0], np.cumsum([len(one) for one in sets])]).astype(np.int64)
    dealt = Codes(first, np.concatenate(sets), cipher.bits)
    base, scale = noise(ranked.frequencies, dealt, "none", 0.0)
    vectors = context_vectors(
        ranked.tokens,
        dealt,
        base,
        scale,
        window=cipher.window,
        apart=cipher.mode == "concat",
        weight=cipher.weight,
    )
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return WordVectors(ranked.words, vectors, ranked.frequencies, cipher)


def _probed(vectors: Any, words: list[str], train: Documents, test: Documents) -> dict[str, Any]:
    from sharpen.data.bitcipher import probe

    found = probe(vectors, {word: i for i, word in enumerate(words)}, train, test)
    names = ("accuracy", "accuracy_unseen", "majority", "word_majority", "tokens", "known")
    return {"dimensions": vectors.shape[1], **{name: getattr(found, name) for name in names}}


def _large() -> dict[str, Any]:
    """Ten million words, in a process that may use all cores."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    line = [sys.executable, "-m", "benchmarks.data.bench_bitcipher", "--large"]
    done = subprocess.run(line, check=True, capture_output=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_large() -> dict[str, Any]:
    """Seconds that ten million words take."""
    from sharpen.data.bitcipher import BitCipher

    texts, words = [], 0
    pages = (page for code in corpora.LANGUAGES for page in corpora.manpages(code))
    for text in (*corpora.documentation(), *pages):
        texts.append(text)
        words += len(text.split())
        if words >= LARGE:
            break
    rows = {}
    for name in ("sum, window 4, 100", MAIN):
        spent, elapsed = [], []
        for _ in range(3):
            begin, wall = time.process_time(), time.perf_counter()
            made = BitCipher(**CIPHERS[name]).fit(texts)
            spent.append(time.process_time() - begin)
            elapsed.append(time.perf_counter() - wall)
        rows[name] = {"cpu_s": spent, "wall_s": elapsed, "vocabulary": len(made)}
    return {"words": words, "rows": rows, "load_average": os.getloadavg()}


def main() -> int:
    args = arguments(__doc__, "data_bitcipher")
    from sharpen.data.bitcipher import BitCipher

    min_count = 2 if args.quick else 5
    if args.quick:
        lines = [line.split() for page in corpora.own_pages() for line in page.splitlines()]
        tagged: Documents = [[[(w, w[-1:]) for w in line]] for line in lines]  # no tags at hand
    else:
        tagged = [
            [[(word.lower(), corpora.universal(tag)) for word, tag in line] for line in document]
            for document in corpora.brown()
        ]
    words = [[word for line in document for word, _ in line] for document in tagged]
    train = [document for i, document in enumerate(tagged) if i % 5]
    test = [document for i, document in enumerate(tagged) if i % 5 == 0]
    rows: dict[str, Any] = {}
    versions: dict[str, str] = {}
    repeats = 1 if args.quick else 3
    names = [MAIN] if args.quick else list(CIPHERS)
    asked = PEERS if has_peers() and not args.quick else {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            for name in names:
                begin = time.process_time()
                made = BitCipher(min_count=min_count, **CIPHERS[name]).fit(words)
                row = rows.setdefault(name, {"cpu_s": []})
                row["cpu_s"].append(time.process_time() - begin)
                if repeat == 0:
                    row |= _probed(made.vectors, made.words, train, test)
            for name, (task, settings) in asked.items():
                file = str(Path(folder) / "vectors.npy")
                given = {**settings, "documents": words, "seed": repeat, "vectors": file}
                found = ask_peer(task, given)
                row = rows.setdefault(name, {"cpu_s": [], "accuracies": []})
                row["cpu_s"].append(found["cpu_s"])
                versions = found["versions"]
                probed = _probed(np.load(file), found["words"], train, test)
                row["accuracies"].append(probed["accuracy"])
                if repeat == 0:
                    row |= probed
    shuffled = _shuffled(words, CIPHERS[MAIN], min_count)
    rows["shuffled"] = _probed(shuffled.vectors, shuffled.words, train, test)
    results: dict[str, Any] = {"rows": rows, "versions": versions}
    if asked:
        ours = rows[MAIN]
        results["claims"] = {
            peer: {
                "times_less_cpu": statistics.median(
                    p / o for p, o in zip(rows[peer]["cpu_s"], ours["cpu_s"], strict=True)
                ),
                "points": 100 * (ours["accuracy"] - statistics.mean(rows[peer]["accuracies"])),
            }
            for peer in PEERS
        }
    if not args.quick:
        results["large"] = _large()

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for name, row in rows.items():
            if "cpu_s" not in row:
                continue
            colour, mark = (OURS, "o") if name in CIPHERS else (PEER, "s")
            spent = statistics.median(row["cpu_s"])
            axes.plot(spent, row["accuracy"], mark, color=colour)
            axes.annotate(
                name, (spent, row["accuracy"]), xytext=(5, 4), textcoords="offset points", size=7
            )
        axes.set_xscale("log")
        axes.set_xlim(0.08, 60)
        axes.set_xlabel("CPU seconds for 1.16 million words")
        axes.set_ylabel("parts of speech told right")

    save(args, results, config={"ciphers": CIPHERS, "word2vec": WORD2VEC}, plot=plot)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--large"]:
        print(json.dumps(measure_large()))
        sys.exit(0)
    sys.exit(main())
