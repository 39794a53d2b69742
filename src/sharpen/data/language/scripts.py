"""Scripts: Latin, Cyrillic, Han ... which letters of a text are of, by their Unicode names.

The first word of a letter's name is its script (``CYRILLIC SMALL LETTER A``); CJK ideographs are
Han. A script alone tells some languages (Greek, Korean, Thai), and rules out others for all.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError
from sharpen.data.language.base import UNKNOWN
from sharpen.data.statistics import Texts, characters

__all__ = ["SCRIPTS", "ScriptDetector", "script_shares"]

_ALPHA = 2  # bit of the table of characters
_WORDS = {"CJK": "HAN", "IDEOGRAPHIC": "HAN", "FULLWIDTH": "LATIN", "HALFWIDTH": "KATAKANA"}

# fmt: off
_WRITTEN = {
    "LATIN": (
        "af sq az bs ca hr cs da nl en eo et fi fr gl de hu is id ga it lv lt lb ms mt no nb nn pl "
        "pt ro sk sl es sw sv tl tr uz vi cy eu la"
    ),
    "CYRILLIC": "be bg kk ky mk mn ru sr tg uk",
    "ARABIC": "ar fa ps ur ug",
    "DEVANAGARI": "hi mr ne sa",
    "GREEK": "el", "HEBREW": "he yi", "ARMENIAN": "hy", "GEORGIAN": "ka", "HANGUL": "ko",
    "THAI": "th", "LAO": "lo", "KHMER": "km", "MYANMAR": "my", "TIBETAN": "bo", "SINHALA": "si",
    "BENGALI": "bn as", "GUJARATI": "gu", "GURMUKHI": "pa", "TAMIL": "ta", "TELUGU": "te",
    "KANNADA": "kn", "MALAYALAM": "ml", "ORIYA": "or", "ETHIOPIC": "am ti", "HAN": "zh ja",
    "HIRAGANA": "ja", "KATAKANA": "ja", "BOPOMOFO": "zh",
}
# fmt: on
SCRIPTS: dict[str, tuple[str, ...]] = {
    code: tuple(s for s, codes in _WRITTEN.items() if code in codes.split())
    for code in sorted({code for codes in _WRITTEN.values() for code in codes.split()})
}
"""Scripts of each language."""


@functools.cache
def _table() -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """[0x110000] number of each letter's script, 0 for what is no letter; and the names."""
    found = np.zeros(0x110000, np.uint8)
    names: dict[str, int] = {"": 0}
    for point in np.nonzero(characters().bits & _ALPHA)[0].tolist():
        word = unicodedata.name(chr(point), "").split(" ")[0].split("-")[0]
        word = _WORDS.get(word, word)
        if word in _WRITTEN:
            found[point] = names.setdefault(word, len(names))
        else:
            found[point] = names.setdefault("OTHER", len(names))
    return found, tuple(names)


def script_shares(texts: Texts) -> dict[str, npt.NDArray[np.float64]]:
    """[n] share of each script among the letters of each text; 0 without letters."""
    table, names = _table()
    counts = np.zeros((len(texts), len(names)), np.int64)
    for row, text in zip(counts, texts.strings, strict=True):
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        row += np.bincount(table[points], minlength=len(names))
    letters = np.maximum(counts[:, 1:].sum(1), 1)
    return {name: counts[:, i] / letters for i, name in enumerate(names) if i}


class ScriptDetector:
    """Which of some languages a text's letters allow for.

    The score is the share of letters that are of a script of the language; of languages that are
    written alike the first one asked for is told. Japanese must have kana, Chinese hardly any: of
    Han and kana together at least, and at most, 5 %.

    Args:
        languages: codes of :data:`SCRIPTS`.

    Raises:
        ConfigError: there are none.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        if not languages:
            raise ConfigError("the language backend 'script' needs languages to choose from.")
        self.languages = tuple(languages)

    def detect(self, texts: Texts) -> tuple[list[str], npt.NDArray[np.float64]]:
        """See :class:`~sharpen.data.language.base.Detector`."""
        shares = script_shares(texts)
        none = np.zeros(len(texts))
        kana = shares.get("HIRAGANA", none) + shares.get("KATAKANA", none)
        is_japanese = kana >= 0.05 * (kana + shares.get("HAN", none))
        scores = np.zeros((len(texts), len(self.languages)))
        for i, code in enumerate(self.languages):
            scores[:, i] = np.sum([shares.get(script, none) for script in SCRIPTS[code]], 0)
            if code in ("ja", "zh"):
                scores[is_japanese != (code == "ja"), i] = 0.0
        best = scores.argmax(1)
        top = scores[np.arange(len(texts)), best]
        codes = [self.languages[b] if s > 0 else UNKNOWN for b, s in zip(best, top, strict=True)]
        return codes, top
