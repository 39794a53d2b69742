"""Problems with overlapping parts: naive recursion and dynamic programs."""

from __future__ import annotations

import random
from bisect import bisect_left

LEVELS = {
    "climb_stairs": (5, 12, 17, 22),
    "coin_ways": (10, 30, 60, 100),
    "fewest_coins": (6, 12, 18, 24),
    "edit_distance": (3, 5, 6, 8),
    "common_subsequence": (4, 7, 9, 11),
    "rising_subsequence": (8, 60, 250, 900),
    "best_stretch": (8, 60, 250, 1000),
    "knapsack": (5, 10, 13, 16),
    "grid_paths": (3, 6, 7, 9),
    "best_without_neighbours": (6, 14, 19, 24),
    "equal_halves": (5, 10, 13, 17),
    "cut_rod": (5, 10, 13, 17),
}


def climb_stairs(n: int) -> int:
    """Count the ways to climb n steps by one or two at a time; one way for no steps."""
    a, b = 1, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def climb_stairs_slow(n: int) -> int:
    if n <= 1:
        return 1
    return climb_stairs_slow(n - 1) + climb_stairs_slow(n - 2)


def climb_stairs_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randint(-1, 1),)


def coin_ways(amount: int, coins: list[int]) -> int:
    """Count the ways to pay the amount with coins of these different values."""
    ways = [1] + [0] * amount
    for coin in coins:
        for total in range(coin, amount + 1):
            ways[total] += ways[total - coin]
    return ways[amount]


def coin_ways_slow(amount: int, coins: list[int]) -> int:
    if amount == 0:
        return 1
    if amount < 0 or not coins:
        return 0
    return coin_ways_slow(amount - coins[0], coins) + coin_ways_slow(amount, coins[1:])


def coin_ways_inputs(size: int, rng: random.Random) -> tuple[int, list[int]]:
    return size + rng.randrange(4), [1, *sorted(rng.sample(range(3, 13), 3))]


def fewest_coins(amount: int, coins: list[int]) -> int:
    """Return the least number of coins that pay the amount, or -1; each coin is used at will."""
    fewest = [0] + [amount + 1] * amount
    for total in range(1, amount + 1):
        for coin in coins:
            if coin <= total and fewest[total - coin] + 1 < fewest[total]:
                fewest[total] = fewest[total - coin] + 1
    return fewest[amount] if fewest[amount] <= amount else -1


def fewest_coins_slow(amount: int, coins: list[int]) -> int:
    if amount == 0:
        return 0
    best = -1
    for coin in coins:
        if coin <= amount:
            rest = fewest_coins_slow(amount - coin, coins)
            if rest >= 0 and (best < 0 or rest + 1 < best):
                best = rest + 1
    return best


def fewest_coins_inputs(size: int, rng: random.Random) -> tuple[int, list[int]]:
    return size + rng.randrange(3), [2, 3, rng.randint(4, 6)]


def edit_distance(a: str, b: str) -> int:
    """Return the least number of letters to insert, delete or replace to turn a into b."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def edit_distance_slow(a: str, b: str) -> int:
    if not a:
        return len(b)
    if not b:
        return len(a)
    if a[0] == b[0]:
        return edit_distance_slow(a[1:], b[1:])
    return 1 + min(
        edit_distance_slow(a[1:], b),
        edit_distance_slow(a, b[1:]),
        edit_distance_slow(a[1:], b[1:]),
    )


def edit_distance_inputs(size: int, rng: random.Random) -> tuple[str, str]:
    a, b = ("".join(rng.choices("abcd", k=size)) for _ in range(2))
    return a, b


def common_subsequence(a: list[int], b: list[int]) -> int:
    """Return the length of the longest sequence that stands, with gaps, in both lists."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            above = row[j]
            row[j] = diagonal + 1 if x == y else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def common_subsequence_slow(a: list[int], b: list[int]) -> int:
    if len(a) == 0 or len(b) == 0:
        return 0
    if a[-1] == b[-1]:
        return 1 + common_subsequence_slow(a[:-1], b[:-1])
    return max(common_subsequence_slow(a[:-1], b), common_subsequence_slow(a, b[:-1]))


def common_subsequence_inputs(size: int, rng: random.Random) -> tuple[list[int], list[int]]:
    return [rng.randrange(6) for _ in range(size)], [rng.randrange(6) for _ in range(size)]


def rising_subsequence(numbers: list[int]) -> int:
    """Return the length of the longest sequence, with gaps, in which each number is greater."""
    ends: list[int] = []
    for number in numbers:
        place = bisect_left(ends, number)
        ends[place : place + 1] = [number]
    return len(ends)


def rising_subsequence_slow(numbers: list[int]) -> int:
    best = [1] * len(numbers)
    for i in range(len(numbers)):
        for j in range(i):
            if numbers[j] < numbers[i]:
                best[i] = max(best[i], best[j] + 1)
    return max(best) if best else 0


def rising_subsequence_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(2 * size) for _ in range(size)],)


def best_stretch(numbers: list[int]) -> int:
    """Return the greatest sum of neighbours, of one number at least."""
    best = current = numbers[0]
    for number in numbers[1:]:
        current = max(number, current + number)
        best = max(best, current)
    return best


def best_stretch_slow(numbers: list[int]) -> int:
    best = numbers[0]
    for i in range(len(numbers)):
        for j in range(i, len(numbers)):
            if sum(numbers[i : j + 1]) > best:
                best = sum(numbers[i : j + 1])
    return best


def best_stretch_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randint(-20, 19) for _ in range(1 + size // 4)],)


def knapsack(weights: list[int], values: list[int], capacity: int) -> int:
    """Return the greatest value of things whose weights together are at most the capacity."""
    best = [0] * (capacity + 1)
    for weight, value in zip(weights, values, strict=True):
        for room in range(capacity, weight - 1, -1):
            best[room] = max(best[room], best[room - weight] + value)
    return best[capacity]


def knapsack_slow(weights: list[int], values: list[int], capacity: int) -> int:
    if not weights:
        return 0
    without = knapsack_slow(weights[1:], values[1:], capacity)
    if weights[0] > capacity:
        return without
    with_it = values[0] + knapsack_slow(weights[1:], values[1:], capacity - weights[0])
    return max(without, with_it)


def knapsack_inputs(size: int, rng: random.Random) -> tuple[list[int], list[int], int]:
    weights = [rng.randint(1, 9) for _ in range(size)]
    return weights, [rng.randint(1, 50) for _ in range(size)], 3 * sum(weights) // 5


def grid_paths(grid: list[list[int]]) -> int:
    """Count the ways from the first cell to the last by steps right and down on cells that are 0.

    Return 0 where the first or the last is not 0.
    """
    row = [0] * len(grid[0])
    row[0] = 1
    for cells in grid:
        for j, cell in enumerate(cells):
            if cell:
                row[j] = 0
            elif j:
                row[j] += row[j - 1]
    return row[-1]


def grid_paths_slow(grid: list[list[int]]) -> int:
    def count(i: int, j: int) -> int:
        if i >= len(grid) or j >= len(grid[0]) or grid[i][j] != 0:
            return 0
        if i == len(grid) - 1 and j == len(grid[0]) - 1:
            return 1
        return count(i + 1, j) + count(i, j + 1)

    return count(0, 0)


def grid_paths_inputs(size: int, rng: random.Random) -> tuple[list[list[int]]]:
    return ([[int(rng.random() < 0.05) for _ in range(size)] for _ in range(size)],)


def best_without_neighbours(values: list[int]) -> int:
    """Return the greatest sum of values of which no two are neighbours; 0 for none."""
    skipped = taken = 0
    for value in values:
        skipped, taken = max(skipped, taken), skipped + value
    return max(skipped, taken)


def best_without_neighbours_slow(values: list[int]) -> int:
    if not values:
        return 0
    skip = best_without_neighbours_slow(values[1:])
    take = values[0] + best_without_neighbours_slow(values[2:])
    return max(skip, take)


def best_without_neighbours_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return ([rng.randrange(100) for _ in range(size)],)


def equal_halves(numbers: list[int]) -> bool:
    """Return whether the positive numbers can be parted into two groups of equal sums."""
    total = sum(numbers)
    reachable = 1
    for number in numbers:
        reachable |= reachable << number
    return total % 2 == 0 and bool(reachable >> total // 2 & 1)


def equal_halves_slow(numbers: list[int]) -> bool:
    total = sum(numbers)

    def reach(i: int, left: int) -> bool:
        if left == 0:
            return True
        if i == len(numbers) or left < 0:
            return False
        return reach(i + 1, left - numbers[i]) or reach(i + 1, left)

    return total % 2 == 0 and reach(0, total // 2)


def equal_halves_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    numbers = [2 * rng.randint(1, 30) for _ in range(size)]
    if sum(numbers) % 4 == 0:  # halves of an odd number of twos: never reached
        numbers[0] += 2
    return (numbers,)


def cut_rod(prices: list[int]) -> int:
    """Return the greatest price of a rod as long as the list, cut at will.

    prices[i] is the price of a piece of the length i + 1.
    """
    best = [0]
    for length in range(1, len(prices) + 1):
        best.append(max(prices[i] + best[length - 1 - i] for i in range(length)))
    return best[-1]


def cut_rod_slow(prices: list[int]) -> int:
    def best(length: int) -> int:
        if length == 0:
            return 0
        found = 0
        for i in range(length):
            found = max(found, prices[i] + best(length - 1 - i))
        return found

    return best(len(prices))


def cut_rod_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    return (sorted(rng.randrange(1, 10 * size) for _ in range(size)),)
