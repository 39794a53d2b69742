"""What operators measure of texts, with kernels where it counts."""

from sharpen.data.statistics.characters import Characters, characters, is_special
from sharpen.data.statistics.column import Texts
from sharpen.data.statistics.counts import Counts
from sharpen.data.statistics.repetition import (
    character_repetition,
    word_repetition,
    words_in_list,
)
from sharpen.data.statistics.words import Words, hash_word, hash_words, refine

__all__ = [
    "Characters",
    "Counts",
    "Texts",
    "Words",
    "character_repetition",
    "characters",
    "hash_word",
    "hash_words",
    "is_special",
    "refine",
    "word_repetition",
    "words_in_list",
]
