"""Counting."""

from __future__ import annotations

import random
from bisect import bisect_right, insort
from collections import Counter

LEVELS = {
    "count_each": (8, 100, 500, 2500),
    "group_anagrams": (8, 50, 200, 700),
    "most_frequent": (8, 100, 500, 2000),
    "inversions": (8, 60, 250, 1000),
    "stretches_with_sum": (8, 60, 250, 1000),
    "majority": (8, 100, 600, 3000),
    "first_single": (8, 100, 500, 2500),
    "differences_of": (8, 60, 250, 900),
    "triples_with_sum_zero": (6, 20, 45, 90),
    "same_pairs": (8, 60, 250, 1000),
}


def count_each(values: list[int]) -> dict[int, int]:
    """Return how often each value stands in the list."""
    return dict(Counter(values))


def count_each_slow(values: list[int]) -> dict[int, int]:
    result = {}
    for value in values:
        result[value] = values.count(value)
    return result


def count_each_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(size) for _ in range(size)],)


def group_anagrams(words: list[str]) -> list[list[str]]:
    """Put words of the same letters together; groups and words keep the order of the list."""
    groups: dict[str, list[str]] = {}
    for word in words:
        groups.setdefault("".join(sorted(word)), []).append(word)
    return list(groups.values())


def group_anagrams_slow(words: list[str]) -> list[list[str]]:
    groups: list[list[str]] = []
    for word in words:
        placed = False
        for group in groups:
            if sorted(group[0]) == sorted(word):
                group.append(word)
                placed = True
                break
        if not placed:
            groups.append([word])
    return groups


def group_anagrams_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    return (["".join(rng.choices("abcdef", k=4)) for _ in range(size)],)


def most_frequent(values: list[int]) -> int:
    """Return the value that stands most often in the list; of several, the least."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def most_frequent_slow(values: list[int]) -> int:
    best = None
    best_count = 0
    for value in sorted(set(values)):
        count = 0
        for other in values:
            if other == value:
                count += 1
        if count > best_count:
            best = value
            best_count = count
    assert best is not None
    return best


def most_frequent_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(1 + size // 2) for _ in range(size)],)


def inversions(numbers: list[int]) -> int:
    """Count the pairs of positions i < j with numbers[i] > numbers[j]."""
    seen: list[int] = []
    count = 0
    for number in numbers:
        count += len(seen) - bisect_right(seen, number)
        insort(seen, number)
    return count


def inversions_slow(numbers: list[int]) -> int:
    count = 0
    for i in range(len(numbers)):
        for j in range(i + 1, len(numbers)):
            if numbers[i] > numbers[j]:
                count += 1
    return count


def inversions_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(size) for _ in range(size)],)


def stretches_with_sum(numbers: list[int], target: int) -> int:
    """Count the stretches of neighbours, of one number at least, whose sum is the target."""
    before = {0: 1}
    total = count = 0
    for number in numbers:
        total += number
        count += before.get(total - target, 0)
        before[total] = before.get(total, 0) + 1
    return count


def stretches_with_sum_slow(numbers: list[int], target: int) -> int:
    count = 0
    for i in range(len(numbers)):
        total = 0
        for j in range(i, len(numbers)):
            total += numbers[j]
            if total == target:
                count += 1
    return count


def stretches_with_sum_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return [rng.randint(-5, 5) for _ in range(size)], rng.randint(-5, 5)


def majority(values: list[int]) -> int | None:
    """Return the value that is in more than half of the places, or None."""
    candidate, lead = None, 0
    for value in values:
        if lead == 0:
            candidate = value
        lead += 1 if value == candidate else -1
    is_most = 2 * sum(value == candidate for value in values) > len(values)
    return candidate if is_most else None


def majority_slow(values: list[int]) -> int | None:
    for value in values:
        count = 0
        for other in values:
            if other == value:
                count += 1
        if count > len(values) // 2:
            return value
    return None


def majority_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    most = size // 2 + rng.randrange(2)
    values = list(range(1, size - most + 1))
    rng.shuffle(values)
    return (values + [0] * most,)


def first_single(values: list[int]) -> int | None:
    """Return the first value that stands only once in the list, or None."""
    counts = Counter(values)
    return next((value for value in values if counts[value] == 1), None)


def first_single_slow(values: list[int]) -> int | None:
    for value in values:
        if values.count(value) == 1:
            return value
    return None


def first_single_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    values = list(range(size // 2)) * 2
    rng.shuffle(values)
    if rng.random() < 0.8:
        values.append(size)
    return (values,)


def differences_of(numbers: list[int], k: int) -> int:
    """Count the different values x such that both x and x + k stand in the list; k is above 0."""
    there = set(numbers)
    return sum(number + k in there for number in there)


def differences_of_slow(numbers: list[int], k: int) -> int:
    found = set()
    for a in numbers:
        for b in numbers:
            if b - a == k:
                found.add(a)
    return len(found)


def differences_of_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return [rng.randrange(2 * size) for _ in range(size)], rng.randint(1, size)


def triples_with_sum_zero(numbers: list[int]) -> int:
    """Count the triples of positions i < j < k whose numbers add up to 0."""
    count = 0
    before: dict[int, int] = {}
    for j, middle in enumerate(numbers):
        for last in numbers[j + 1 :]:
            count += before.get(-middle - last, 0)
        before[middle] = before.get(middle, 0) + 1
    return count


def triples_with_sum_zero_slow(numbers: list[int]) -> int:
    count = 0
    n = len(numbers)
    for i in range(n):
        for j in range(i + 1, n):
            for k in range(j + 1, n):
                if numbers[i] + numbers[j] + numbers[k] == 0:
                    count += 1
    return count


def triples_with_sum_zero_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randint(-size, size) for _ in range(size)],)


def same_pairs(words: list[str]) -> int:
    """Count the pairs of positions i < j with the same word, capitals or not."""
    return sum(n * (n - 1) // 2 for n in Counter(map(str.lower, words)).values())


def same_pairs_slow(words: list[str]) -> int:
    count = 0
    for i in range(len(words)):
        for j in range(i + 1, len(words)):
            if words[i].lower() == words[j].lower():
                count += 1
    return count


def same_pairs_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    return ([rng.choice("wW") + str(rng.randrange(1 + size // 3)) for _ in range(size)],)
