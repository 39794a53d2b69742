"""Noisy copies of English texts: words and letters left out, swapped, mistyped, misread.

The switches are those of Data-Juicer's ``nlpaug_en_mapper``; what they do is ours. What becomes of
a row depends on its id and the seed alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Splitter, at_least, operator

__all__ = ["NlpaugEn"]

_PARTS = re.compile(r"\S+|\s+")
_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_MISREAD = {"0": "O", "O": "0", "l": "1", "1": "l", "I": "l", "m": "rn", "5": "S", "S": "5"}
_MISREAD |= {"8": "B", "B": "8", "g": "9", "q": "9", "e": "c", "c": "e", "h": "b", "u": "v"}
# fmt: off
_MISSPELT = {
    "their": "there", "there": "their", "your": "you're", "its": "it's", "then": "than",
    "than": "then", "to": "too", "too": "to", "lose": "loose", "which": "wich",
    "receive": "recieve", "believe": "beleive", "separate": "seperate", "until": "untill",
    "weird": "wierd", "definitely": "definately", "because": "becuase", "friend": "freind",
    "necessary": "neccessary", "different": "diffrent", "beginning": "begining",
    "government": "goverment", "environment": "enviroment", "tomorrow": "tommorow",
}
# fmt: on


def _neighbours(letter: str) -> str:
    """Keys beside one of a QWERTY keyboard."""
    for y, row in enumerate(_ROWS):
        x = row.find(letter.lower())
        if x >= 0:
            near = [row[max(x - 1, 0) : x] + row[x + 1 : x + 2]]
            near += [
                _ROWS[other][max(x - 1, 0) : x + 2] for other in (y - 1, y + 1) if 0 <= other < 4
            ]
            return "".join(near)
    return ""


Change = Callable[[list[str], int, random.Random], None]


def _delete_word(words: list[str], i: int, rng: random.Random) -> None:
    words[i] = ""


def _swap_words(words: list[str], i: int, rng: random.Random) -> None:
    if i + 2 < len(words):  # words and what parts them alternate
        words[i], words[i + 2] = words[i + 2], words[i]


def _misspell(words: list[str], i: int, rng: random.Random) -> None:
    word = words[i]
    known = _MISSPELT.get(word.lower())
    if known is not None:
        words[i] = known.capitalize() if word[0].isupper() else known
    else:
        _swap_letters(words, i, rng)


def _split_word(words: list[str], i: int, rng: random.Random) -> None:
    if len(words[i]) > 3:
        cut = rng.randrange(1, len(words[i]))
        words[i] = f"{words[i][:cut]} {words[i][cut:]}"


def _at(words: list[str], i: int, rng: random.Random, change: Callable[[str], str]) -> None:
    """Change one letter of a word."""
    place = rng.randrange(len(words[i]))
    words[i] = words[i][:place] + change(words[i][place]) + words[i][place + 1 :]


def _mistype(words: list[str], i: int, rng: random.Random) -> None:
    _at(words, i, rng, lambda c: rng.choice(near) if (near := _neighbours(c)) else c)


def _misread(words: list[str], i: int, rng: random.Random) -> None:
    _at(words, i, rng, lambda c: _MISREAD.get(c, c))


def _delete_letter(words: list[str], i: int, rng: random.Random) -> None:
    if len(words[i]) > 1:
        _at(words, i, rng, lambda c: "")


def _swap_letters(words: list[str], i: int, rng: random.Random) -> None:
    word = words[i]
    if len(word) > 1:
        place = rng.randrange(len(word) - 1)
        words[i] = word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _insert_letter(words: list[str], i: int, rng: random.Random) -> None:
    _at(words, i, rng, lambda c: c + rng.choice("abcdefghijklmnopqrstuvwxyz"))


_CHANGES: dict[str, Change] = {
    "delete_random_word": _delete_word,
    "swap_random_word": _swap_words,
    "spelling_error_word": _misspell,
    "split_random_word": _split_word,
    "keyboard_error_char": _mistype,
    "ocr_error_char": _misread,
    "delete_random_char": _delete_letter,
    "swap_random_char": _swap_letters,
    "insert_random_char": _insert_letter,
}


@operator("nlpaug_en")
@dataclass(frozen=True, kw_only=True)
class NlpaugEn(Splitter):
    """Makes noisy copies of English texts, each a row of its own."""

    copies: int = 1
    """Copies by each switch, or of all together if ``sequential``."""

    sequential: bool = False
    """Make each copy by all switches, one after the other."""

    keep_original: bool = True
    """Keep the row as it is, too, before its copies."""

    share: float = 0.1
    """Share of the words that are changed, at least one."""

    seed: int = 0
    """Of the choices."""

    delete_random_word: bool = False
    """Leave words out."""

    swap_random_word: bool = False
    """Swap words with the next."""

    spelling_error_word: bool = False
    """Misspell words: common mistakes, else two letters swapped."""

    split_random_word: bool = False
    """Put a space into words."""

    keyboard_error_char: bool = False
    """Type the key beside."""

    ocr_error_char: bool = False
    """Take a letter for one that looks like it."""

    delete_random_char: bool = False
    """Leave letters out."""

    swap_random_char: bool = False
    """Swap letters with the next."""

    insert_random_char: bool = False
    """Put letters in."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "copies")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share={self.share:g} must be above 0 and at most 1.")
        if not self._switches:
            raise ConfigError(f"nlpaug_en needs one of {', '.join(_CHANGES)}.")

    @property
    def _switches(self) -> list[str]:
        return [f.name for f in fields(self) if f.name in _CHANGES and getattr(self, f.name)]

    def split(self, batch: Batch) -> Sequence[Sequence[str]]:
        """See :class:`Splitter`."""
        chains = [self._switches] if self.sequential else [[name] for name in self._switches]
        made = []
        for id, text in zip(batch.ids.to_pylist(), batch.texts.strings, strict=True):
            copies = [
                self._changed(text, chain, f"{self.seed} {id} {'+'.join(chain)} {number}")
                for chain in chains
                for number in range(self.copies)
            ]
            made.append([text, *copies] if self.keep_original else copies)
        return made

    def _changed(self, text: str, chain: Sequence[str], key: str) -> str:
        rng = random.Random(key)
        for name in chain:
            parts = _PARTS.findall(text)
            words = [i for i, part in enumerate(parts) if not part.isspace()]
            if words:
                number = max(round(self.share * len(words)), 1)
                for i in sorted(rng.sample(words, number)):
                    _CHANGES[name](parts, i, rng)
            text = "".join(parts)
        return text
