"""Arguments that are solved for: planted differences are found, and what is found is tried."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.improve import judge_of, prepare
from sharpen.code.improver.journal import Attempt
from sharpen.code.improver.symbolic import difference_by_solving
from sharpen.code.improver.target import locate
from sharpen.code.improver.verdict import Verdict, decide

pytest.importorskip("crosshair")

TEXT = """
def doubled(a: int, b: int) -> int:
    return a * 2 + b


def longest(words: list[str]) -> str:
    best = ""
    for word in words:
        if len(word) > len(best):
            best = word
    return best


def bare(a, b: int):
    return a + b


def forward(xs: list[int]):
    yield from xs


class Shop:
    def bill(self, n: int) -> int:
        return n
"""
PLANTED = TEXT.replace(
    "    return a * 2 + b",
    "    if a == 1234 and b == 77:\n        return 0\n    return a + a + b",
)
SAME = TEXT.replace("a * 2 + b", "a + a + b")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(TEXT)
    return path


def test_two_values_that_only_a_solver_finds(file: Path) -> None:
    found = difference_by_solving(locate(file, "doubled"), PLANTED, seconds=10)
    assert found.outcome == "difference"
    assert found.calls == [((1234, 77), {})]
    assert "returns 2545" in found.summary()


def test_texts_that_do_the_same(file: Path) -> None:
    found = difference_by_solving(locate(file, "doubled"), SAME, seconds=10)
    assert found.outcome == "no difference found"
    assert found.exhausted
    assert found.summary() == "no difference found on any path"
    other = TEXT.replace("len(word) > len(best)", "len(best) < len(word)")
    found = difference_by_solving(locate(file, "longest"), other, seconds=2)
    assert found.summary().startswith("no difference found ")


def test_a_change_of_an_argument_is_a_difference(file: Path) -> None:
    other = TEXT.replace('    best = ""', '    words.reverse()\n    best = ""')
    found = difference_by_solving(locate(file, "longest"), other, seconds=10)
    assert found.outcome == "difference"
    assert found.calls


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("bare", "no type hint for a"),
        ("forward", "it is a generator"),
        ("Shop.bill", "it is a method"),
    ],
)
def test_what_it_is_not_for(file: Path, entry: str, why: str) -> None:
    found = difference_by_solving(locate(file, entry), TEXT, seconds=5)
    assert found.outcome == "not applicable"
    assert why in found.summary()


def test_what_cannot_be_imported_is_told(file: Path) -> None:
    found = difference_by_solving(locate(file, "doubled"), "import unheard_of\n" + TEXT, seconds=5)
    assert found.outcome == "not applicable"
    assert "crosshair" in found.reason


def decided(file: Path, text: str, origin: str = "rewrite") -> tuple[Verdict, list[object]]:
    config = ImproveConfig(tests="none", levels=1, top_s=0.002, symbolic_s=10)
    with ExitStack() as stack:
        prepared = prepare(file, "doubled", config, stack, say=lambda _: None)
        judge = judge_of(prepared, stack, out=None, sandboxed=origin == "llm")
        attempt = Attempt(
            text=text, origin=origin, steps=(), explain="", risk="exact", verdict="kept"
        )
        verdict = decide(
            judge, attempt, prepared.corpus, prepared.original, prepared.again, prepared.command
        )
        return verdict, list(judge.baseline.inputs)


def test_a_difference_that_is_solved_for_refuses_and_joins_the_inputs(file: Path) -> None:
    verdict, inputs = decided(file, PLANTED)
    assert not verdict.accepted
    assert "solved for: (1234, 77)" in verdict.reason
    assert inputs[0] == ((1234, 77), {})


def test_the_verdict_tells_what_came_of_it(file: Path) -> None:
    verdict, _ = decided(file, SAME)
    assert verdict.symbolic is not None
    assert verdict.symbolic.exhausted
    assert "solved" not in verdict.reason


def test_code_of_a_language_model_is_not_run_for_it(file: Path) -> None:
    verdict, _ = decided(file, PLANTED, origin="llm")
    assert verdict.symbolic is not None
    assert "--trust-llm" in verdict.symbolic.summary()
