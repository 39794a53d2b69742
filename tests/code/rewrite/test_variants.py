"""Other forms of what the examples show: rewritten too, and right."""

from __future__ import annotations

from typing import Any

import pytest

from differential import assert_same, closure, drawn_calls, facts_of
from rewriter_examples import entry_of
from sharpen.code.rewrite import propose

VARIANTS: list[tuple[str, str, tuple[Any, ...]]] = [
    (
        "bit-count",
        """\
def count_bits(n):
    count = 2
    while n:
        count += n & 1
        n >>= 1
    return count, n
""",
        (9,),
    ),
    (
        "bit-count",
        """\
def ones_below(n):
    out = []
    for number in range(n):
        count = 0
        while number > 0:
            number = number & number - 1
            count += 1
        out.append(count)
    return out
""",
        (9,),
    ),
    (
        "common-divisor",
        """\
def greatest(numbers):
    for candidate in range(min(numbers), 0, -1):
        if all(number % candidate == 0 for number in numbers):
            return candidate
    raise ValueError("there are no positive numbers")
""",
        ([12, 18],),
    ),
    (
        "common-divisor",
        """\
def greatest(a, b):
    for d in range(a, 0, -1):
        if b % d == 0 and a % d == 0:
            break
    return d
""",
        (12, 18),
    ),
    (
        "common-divisor",
        """\
def greatest(a, b):
    best = 1
    for d in range(1, b + 1):
        if not a % d and not b % d:
            best = d
    return best, a, b
""",
        (12, 18),
    ),
    (
        "common-divisor",
        """\
def by_subtraction(a, b):
    while a != b:
        if a > b:
            a = a - b
        else:
            b = b - a
    return a
""",
        (12, 18),
    ),
    (
        "common-multiple",
        """\
def least(a, b):
    m = a
    while m % a != 0 or m % b != 0:
        m += 1
    return m
""",
        (4, 6),
    ),
    (
        "root",
        """\
def above(n, i):
    while i * i < n:
        i += 1
    return i
""",
        (17, 0),
    ),
    (
        "root",
        """\
def not_above(n, i):
    while i**2 <= n:
        i = i + 1
    return i - 1
""",
        (17, -2),
    ),
    (
        "product-loop",
        """\
def product_of(xs):
    p = 1
    for x in xs:
        p = p * x
    return p
""",
        ([1, 2, 3],),
    ),
    (
        "product-loop",
        """\
def choose(n, k):
    over = 1
    for i in range(n - k + 1, n + 1):
        over *= i
    under = 1
    for i in range(1, k + 1):
        under *= i
    return over // under
""",
        (5, 2),
    ),
    (
        "window-extremes",
        """\
def lowest(xs, k):
    out = []
    for i in range(k - 1, len(xs)):
        out.append(min(xs[i - k + 1 : i + 1]))
    return out
""",
        ([3, 1, 2], 2),
    ),
    (
        "window-extremes",
        """\
def parts(xs, k, places):
    return [max(xs[i : i + k], default=-1) for i in places]
""",
        ([3, 1, 2], 2, [0, 1]),
    ),
    (
        "divisors",
        """\
def is_perfect(n):
    return sum(d for d in range(1, n) if n % d == 0) == n
""",
        (28,),
    ),
    (
        "divisors",
        """\
def even(n):
    out = {d * d for d in range(2, n + 1) if n % d == 0 if d % 2 == 0}
    return out
""",
        (28,),
    ),
    (
        "divisors",
        """\
def pairs(n):
    out = []
    for d in range(2, n // 2 + 1):
        if n % d == 0:
            if d > 20:
                break
            out.append((d, n // d))
    return out
""",
        (28,),
    ),
    (
        "divisors",
        """\
def small(n):
    return any(d > 5 for d in range(1, n // 2 + 1) if n % d == 0)
""",
        (28,),
    ),
    (
        "letter-count",
        """\
def others(text):
    return sum(1 for c in text if c not in ["a", "b", "a"])
""",
        ("aabc",),
    ),
    (
        "letter-count",
        """\
def some(text):
    return len([c for c in text.lower() if c in ("a", "b")]), sum(c == "c" for c in text)
""",
        ("aabc",),
    ),
    (
        "find-loop",
        """\
def times(text, part):
    count = 0
    for i in range(len(text)):
        if text[i : i + len(part)] == part:
            count += 1
    return count
""",
        ("aabc", "ab"),
    ),
    (
        "find-loop",
        """\
def first(text, part):
    n, m = len(text), 0
    m = len(part)
    for i in range(len(text) - m + 1):
        if text.startswith(part, i):
            return i
    return -1
""",
        ("aabc", "ab"),
    ),
    (
        "find-loop",
        """\
def twice(text):
    out = []
    for i in range(len(text) - 2 + 1):
        if text[i : i + 2] == "aa":
            out.append(i)
            if len(out) == 2:
                break
    return out
""",
        ("aaaabc",),
    ),
    (
        "next-beyond",
        """\
def days(xs):
    out = [0] * len(xs)
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if xs[i] >= xs[j]:
                out[i] = j - i
                break
        else:
            out[i] = -1
    return out
""",
        ([3, 1, 2],),
    ),
    (
        "next-beyond",
        """\
def first_rise(xs):
    n = len(xs)
    for i in range(n - 1):
        for j in range(i + 1, n):
            if xs[j] < xs[i]:
                return i, j
    return None
""",
        ([3, 1, 2],),
    ),
    (
        "first-places",
        """\
def places(keys, queries):
    return [keys.index(q) for q in queries]
""",
        (["a", "b"], ["b"]),
    ),
    (
        "first-places",
        """\
def places(keys, queries):
    out = []
    for i in range(len(queries)):
        try:
            out.append(keys.index(queries[i]))
        except ValueError:
            out.append(-1)
    return out
""",
        ([1, 2.5], [True]),
    ),
    (
        "group-table",
        """\
def by_length(words):
    out = []
    for w in words:
        for g in out:
            if len(w) == len(g[0]):
                g.append(w)
                break
        else:
            out.append([w])
    return [tuple(g) for g in out]
""",
        (["ab", "ba", "c"],),
    ),
    (
        "selection",
        """\
def in_order(xs):
    left = xs[:]
    out = []
    for _ in range(len(xs) + 1):
        least = min(left)
        left.remove(least)
        out.append(least)
        if not left:
            break
    return out
""",
        ([3, 1, 2],),
    ),
    (
        "intervals",
        """\
def covered(spans, points):
    out = []
    for p in points:
        inside = False
        for s in spans:
            if p > s[0] and s[2] >= p:
                inside = True
                break
        out.append(inside)
    return out
""",
        ([(1, 5, 7), (3, 4, 4)], [3, 5]),
    ),
    (
        "intervals",
        """\
def covered(spans, points):
    out = []
    for p in points:
        out.append(any(a < p < b for a, b in spans))
        out.append(sum(1 for a, b in spans if b >= p >= a))
    return out
""",
        ([(1, 5), (3, 4)], [3, 5]),
    ),
    (
        "intervals",
        """\
def first_free(spans, n):
    for p in range(n):
        for begin, end in spans:
            if begin <= p and p < end:
                return p
    return None
""",
        ([(1, 5), (3, 4)], 9),
    ),
    (
        "range-add",
        """\
def booked(n, bookings):
    seats = [0] * n
    for first, last, many in bookings:
        for i in range(first - 1, last):
            seats[i] -= many
    return seats
""",
        (9, [(1, 5, 2), (3, 4, 1)]),
    ),
    (
        "join",
        """\
def lines_of(lines):
    s = "<"
    for line in lines:
        if line:
            s += line + "\\n"
    return s
""",
        (["ab", "c"],),
    ),
    (
        "join",
        """\
def grid(rows):
    s = ""
    for row in rows:
        for c in row:
            s = str(c) + " " + s
    return s
""",
        ([[1, 2], [3]],),
    ),
    (
        "drain",
        """\
def without(xs, bad):
    out = []
    while len(xs) > 0:
        x = xs.pop(0)
        if x not in bad:
            out.append(x)
    return out
""",
        ([1, 2, 3], [2]),
    ),
    (
        "drain",
        """\
def total(xs, bad):
    if len(bad) > 2:
        bad = xs
    t = 0
    while xs:
        x = xs.pop(0)
        if x in bad:
            t += x
        last = x
    return t
""",
        ([1, 2, 3], [2]),
    ),
    (
        "search-loop",
        """\
def first_repeat(words):
    for i in range(len(words)):
        for j in range(i):
            if words[i] == words[j]:
                return words[i]
    return None
""",
        (["a", "b", "a"],),
    ),
    (
        "running-extremes",
        """\
def water(heights):
    total = 0
    for i in range(len(heights)):
        left = max(heights[: i + 1])
        right = max(heights[i:])
        total += min(left, right) - heights[i]
    return total
""",
        ([3, 1, 2],),
    ),
    (
        "sum-loop",
        """\
def but_the_last(xs):
    total = 0
    for i in range(0, len(xs) - 5):
        total += xs[i]
    return total
""",
        ([3, 1, 2],),
    ),
    (
        "spread",
        """\
def deepest_fall(xs):
    n = len(xs)
    worst = 5
    for i in range(n - 1):
        for j in range(i + 1, n):
            worst = min(worst, xs[i] - xs[j])
    return worst
""",
        ([3, 1, 2],),
    ),
    (
        "running-extremes",
        """\
def later(xs):
    out = []
    for i in range(len(xs) - 1):
        out.append(max(xs[i + 1 :]))
    return out, max(xs[1:])
""",
        ([3, 1, 2],),
    ),
    (
        "running-extremes",
        """\
def later(xs):
    out = []
    for i in range(len(xs)):
        out.append(min(xs[i + 1 :]))
    return out
""",
        ([3, 1, 2],),
    ),
    (
        "rising",
        """\
def rises(xs):
    n = len(xs)
    best = [1 for _ in range(n)]
    for i in range(1, n):
        for j in range(i):
            if xs[i] >= xs[j] and best[i] < best[j] + 1:
                best[i] = best[j] + 1
    return best
""",
        ([3, 1, 2],),
    ),
    (
        "hash-join",
        """\
def anagrams(words):
    out = []
    for i, a in enumerate(words):
        for b in words[i + 1 :]:
            if sorted(a) == sorted(b):
                out.append((a, b))
    return out
""",
        (["ab", "ba"],),
    ),
    (
        "indexed-loop",
        """\
def anagrams_of(words, others):
    out = []
    for a in words:
        for b in others:
            if sorted(a) == sorted(b):
                out.append((a, b))
    return out
""",
        (["ab", "ba"], ["ab"]),
    ),
    (
        "cell-sum",
        """\
def matmul(a, b):
    n, m, k = len(a), len(b[0]) if b else 0, len(b)
    out = [[0.0] * m for _ in range(n)]
    for i in range(n):
        for j in range(m):
            for t in range(k):
                out[i][j] = out[i][j] + a[i][t] * b[t][j]
    return out
""",
        ([[1.5, 2.0]], [[0.1], [0.2]]),
    ),
    (
        "cell-sum",
        """\
def times(rows, xs):
    out = [0.0 for _ in rows]
    for i in range(len(rows)):
        for k in range(len(xs)):
            out[i] += rows[i][k] * xs[k]
    return out
""",
        ([[1.5, 2.0]], [0.1, 0.2]),
    ),
    (
        "remove-all",
        """\
def zeros_to_end(xs):
    for _ in range(xs.count(0)):
        xs.remove(0)
        xs.append(0)
    return xs
""",
        ([3, 0, 2],),
    ),
    (
        "remove-all",
        """\
def without(xs, x):
    out = xs[:]
    for _ in range(out.count(x)):
        out.remove(x)
    return out
""",
        ([3, 0, 2], 0),
    ),
    (
        "hand-sort",
        """\
def in_order(array):
    for i in range(len(array)):
        minimum = i
        for j in range(i + 1, len(array)):
            if array[j] < array[minimum]:
                minimum = j
        array[minimum], array[i] = array[i], array[minimum]
    return array
""",
        ([3, 1, 2],),
    ),
    (
        "hand-sort",
        """\
def in_order(array):
    for i in range(len(array)):
        cursor = array[i]
        pos = i
        while pos > 0 and array[pos - 1] > cursor:
            array[pos] = array[pos - 1]
            pos -= 1
        array[pos] = cursor
    return array
""",
        ([3, 1, 2],),
    ),
    (
        "hand-sort",
        """\
def in_order(array):
    for i in range(1, len(array)):
        key = array[i]
        j = i - 1
        while j >= 0 and key < array[j]:
            array[j + 1] = array[j]
            j -= 1
        array[j + 1] = key
    return array
""",
        ([3, 1, 2],),
    ),
    (
        "hand-sort",
        """\
def in_order(array):
    n = len(array)
    swapped = True
    passes = 0
    while swapped:
        swapped = False
        for i in range(1, n - passes):
            if array[i - 1] > array[i]:
                array[i - 1], array[i] = array[i], array[i - 1]
                swapped = True
        passes += 1
    return array
""",
        ([3, 1, 2],),
    ),
    (
        "hand-sort",
        """\
def in_order(array):
    swapped = True
    while swapped:
        swapped = False
        for i in range(len(array) - 1):
            if array[i] > array[i + 1]:
                array[i], array[i + 1] = array[i + 1], array[i]
                swapped = True
    return array
""",
        ([3, 1, 2],),
    ),
    (
        "memo-called",
        """\
def triangle(height):
    \"\"\"Rows.\"\"\"
    out = []
    for i in range(height):
        for j in range(i + 1):
            out.append(cell(i, j))
    return out


def cell(i, j):
    \"\"\"One of them.\"\"\"
    if j == 0 or i == j:
        return 1
    # The two above.
    return cell(i - 1, j - 1) + cell(i - 1, j)
""",
        (4,),
    ),
    (
        "growing-counts",
        """\
def first_two(words):
    seen: list[str] = []
    out = ["a"]
    for word in words:
        if out.count(word) < 2:
            out.append(word)
    return out
""",
        (["a", "b", "a"],),
    ),
    (
        "shift",
        """\
def rotated(array, k):
    array = array[:]
    length = len(array)
    for _ in range(k):
        temp = array[length - 1]
        for position in range(length - 1, 0, -1):
            array[position] = array[position - 1]
        array[0] = temp
    return array
""",
        ([1, 2, 3], 2),
    ),
    (
        "shift",
        """\
def without(xs, k):
    for i in range(k, len(xs) - 1):
        xs[i] = xs[i + 1]
    return xs
""",
        ([1, 2, 3], 1),
    ),
    (
        "shift",
        """\
def made_room(xs, k):
    for i in range(len(xs) - 1, k, -1):
        xs[i] = xs[i - 1]
    for i in range(k + 1, len(xs)):
        xs[i - 1] = xs[i]
    return xs
""",
        ([1, 2, 3], 1),
    ),
    (
        "inline",
        """\
def table(n, words):
    return [cell(i, j) for i in range(n) for j in range(i)], [cell(w, w) + w for w in words]


def cell(a, b):
    \"\"\"Of two.\"\"\"
    return a + b if a else b
""",
        (3, ["a"]),
    ),
    (
        "inline",
        """\
def pairs(xs):
    for x in xs:
        yield square(square(x)), -square(x)


def square(x):
    return x * x
""",
        ([3, 1],),
    ),
    (
        "extreme-step",
        """\
def rising(xs):
    counts = [1 for _ in xs]
    for i in range(1, len(xs)):
        for j in range(i):
            if xs[i] >= xs[j]:
                counts[i] = max(counts[i], counts[j] + 1)
    return counts
""",
        ([3, 1, 2],),
    ),
    (
        "extreme-step",
        """\
def edits(a, b):
    row = list(range(len(b) + 1))
    for i in range(len(a)):
        last, row[0] = row[0], i + 1
        for j in range(len(b)):
            here = row[j + 1]
            row[j + 1] = min(row[j] + 1, here + 1, last + (a[i] != b[j]))
            last = here
    return row[-1]
""",
        ("abc", "bcd"),
    ),
    (
        "extreme-step",
        """\
def clipped(xs, low):
    out = []
    for x in xs:
        y = max(low, x)
        z = min(x, low)
        low = min(low, 9.5)
        out.append((y, z))
    while out:
        return max(out, xs)
    return low
""",
        ([0.5, 2.0], 1.0),
    ),
    (
        "listed",
        """\
def combined(xs, words):
    return (
        set(x + 1 for x in xs),
        list(x for x in xs if x > 2),
        sum((x * x for x in xs), 5),
        max((x for x in xs)),
        "-".join(w.upper() for w in words),
        sorted(len(w) for w in words),
    )
""",
        ([3, 1], ["a", "b"]),
    ),
    (
        "listed",
        """\
def rotations(xs):
    for k in range(len(xs)):
        yield tuple(xs[i - k] for i in range(len(xs)))
""",
        ([3, 1],),
    ),
]


@pytest.mark.parametrize(
    ("name", "text", "call"), VARIANTS, ids=[f"{v[0]}-{i}" for i, v in enumerate(VARIANTS)]
)
def test_variants_are_rewritten_and_right(name: str, text: str, call: tuple[Any, ...]) -> None:
    entry = entry_of(text)
    facts = facts_of(text, entry, [call])
    assert name in [r.rewriter for r in propose(text, entry, facts)]
    calls = [call, *drawn_calls([call], 5, 40)]
    for rewrite in closure(text, entry, facts, 2, most=8):
        assert_same(text, rewrite.text, entry, calls)
