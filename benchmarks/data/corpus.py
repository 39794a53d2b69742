"""A corpus of real texts from packages, as JSONL: ``{"id", "source", "text"}`` a line.

Kernel and Python documentation, manual pages, a dictionary, glosses, an FAQ, pods, e-mails with
many near duplicates, Brown; in an order drawn with a seed. Copies beyond the first have their words
shuffled, so that a corpus of any size has about as many duplicates as the first.

    BENCH_CORPORA=DIR python -m benchmarks.data.corpus OUT.jsonl [--megabytes 150]

``BENCH_CORPORA`` is as ``benchmarks.data.corpora`` says, with Debian's ``dict-gcide``,
``anarchism``, ``perl-doc``, ``wordnet-base`` and ``fortunes`` unpacked in ``debian``, too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.data.corpora import brown, documentation, folder, mails, manpages

__all__ = ["documents", "write_corpus"]

Documents = Iterator[tuple[str, str]]


def _pages(source: str, text: str, size: int = 4000) -> Documents:
    """Paragraphs of a long text, in documents of about so many characters."""
    held: list[str] = []
    length = 0
    for piece in re.split(r"\n(?=\S)", text):
        held.append(piece)
        length += len(piece)
        if length >= size:
            yield source, "\n".join(held)
            held, length = [], 0
    if held:
        yield source, "\n".join(held)


def _gcide() -> Documents:
    with gzip.open(folder("debian") / "usr/share/dictd/gcide.dict.dz", "rb") as file:
        yield from _pages("gcide", file.read().decode("utf-8", "replace"))


def _wordnet() -> Documents:
    for path in sorted((folder("debian") / "usr/share/wordnet").glob("data.*")):
        lines = path.read_text(errors="replace").splitlines()
        glosses = [line.split("|", 1)[1].strip() for line in lines if "|" in line]
        for start in range(0, len(glosses), 40):
            yield "wordnet", "\n".join(glosses[start : start + 40])


def _anarchism() -> Documents:
    for path in sorted((folder("debian") / "usr/share/doc/anarchism").rglob("*.md.gz")):
        yield from _pages("anarchism", gzip.decompress(path.read_bytes()).decode(errors="replace"))


def _perl() -> Documents:
    for path in sorted((folder("debian") / "usr/share/perl").rglob("*.pod")):
        yield from _pages("perl", path.read_text(errors="replace"), 8000)


def _fortunes() -> Documents:
    for path in sorted((folder("debian") / "usr/share/games/fortunes").glob("*")):
        if path.suffix == "":
            for text in path.read_text(errors="replace").split("\n%\n"):
                yield "fortunes", text


def _kernel_tables() -> Documents:
    home = folder("debian") / "usr/share/doc/linux-doc-6.1/Documentation"
    for path in sorted(home.rglob("*.yaml.gz")):
        yield "kernel-yaml", gzip.decompress(path.read_bytes()).decode(errors="replace")


def _pages_of(language: str) -> Documents:
    for text in manpages(language):
        yield f"man-{language}", text


_SOURCES: tuple[Callable[[], Documents], ...] = (
    lambda: (("documentation", text) for text in documentation()),
    _kernel_tables,
    _gcide,
    _wordnet,
    _anarchism,
    _perl,
    _fortunes,
    lambda: (("mail", text) for text in mails()[0]),
    lambda: (("brown", "\n".join(" ".join(w for w, _ in s) for s in d)) for d in brown()),
    lambda: _pages_of("en"),
    lambda: _pages_of("de"),
    lambda: _pages_of("fr"),
)


def documents(seed: int = 0) -> list[tuple[str, str]]:
    """Source and text of each document, in an order drawn with the seed."""
    found = [(source, text) for make in _SOURCES for source, text in make() if text.strip()]
    random.Random(seed).shuffle(found)
    return found


def write_corpus(path: Path, size: int, seed: int = 0) -> tuple[int, int]:
    """Write documents until so many bytes of JSONL are reached.

    Returns:
        Documents and bytes written.
    """
    rng = random.Random(seed)
    first = documents(seed)
    count = written = copy = 0
    with path.open("wb") as file:
        while written < size:
            for source, text in first:
                if copy:
                    words = text.split(" ")
                    rng.shuffle(words)
                    text = " ".join(words)
                row = {"id": f"{source}-{copy}-{count}", "source": source, "text": text}
                line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
                file.write(line)
                written += len(line)
                count += 1
                if written >= size:
                    break
            copy += 1
    return count, written


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--megabytes", type=float, default=150)
    options = parser.parse_args()
    count, written = write_corpus(options.path, int(options.megabytes * 1e6))
    print(f"{count:,} documents, {written:,} bytes: {options.path}")


if __name__ == "__main__":
    main()
