"""Versions that nothing beats in time, memory and length."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.improve import judge_of, prepare
from sharpen.code.improver.journal import Attempt
from sharpen.code.improver.tradeoffs import Version, code_length, trade_offs, unbeaten


def version(name: str, speedup: float, memory: float, length: int) -> Version:
    return Version(steps=(name,), speedup=speedup, memory_mib=memory, length=length, text=name)


def test_what_is_worse_in_nothing_stays() -> None:
    fast, small, short = (
        version("fast", 9.0, 40.0, 300),
        version("small", 2.0, 0.1, 300),
        version("short", 1.0, 5.0, 100),
    )
    beaten = version("beaten", 1.9, 41.0, 301)
    assert unbeaten([beaten, short, small, fast]) == [fast, small, short]
    # Within noise, the first of two that are the same.
    again = version("again", 9.1, 40.05, 300)
    assert unbeaten([fast, again]) == [fast]
    # Where a measurement falls makes no difference.
    original, shorter = version("original", 1.0, 0.124, 300), version("shorter", 1.5, 0.126, 100)
    assert unbeaten([original, shorter]) == [shorter]
    assert unbeaten([]) == []


def test_length_is_of_code_alone() -> None:
    plain = "def f(x):\n    return x + 1\n"
    noted = "# a comment\ndef f( x ) :\n\n    return (x  +  1)  # another\n"
    assert code_length(plain) == code_length(noted)
    assert code_length(plain) < code_length(plain.replace("x + 1", "x + 1 + 1"))


TEXT = """
def squares(xs: list[int]) -> int:
    total = 0
    for x in xs:
        total += x * x
    return total
"""
LARGE = TEXT.replace(
    "    total = 0\n", "    total = 0\n    xs = [x for x in xs for _ in (0, 1)][::2]\n"
)


def attempt(text: str, score: float) -> Attempt:
    return Attempt(
        text=text,
        origin="rewrite",
        steps=("a",),
        explain="",
        risk="exact",
        verdict="kept",
        score=score,
    )


def test_the_original_is_there_with_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(TEXT)
    short = "def squares(xs: list[int]) -> int:\n    return sum(x * x for x in xs)\n"
    with ExitStack() as stack:
        prepared = prepare(path, "squares", ImproveConfig(tests="none"), stack, say=lambda _: None)
        judge = judge_of(prepared, stack, out=None, sandboxed=False)
        found = trade_offs(judge, [attempt(LARGE, 2.0), attempt(short, 1.5)])
    assert [one.speedup for one in found] == [2.0, 1.5]  # the original is slower and longer
    assert found[0].memory_mib > found[1].memory_mib
    assert found[1].length == code_length(short)
    with ExitStack() as stack:
        judge = judge_of(prepared, stack, out=None, sandboxed=False)
        found = trade_offs(judge, [attempt(LARGE, 2.0)])
        assert [one.steps for one in found] == [("a",), ()]
        assert trade_offs(judge, []) == []
    assert found[0].memory_mib > found[1].memory_mib
