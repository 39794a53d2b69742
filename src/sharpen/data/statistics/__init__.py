"""What operators measure of texts, with kernels where it counts."""

from sharpen.data.statistics.characters import Characters, characters, is_special
from sharpen.data.statistics.column import Texts
from sharpen.data.statistics.counts import Counts
from sharpen.data.statistics.grams import (
    Forms,
    repeated_grams,
    repeated_pieces,
    repeated_words,
    top_gram,
)
from sharpen.data.statistics.lines import Pieces, joined
from sharpen.data.statistics.repetition import (
    character_repetition,
    word_repetition,
    words_in_list,
)
from sharpen.data.statistics.words import Words, hash_word, hash_words, refine, strip_special

__all__ = [
    "Characters",
    "Counts",
    "Forms",
    "Pieces",
    "Texts",
    "Words",
    "character_repetition",
    "characters",
    "hash_word",
    "hash_words",
    "is_special",
    "joined",
    "refine",
    "repeated_grams",
    "repeated_pieces",
    "repeated_words",
    "strip_special",
    "top_gram",
    "word_repetition",
    "words_in_list",
]
