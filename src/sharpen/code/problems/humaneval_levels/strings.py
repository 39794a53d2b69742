"""Fast solutions and inputs for functions of HumanEval on strings."""

import random

LEVELS = {
    "string_xor": (8, 200, 2000, 20000),
    "count_distinct_characters": (8, 200, 2000, 20000),
    "how_many_times": (8, 200, 2000, 20000),
    "is_palindrome": (8, 200, 2000, 20000),
    "remove_vowels": (8, 200, 2000, 20000),
    "same_chars": (8, 200, 2000, 20000),
    "vowels_count": (8, 200, 2000, 20000),
    "digitSum": (8, 200, 2000, 20000),
    "is_happy": (8, 200, 2000, 20000),
    "flip_case": (8, 200, 2000, 20000),
}


def _text(
    size: int, rng: random.Random, letters: str = "abcdefghijklmnopqrstuvwxyzAEIOUXYZ"
) -> str:
    return "".join(rng.choices(letters, k=size))


def string_xor(a: str, b: str) -> str:
    if not a:
        return ""
    return f"{int(a, 2) ^ int(b, 2):0{len(a)}b}"


def string_xor_inputs(size: int, rng: random.Random) -> tuple[str, str]:
    return _text(size, rng, "01"), _text(size, rng, "01")


def count_distinct_characters(string: str) -> int:
    return len(set(string.lower()))


def count_distinct_characters_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (_text(size, rng),)


def how_many_times(string: str, substring: str) -> int:
    count = 0
    place = string.find(substring)
    while place >= 0:
        count += 1
        place = string.find(substring, place + 1)
    return count


def how_many_times_inputs(size: int, rng: random.Random) -> tuple[str, str]:
    text = _text(size, rng)
    return text, text[size // 2 : size // 2 + 3]


def is_palindrome(text: str) -> bool:
    return text == text[::-1]


def is_palindrome_inputs(size: int, rng: random.Random) -> tuple[str]:
    half = _text(size // 2, rng)
    return (half + half[::-1] if rng.random() < 0.8 else half,)


def remove_vowels(text: str) -> str:
    return text.translate(dict.fromkeys(map(ord, "aeiouAEIOU")))


def remove_vowels_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (_text(size, rng),)


def same_chars(s0: str, s1: str) -> bool:
    return set(s0) == set(s1)


def same_chars_inputs(size: int, rng: random.Random) -> tuple[str, str]:
    return _text(size, rng), _text(size, rng)


def vowels_count(s: str) -> int:
    count = sum(map(s.count, "aeiouAEIOU"))
    return count + (s[-1:] in ("y", "Y"))


def vowels_count_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (_text(size, rng),)


def digitSum(s: str) -> int:
    return sum(code for code in map(ord, s) if 65 <= code <= 90)


def digitSum_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (_text(size, rng),)


def is_happy(s: str) -> bool:
    if len(s) < 3:
        return False
    return all(a != b != c != a for a, b, c in zip(s, s[1:], s[2:], strict=False))


def is_happy_inputs(size: int, rng: random.Random) -> tuple[str]:
    return ("abc" * (size // 3) + ("c" if rng.random() < 0.3 else ""),)


def flip_case(string: str) -> str:
    return string.swapcase()


def flip_case_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (_text(size, rng),)
