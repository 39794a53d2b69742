"""Processing of texts and records."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections import Counter

LEVELS = {
    "numbers_in": (8, 100, 1000, 6000),
    "without_stopwords": (8, 60, 250, 1000),
    "different_lines": (8, 100, 400, 1500),
    "messages_by_level": (8, 100, 1000, 6000),
    "brackets_match": (8, 100, 400, 1500),
    "lines_of_words": (8, 40, 120, 350),
    "words_beginning_with": (8, 60, 250, 800),
    "total_by_name": (8, 60, 250, 1000),
    "longest_line": (8, 100, 800, 4000),
    "ids_valid": (8, 100, 1000, 5000),
}


def numbers_in(text: str) -> list[int]:
    """Return the whole numbers of the text: all longest runs of the digits 0 to 9."""
    return [int(digits) for digits in re.findall(r"[0-9]+", text)]


def numbers_in_slow(text: str) -> list[int]:
    result = []
    current = ""
    for letter in text:
        if letter in "0123456789":
            current = current + letter
        else:
            if current != "":
                result.append(int(current))
            current = ""
    if current != "":
        result.append(int(current))
    return result


def numbers_in_inputs(size: int, rng: random.Random) -> tuple[str]:
    return (" and ".join(str(rng.randrange(10**6)) for _ in range(size)),)


def without_stopwords(words: list[str], stopwords: list[str]) -> list[str]:
    """Return the words that are, in small letters, none of the stopwords."""
    unwanted = set(stopwords)
    return [word for word in words if word.lower() not in unwanted]


def without_stopwords_slow(words: list[str], stopwords: list[str]) -> list[str]:
    result = []
    for word in words:
        if word.lower() not in stopwords:
            result.append(word)
    return result


def without_stopwords_inputs(size: int, rng: random.Random) -> tuple[list[str], list[str]]:
    words = [rng.choice("wW") + str(rng.randrange(4 * size)) for _ in range(size)]
    return words, [f"w{i}" for i in rng.sample(range(4 * size), size)]


def different_lines(text: str) -> str:
    """Return the text without the lines that have come before."""
    return "\n".join(dict.fromkeys(text.split("\n")))


def different_lines_slow(text: str) -> str:
    lines: list[str] = []
    for line in text.split("\n"):
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def different_lines_inputs(size: int, rng: random.Random) -> tuple[str]:
    return ("\n".join(f"line {rng.randrange(size)}" for _ in range(size)),)


def messages_by_level(lines: list[str]) -> dict[str, int]:
    """Count the lines of each level: the word before the first ":"; lines without one are none."""
    return dict(Counter(line.partition(":")[0] for line in lines if ":" in line))


def messages_by_level_slow(lines: list[str]) -> dict[str, int]:
    result: dict[str, int] = {}
    for line in lines:
        pattern = re.compile(r"([^:]*):(.*)")
        match = pattern.match(line)
        if match:
            level = match.group(1)
            if level in result.keys():
                result[level] = result[level] + 1
            else:
                result[level] = 1
    return result


def messages_by_level_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    levels = ["INFO:", "WARNING:", "ERROR:", "DEBUG:", "no level"]
    return ([f"{rng.choice(levels)} message {i}" for i in range(size)],)


def brackets_match(text: str) -> bool:
    """Return whether the round, square and curly brackets, which are all there is, pair up."""
    closing = {"(": ")", "[": "]", "{": "}"}
    expected: list[str] = []
    for bracket in text:
        if bracket in closing:
            expected.append(closing[bracket])
        elif not expected or expected.pop() != bracket:
            return False
    return not expected


def brackets_match_slow(text: str) -> bool:
    while "()" in text or "[]" in text or "{}" in text:
        text = text.replace("()", "")
        text = text.replace("[]", "")
        text = text.replace("{}", "")
    return text == ""


def brackets_match_inputs(size: int, rng: random.Random) -> tuple[str]:
    opened = [rng.choice(["()", "[]", "{}"]) for _ in range(size)]
    text = "".join(pair[0] for pair in opened) + "".join(pair[1] for pair in reversed(opened))
    return (text if rng.random() < 0.7 else text[:-1] + "(",)


def lines_of_words(lines: list[str]) -> dict[str, list[int]]:
    """For each word, return the numbers of the lines it is in, from 0, each once."""
    found: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        for word in dict.fromkeys(line.split()):
            found.setdefault(word, []).append(number)
    return found


def lines_of_words_slow(lines: list[str]) -> dict[str, list[int]]:
    words: list[str] = []
    for line in lines:
        for word in line.split():
            if word not in words:
                words.append(word)
    result = {}
    for word in words:
        numbers = []
        for i in range(len(lines)):
            if word in lines[i].split():
                numbers.append(i)
        result[word] = numbers
    return result


def lines_of_words_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    return ([" ".join(f"w{rng.randrange(size)}" for _ in range(6)) for _ in range(size)],)


def words_beginning_with(words: list[str], beginnings: list[str]) -> list[int]:
    """For each beginning, of small letters, count the words, of small letters, that have it."""
    ordered = sorted(words)
    return [
        bisect_left(ordered, beginning + "\U0010ffff") - bisect_left(ordered, beginning)
        for beginning in beginnings
    ]


def words_beginning_with_slow(words: list[str], beginnings: list[str]) -> list[int]:
    result = []
    for beginning in beginnings:
        count = 0
        for word in words:
            if word[: len(beginning)] == beginning:
                count += 1
        result.append(count)
    return result


def words_beginning_with_inputs(size: int, rng: random.Random) -> tuple[list[str], list[str]]:
    words = ["".join(rng.choices("abcde", k=6)) for _ in range(size)]
    return words, ["".join(rng.choices("abcde", k=rng.randint(1, 3))) for _ in range(size)]


def total_by_name(sales: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Add up the amounts of each name; return (name, total) in the order of the names."""
    totals: dict[str, int] = {}
    for name, amount in sales:
        totals[name] = totals.get(name, 0) + amount
    return sorted(totals.items())


def total_by_name_slow(sales: list[tuple[str, int]]) -> list[tuple[str, int]]:
    names = []
    for name, _ in sales:
        if name not in names:
            names.append(name)
    names.sort()
    result = []
    for name in names:
        total = 0
        for other, amount in sales:
            if other == name:
                total += amount
        result.append((name, total))
    return result


def total_by_name_inputs(size: int, rng: random.Random) -> tuple[list[tuple[str, int]]]:
    return ([(f"name{rng.randrange(1 + size // 2)}", rng.randrange(100)) for _ in range(size)],)


def longest_line(text: str) -> str:
    """Return the longest line of the text; of several, the first."""
    return max(text.split("\n"), key=len)


def longest_line_slow(text: str) -> str:
    lines = [""]
    for letter in text:
        if letter == "\n":
            lines.append("")
        else:
            lines[-1] = lines[-1] + letter
    lines.sort(key=len, reverse=True)
    return lines[0]


def longest_line_inputs(size: int, rng: random.Random) -> tuple[str]:
    return ("\n".join("x" * rng.randrange(20) + str(i) for i in range(size)),)


def ids_valid(ids: list[str]) -> list[bool]:
    """For each text, return whether it is two capital letters A to Z, "-" and four digits."""
    match = re.compile(r"[A-Z]{2}-[0-9]{4}").fullmatch
    return [match(one) is not None for one in ids]


def ids_valid_slow(ids: list[str]) -> list[bool]:
    result = []
    for one in ids:
        valid = len(one) == 7
        for i in range(len(one)):
            if i < 2:
                if one[i] not in list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
                    valid = False
            elif i == 2:
                if one[i] != "-":
                    valid = False
            elif one[i] not in list("0123456789"):
                valid = False
        result.append(valid)
    return result


def ids_valid_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    made = [
        f"{rng.choice('ABX')}{rng.choice('AZ')}-{rng.randrange(10**4):04d}" for _ in range(size)
    ]
    return ([one if rng.random() < 0.8 else one[: rng.randrange(7)] + "x" for one in made],)
