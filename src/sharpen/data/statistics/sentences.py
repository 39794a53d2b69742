"""Where sentences end: the characters that end them, and a pattern that counts them.

A sentence ends with one or more of Unicode's Sentence_Terminal characters (PropList.txt, version
15.1), or an ellipsis, and what closes after them, if white space, or the text's end, follows; after
those of Chinese and Japanese nothing need follow. Abbreviations are not known here;
:mod:`sharpen.data.ops.mappers.sentences` knows those of English.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

__all__ = ["SENTENCE_INSIDE", "sentence_ends"]

_RANGES = """
21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368
166e 1735-1736 17d4-17d6 17d9-17da 1803 1809 1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f
1b7d-1b7e 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e 2e3c 2e53-2e54 3002 a4ff
a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe52
fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57 10f55-10f59 10f86-10f89 11047-11048
110be-110c1 11141-11143 111c5-111c6 111cd 111de-111df 11238-11239 1123b-1123c 112a9
1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 1173c-1173e 11944 11946 11a42-11a43
11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44 16a6e-16a6f 16af5 16b37-16b38 16b44
16e98 1bc9f 1da88
"""
"""Code points in hexadecimal; the Khmer signs 17d6, 17d9 and 17da are not in the property, but end
sentences, too."""

SENTENCE_INSIDE = (
    r"(?:[.!?\x{2026}]+[\"')\]}\x{bb}\x{2019}\x{201d}]*[ \t]+"
    r"|[\x{3002}\x{ff01}\x{ff1f}]+[\x{2019}\x{201d}\x{300d}\x{300f}]*)[^\s\x{85}\x{2028}\x{2029}]"
)
"""For RE2: the end of a sentence, and the beginning of the next on the same line."""


@functools.cache
def sentence_ends() -> frozenset[int]:
    """Code points that end sentences."""
    return frozenset(_points())


def _points() -> Iterator[int]:
    for text in _RANGES.split():
        first, _, last = text.partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)
