"""Pairs of equal values from a table."""

from __future__ import annotations

import pytest

from differential import assert_same, closure, drawn_calls, facts_of, find, load, steps
from sharpen.code.rewrite import propose

PAIRS = """\
def f(xs, target):
    out = []
    {first}
        {second}
            if {test}:
                {action}
    return out
"""
INDEXES = ("for i in range(len(xs)):", "for j in range(i + 1, len(xs)):")
CASES = {
    "indexes": PAIRS.format(
        first=INDEXES[0],
        second=INDEXES[1],
        test="xs[i] + xs[j] == target",
        action="out.append((xs[i], xs[j]))",
    ),
    "other side": PAIRS.format(
        first="for i in range(len(xs) - 1):",
        second=INDEXES[1],
        test="target == xs[j] + xs[i]",
        action="out.append((i, j))",
    ),
    "difference": PAIRS.format(
        first=INDEXES[0],
        second="for j in range(len(xs)):",
        test="i != j and xs[i] - xs[j] == target",
        action="out.append([j, i])",
    ),
    "enumerate": PAIRS.format(
        first="for i, x in enumerate(xs):",
        second="for y in xs[i + 1:]:",
        test="x + y == target",
        action="out.append((x, y))",
    ),
    "both counted": PAIRS.format(
        first="for i, x in enumerate(xs):",
        second="for j, y in enumerate(xs[i + 1:], i + 1):",
        test="x == y - target and (j + i) % 2 == 0",
        action="out.append((i, j, y))",
    ),
    "break": PAIRS.format(
        first="for x in xs:",
        second="for y in xs:",
        test="2 * x == y + target",
        action="out.append((x, y)); break",
    ).replace("out.append((x, y)); break", "out.append((x, y))\n                break"),
    "first": PAIRS.format(
        first=INDEXES[0], second=INDEXES[1], test="xs[i] + xs[j] == target", action="return i, j"
    ),
    "set": PAIRS.format(
        first=INDEXES[0],
        second=INDEXES[1],
        test="xs[i] + xs[j] == target",
        action="out.add((xs[i], xs[j]))",
    ).replace("out = []", "out = set()"),
    "count": """\
def f(xs, target):
    n = len(xs)
    count = 0
    for i in range(n):
        for j in range(i + 1, n):
            if xs[i] + xs[j] == target:
                count += 1
    return count
""",
    "list": """\
def f(xs, target):
    return [(x, y) for i, x in enumerate(xs) for y in xs[i + 1:] if x + y == target]
""",
    "any": """\
def f(xs, target):
    n = len(xs)
    return any(xs[i] + xs[j] == target for i in range(n) for j in range(i + 1, n))
""",
    "generator": """\
def f(xs, target):
    return sum(1 for i in range(len(xs)) for j in range(len(xs)) if xs[i] == xs[j] + target)
""",
    "member": """\
def f(xs, target):
    out = []
    for x in xs:
        if target - x in xs:
            out.append(x)
    return out
""",
    "member behind": """\
def f(xs, target):
    for i, x in enumerate(xs):
        if target - x in xs[i + 1:]:
            return True
    return False
""",
}
CALLS = [([3, -1, 4], 5)]


@pytest.mark.parametrize("name", CASES)
def test_pairs_are_the_same_in_a_tenth_of_the_steps(name: str) -> None:
    text = CASES[name]
    facts = facts_of(text, "f", CALLS)
    calls = [*drawn_calls(CALLS, 0, 60), ([True, 1, False, 0], 1), ([2] * 8, 4)]
    found = closure(text, "f", facts, 2)
    assert found
    for rewrite in found:
        assert assert_same(text, rewrite.text, "f", calls) > 40
    big = ([k * 7919 % 99991 for k in range(150)], -1)
    slow = steps(find(load(text), "f"), big)
    if "in xs" not in text:  # which C code counts
        assert min(steps(find(load(r.text), "f"), big) for r in found) < slow / 10


REFUSED = {
    "floats": (CASES["indexes"], [([0.5, 1.5], 2.0)]),
    "unknown items": (CASES["indexes"], [([], 2)]),
    "changed list": (
        CASES["indexes"].replace("out.append((xs[i], xs[j]))", "xs.append(1)"),
        CALLS,
    ),
    "changed target": (
        CASES["break"].replace("out.append((x, y))", "target += 1"),
        CALLS,
    ),
    "variable used afterwards": (
        CASES["indexes"].replace("return out", "return out, j"),
        CALLS,
    ),
    "other conditions that fail": (
        CASES["indexes"].replace("if xs", "if 1 // xs[j] and xs"),
        CALLS,
    ),
    "own len": (CASES["indexes"].replace("def f(xs", "def f(len, xs"), [(len, [1], 2)]),
    "own method": (
        "class int2(int):\n    def __eq__(self, other):\n        return True\n\n\n"
        + CASES["indexes"],
        None,
    ),
    "unknown call": (
        CASES["break"].replace("out.append((x, y))", "global g; g()"),
        CALLS,
    ),
    "index rebound": (
        CASES["indexes"].replace("            if xs", "            i = j\n            if xs"),
        CALLS,
    ),
    "else": (
        CASES["break"].replace(
            "    return out", "        else:\n            out.append(x)\n    return out"
        ),
        CALLS,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pairs_are_left_alone_where_a_table_could_differ(name: str) -> None:
    text, calls = REFUSED[name]
    if calls is None:
        calls = [([load(text)["int2"](1)], 2)]
    text = text.replace("global g; g()", "g()").replace("def f(", "g = print\n\n\ndef f(")
    found = propose(text, "f", facts_of(text, "f", calls))
    assert not [r.rewriter for r in found if "join" in r.rewriter or r.rewriter == "set-membership"]
