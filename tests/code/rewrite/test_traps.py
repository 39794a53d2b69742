"""Functions for which the obvious rewrite is wrong: refused, or right all the same."""

from __future__ import annotations

import inspect
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from differential import assert_same, closure, drawn_calls, facts_of, find, load

PROGRAM = """\
import math
import re


class Odd(int):
    def __eq__(self, other):
        return False

    def __hash__(self):
        return 1

    def __add__(self, other):
        return Odd(int(self) * 2 + int(other))

    def __radd__(self, other):
        return Odd(7)


class Same:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return True


def mutable_default(x, seen=[]):
    found = x in seen
    seen.append(x)
    return found, list(seen)


def aliasing(xs, ys):
    ys = xs
    out = []
    for x in list(xs):
        if x in ys:
            ys.append(x + 1)
            out.append(x)
    return out


def returned_alias(xs):
    out = xs
    for i in range(len(xs)):
        if xs[i] not in out[:i]:
            out[i] = out[i] * 2
    return out


def consumed_twice(items):
    items = iter(items)
    first = sum(items)
    second = 0
    for x in items:
        second += x
    return first, second


def nan_membership(xs, x):
    out = []
    for y in xs:
        if x in xs or y == y:
            out.append(y)
    return out


def nan_pairs(xs):
    count = 0
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if xs[i] == xs[j]:
                count += 1
    return count


def big_numbers(xs):
    total = 0
    for x in xs:
        total += x * x
    return total


def bool_keys(xs):
    seen = []
    for x in xs:
        if x not in seen:
            seen.append(x)
    return seen


def memo_of_bool(n):
    if n <= 1:
        return n
    return memo_of_bool(n - 1) + memo_of_bool(n - 2)


def unhashable(rows):
    out = []
    for row in rows:
        if row not in out:
            out.append(row)
    return out


def exception_order(xs, ys):
    out = []
    for x in xs:
        for y in ys:
            if 10 // x == y:
                out.append(x)
    return out


def float_sums(xs):
    out = []
    for i in range(len(xs)):
        out.append(sum(xs[: i + 1]))
    return out


def float_total(xs):
    total = 0.0
    for x in xs:
        total += x
    return total


def short_circuit(xs, ys):
    calls = []

    def seen(x):
        calls.append(x)
        return x > 2

    out = []
    for x in xs:
        if x in ys and seen(x):
            out.append(x)
    return out, calls


def dict_while_looping(d):
    for k in d:
        if k + 1 not in d:
            d[k + 1] = 0
    return d


def list_while_looping(xs):
    for x in xs:
        if x in xs and len(xs) < 12:
            xs.append(x + 1)
    return xs


def decimals(xs):
    out = []
    for i in range(len(xs)):
        out.append(max(xs[: i + 1]) + sum(xs[: i + 1]))
    return out


def overridden(xs):
    total = 0
    for x in xs:
        total += x
        if x in xs:
            total = total + 1
    return total


def equal_to_all(xs, x):
    out = []
    for y in xs:
        if x in xs:
            out.append(y)
    return len(out)


def shadowed(xs, sum):
    total = 0
    for i in range(len(xs)):
        total += sum(xs[: i + 1])
    return total


def late_generator(xs, ys):
    found = (x for x in xs if x in ys)
    ys.append(3)
    return list(found)


def late_lambda(xs, ys):
    tests = [lambda: x in ys for x in xs]
    ys.append(3)
    return [test() for test in tests]


def late_function(xs, ys):
    def test(x):
        return x in ys

    ys.append(3)
    return [test(x) for x in xs]


def caught(xs, ys):
    out = []
    for x in xs:
        try:
            out.append(ys.index(x))
        except ValueError:
            out.append(-1)
    return out


def queue_of_others(xs):
    queue = [x for x in xs]
    taken = queue
    while queue:
        x = queue.pop(0)
        if x > 3:
            taken.append(x - 1)
    return taken


def queue_in_loop(xs):
    queue = list(xs)
    for x in queue:
        if x > 2 and len(queue) < 9:
            queue.append(x - 1)
            queue.pop(0)
    return queue


def printed(xs):
    queue = list(xs)
    while queue:
        print(queue)
        queue.pop(0)
    return queue


def divides_zero(n, m):
    for i in range(0, n):
        if n % i == 0:
            return i
    return m


def loop_variable(n):
    for i in range(2, n):
        if n % i == 0:
            break
    else:
        i = -i
    return i


def changes_count(xs):
    out = []
    for x in list(xs):
        out.append(xs.count(x))
        xs.remove(x)
    return out, xs


def substring(text):
    out = []
    for word in text.split():
        out.append(text.count(word))
    return out


def empty_extremes(xs):
    out = []
    for i in range(len(xs)):
        out.append(max(xs[:i]))
    return out


def negative_parts(xs, k):
    out = []
    for i in range(len(xs)):
        out.append(sum(xs[i : i + k]) + sum(xs[k:i]))
    return out


def outside(xs, a, b):
    total = 0
    for i in range(a, b):
        total += xs[i]
    return total


def unbound(xs, y):
    for x in xs:
        if x == y:
            count += 1
        else:
            count = 0
    return count


def prints_and_recurses(n):
    print(n)
    if n < 2:
        return n
    return prints_and_recurses(n - 1) + prints_and_recurses(n - 2)


def gives_lists(n):
    if n < 2:
        return [n]
    return gives_lists(n - 1) + gives_lists(n - 2)


def reads_what_changes(n):
    left = [3]

    def go(k):
        left[0] -= 1
        if k < 2 or left[0] < 0:
            return left[0]
        return go(k - 1) + go(k - 2)

    return go(n)


def nonlocal_total(xs):
    total = 0

    def add(x):
        nonlocal total
        total += x

    for x in xs:
        add(x)
        if total in xs:
            add(1)
    return total


def finally_changes(xs):
    out = []
    try:
        for x in xs:
            if x not in out:
                out.append(x)
        return out
    finally:
        out.append(0)


def closed_over(xs):
    out = []

    def size():
        return len(out)

    for x in xs:
        if x not in out:
            out.append(x)
            if size() > 2:
                out.pop()
    return out


def rebinds_len(xs):
    len = max
    out = []
    for x in xs:
        out.append(len(xs))
    return out


def unpacks(rows):
    out = []
    for a, b in rows:
        for c, d in rows:
            if a == d:
                out.append((b, c))
    return out


def looks_at_locals(xs):
    out = []
    for x in xs:
        if x not in out:
            out.append(x)
    return sorted(locals())


def partial_total(words):
    total = 0
    try:
        for word in words:
            total += int(word)
    except ValueError:
        pass
    return total


def returned_in_try(xs):
    queue = list(xs)
    try:
        while queue:
            if queue[0] > 1:
                return queue
            queue.pop(0)
    finally:
        queue.append(9)
    return queue


def in_texts(xs):
    seen = []
    for x in xs:
        if x not in seen:
            seen.append(x)
        print(f"{x in xs} {xs.count(x)} {len(seen)} {x in seen}")
    return seen


def nested_counts(xs):
    return [xs.count(xs.count(x)) for x in xs]


def other_case(xs, k):
    counts = {}
    for x in xs:
        if x > k:
            counts[x] = 5
        elif x in counts:
            counts[x] += 1
        else:
            counts[x] = 1
        if x == k:
            counts[-x] = 0
        elif any(y in xs for y in counts):
            counts[0] = 1
    return counts


def several_on_a_line(xs):
    out = []; total = 0
    for x in xs: total += x; out.append(total)
    return out


def growing_heap(xs):
    import heapq

    heap = [3]
    out = []
    for x in xs:
        if x not in heap:
            heapq.heappush(heap, x)
        out.append(heapq.heappop(heap) if len(heap) > 2 else 0)
    return out


def deep_rows(rows):
    out = []
    row = rows[0] if rows else []
    for one in rows:
        row.append(len(out))
        out.append(max(len(r) for r in rows) + one[0])
    return out


def recursion_in_loops(n):
    out = []
    for i in range(n):
        out.append(recursion_in_loops(i))
    return out


def wrong_power(a, n, m):
    result = 1
    for _ in range(n):
        result = result * a % m
    return result, a ** n % m if m else 0


def changed_rows(rows, xs):
    out = []
    groups = [list(row) for row in rows]
    for x in xs:
        for i in range(len(groups)):
            if x in groups[i]:
                out.append(i)
            group = groups[i]
            group.append(x)
            if sum(groups[i]) > 3:
                out.append(x)
    return out


def rows_of_others(rows, xs):
    kept = [row for row in rows]
    out = []
    for x in xs:
        for i in range(len(kept)):
            if x in kept[i]:
                out.append(i)
                rows[0].append(x + 1)
    return out


def letters_of(word, text):
    for letter in text:
        if letter == word:
            return True
    return any(letter == word for letter in text)


def nan_search(xs, x):
    for y in xs:
        if y == x:
            return True
    return any(y == x for y in xs)


def slice_is_a_copy(xs):
    for x in xs[:]:
        if x in xs:
            xs.remove(x)
    return xs


def heap_of_others(xs, ys):
    zs = ys
    zs.append(0.5)
    largest = max(xs)
    count = 0
    for x in xs:
        if x == largest:
            count += 1
    return count, largest, sum(xs[:1])


def matched(xs, ys):
    out = []
    match [xs, ys]:
        case [one, other]:
            for x in xs:
                if x in ys:
                    other.append(x + 1)
                    out.append(one)
    return out


def drained_until_it_fails(xs, ys):
    out = []
    while xs:
        x = xs.pop(0)
        out.append(10 // x)
        ys.append(x)
    return out


def drained_by_two_names(xs, ys):
    for one in (xs, ys):
        while one:
            x = one.pop(0)
            if x not in xs:
                ys = xs
    return xs, ys


def inner_of_given(xs):
    first = [1]
    xs.append(first)
    out = []
    for i in range(len(xs)):
        first.append(sum(xs[0]) + sum(xs[i]))
        out.append(sum(map(sum, xs)))
    return out


def joined_until_it_fails(words, places):
    text = ""
    try:
        for place in places:
            text += words[place]
    except IndexError:
        return text
    return text + "."


def ends_below_zero(xs, k):
    count = 0
    for i in range(0, len(xs) - 3):
        if xs[i] == k:
            count += 1
    for j in range(1, len(xs) - k):
        count = max(count, xs[j])
    return count


def left_in_order(xs):
    left = list(xs)
    out = []
    while left and len(out) < 2:
        least = min(left)
        left.remove(least)
        out.append(least)
    return out, [x for x in left]


def fewer_steps(a, b):
    steps = 0
    while a != b:
        if a > b:
            a -= b
        else:
            b -= a
        steps += 1
    return a, steps
"""
NAN = float("nan")
ODD = load(PROGRAM)["Odd"]
SAME = load(PROGRAM)["Same"]
LISTS: list[tuple[Any, ...]] = [([1, 2, 3],), ([4, 1, 4, 0, 2],)]
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "mutable_default": [(1,), (2,)],
    "aliasing": [([1, 2], [3])],
    "returned_alias": LISTS,
    "consumed_twice": [*LISTS, ((1, 2),)],
    "nan_membership": [([NAN, 1.0], NAN)],
    "nan_pairs": [([NAN, NAN, 1.0, 1.0],)],
    "big_numbers": [([2**62, 3],), ([2**70],)],
    "bool_keys": [([True, 1, 0, False, 2],)],
    "memo_of_bool": [(True,), (4,)],
    "unhashable": [([[1], [1], [2]],)],
    "exception_order": [([1, 0, 2], [10, 5])],
    "float_sums": [([0.1, 0.2, 0.3],)],
    "float_total": [([0.1, 1e16, -1e16],)],
    "short_circuit": [([1, 2, 3], [3, 1])],
    "dict_while_looping": [({1: 2, 2: 3},)],
    "list_while_looping": LISTS,
    "decimals": [([Decimal("0.1"), Decimal("1E+30")],), ([Fraction(1, 3)],)],
    "overridden": [([ODD(1), ODD(2)],)],
    "equal_to_all": [([SAME(1)], SAME(2))],
    "shadowed": [([1, 2], max)],
    "late_generator": [([1, 3], [1])],
    "late_lambda": [([1, 3], [1])],
    "late_function": [([1, 3], [1])],
    "caught": [([1, 3], [1])],
    "queue_of_others": LISTS,
    "queue_in_loop": LISTS,
    "printed": LISTS,
    "divides_zero": [(6, 2)],
    "loop_variable": [(9,), (7,)],
    "changes_count": LISTS,
    "substring": [("ab a b aab",)],
    "empty_extremes": LISTS,
    "negative_parts": [([1, 2, 3], 2), ([1, 2, 3], -1)],
    "outside": [([1, 2, 3], 0, 2), ([1, 2, 3], -2, 9)],
    "unbound": [([1, 2], 1)],
    "prints_and_recurses": [(4,)],
    "gives_lists": [(4,)],
    "reads_what_changes": [(4,)],
    "nonlocal_total": LISTS,
    "finally_changes": LISTS,
    "closed_over": LISTS,
    "rebinds_len": LISTS,
    "unpacks": [([(1, 2), (2, 1)],), ([(1, 2), (1, 2, 3)],), ([(1, 2, 3)],)],
    "looks_at_locals": LISTS,
    "partial_total": [(["1", "2"],), (["1", "a", "3"],)],
    "returned_in_try": LISTS,
    "in_texts": LISTS,
    "nested_counts": LISTS,
    "other_case": [([1, 2, 3, 2], 2)],
    "several_on_a_line": LISTS,
    "growing_heap": LISTS,
    "deep_rows": [([[1], [2, 3]],)],
    "recursion_in_loops": [(3,)],
    "wrong_power": [(3, 4, 5), (3, 0, 0), (-3, 4, -5)],
    "changed_rows": [([[1], [2, 3]], [1, 2])],
    "rows_of_others": [([[1], [2, 3]], [1, 2])],
    "letters_of": [("ab", "cab"), ("b", "cab")],
    "nan_search": [([NAN], NAN)],
    "slice_is_a_copy": LISTS,
    "heap_of_others": [([1, 2, 1], [1])],
    "matched": [([1, 2, 1], [1])],
    "drained_until_it_fails": [([1, 2, 0, 1], [1])],
    "drained_by_two_names": [([1, 2, 1], [1])],
    "inner_of_given": [([[1], [2, 3]],)],
    "joined_until_it_fails": [(["a", "b"], [0, 1, 0])],
    "ends_below_zero": [([1, 2, 3, 1, 1], 1)],
    "left_in_order": LISTS,
    "fewer_steps": [(12, 18)],
}


def trap(name: str) -> str:
    """The program without the other functions."""
    module = load(PROGRAM)
    lines = PROGRAM.splitlines(keepends=True)
    starts = {n: f.__code__.co_firstlineno for n, f in module.items() if inspect.isfunction(f)}
    begin = starts[name] - 1
    end = min((s - 1 for s in starts.values() if s > starts[name]), default=len(lines))
    first = min(starts.values()) - 1
    return "".join(lines[:first] + lines[begin:end])


def test_each_trap_is_tried() -> None:
    names = {n for n, f in load(PROGRAM).items() if inspect.isfunction(f)}
    assert names == set(CALLS)
    assert len(names) >= 25


@pytest.mark.parametrize("name", CALLS)
def test_a_trap_catches_no_rewrite(name: str) -> None:
    text, calls = trap(name), CALLS[name]
    assert callable(find(load(text), name))
    facts = facts_of(text, name, calls, allow=("numpy", "numba"))
    hidden = [*calls, *drawn_calls(calls, 5, 40)]
    for rewrite in closure(text, name, facts, 3, most=40):
        assert_same(text, rewrite.text, name, hidden)
