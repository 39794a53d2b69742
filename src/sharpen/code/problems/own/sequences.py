"""Lists, queues and the like."""

from __future__ import annotations

import heapq
import random
from collections import deque
from itertools import accumulate, chain

LEVELS = {
    "flatten": (6, 60, 300, 1200),
    "running_maxima": (8, 100, 400, 2000),
    "rotate_left": (8, 200, 4000, 30000),
    "last_in_circle": (8, 200, 2000, 12000),
    "rounds_of_queue": (8, 200, 4000, 30000),
    "merge_sorted_lists": (6, 40, 120, 350),
    "sort_numbers": (8, 60, 200, 600),
    "without_value": (8, 200, 1500, 6000),
    "products_of_others": (8, 60, 250, 800),
    "balance_point": (8, 100, 400, 2000),
    "zeros_to_end": (8, 200, 1500, 6000),
    "neighbours_sum": (8, 200, 2000, 20000),
    "undo": (8, 200, 3000, 20000),
}


def flatten(lists: list[list[int]]) -> list[int]:
    """Return all values of all lists, in order, as one list."""
    return list(chain.from_iterable(lists))


def flatten_slow(lists: list[list[int]]) -> list[int]:
    result: list[int] = []
    for part in lists:
        result = result + part
    return result


def flatten_inputs(size: int, rng: random.Random) -> tuple[list[list[int]]]:
    return ([[rng.randrange(100) for _ in range(rng.randrange(9))] for _ in range(size)],)


def running_maxima(numbers: list[int]) -> list[int]:
    """For each place, return the greatest number up to it."""
    return list(accumulate(numbers, max))


def running_maxima_slow(numbers: list[int]) -> list[int]:
    result = []
    for i in range(len(numbers)):
        result.append(max(numbers[: i + 1]))
    return result


def running_maxima_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(10 * size) for _ in range(size)],)


def rotate_left(values: list[int], places: int) -> list[int]:
    """Return the values moved to the left by some places, those that fall off at the end."""
    if not values:
        return []
    places %= len(values)
    return values[places:] + values[:places]


def rotate_left_slow(values: list[int], places: int) -> list[int]:
    result = list(values)
    for _ in range(places):
        if result:
            result.append(result.pop(0))
    return result


def rotate_left_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return [rng.randrange(100) for _ in range(size)], size // 2 + rng.randrange(size // 4)


def last_in_circle(n: int, k: int) -> int:
    """People 0 to n - 1 stand in a circle and every k-th leaves; return who is left at last."""
    survivor = 0
    for count in range(2, n + 1):
        survivor = (survivor + k) % count
    return survivor


def last_in_circle_slow(n: int, k: int) -> int:
    people = list(range(n))
    while len(people) > 1:
        for _ in range(k - 1):
            people.append(people.pop(0))
        people.pop(0)
    return people[0]


def last_in_circle_inputs(size: int, rng: random.Random) -> tuple[int, int]:
    return size + rng.randrange(size // 4), rng.randint(2, 5)


def rounds_of_queue(jobs: list[int]) -> list[int]:
    """Serve jobs in turn, one unit each time; return their numbers in the order they are done.

    A job of the length 0 is done at its first turn.
    """
    waiting = deque(enumerate(jobs))
    done = []
    while waiting:
        number, left = waiting.popleft()
        if left > 1:
            waiting.append((number, left - 1))
        else:
            done.append(number)
    return done


def rounds_of_queue_slow(jobs: list[int]) -> list[int]:
    waiting = [(i, jobs[i]) for i in range(len(jobs))]
    done = []
    while len(waiting) > 0:
        number, left = waiting.pop(0)
        if left > 1:
            waiting.append((number, left - 1))
        else:
            done.append(number)
    return done


def rounds_of_queue_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(4) for _ in range(size)],)


def merge_sorted_lists(lists: list[list[int]]) -> list[int]:
    """Return all numbers of some sorted lists, sorted."""
    return list(heapq.merge(*lists)) if len(lists) < 3 else sorted(chain.from_iterable(lists))


def merge_sorted_lists_slow(lists: list[list[int]]) -> list[int]:
    lists = [list(one) for one in lists]
    result = []
    while any(len(one) > 0 for one in lists):
        smallest = None
        for i in range(len(lists)):
            first = lists[i][0] if lists[i] else None
            if first is not None and (smallest is None or first < lists[smallest][0]):
                smallest = i
        assert smallest is not None
        result.append(lists[smallest].pop(0))
    return result


def merge_sorted_lists_inputs(size: int, rng: random.Random) -> tuple[list[list[int]]]:
    return ([sorted(rng.choices(range(100), k=rng.randrange(6))) for _ in range(size // 2)],)


def sort_numbers(numbers: list[int]) -> list[int]:
    """Return the numbers in rising order."""
    return sorted(numbers)


def sort_numbers_slow(numbers: list[int]) -> list[int]:
    result = list(numbers)
    for i in range(len(result)):
        for j in range(len(result) - 1 - i):
            if result[j] > result[j + 1]:
                result[j], result[j + 1] = result[j + 1], result[j]
    return result


def sort_numbers_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(10 * size) for _ in range(size)],)


def without_value(values: list[int], unwanted: int) -> list[int]:
    """Return the values that are not the unwanted one."""
    return [value for value in values if value != unwanted]


def without_value_slow(values: list[int], unwanted: int) -> list[int]:
    result = list(values)
    while unwanted in result:
        result.remove(unwanted)
    return result


def without_value_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return [rng.randrange(4) for _ in range(size)], 2


def products_of_others(numbers: list[int], modulus: int) -> list[int]:
    """For each place, return the product of all numbers at other places, modulo some number."""
    products = []
    product = 1
    for number in numbers:
        products.append(product)
        product = product * number % modulus
    product = 1
    for i in range(len(numbers) - 1, -1, -1):
        products[i] = products[i] * product % modulus
        product = product * numbers[i] % modulus
    return products


def products_of_others_slow(numbers: list[int], modulus: int) -> list[int]:
    result = []
    for i in range(len(numbers)):
        product = 1
        for j in range(len(numbers)):
            if i != j:
                product = product * numbers[j] % modulus
        result.append(product % modulus)
    return result


def products_of_others_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return [rng.randrange(1, 1000) for _ in range(size)], 1_000_003


def balance_point(numbers: list[int]) -> int:
    """Return the first place whose left and right sums are equal, or -1; neither counts it."""
    left, total = 0, sum(numbers)
    for i, number in enumerate(numbers):
        if 2 * left == total - number:
            return i
        left += number
    return -1


def balance_point_slow(numbers: list[int]) -> int:
    for i in range(len(numbers)):
        if sum(numbers[:i]) == sum(numbers[i + 1 :]):
            return i
    return -1


def balance_point_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    numbers = [rng.randint(1, 9) for _ in range(size)]
    if rng.random() < 0.5:
        numbers += [0, sum(numbers)]
    return (numbers,)


def zeros_to_end(numbers: list[int]) -> list[int]:
    """Return the numbers with all zeros moved to the end; the others keep their order."""
    others = [number for number in numbers if number != 0]
    return others + [0] * (len(numbers) - len(others))


def zeros_to_end_slow(numbers: list[int]) -> list[int]:
    result = list(numbers)
    for _ in range(result.count(0)):
        result.remove(0)
        result.append(0)
    return result


def zeros_to_end_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(3) for _ in range(size)],)


def neighbours_sum(numbers: list[int]) -> list[int]:
    """Return the sum of each number and the next; one value less than there are numbers."""
    return [a + b for a, b in zip(numbers, numbers[1:], strict=False)]


def neighbours_sum_slow(numbers: list[int]) -> list[int]:
    result: list[int] = []
    for i in range(0, len(numbers)):
        if i + 1 < len(numbers):
            result.append(numbers[i] + numbers[i + 1])
        else:
            continue
    return result


def neighbours_sum_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(100) for _ in range(size)],)


def undo(commands: list[str]) -> list[str]:
    """Return the commands in force, the latest first; "undo" takes the latest in force back."""
    stack: list[str] = []
    for command in commands:
        if command != "undo":
            stack.append(command)
        elif stack:
            stack.pop()
    stack.reverse()
    return stack


def undo_slow(commands: list[str]) -> list[str]:
    result: list[str] = []
    for command in commands:
        if command == "undo":
            if len(result) > 0:
                result.pop(0)
        else:
            result.insert(0, command)
    return result


def undo_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    return ([f"do {i}" if rng.random() < 0.8 else "undo" for i in range(size)],)
