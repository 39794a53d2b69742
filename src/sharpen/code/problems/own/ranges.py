"""Intervals, windows and running values."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import deque
from itertools import accumulate

LEVELS = {
    "merge_intervals": (6, 60, 200, 600),
    "most_at_once": (6, 60, 250, 900),
    "covered_length": (6, 60, 200, 600),
    "which_are_covered": (6, 60, 250, 900),
    "window_maxima": (8, 100, 400, 1500),
    "window_sums": (8, 100, 400, 2000),
    "next_greater": (8, 100, 400, 1500),
    "trapped_water": (8, 80, 300, 1000),
    "largest_rectangle": (8, 60, 200, 700),
    "best_profit": (8, 80, 300, 1200),
    "sums_of_ranges": (8, 100, 400, 1500),
    "add_to_ranges": (8, 80, 300, 1000),
}

Intervals = list[tuple[int, int]]


def _intervals(size: int, rng: random.Random) -> Intervals:
    begins = [rng.randrange(20 * size) for _ in range(size)]
    return [(begin, begin + rng.randint(1, 20)) for begin in begins]


def merge_intervals(intervals: Intervals) -> Intervals:
    """Join intervals (begin, end) that overlap or touch; return them sorted."""
    merged: Intervals = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def merge_intervals_slow(intervals: Intervals) -> Intervals:
    result: Intervals = []
    for begin, end in intervals:
        overlapping = [r for r in result if r[0] <= end and begin <= r[1]]
        for r in overlapping:
            begin = min(begin, r[0])
            end = max(end, r[1])
            result.remove(r)
        result.append((begin, end))
    return sorted(result)


def merge_intervals_inputs(size: int, rng: random.Random) -> tuple[Intervals]:
    return (_intervals(size, rng),)


def most_at_once(intervals: Intervals) -> int:
    """Return how many of the intervals (begin, end), ends excluded, overlap at most at once."""
    changes = sorted([(b, 1) for b, _ in intervals] + [(e, -1) for _, e in intervals])
    return max(accumulate((change for _, change in changes), initial=0))


def most_at_once_slow(intervals: Intervals) -> int:
    best = 0
    for begin, _ in intervals:
        count = 0
        for other in intervals:
            if other[0] <= begin < other[1]:
                count += 1
        if count > best:
            best = count
    return best


def most_at_once_inputs(size: int, rng: random.Random) -> tuple[Intervals]:
    return (_intervals(size, rng),)


def covered_length(intervals: Intervals) -> int:
    """Return how many whole numbers lie in at least one interval (begin, end), ends excluded."""
    total = 0
    reached: int | None = None
    for begin, end in sorted(intervals):
        if reached is not None:
            begin = max(begin, reached)
        if end > begin:
            total += end - begin
            reached = end
    return total


def covered_length_slow(intervals: Intervals) -> int:
    covered = set()
    for begin, end in intervals:
        for point in range(begin, end):
            covered.add(point)
    return len(covered)


def covered_length_inputs(size: int, rng: random.Random) -> tuple[Intervals]:
    begins = [rng.randrange(500 * size) for _ in range(size)]
    return ([(begin, begin + rng.randint(100, 600)) for begin in begins],)


def which_are_covered(intervals: Intervals, points: list[int]) -> list[bool]:
    """For each point, return whether it lies in an interval (begin, end), ends excluded."""
    begins: list[int] = []
    ends: list[int] = []
    for begin, end in sorted(intervals):
        if ends and begin <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            begins.append(begin)
            ends.append(end)
    places = [bisect_right(begins, point) - 1 for point in points]
    return [i >= 0 and point < ends[i] for i, point in zip(places, points, strict=True)]


def which_are_covered_slow(intervals: Intervals, points: list[int]) -> list[bool]:
    result = []
    for point in points:
        inside = False
        for begin, end in intervals:
            if begin <= point < end:
                inside = True
        result.append(inside)
    return result


def which_are_covered_inputs(size: int, rng: random.Random) -> tuple[Intervals, list[int]]:
    return _intervals(size, rng), [rng.randrange(21 * size) for _ in range(size)]


def window_maxima(numbers: list[int], width: int) -> list[int]:
    """Return the greatest number of each window of some width, from the left to the right."""
    maxima = []
    falling: deque[int] = deque()
    for i, number in enumerate(numbers):
        while falling and numbers[falling[-1]] <= number:
            falling.pop()
        falling.append(i)
        if falling[0] <= i - width:
            falling.popleft()
        if i >= width - 1:
            maxima.append(numbers[falling[0]])
    return maxima


def window_maxima_slow(numbers: list[int], width: int) -> list[int]:
    result = []
    for i in range(len(numbers) - width + 1):
        best = numbers[i]
        for j in range(i, i + width):
            if numbers[j] > best:
                best = numbers[j]
        result.append(best)
    return result


def window_maxima_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return [rng.randrange(10 * size) for _ in range(size)], max(2, size // 8)


def window_sums(numbers: list[int], width: int) -> list[int]:
    """Return the sum of each window of some width, from the left to the right."""
    total = sum(numbers[:width])
    sums = [total] if len(numbers) >= width else []
    for old, new in zip(numbers, numbers[width:], strict=False):
        total += new - old
        sums.append(total)
    return sums


def window_sums_slow(numbers: list[int], width: int) -> list[int]:
    result = []
    for i in range(len(numbers) - width + 1):
        result.append(sum(numbers[i : i + width]))
    return result


def window_sums_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return [rng.randrange(1000) for _ in range(size)], max(2, size // 4)


def next_greater(numbers: list[int]) -> list[int]:
    """For each number, return the next one to its right that is greater, or -1."""
    found = [-1] * len(numbers)
    waiting: list[int] = []
    for i, number in enumerate(numbers):
        while waiting and numbers[waiting[-1]] < number:
            found[waiting.pop()] = number
        waiting.append(i)
    return found


def next_greater_slow(numbers: list[int]) -> list[int]:
    result = []
    for i in range(len(numbers)):
        greater = -1
        for j in range(i + 1, len(numbers)):
            if numbers[j] > numbers[i]:
                greater = numbers[j]
                break
        result.append(greater)
    return result


def next_greater_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([2 * (size - i) + rng.randrange(4) for i in range(size)],)


def trapped_water(heights: list[int]) -> int:
    """Return how much rain stays between walls of these heights, each one wide."""
    water = best_left = best_right = 0
    left, right = 0, len(heights) - 1
    while left <= right:
        if best_left <= best_right:
            best_left = max(best_left, heights[left])
            water += best_left - heights[left]
            left += 1
        else:
            best_right = max(best_right, heights[right])
            water += best_right - heights[right]
            right -= 1
    return water


def trapped_water_slow(heights: list[int]) -> int:
    water = 0
    for i in range(len(heights)):
        left = max(heights[: i + 1])
        right = max(heights[i:])
        water += min(left, right) - heights[i]
    return water


def trapped_water_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(size) for _ in range(size)],)


def largest_rectangle(heights: list[int]) -> int:
    """Return the area of the largest rectangle under bars of these heights, each one wide."""
    best = 0
    rising: list[tuple[int, int]] = []  # where a height could begin, and the height
    for i, height in enumerate([*heights, 0]):
        begin = i
        while rising and rising[-1][1] >= height:
            begin, taller = rising.pop()
            best = max(best, taller * (i - begin))
        rising.append((begin, height))
    return best


def largest_rectangle_slow(heights: list[int]) -> int:
    best = 0
    for i in range(len(heights)):
        lowest = heights[i]
        for j in range(i, len(heights)):
            if heights[j] < lowest:
                lowest = heights[j]
            if lowest * (j - i + 1) > best:
                best = lowest * (j - i + 1)
    return best


def largest_rectangle_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(size) for _ in range(size)],)


def best_profit(prices: list[int]) -> int:
    """Return the greatest profit of buying once and selling once later; 0 for none."""
    best = 0
    lowest = prices[0]
    for price in prices:
        lowest = min(lowest, price)
        best = max(best, price - lowest)
    return best


def best_profit_slow(prices: list[int]) -> int:
    best = 0
    for i in range(len(prices)):
        for j in range(i + 1, len(prices)):
            profit = prices[j] - prices[i]
            if profit > best:
                best = profit
    return best


def best_profit_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(1, 10 * size) for _ in range(size)],)


def sums_of_ranges(numbers: list[int], ranges: Intervals) -> list[int]:
    """For each range (begin, end), end excluded, return the sum of the numbers in it."""
    before = list(accumulate(numbers, initial=0))
    return [before[end] - before[begin] for begin, end in ranges]


def sums_of_ranges_slow(numbers: list[int], ranges: Intervals) -> list[int]:
    result = []
    for begin, end in ranges:
        total = 0
        for i in range(begin, end):
            total += numbers[i]
        result.append(total)
    return result


def sums_of_ranges_inputs(size: int, rng: random.Random) -> tuple[list[int], Intervals]:
    pairs = [sorted(rng.choices(range(size + 1), k=2)) for _ in range(size)]
    return [rng.randrange(1000) for _ in range(size)], [(a, b) for a, b in pairs]


def add_to_ranges(n: int, changes: list[tuple[int, int, int]]) -> list[int]:
    """Begin with n zeros; for each (begin, end, value) add the value from begin to before end."""
    steps = [0] * (n + 1)
    for begin, end, value in changes:
        steps[begin] += value
        steps[end] -= value
    return list(accumulate(steps[:-1]))


def add_to_ranges_slow(n: int, changes: list[tuple[int, int, int]]) -> list[int]:
    result = [0] * n
    for begin, end, value in changes:
        for i in range(begin, end):
            result[i] += value
    return result


def add_to_ranges_inputs(size: int, rng: random.Random) -> tuple[int, list[tuple[int, int, int]]]:
    pairs = [sorted(rng.choices(range(size + 1), k=2)) for _ in range(size)]
    return size, [(a, b, rng.randint(-9, 9)) for a, b in pairs]
