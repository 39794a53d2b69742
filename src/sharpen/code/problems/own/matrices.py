"""Tables of numbers."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from operator import mul

LEVELS = {
    "transpose": (3, 20, 60, 150),
    "multiply": (3, 10, 25, 50),
    "sums_of_blocks": (4, 12, 25, 50),
    "fullest_row": (4, 30, 100, 300),
    "largest_square": (3, 10, 18, 28),
    "sum_of_diagonals": (3, 30, 100, 300),
    "step_of_life": (4, 10, 25, 60),
    "find_in_sorted_table": (4, 30, 100, 300),
}

Table = list[list[int]]


def _table(rows: int, columns: int, rng: random.Random, most: int = 100) -> Table:
    return [[rng.randrange(most) for _ in range(columns)] for _ in range(rows)]


def transpose(table: Table) -> Table:
    """Return the table with rows and columns exchanged; all rows are of one length."""
    return [list(column) for column in zip(*table, strict=True)]


def transpose_slow(table: Table) -> Table:
    result = []
    for j in range(len(table[0])):
        row = []
        for i in range(len(table)):
            row.append(table[i][j])
        result.append(row)
    return result


def transpose_inputs(size: int, rng: random.Random) -> tuple[Table]:
    return (_table(size, size + 1, rng),)


def multiply(a: Table, b: Table) -> Table:
    """Return the product of two matrices."""
    columns = list(zip(*b, strict=True))
    return [[sum(map(mul, row, column)) for column in columns] for row in a]


def multiply_slow(a: Table, b: Table) -> Table:
    result = [[0 for _ in range(len(b[0]))] for _ in range(len(a))]
    for i in range(len(a)):
        for j in range(len(b[0])):
            for k in range(len(b)):
                result[i][j] = result[i][j] + a[i][k] * b[k][j]
    return result


def multiply_inputs(size: int, rng: random.Random) -> tuple[Table, Table]:
    return _table(size, size, rng), _table(size, size, rng)


def sums_of_blocks(table: Table, blocks: list[tuple[int, int, int, int]]) -> list[int]:
    """For each block (top, left, bottom, right), ends excluded, return the sum of its numbers."""
    above = [[0] * (len(table[0]) + 1)]
    for row in table:
        sums = accumulate(row, initial=0)
        above.append([up + along for up, along in zip(above[-1], sums, strict=True)])
    return [
        above[bottom][right] - above[top][right] - above[bottom][left] + above[top][left]
        for top, left, bottom, right in blocks
    ]


def sums_of_blocks_slow(table: Table, blocks: list[tuple[int, int, int, int]]) -> list[int]:
    result = []
    for top, left, bottom, right in blocks:
        total = 0
        for i in range(top, bottom):
            for j in range(left, right):
                total += table[i][j]
        result.append(total)
    return result


def sums_of_blocks_inputs(
    size: int, rng: random.Random
) -> tuple[Table, list[tuple[int, int, int, int]]]:
    blocks = []
    for _ in range(4 * size):
        top, bottom = sorted(rng.choices(range(size + 1), k=2))
        left, right = sorted(rng.choices(range(size + 1), k=2))
        blocks.append((top, left, bottom, right))
    return _table(size, size, rng), blocks


def fullest_row(table: Table) -> int:
    """Return the first row with most ones; in each row zeros come before ones."""
    ones = [len(row) - bisect_left(row, 1) for row in table]
    return ones.index(max(ones))


def fullest_row_slow(table: Table) -> int:
    best = 0
    best_count = -1
    for i in range(len(table)):
        count = 0
        for value in table[i]:
            if value == 1:
                count += 1
        if count > best_count:
            best_count = count
            best = i
    return best


def fullest_row_inputs(size: int, rng: random.Random) -> tuple[Table]:
    zeros = [rng.randint(0, size) for _ in range(size)]
    return ([[0] * k + [1] * (size - k) for k in zeros],)


def largest_square(table: Table) -> int:
    """Return the side of the largest square that holds ones only."""
    best = 0
    above = [0] * len(table[0])
    for cells in table:
        corner = left = 0
        for j, cell in enumerate(cells):
            corner, up = above[j], corner if j else 0
            left = 1 + min(left if j else 0, corner, up) if cell else 0
            above[j] = left
            best = max(best, left)
    return best


def largest_square_slow(table: Table) -> int:
    best = 0
    for i in range(len(table)):
        for j in range(len(table[0])):
            side = 1
            while i + side <= len(table) and j + side <= len(table[0]):
                full = True
                for x in range(i, i + side):
                    for y in range(j, j + side):
                        if table[x][y] != 1:
                            full = False
                if not full:
                    break
                best = max(best, side)
                side += 1
    return best


def largest_square_inputs(size: int, rng: random.Random) -> tuple[Table]:
    return ([[int(rng.random() < 0.93) for _ in range(size)] for _ in range(size)],)


def sum_of_diagonals(table: Table) -> int:
    """Return the sum of both diagonals of a square table; the middle counts once."""
    n = len(table)
    total = sum(row[i] + row[-1 - i] for i, row in enumerate(table))
    return total - table[n // 2][n // 2] if n % 2 else total


def sum_of_diagonals_slow(table: Table) -> int:
    total = 0
    n = len(table)
    for i in range(n):
        for j in range(n):
            if i == j or i + j == n - 1:
                total += table[i][j]
    return total


def sum_of_diagonals_inputs(size: int, rng: random.Random) -> tuple[Table]:
    side = size + rng.randrange(2)
    return (_table(side, side, rng),)


def step_of_life(alive: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the living cells after a step of the game of life on an endless board, sorted.

    A cell lives then that has three living neighbours of eight, or two and lives now.
    """
    now = set(alive)
    around = Counter(
        (i + di, j + dj)
        for i, j in now
        for di in (-1, 0, 1)
        for dj in (-1, 0, 1)
        if (di, dj) != (0, 0)
    )
    return sorted(c for c, n in around.items() if n == 3 or (n == 2 and c in now))


def step_of_life_slow(alive: list[tuple[int, int]]) -> list[tuple[int, int]]:
    result = []
    candidates: list[tuple[int, int]] = []
    for i, j in alive:
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                if (i + di, j + dj) not in candidates:
                    candidates.append((i + di, j + dj))
    for cell in candidates:
        count = 0
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                if (di != 0 or dj != 0) and (cell[0] + di, cell[1] + dj) in alive:
                    count += 1
        if count == 3 or (count == 2 and cell in alive):
            result.append(cell)
    result.sort()
    return result


def step_of_life_inputs(size: int, rng: random.Random) -> tuple[list[tuple[int, int]]]:
    side = 2 + int((2 * size) ** 0.5)
    cells = [(i, j) for i in range(side) for j in range(side)]
    return (sorted(rng.sample(cells, size)),)


def find_in_sorted_table(table: Table, value: int) -> bool:
    """Return whether the value is in a table whose rows and columns all rise."""
    i, j = 0, len(table[0]) - 1
    while i < len(table) and j >= 0:
        if table[i][j] == value:
            return True
        if table[i][j] > value:
            j -= 1
        else:
            i += 1
    return False


def find_in_sorted_table_slow(table: Table, value: int) -> bool:
    for row in table:
        for cell in row:
            if cell == value:
                return True
    return False


def find_in_sorted_table_inputs(size: int, rng: random.Random) -> tuple[Table, int]:
    table = [[3 * (i + j) + rng.randrange(3) for j in range(size)] for i in range(size)]
    return table, rng.choice([6 * size, table[size - 2][size - 1]])
