"""Where inputs come from, and how they grow."""

from __future__ import annotations

import ast
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.code.improver.corpus import collect
from sharpen.code.improver.equality import Equality
from sharpen.code.improver.growth import can_grow, cut, grow, size_of
from sharpen.code.improver.hot import find_hot
from sharpen.code.improver.inferring import guesses
from sharpen.code.improver.levels import levels_of
from sharpen.code.improver.observer import Watcher
from sharpen.code.improver.reference import record_baseline
from sharpen.code.improver.relations import Relation, relate, seen_relations
from sharpen.code.improver.strategies import call_strategy, examples, like
from sharpen.code.improver.target import Target, locate
from sharpen.code.improver.testing import command_of, doctest_command, find_tests, run_tests
from sharpen.code.inputs import Input
from sharpen.code.measure.process import encode_inputs
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.sandbox import decode, encode

MODULE = '''
def plain(x, y=2, *rest, key, **more):
    """Add.

    >>> plain(40, key=1)
    42
    """
    x += 1
    return x + key


def steps(xs):
    total = 0
    for x in xs:
        xs = None
        total += x
        yield total


class Shop:
    def __init__(self, prices):
        self.prices = prices

    def bill(self, names):
        self.last = names
        return sum(self.prices[name] for name in names)

    @classmethod
    def empty(cls, name):
        return name

    @staticmethod
    def tax(price: float) -> float:
        return price * 2
'''
TESTS = """
from module import *

def test():
    assert plain(1, key=3) == 5
    assert plain(1, key=3) == 5
    assert plain(1, 2, 3, key=4, other=5) == 6
    assert list(steps([1, 2, 3])) == [1, 3, 6]
    shop = Shop({"tea": 3})
    assert shop.bill(["tea", "tea"]) == 6
    assert Shop.empty("x") == "x"
    assert Shop.tax(1.5) == 3.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    (tmp_path / "test_module.py").write_text(TESTS)
    return path


def recorded(file: Path, entry: str, command: list[str] | None = None) -> tuple[Target, list[Any]]:
    target = locate(file, entry)
    beside = find_tests(target)
    assert beside is not None
    run = run_tests(command or command_of(str(beside)), target, record=True)
    assert run.passed, run.output
    return target, [decode(one) for one in run.records]


def test_arguments_are_recorded_as_they_come(file: Path) -> None:
    _, calls = recorded(file, "plain")
    assert calls == [((1, 2), {"key": 3}), ((1, 2, 3), {"key": 4, "other": 5})]
    # A generator goes on several times, with its variables changed.
    _, calls = recorded(file, "steps")
    assert calls == [(([1, 2, 3],), {})]


def test_a_method_is_called_with_the_attributes_of_its_object(file: Path) -> None:
    target, calls = recorded(file, "Shop.bill")
    assert calls == [(({"prices": {"tea": 3}}, ["tea", "tea"]), {})]
    with Watcher(target.program()) as watcher:
        (seen,) = watcher.observe(encode_inputs(calls), each_s=5, whole_s=5).seen
    assert seen.what is not None
    assert seen.what["value"] == 6
    # What the call left in the object is seen.
    assert seen.what["args"][0].keys() == {"prices", "last"}
    assert recorded(file, "Shop.empty")[1] == [(("x",), {})]
    assert recorded(file, "Shop.tax")[1] == [((1.5,), {})]


def test_examples_in_docstrings_are_recorded(file: Path) -> None:
    target = locate(file, "plain")
    _, calls = recorded(file, "plain", doctest_command(target))
    assert calls == [((40, 2), {"key": 1})]


def test_another_text_stands_in_for_the_file_in_its_tests(file: Path) -> None:
    target = locate(file, "plain")
    command = command_of(str(file.parent / "test_module.py"))
    good = run_tests(command, target, text=MODULE.replace("x + key", "key + x"))
    assert good.passed
    assert good.loaded
    assert not run_tests(command, target, text=MODULE.replace("x + key", "x - key")).passed
    assert file.read_text() == MODULE


def test_a_command_that_takes_too_long_is_ended(file: Path) -> None:
    line = [sys.executable, "-c", "while True: pass"]
    run = run_tests(line, locate(file, "plain"), limit_s=0.5)
    assert not run.passed
    assert "longer than" in run.output


def test_functions_are_ranked_by_the_time_in_themselves(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        "class A:\n    def slow(self):\n        return sum(i * i for i in range(200_000))\n\n"
        "def quick():\n    return A().slow()\n\nif __name__ == '__main__':\n    quick()\n"
    )
    hot = find_hot([sys.executable, str(tmp_path / "work.py")], tmp_path)
    assert [one.entry for one in hot][-1] == "quick"
    assert {one.entry for one in hot} == {"A.slow", "quick"}
    assert hot[0].share >= hot[1].share
    with pytest.raises(ExecutionError, match="fails"):
        find_hot([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def function(text: str) -> Any:
    return ast.parse(text).body[0]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("def f(xs):\n for x in xs: pass", [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]),
        ("def f(s):\n return s.lower()", "the quick brown fox jumps over the lazy dog the end"),
        ("def f(n):\n return n % 2 == 0", 12),
        ("def f(d):\n return d.items()", {"a": 3, "b": 1, "c": 4}),
        ("def f(m):\n return m[0][0]", [[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_shapes_are_guessed_from_use(text: str, first: Any) -> None:
    assert guesses(function(text))[0] == ((first,), {})


def test_guesses_leave_defaults_alone() -> None:
    (args, kwargs), *_ = guesses(function("def f(n, *, key, more=1):\n return n // key"))
    assert len(args) == 1
    assert list(kwargs) == ["key"]


def test_examples_are_of_the_kinds_of_the_hints_and_the_same_each_time(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "def f(xs: list[int], t: 'tuple[str, ...]', d: dict[str, float] | None = None): pass\n"
    )
    target = locate(path, "f")
    strategy = call_strategy(target.node, target.signature, [])
    assert strategy is not None
    found = examples(strategy, 100, 7)
    assert len(found) == 100
    for (xs, t, *rest), kwargs in found:
        assert all(type(x) is int for x in xs)
        assert all(type(s) is str for s in t)
        assert not kwargs
        assert rest[0] is None or all(type(v) is float for v in rest[0].values())
    # NaN is in them, which equals nothing.
    assert encode(found) == encode(examples(strategy, 100, 7))
    assert encode(found) != encode(examples(strategy, 100, 8))


def test_a_hint_of_a_class_of_the_program_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f(x: Order, y: 'list[Order]'): pass\n")
    target = locate(path, "f")
    assert call_strategy(target.node, target.signature, []) is None


VALUES = st.recursive(
    st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.data(), st.lists(VALUES, min_size=1, max_size=3))
def test_values_like_others_have_their_classes(data: st.DataObject, values: list[Any]) -> None:
    kinds = {type(one) for one in values}
    before = encode(values)
    assert type(data.draw(like(values))) in kinds
    assert encode(values) == before


@given(st.lists(VALUES, min_size=1, max_size=3), st.integers(0, 99))
def test_growth_keeps_classes_and_the_call(values: list[Any], number: int) -> None:
    call: Input = (tuple(values), {})
    before = encode(call)
    if not can_grow(call):
        return
    larger = grow(call, 4.0, number)
    assert encode(call) == before
    assert [type(one) for one in larger[0]] == [type(one) for one in values]
    assert size_of(larger) >= size_of(call) or math.isclose(size_of(larger), size_of(call))


def test_growth_keeps_order_and_shape() -> None:
    rising = grow((([1, 4, 9, 12],), {}), 8, 0)[0][0]
    assert rising == sorted(rising)
    assert len(rising) == 32
    table = grow((([[1, 2, 3, 4]] * 4,), {}), 16, 0)[0][0]
    assert {len(row) for row in table} == {16} == {len(table)}
    pairs = grow((([(1, 2), (3, 4), (5, 9)],), {}), 4, 0)[0][0]
    assert all(type(one) is tuple and len(one) == 2 for one in pairs)
    record = grow((({"prices": {"tea": 3, "milk": 2}, "open": True},), {}), 4, 0)[0][0]
    assert record.keys() == {"prices", "open"}
    assert len(record["prices"]) > 2
    xs, n = grow((([5, 6, 7], 3), {}), 4, 0)[0]
    assert len(xs) == n == 12
    assert grow(((10,), {}), 4, 0) == ((40,), {})
    # Pixels, width, height and stride.
    pixels, *sizes = grow(((bytes(range(12)), 3, 3, 4), {}), 4, 0, numbers=True)[0]
    assert len(pixels) == 48
    assert sizes == [6, 6, 8]


OPEN = """
def total(xs: list):
    result = 0
    for x in xs:
        result += x
    return result


def unique(xs: list) -> list:
    found = []
    for x in xs:
        if x not in found:
            found.append(x)
    return found
"""


@pytest.mark.parametrize(("name", "takes_texts"), [("total", False), ("unique", True)])
def test_a_list_of_what_it_does_not_say_is_of_all_that_is_taken(
    tmp_path: Path, name: str, takes_texts: bool
) -> None:
    path = tmp_path / "open.py"
    path.write_text(OPEN)
    target = locate(str(path), name)
    with Watcher(target.program()) as watcher:
        corpus = collect(target, given=[], recorded=[], documented=[], baseline=watcher, seed=0)
    items = {type(item) for args, _ in corpus.known for item in args[0]}
    assert {int, float} <= items
    assert ({str, list} <= items) == takes_texts
    assert not corpus.hinted
    made = {type(item) for args, _ in corpus.made for item in args[0]}
    assert made <= items


def test_of_several_ways_to_grow() -> None:
    assert grow(((9,), {}), 4, 0) == ((36,), {})
    assert grow(((9,), {}), 4, 0, variant=1) == ((37,), {})
    assert grow(((9,), {}), 4, 0, variant=2) == ((37,), {})
    assert grow(((6,), {}), 4, 0, variant=1) == ((29,), {})
    repeated = ([1, 1, 1, 2, 2, 1, 1, 2, 2, 1],)
    ((same,), _), ((others,), _) = (grow((repeated, {}), 4, 0, variant=k) for k in (0, 1))
    assert len(same) == len(others) == len(set(others)) == 40
    assert set(same) == {1, 2}
    ((words,), _) = grow(((["b", "b", "c"],), {}), 10, 0, variant=1)
    assert len(words) == len(set(words)) == 30


SEARCH = """
def is_prime(n: int) -> bool:
    if n < 2:
        return False
    for d in range(2, n):
        if n % d == 0:
            return False
    return True


def first_repeat(words: list[str]):
    for i in range(len(words)):
        for j in range(i):
            if words[i] == words[j]:
                return words[i]
    return None
"""


@pytest.mark.parametrize("name", ["is_prime", "first_repeat"])
def test_what_ends_early_is_timed_where_it_does_not(tmp_path: Path, name: str) -> None:
    path = tmp_path / "search.py"
    path.write_text(SEARCH)
    target = locate(str(path), name)
    with Watcher(target.program(), 0) as one, Watcher(target.program(), 1) as other:
        corpus = collect(target, given=[], recorded=[], documented=[], baseline=one, seed=0)
        baseline = record_baseline(corpus.all, one, other, Equality("exact"), judged=False)
        levels = levels_of(corpus, baseline, one, count=3, number=1, top_s=0.02)
    assert levels[-1].seconds > 0.005
    assert levels[-1].size > 100


@pytest.mark.parametrize("hinted", [True, False])
@pytest.mark.parametrize("name", ["window_sums", "largest", "known", "range_sums"])
def test_arguments_that_belong_together_grow_together(
    tmp_path: Path, name: str, hinted: bool
) -> None:
    """Widths, places and queries fit the list, so that quadratic time is taken."""
    path = tmp_path / "several.py"
    text = SEVERAL
    if not hinted:
        text = re.sub(r": (list\[tuple\[int, int\]\]|list\[int\]|int)", "", text)
        assert "int" not in text
    path.write_text(text)
    target = locate(path, name)
    with Watcher(target.program(), 0) as one, Watcher(target.program(), 1) as other:
        corpus = collect(target, given=[], recorded=[], documented=[], baseline=one, seed=0)
        baseline = record_baseline(corpus.all, one, other, Equality("exact"), judged=False)
        levels = levels_of(corpus, baseline, one, count=3, number=1, top_s=0.02)
    (xs, second), _ = levels[-1].inputs[0]
    assert len(xs) > 100
    if name in ("window_sums", "largest"):
        assert len(xs) // 5 < second
    elif name == "range_sums":
        assert all(0 <= low <= high <= len(xs) for low, high in second)
        assert len(second) > 100
    else:
        assert len(second) > 100


SEVERAL = """
def window_sums(xs: list[int], k: int):
    out = []
    for i in range(len(xs) - k + 1):
        out.append(sum(xs[i : i + k]))
    return out


def largest(xs: list[int], k: int):
    xs = list(xs)
    out = []
    for _ in range(min(len(xs), k % (len(xs) + 1))):
        out.append(max(xs))
        xs.remove(out[-1])
    return out


def known(xs: list[int], queries: list[int]):
    return [query for query in queries if query in xs]


def range_sums(xs: list[int], ranges: list[tuple[int, int]]):
    return [sum(xs[low:high]) for low, high in ranges]
"""


def test_relations_that_calls_show_are_kept() -> None:
    calls: list[Input] = [((list(range(n)), n // 3, [n - 1, 0]), {}) for n in (6, 9, 30)]
    assert seen_relations(calls) == {1: "inside", 2: "drawn"}
    assert seen_relations([*calls, ((list(range(99)), 2, [500, 501]), {})]) == {}
    assert seen_relations([((list(range(n)), 3, [99]), {}) for n in (6, 9, 30)]) == {}
    assert seen_relations([]) == {}
    known: dict[int, Relation] = {1: "inside", 2: "drawn"}
    _, width, asked = relate((([5, 6, 7, 8] * 10, 3, [1, 2]), {}), 0, known=known)[0]
    assert width == 10
    assert set(asked) <= {5, 6, 7, 8}


def test_a_relation_that_is_tried_makes_arguments_fit() -> None:
    xs = list(range(100, 140))
    call: Input = ((xs, 3, [1, 2, 3], [(9, 1)]), {"word": "a"})
    args, kwargs = relate(call, 0, relation=("inside", "inside"))
    assert args[:2] == (xs, 10)
    assert all(0 <= place < 40 for place in args[2])
    assert all(0 <= low <= high < 40 for low, high in args[3])
    assert kwargs == {"word": "a"}
    args, _ = relate(call, 0, relation=("drawn", "drawn"))
    assert args[1] == 139
    assert set(args[2]) <= set(xs)
    assert args[3] == [(9, 1)]
    graph = relate((({1: [7], 2: [8, 9]}, 5), {}), 0, relation=("drawn", "drawn"))[0]
    assert graph[1] == 2
    assert {one for row in graph[0].values() for one in row} <= {1, 2}
    assert relate(((4, 5), {}), 0, relation=("inside", "drawn")) == ((4, 5), {})


def test_a_text_grows_to_words_too() -> None:
    (text,) = grow((("abcabc",), {}), 20, 0, variant=1)[0]
    assert len(text) == 120
    assert len(text.split()) > 10
    assert set(text) <= set("abc ")


def test_the_first_part_of_a_call() -> None:
    call: Input = ((list(range(64)), 40, "abcdefgh"), {"rows": [[1] * 8] * 8, "pair": (9, 1)})
    args, kwargs = cut(call, 4, containers=True, numbers=False)
    assert args == (list(range(16)), 40, "ab")
    assert [len(row) for row in kwargs["rows"]] == [4] * 4
    assert kwargs["pair"] == (9, 1)
    assert cut(call, 4, containers=False, numbers=True)[0] == (list(range(64)), 10, "abcdefgh")
    assert cut(((3,), {}), 4, containers=False, numbers=True) == ((2,), {})


def test_calls_that_take_long_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text(
        "def squares(n: int, rows):\n"
        "    return sum(i * i for i in range(n)) + sum(i for row in rows for i in row)\n"
    )
    target = locate(path, "squares")
    call = encode(((10**8, [[1, 2], [3]]), {}))
    with Watcher(target.program()) as watcher:
        corpus = collect(target, given=[], recorded=[call], documented=[], baseline=watcher, seed=0)
    assert corpus.sources == {"tests": 1, "cut from those that take long": 1}
    assert 10**4 < corpus.known[1][0][0] < 10**7
    assert corpus.known[1][0][1] == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("while True:\n        n += 1", "take longer than 0.5 s"),
        ("return n.unheard", "raise TypeError"),
    ],
)
def test_why_there_are_no_inputs(tmp_path: Path, body: str, words: str) -> None:
    path = tmp_path / "none.py"
    path.write_text(f"def f(n: int) -> int:\n    {body}\n")
    target = locate(path, "f")
    with Watcher(target.program()) as watcher, pytest.raises(ConfigError, match=words) as caught:
        collect(target, given=[], recorded=[], documented=[], baseline=watcher, seed=0, refused=3)
    assert "3 calls in tests with an argument that is no plain value" in str(caught.value)


def test_arguments_that_are_defaults_are_left_to_the_function(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("def f(n, xs, key=len):\n    return [key(x) for x in xs]\n")
    (tmp_path / "test_late.py").write_text(
        "from late import f\n\ndef test():\n    f(1, ['a'])\n    f(1, ['a'], key=str.upper)\n"
    )
    target = locate(tmp_path / "late.py", "f")
    run = run_tests(command_of(str(tmp_path / "test_late.py")), target, record=True)
    assert [decode(one) for one in run.records] == [((1, ["a"]), {})]
    assert run.refused == 1
