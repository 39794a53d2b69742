"""Problems whose usual solution is the best there is: nothing is to be gained on them."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from itertools import accumulate

LEVELS = {
    "binary_search": (8, 1000, 10000, 60000),
    "count_words": (8, 200, 2000, 20000),
    "prefix_sums": (8, 200, 2000, 20000),
    "pair_up": (8, 200, 2000, 20000),
    "join_lines": (8, 200, 2000, 20000),
    "spread": (8, 200, 2000, 20000),
    "different_values": (8, 200, 2000, 20000),
    "backwards": (8, 200, 2000, 20000),
    "by_length": (8, 200, 2000, 20000),
    "invert": (8, 200, 2000, 20000),
    "all_known": (8, 200, 2000, 20000),
    "letters_in_common": (8, 200, 2000, 20000),
}


def binary_search(numbers: list[int], value: int) -> int:
    """Return the place of the value in rising numbers, or -1."""
    place = bisect_left(numbers, value)
    return place if place < len(numbers) and numbers[place] == value else -1


def binary_search_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return list(range(0, 2 * size, 2)), rng.randrange(2 * size)


def count_words(words: list[str]) -> dict[str, int]:
    """Return how often each word stands in the list."""
    return dict(Counter(words))


def count_words_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    return ([f"w{rng.randrange(1 + size // 3)}" for _ in range(size)],)


def prefix_sums(numbers: list[int]) -> list[int]:
    """For each place, return the sum of the numbers up to it."""
    return list(accumulate(numbers))


def prefix_sums_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(1000) for _ in range(size)],)


def pair_up(names: list[str], numbers: list[int]) -> list[tuple[str, int]]:
    """Return pairs of the names and the numbers, as many as there are of both."""
    return list(zip(names, numbers, strict=False))


def pair_up_inputs(size: int, rng: random.Random) -> tuple[list[str], list[int]]:
    return [f"name{i}" for i in range(size)], [rng.randrange(100) for _ in range(size - 1)]


def join_lines(lines: list[str]) -> str:
    """Return the lines as one text."""
    return "\n".join(lines)


def join_lines_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    return ([f"line {rng.randrange(size)}" for _ in range(size)],)


def spread(numbers: list[int]) -> int:
    """Return the difference of the greatest and the least number."""
    return max(numbers) - min(numbers)


def spread_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(10 * size) for _ in range(size)],)


def different_values(values: list[int]) -> list[int]:
    """Return each value once, in the order in which it first stands in the list."""
    return list(dict.fromkeys(values))


def different_values_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(size) for _ in range(size)],)


def backwards(values: list[int]) -> list[int]:
    """Return the values in reverse order."""
    return values[::-1]


def backwards_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(1000) for _ in range(size)],)


def by_length(words: list[str]) -> list[str]:
    """Return the words from the shortest to the longest; those of one length keep their order."""
    return sorted(words, key=len)


def by_length_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    return (["x" * rng.randrange(30) + str(i) for i in range(size)],)


def invert(pairs: dict[str, int]) -> dict[int, str]:
    """Return a dict from the values, which all differ, to their keys."""
    return dict(zip(pairs.values(), pairs, strict=True))


def invert_inputs(size: int, rng: random.Random) -> tuple[dict[str, int]]:
    return ({f"k{i}": value for i, value in enumerate(rng.sample(range(9 * size), size))},)


def all_known(values: list[int], known: list[int]) -> bool:
    """Return whether all values are known."""
    return set(known).issuperset(values)


def all_known_inputs(size: int, rng: random.Random) -> tuple[list[int], list[int]]:
    known = rng.sample(range(4 * size), size)
    return [rng.choice(known) for _ in range(size)], known


def letters_in_common(a: str, b: str) -> int:
    """Count the different characters that stand in both texts."""
    return len(set(a).intersection(b))


def letters_in_common_inputs(size: int, rng: random.Random) -> tuple[str, str]:
    a, b = ("".join(chr(0x4E00 + rng.randrange(2 * size)) for _ in range(size)) for _ in range(2))
    return a, b
