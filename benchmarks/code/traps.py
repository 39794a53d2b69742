"""Functions whose obvious rewrite is wrong, with inputs that are known and others that are not.

What a tool may do is leave them alone, or find a rewrite that keeps what they do.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

NAN = float("nan")


class Trap(NamedTuple):
    """A function ``f`` and arguments of calls."""

    name: str
    source: str
    known: list[tuple[Any, ...]]
    hidden: list[tuple[Any, ...]]


TRAPS = (
    Trap(
        "a set for a list that holds lists",
        "def f(xs, ys):\n    return [x for x in xs if x in ys]\n",
        [([1, [2]], [[2], 3]), ([1, 2], [2])],
        [([[1], 2], [[1]]), ([[]], [[]])],
    ),
    Trap(
        "NaN that is the same object, and NaN that is not",
        "def f(xs, ys):\n    return [x for x in xs if x in ys]\n",
        [([1.0, NAN], [NAN, 1.0]), ([1.5], [])],
        [([NAN, NAN], [2.0, NAN]), ([float("inf")], [NAN])],
    ),
    Trap(
        "1, 1.0 and True are one key",
        "def f(xs):\n    out = []\n    for x in xs:\n        if x not in out:\n"
        "            out.append(x)\n    return out\n",
        [([1, 1.0, True, 0],), ([],)],
        [([True, 1, 0.0, False],), ([2.0, 2],)],
    ),
    Trap(
        "the order of floats in a sum",
        "def f(xs):\n    s = 0.0\n    for x in xs:\n        s = s + x\n    return s\n",
        [([0.1, 0.2, 0.3],), ([],)],
        [([1e16, 1.0, -1e16],), ([0.1] * 10,), ([-0.0],)],
    ),
    Trap(
        "a sum that begins with a float",
        "def f(xs):\n    s = 0\n    for x in xs:\n        s += x\n    return s\n",
        [([0.1, 0.2, 0.3],), ([1, 2],), ([],)],
        [([True],), ([0.1] * 10,), ([1e308, 1e308],)],
    ),
    Trap(
        "numbers larger than 64 bits",
        "def f(xs):\n    return [x * x for x in xs]\n",
        [([1, 2, 3],), ([],)],
        [([2**40, -(2**63)],), ([10**30],)],
    ),
    Trap(
        "an argument that changes in the loop",
        "def f(xs):\n    for i in range(len(xs)):\n        if xs[i] in xs[:i]:\n"
        "            xs[i] = -1\n    return xs\n",
        [([1, 1, 2, 1],), ([],)],
        [([-1, 3, 3, -1],), ([2, 2, 2],)],
    ),
    Trap(
        "a result that is the argument",
        "def f(xs):\n    out = xs\n    for i in range(len(out)):\n        out[i] = out[i] + 1\n"
        "    return out\n",
        [([1, 2],), ([],)],
        [([5, 5, 5],)],
    ),
    Trap(
        "a list that grows while it is read",
        "def f(xs):\n    for x in xs:\n        if x > 0:\n            xs.append(x - 1)\n"
        "    return len(xs)\n",
        [([1, 2],), ([],)],
        [([3, 0, 2],)],
    ),
    Trap(
        "a dict that changes while it is read",
        "def f(d):\n    for k in d:\n        if k == 1:\n            d[2] = 0\n    return len(d)\n",
        [({0: 1},), ({1: 1, 2: 2},)],
        [({1: 1},), ({},)],
    ),
    Trap(
        "an exception on the way",
        "def f(xs):\n    out = []\n    for x in xs:\n        out.append(10 // x)\n    return out\n",
        [([1, 2],), ([0],)],
        [([5, 0, 1],)],
    ),
    Trap(
        "an exception that stops the printing",
        "def f(xs):\n    for x in xs:\n        print(x)\n        if x < 0:\n"
        "            raise ValueError(x)\n    return len(xs)\n",
        [([1, 2],), ([1, -1],)],
        [([-3, 1],), ([],)],
    ),
    Trap(
        "a condition that is not evaluated",
        "def f(xs, i):\n    return i < len(xs) and xs[i] > 0\n",
        [([1], 0), ([1], 5)],
        [([], 0), ([0], 0)],
    ),
    Trap(
        "and that gives its operand",
        "def f(xs):\n    found = []\n    for x in xs:\n        found = found or x\n"
        "    return found\n",
        [([0, 3, 4],), ([],)],
        [([0, 0],), ([7],)],
    ),
    Trap(
        "the first of several largest",
        "def f(words):\n    best = words[0]\n    for w in words:\n        if len(w) > len(best):\n"
        "            best = w\n    return best\n",
        [(["a", "bb", "cc"],), (["x"],)],
        [(["", "b", "c"],), ([],)],
    ),
    Trap(
        "the last of several largest",
        "def f(words):\n    best = words[0]\n    for w in words:\n        if len(w) >= len(best):\n"
        "            best = w\n    return best\n",
        [(["a", "bb", "cc"],), (["x"],)],
        [(["b", "c"],), ([],)],
    ),
    Trap(
        "a largest among NaN",
        "def f(xs):\n    best = xs[0]\n    for x in xs:\n        if x > best:\n"
        "            best = x\n    return best\n",
        [([1.0, 3.0, 2.0],), ([NAN, 1.0],)],
        [([1.0, NAN, 2.0],), ([-0.0, 0.0],), ([],)],
    ),
    Trap(
        "a sorted list of which the least is wanted, and which is not there",
        "def f(xs):\n    return sorted(xs)[0]\n",
        [([3, 1, 2],), ([1],)],
        [([],), ([2, 2],)],
    ),
    Trap(
        "words that count in order",
        "def f(words):\n    out = {}\n    for w in words:\n        out[w] = words.count(w)\n"
        "    return out\n",
        [(["b", "a", "b"],), ([],)],
        [(["z", "y", "z", "x"],)],
    ),
    Trap(
        "decimals that are rounded",
        "def f(xs):\n    s = xs[0]\n    for x in xs[1:]:\n        s = s + x\n    return s\n",
        [([Decimal("0.1"), Decimal("0.2")],), ([Decimal(1)],)],
        [([Decimal("1e28"), Decimal("0.6"), Decimal("0.6")],)],
    ),
    Trap(
        "a name that hides a builtin",
        "def sum(xs):\n    return -1\n\ndef f(xs):\n    s = 0\n    for x in xs:\n        s += x\n"
        "    return s\n",
        [([1, 2],), ([],)],
        [([5],)],
    ),
    Trap(
        "a default that remembers",
        "def f(x, *, step=1):\n    out = []\n    while x > 0:\n        out.insert(0, x)\n"
        "        x -= step\n    return out\n",
        [(5,), (0,)],
        [(1,), (-3,)],
    ),
    Trap(
        "a variable that is used after the loop",
        "def f(xs):\n    out = []\n    x = None\n    for x in xs:\n        out.append(x * 2)\n"
        "    return out, x\n",
        [([1, 2],), ([],)],
        [([7],)],
    ),
    Trap(
        "recursion that changes its argument",
        "def f(xs):\n    if len(xs) < 2:\n        return len(xs)\n    xs.pop()\n"
        "    return f(xs) + f(xs)\n",
        [([1, 2, 3],), ([],)],
        [([1, 2, 3, 4, 5],)],
    ),
    Trap(
        "texts that are compared without their case",
        "def f(text):\n    out = ''\n    for c in text:\n        if c.lower() not in out.lower():\n"
        "            out += c\n    return out\n",
        [("Banana",), ("",)],
        [("İi̇I",), ("ßSSs",), ("ΣΣς",)],
    ),
    Trap(
        "a search for a longer text",
        "def f(text, parts):\n    return [p for p in parts if p in text]\n",
        [("abcabc", ["ab", "x", ""]), ("", ["a"])],
        [("aXb", ["aXb", "Xb", "aX ", ""])],
    ),
)
