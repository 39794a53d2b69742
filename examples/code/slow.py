"""Slow functions as people write them, for ``sharpen improve examples/code/slow.py:NAME``."""

from __future__ import annotations


def pairs_with_sum(numbers: list[int], total: int) -> list[tuple[int, int]]:
    """All pairs of numbers, the earlier one first, whose sum is ``total``."""
    found = []
    for i in range(len(numbers)):
        for j in range(i + 1, len(numbers)):
            if numbers[i] + numbers[j] == total:
                found.append((numbers[i], numbers[j]))
    return found


def unique(words: list[str]) -> list[str]:
    """The words without repetitions, in the order in which they first come."""
    found = []
    for word in words:
        if word not in found:
            found.append(word)
    return found


def common(left: list[int], right: list[int]) -> list[int]:
    """What of ``left`` is also in ``right``, in its order."""
    result = []
    for value in left:
        if value in right:
            result.append(value)
    return result


def most_common_letter(text: str) -> str:
    """The letter that is there most often; the first of several."""
    best = ""
    for letter in text:
        if best == "" or text.count(letter) > text.count(best):
            best = letter
    return best


def fibonacci(n: int) -> int:
    """The n-th number of Fibonacci, from 0 and 1."""
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)


def total(numbers: list[int]) -> int:
    """The sum, already as fast as Python has it."""
    return sum(numbers)
