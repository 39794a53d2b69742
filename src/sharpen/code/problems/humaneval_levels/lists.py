"""Fast solutions and inputs for functions of HumanEval on lists."""

import random
from collections import Counter
from itertools import accumulate, pairwise

LEVELS = {
    "has_close_elements": (8, 60, 250, 900),
    "below_zero": (8, 200, 2000, 20000),
    "intersperse": (8, 200, 2000, 20000),
    "rolling_max": (8, 200, 2000, 20000),
    "find_closest_elements": (8, 60, 250, 800),
    "remove_duplicates": (8, 200, 2000, 20000),
    "unique": (8, 200, 2000, 20000),
    "triples_sum_to_zero": (5, 25, 50, 100),
    "incr_list": (8, 200, 2000, 20000),
    "pairs_sum_to_zero": (8, 60, 250, 1000),
    "below_threshold": (8, 200, 2000, 20000),
    "monotonic": (8, 200, 2000, 20000),
    "common": (8, 60, 250, 900),
    "search": (8, 60, 400, 1500),
    "move_one_ball": (6, 60, 250, 900),
    "is_sorted": (8, 100, 500, 2500),
    "largest_smallest_integers": (8, 200, 2000, 20000),
    "compare": (8, 200, 2000, 20000),
}


def _numbers(size: int, rng: random.Random, most: int | None = None) -> list[int]:
    limit = most or 10 * size
    return [rng.randint(-limit, limit) for _ in range(size)]


def has_close_elements(numbers: list[float], threshold: float) -> bool:
    ordered = sorted(numbers)
    return any(b - a < threshold for a, b in pairwise(ordered))


def has_close_elements_inputs(size: int, rng: random.Random) -> tuple[list[float], float]:
    numbers = [float(2 * i) for i in range(size)]
    rng.shuffle(numbers)
    if rng.random() < 0.2:
        numbers[-1] = numbers[-2] + 0.5
    return numbers, 1.0


def below_zero(operations: list[int]) -> bool:
    return any(balance < 0 for balance in accumulate(operations))


def below_zero_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    operations = [rng.randrange(10) for _ in range(size)]
    if rng.random() < 0.5:
        operations[-1] = -10 * size
    return (operations,)


def intersperse(numbers: list[int], delimeter: int) -> list[int]:
    if not numbers:
        return []
    found = [delimeter] * (2 * len(numbers) - 1)
    found[::2] = numbers
    return found


def intersperse_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    return _numbers(size, rng), rng.randrange(10)


def rolling_max(numbers: list[int]) -> list[int]:
    return list(accumulate(numbers, max))


def rolling_max_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return (_numbers(size, rng),)


def find_closest_elements(numbers: list[float]) -> tuple[float, float]:
    ordered = sorted(numbers)
    return min(pairwise(ordered), key=lambda pair: pair[1] - pair[0])


def find_closest_elements_inputs(size: int, rng: random.Random) -> tuple[list[float]]:
    gaps = [1.0 + i for i in range(size)]
    rng.shuffle(gaps)
    numbers = list(accumulate(gaps))
    rng.shuffle(numbers)
    return (numbers,)


def remove_duplicates(numbers: list[int]) -> list[int]:
    counts = Counter(numbers)
    return [number for number in numbers if counts[number] == 1]


def remove_duplicates_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return (_numbers(size, rng, size),)


def unique(l: list[int]) -> list[int]:
    return sorted(set(l))


def unique_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return (_numbers(size, rng, size),)


def triples_sum_to_zero(l: list[int]) -> bool:
    seen: set[int] = set()
    for i, middle in enumerate(l):
        for last in l[i + 1 :]:
            if -middle - last in seen:
                return True
        seen.add(middle)
    return False


def triples_sum_to_zero_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    numbers = [3 * rng.randrange(-size, size) + 1 for _ in range(size)]  # sums are 0 modulo 3
    if rng.random() < 0.8:
        numbers = [abs(number) + 1 for number in numbers]
    return (numbers,)


def incr_list(l: list[int]) -> list[int]:
    return [number + 1 for number in l]


def incr_list_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return (_numbers(size, rng),)


def pairs_sum_to_zero(l: list[int]) -> bool:
    seen: set[int] = set()
    for number in l:
        if -number in seen:
            return True
        seen.add(number)
    return False


def pairs_sum_to_zero_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    numbers = rng.sample(range(1, 10 * size), size)
    if rng.random() < 0.3:
        numbers[-1] = -numbers[0]
    return (numbers,)


def below_threshold(l: list[int], t: int) -> bool:
    return not l or max(l) < t


def below_threshold_inputs(size: int, rng: random.Random) -> tuple[list[int], int]:
    numbers = _numbers(size, rng)
    return numbers, max(numbers) + rng.randrange(2)


def monotonic(l: list[int]) -> bool:
    ordered = sorted(l)
    return l in (ordered, ordered[::-1])


def monotonic_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    numbers = sorted(_numbers(size, rng), reverse=rng.random() < 0.5)
    if rng.random() < 0.3:
        numbers[-1], numbers[0] = numbers[0], numbers[-1]
    return (numbers,)


def common(l1: list[int], l2: list[int]) -> list[int]:
    return sorted(set(l1).intersection(l2))


def common_inputs(size: int, rng: random.Random) -> tuple[list[int], list[int]]:
    return _numbers(size, rng, size), _numbers(size, rng, size)


def search(lst: list[int]) -> int:
    return max((n for n, count in Counter(lst).items() if count >= n > 0), default=-1)


def search_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randint(1, 1 + size // 3) for _ in range(size)],)


def move_one_ball(arr: list[int]) -> bool:
    falls = sum(a > b for a, b in pairwise(arr))
    return falls == 0 or (falls == 1 and arr[-1] <= arr[0])


def move_one_ball_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    numbers = sorted(rng.sample(range(10 * size), size))
    k = rng.randrange(size)
    numbers = numbers[k:] + numbers[:k]
    if rng.random() < 0.5:
        numbers[0], numbers[1] = numbers[1], numbers[0]
    return (numbers,)


def is_sorted(lst: list[int]) -> bool:
    if any(a > b for a, b in pairwise(lst)):
        return False
    return all(a < c for a, c in zip(lst, lst[2:], strict=False))


def is_sorted_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    numbers = sorted([*range(size // 2), *range(size - size // 2)])
    if rng.random() < 0.4:
        numbers[-1] = numbers[-3]
    return (numbers,)


def largest_smallest_integers(lst: list[int]) -> tuple[int | None, int | None]:
    negative = max((number for number in lst if number < 0), default=None)
    return negative, min((number for number in lst if number > 0), default=None)


def largest_smallest_integers_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return (_numbers(size, rng),)


def compare(game: list[int], guess: list[int]) -> list[int]:
    return [abs(a - b) for a, b in zip(game, guess, strict=True)]


def compare_inputs(size: int, rng: random.Random) -> tuple[list[int], list[int]]:
    return _numbers(size, rng), _numbers(size, rng)
