"""Languages of snippets of manual pages: a model trained on such pages beside others' models.

    BENCH_CORPORA=FOLDER BENCH_PEERS_PYTHON=/path/to/python python -m benchmarks.data.bench_language

Manual pages of Linux in 20 languages; four fifths of each language's, by a hash of the text, are
learned from, and snippets of the others are asked for. The peers know more languages (fastText 176)
and learned from other texts; ours knows 20 and this kind of text. Pages hold commands and
paragraphs that nobody has translated yet, so that no method can be right about all snippets.
"""

from __future__ import annotations

import sys
import time
import zlib
from typing import Any

import numpy as np
from benchmarks.common import arguments, draw_bars, save
from benchmarks.data import corpora
from benchmarks.data.beside import ask_peer, has_peers

LENGTHS = (20, 50, 100, 300)
MOST = 100  # snippets of a language and length
PEERS = ("fasttext", "lingua", "cld2")
_SAME = {"nb": "no", "nn": "no", "zh-Hant": "zh"}


def _snippets(pages: dict[str, list[str]], length: int) -> tuple[list[str], list[str]]:
    texts, codes = [], []
    for code, some in pages.items():
        for page in some[:MOST]:
            start = zlib.crc32(page.encode()) % max(1, len(page) - length)
            texts.append(page[start : start + length])
            codes.append(code)
    return texts, codes


def main() -> int:
    args = arguments(__doc__, "data_language")
    from sharpen.data.language import train
    from sharpen.data.statistics import Texts

    if args.quick:
        own = corpora.own_pages()
        pages = {"en": own, "xx": [page[::-1] for page in own]}  # no other language is at hand
    else:
        pages = {code: corpora.manpages(code) for code in corpora.LANGUAGES}
    learned: dict[str, list[str]] = {}
    asked: dict[str, list[str]] = {}
    for code, some in pages.items():
        test = [zlib.crc32(page.encode()) % 5 == 0 for page in some]
        learned[code] = [page for page, t in zip(some, test, strict=True) if not t]
        asked[code] = [page for page, t in zip(some, test, strict=True) if t]
    characters = sum(len(page) for some in learned.values() for page in some)
    begin = time.process_time()
    model = train(learned)
    spent = time.process_time() - begin
    rows: dict[str, Any] = {}
    versions: dict[str, str] = {}
    for length in LENGTHS:
        texts, codes = _snippets(asked, length)
        begin = time.process_time()
        found, _ = model.detect(Texts(texts))
        answers = {"sharpen": {"codes": found, "cpu_s": time.process_time() - begin}}
        if has_peers() and not args.quick:
            for name in PEERS:
                answers[name] = ask_peer(f"{name}_language", {"texts": texts})
                versions = answers[name].pop("versions")
        rows[str(length)] = {
            "snippets": len(texts),
            **{
                name: {
                    "accuracy": float(
                        np.mean(
                            [
                                _SAME.get(a, a) == c
                                for a, c in zip(answer["codes"], codes, strict=True)
                            ]
                        )
                    ),
                    "texts_per_cpu_s": len(texts) / answer["cpu_s"],
                }
                for name, answer in answers.items()
            },
        }
    results = {
        "rows": rows,
        "versions": versions,
        "training": {"characters": characters, "cpu_s": spent, "languages": len(pages)},
        "table_bytes": model.table.nbytes,
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        names = [n for n in ("sharpen", *PEERS) if n in rows[str(LENGTHS[0])]]
        series = {n: [rows[str(length)][n]["accuracy"] for length in LENGTHS] for n in names}
        groups = [f"{length} characters" for length in LENGTHS]
        draw_bars(axes, y_label="share of snippets told right", groups=groups, series=series)
        axes.set_ylim(0, 1.15)

    save(args, results, config={"lengths": LENGTHS, "most": MOST}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
