"""Finding things in lists."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections import Counter

LEVELS = {
    "pairs_with_sum": (8, 60, 250, 1000),
    "first_repeated": (8, 100, 500, 2000),
    "common_values": (8, 100, 400, 1500),
    "numbers_below_each": (8, 60, 250, 1000),
    "missing_number": (8, 100, 500, 2500),
    "nearest_values": (8, 50, 200, 600),
    "orders_with_names": (8, 50, 200, 800),
    "largest_k": (8, 100, 400, 1500),
    "kth_smallest": (8, 100, 400, 1500),
}


def pairs_with_sum(numbers: list[int], target: int) -> int:
    """Count the pairs of positions i < j whose numbers add up to the target."""
    seen: dict[int, int] = {}
    pairs = 0
    for number in numbers:
        pairs += seen.get(target - number, 0)
        seen[number] = seen.get(number, 0) + 1
    return pairs


def pairs_with_sum_slow(numbers: list[int], target: int) -> int:
    count = 0
    for i in range(len(numbers)):
        for j in range(i + 1, len(numbers)):
            if numbers[i] + numbers[j] == target:
                count += 1
    return count


def pairs_with_sum_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return [rng.randrange(-size, size) for _ in range(size)], rng.randrange(-size, size)


def first_repeated(values: list[int]) -> int | None:
    """Return the first value that has stood in the list before, or None."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def first_repeated_slow(values: list[int]) -> int | None:
    seen = []
    for value in values:
        if value in seen:
            return value
        seen.append(value)
    return None


def first_repeated_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    values = rng.sample(range(10 * size), size)
    if rng.random() < 0.7:
        values[-1] = rng.choice(values[:-1])
    return (values,)


def common_values(a: list[int], b: list[int]) -> list[int]:
    """Return the values of a that are also in b: each once, in the order of a."""
    there = set(b)
    return [value for value in dict.fromkeys(a) if value in there]


def common_values_slow(a: list[int], b: list[int]) -> list[int]:
    result: list[int] = []
    for x in a:
        if x in b and x not in result:
            result.append(x)
    return result


def common_values_inputs(size: int, rng: random.Random) -> tuple[list[int], list[int]]:
    a, b = ([rng.randrange(3 * size) for _ in range(size)] for _ in range(2))
    return a, b


def numbers_below_each(numbers: list[int]) -> list[int]:
    """For each number, return how many numbers of the list are less than it."""
    ordered = sorted(numbers)
    return [bisect_left(ordered, number) for number in numbers]


def numbers_below_each_slow(numbers: list[int]) -> list[int]:
    result = []
    for a in numbers:
        count = 0
        for b in numbers:
            if b < a:
                count += 1
        result.append(count)
    return result


def numbers_below_each_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(size) for _ in range(size)],)


def missing_number(numbers: list[int]) -> int:
    """The list holds all integers from 0 to len(numbers) but one; return that one."""
    n = len(numbers)
    return n * (n + 1) // 2 - sum(numbers)


def missing_number_slow(numbers: list[int]) -> int:
    for i in range(len(numbers) + 1):
        if i not in numbers:
            return i
    raise ValueError("no number is missing")


def missing_number_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    numbers = list(range(size + 1))
    rng.shuffle(numbers)
    return (numbers[:-1],)


def nearest_values(values: list[int], queries: list[int]) -> list[int]:
    """For each query, return the nearest of the sorted values; of two as near, the lesser."""
    found = []
    for query in queries:
        i = bisect_left(values, query)
        around = values[max(0, i - 1) : i + 1]
        found.append(min(around, key=lambda value: abs(value - query)))
    return found


def nearest_values_slow(values: list[int], queries: list[int]) -> list[int]:
    result = []
    for q in queries:
        best = values[0]
        for v in values:
            if abs(v - q) < abs(best - q):
                best = v
        result.append(best)
    return result


def nearest_values_inputs(size: int, rng: random.Random) -> tuple[list[int], list[int]]:
    values = sorted(rng.sample(range(5 * size), size))
    return values, [rng.randrange(-size, 6 * size) for _ in range(size)]


def orders_with_names(
    orders: list[tuple[int, int]], customers: list[tuple[int, str]]
) -> list[tuple[int, str]]:
    """Put names to orders.

    Orders are pairs of number and customer, customers pairs of number and name. Return pairs of
    order number and name, in the order of the orders; orders of unknown customers are left out.
    """
    names = dict(customers)
    return [(order, names[customer]) for order, customer in orders if customer in names]


def orders_with_names_slow(
    orders: list[tuple[int, int]], customers: list[tuple[int, str]]
) -> list[tuple[int, str]]:
    result = []
    for order, customer in orders:
        for number, name in customers:
            if number == customer:
                result.append((order, name))
    return result


def orders_with_names_inputs(
    size: int, rng: random.Random
) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
    customers = [(number, f"name{rng.randrange(size)}") for number in range(size)]
    rng.shuffle(customers)
    return [(i, rng.randrange(size + 3)) for i in range(size)], customers


def largest_k(numbers: list[int], k: int) -> list[int]:
    """Return the k largest numbers, the largest first."""
    return heapq.nlargest(k, numbers)


def largest_k_slow(numbers: list[int], k: int) -> list[int]:
    left = list(numbers)
    result: list[int] = []
    while left and len(result) < k:
        biggest = max(left)
        left.remove(biggest)
        result.append(biggest)
    return result


def largest_k_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return [rng.randrange(10 * size) for _ in range(size)], size // 3


def kth_smallest(numbers: list[int], k: int) -> int:
    """Return the number that has the place k, from 1, when all are put in order."""
    return sorted(numbers)[k - 1]


def kth_smallest_slow(numbers: list[int], k: int) -> int:
    for candidate in numbers:
        less = 0
        equal = 0
        for other in numbers:
            if other < candidate:
                less += 1
            elif other == candidate:
                equal += 1
        if less < k <= less + equal:
            return candidate
    raise ValueError("k is out of range")


def kth_smallest_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    numbers = [rng.randrange(10 * size) for _ in range(size)]
    wanted = Counter(numbers[-max(1, size // 4) :]).most_common()[-1][0]
    return numbers, sorted(numbers).index(wanted) + 1
