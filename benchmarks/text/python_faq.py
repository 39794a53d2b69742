"""Real questions with real answers: the FAQ of Python's documentation among its other pages.

Debian's ``python3.11-doc`` holds the sources of all pages (PSF licence). The questions are the
headings of the FAQ that end in a question mark. The answer to one is what stands below it. The
headings themselves are left out of the chunks, so that no question finds its own words; tutorial,
how-tos, reference and library pages are what else could be retrieved.

Unpack it with ``apt-get download python3.11-doc && dpkg-deb -x python3.11-doc*.deb FOLDER`` and
name the folder in ``SHARPEN_ASSETS``, or install the package.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sharpen.text.rag import Chunk, Chunker

__all__ = ["Question", "has_docs", "load"]

_INSIDE = "usr/share/doc/python3.11/html/_sources"
_HEADING = re.compile(r"^(?P<title>\S.*)\n(?P<line>[=\-~^\"*#'`.]{4,})\s*$", re.MULTILINE)
_MARKUP = re.compile(r":[a-z:]+:`([^`<]*)(?:\s*<[^`>]*>)?`")
_DIRECTIVE = re.compile(r"^\.\. .*$", re.MULTILINE)
OTHERS = ("tutorial", "howto", "reference", "using", "extending", "library")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and where its answer stands."""

    text: str
    answer: str
    chunks: tuple[str, ...]
    """Names of the chunks that hold the answer."""


def _folder() -> Path | None:
    for root in (os.environ.get("SHARPEN_ASSETS"), "/"):
        if root and (Path(root) / _INSIDE).is_dir():
            return Path(root) / _INSIDE
    return None


def has_docs() -> bool:
    """Whether the pages are here."""
    return _folder() is not None


def _plain(text: str) -> str:
    """Without markup."""
    text = _MARKUP.sub(lambda m: m[1].lstrip("~!"), text)
    text = _DIRECTIVE.sub("", text).replace("``", "").replace("::", ":")
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _sections(text: str) -> list[tuple[str, str]]:
    """Headings and what stands below each."""
    found = [m for m in _HEADING.finditer(text) if len(m["line"]) >= len(m["title"]) - 2]
    ends = [*(m.start() for m in found[1:]), len(text)][: len(found)]
    return [(m["title"].strip(), text[m.end() : end]) for m, end in zip(found, ends, strict=True)]


def load(size: int = 100, pages: int | None = None) -> tuple[list[Chunk], list[Question]]:
    """Chunks of all pages, and the questions.

    Args:
        size: most tokens of a chunk.
        pages: most pages besides the FAQ; all without.

    Raises:
        FileNotFoundError: the pages are not here.
    """
    folder = _folder()
    if folder is None:
        raise FileNotFoundError(__doc__)
    chunker = Chunker(size)
    chunks: list[Chunk] = []
    questions: list[Question] = []
    for file in sorted((folder / "faq").glob("*.rst.txt")):
        for number, (title, body) in enumerate(_sections(file.read_text("utf-8"))):
            answer = _plain(body)
            own = chunker.split(answer, f"faq/{file.name.split('.')[0]}/{number}")
            chunks += own
            if title.endswith("?") and own and len(answer) > 40:
                questions.append(Question(_plain(title), answer, tuple(c.id for c in own)))
    others = [f for name in OTHERS for f in sorted((folder / name).glob("*.rst.txt"))]
    for file in others[:pages]:
        text = _plain(file.read_text("utf-8"))
        chunks += chunker.split(text, f"{file.parent.name}/{file.name.split('.')[0]}")
    return chunks, questions
