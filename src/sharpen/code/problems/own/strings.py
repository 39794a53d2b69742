"""Strings."""

from __future__ import annotations

import random
from itertools import groupby

LEVELS = {
    "reverse_words": (8, 200, 2000, 12000),
    "is_anagram": (8, 100, 1000, 4000),
    "count_vowels": (8, 200, 2000, 20000),
    "longest_palindrome": (8, 30, 70, 150),
    "longest_run_without_repeats": (8, 60, 300, 1500),
    "common_prefix": (8, 40, 150, 500),
    "most_common_word": (8, 60, 300, 1200),
    "run_lengths": (8, 200, 2000, 10000),
    "count_occurrences": (8, 200, 2000, 20000),
    "shift_letters": (8, 200, 2000, 20000),
    "without_letters": (8, 200, 2000, 20000),
}


def _letters(size: int, rng: random.Random, alphabet: str = "abcdefghijklmnopqrstuvwxyz") -> str:
    return "".join(rng.choices(alphabet, k=size))


def reverse_words(text: str) -> str:
    """Return the words of the text in reverse order, with one space between them."""
    return " ".join(reversed(text.split()))


def reverse_words_slow(text: str) -> str:
    result = ""
    for word in text.split():
        if result:
            result = word + " " + result
        else:
            result = word
    return result


def reverse_words_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (" ".join(_letters(rng.randint(1, 9), rng) for _ in range(size)),)


def is_anagram(a: str, b: str) -> bool:
    """Return whether b has the same letters as a, each as often."""
    return len(a) == len(b) and sorted(a) == sorted(b)


def is_anagram_slow(a: str, b: str) -> bool:
    letters = list(b)
    for letter in a:
        if letter in letters:
            letters.remove(letter)
        else:
            return False
    return len(letters) == 0


def is_anagram_inputs(size: int, rng: random.Random) -> tuple[str, str]:
    a = [chr(0x4E00 + rng.randrange(4 * size)) for _ in range(size)]
    b = rng.sample(a, size)
    if rng.random() < 0.3:
        b[0] = a[-1]
    return "".join(a), "".join(b)


def count_vowels(text: str) -> int:
    """Count the letters a, e, i, o and u."""
    return sum(map(text.count, "aeiou"))


def count_vowels_slow(text: str) -> int:
    count = 0
    for i in range(len(text)):
        if text[i] in ["a", "e", "i", "o", "u"]:
            count += 1
    return count


def count_vowels_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (_letters(size, rng),)


def longest_palindrome(text: str) -> str:
    """Return the longest part that reads the same backwards; of several, the first."""
    best_begin, best_length = 0, 0
    for centre in range(len(text)):
        for right in (centre, centre + 1):
            low, high = centre, right
            while low >= 0 and high < len(text) and text[low] == text[high]:
                low -= 1
                high += 1
            if high - low - 1 > best_length:
                best_begin, best_length = low + 1, high - low - 1
    return text[best_begin : best_begin + best_length]


def longest_palindrome_slow(text: str) -> str:
    best = ""
    for i in range(len(text)):
        for j in range(i, len(text)):
            part = text[i : j + 1]
            if part == part[::-1] and len(part) > len(best):
                best = part
    return best


def longest_palindrome_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (_letters(size, rng, "abc"),)


def longest_run_without_repeats(text: str) -> int:
    """Return the length of the longest stretch in which no character stands twice."""
    last: dict[str, int] = {}
    begin = best = 0
    for i, letter in enumerate(text):
        begin = max(begin, last.get(letter, -1) + 1)
        last[letter] = i
        best = max(best, i + 1 - begin)
    return best


def longest_run_without_repeats_slow(text: str) -> int:
    best = 0
    for i in range(len(text)):
        seen = set()
        for j in range(i, len(text)):
            if text[j] in seen:
                break
            seen.add(text[j])
            best = max(best, j - i + 1)
    return best


def longest_run_without_repeats_inputs(size: int, rng: random.Random) -> tuple[str]:
    return ("".join(chr(0x4E00 + rng.randrange(20 * size)) for _ in range(size)),)


def common_prefix(words: list[str]) -> str:
    """Return the longest beginning that all words share."""
    if not words:
        return ""
    first, last = min(words), max(words)
    for i, letter in enumerate(first):
        if letter != last[i]:
            return first[:i]
    return first


def common_prefix_slow(words: list[str]) -> str:
    prefix = ""
    if not words:
        return prefix
    for i in range(len(words[0])):
        for word in words:
            if i >= len(word) or word[i] != words[0][i]:
                return prefix
        prefix += words[0][i]
    return prefix


def common_prefix_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    shared = _letters(size, rng)
    return ([shared + _letters(rng.randint(0, 5), rng) for _ in range(size)],)


def most_common_word(text: str) -> str:
    """Return the word that stands most often; of several, the first in the alphabet."""
    counts: dict[str, int] = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return min(counts, key=lambda word: (-counts[word], word))


def most_common_word_slow(text: str) -> str:
    words = text.split()
    best = words[0]
    for word in words:
        if words.count(word) > words.count(best):
            best = word
        elif words.count(word) == words.count(best) and word < best:
            best = word
    return best


def most_common_word_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (" ".join(f"w{rng.randrange(1 + size // 2)}" for _ in range(size)),)


def run_lengths(text: str) -> list[tuple[str, int]]:
    """Return each character with how often it follows itself, as ("a", 3) for "aaa"."""
    return [(letter, len(list(group))) for letter, group in groupby(text)]


def run_lengths_slow(text: str) -> list[tuple[str, int]]:
    result = []
    while text:
        letter = text[0]
        count = 0
        while text and text[0] == letter:
            count += 1
            text = text[1:]
        result.append((letter, count))
    return result


def run_lengths_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (_letters(size, rng, "aab"),)


def count_occurrences(text: str, part: str) -> int:
    """Count the places where the part begins in the text; they may overlap."""
    count = 0
    place = text.find(part)
    while place >= 0:
        count += 1
        place = text.find(part, place + 1)
    return count


def count_occurrences_slow(text: str, part: str) -> int:
    count = 0
    for i in range(len(text) - len(part) + 1):
        if text[i : i + len(part)] == part:
            count += 1
    return count


def count_occurrences_inputs(size: int, rng: random.Random) -> tuple[str, str]:
    text = _letters(size, rng, "abcdefgh")
    begin = rng.randrange(size - 3)
    return text, text[begin : begin + 3]


def shift_letters(text: str, places: int) -> str:
    """Move each small letter on by some places of the alphabet, z to a; leave the others."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    places %= 26
    return text.translate(str.maketrans(letters, letters[places:] + letters[:places]))


def shift_letters_slow(text: str, places: int) -> str:
    result = ""
    for letter in text:
        if "a" <= letter <= "z":
            result = result + chr((ord(letter) - ord("a") + places) % 26 + ord("a"))
        else:
            result = result + letter
    return result


def shift_letters_inputs(size: int, rng: random.Random) -> tuple[str, int]:
    return _letters(size, rng, "abcdefghijklmnopqrstuvwxyz ,."), rng.randrange(-30, 30)


def without_letters(text: str, unwanted: str) -> str:
    """Return the text without the unwanted characters."""
    return text.translate(dict.fromkeys(map(ord, unwanted)))


def without_letters_slow(text: str, unwanted: str) -> str:
    result = ""
    for letter in text:
        keep = True
        for other in unwanted:
            if letter == other:
                keep = False
        if keep:
            result += letter
    return result


def without_letters_inputs(size: int, rng: random.Random) -> tuple[str, str]:
    return _letters(size, rng), _letters(6, rng)
