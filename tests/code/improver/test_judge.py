"""What tries texts: those that are far from the best are looked at only briefly."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.improve import judge_of, prepare
from sharpen.code.improver.judge import Proposal
from sharpen.code.inputs import Input

SLOW = """def f(xs: list[int]) -> list[int]:
    found: list[int] = []
    for x in xs:
        if x not in found:
            found.append(x)
    return found
"""
FAST = "def f(xs):\n    return list(dict.fromkeys(xs))\n"
AS_FAST = "def f(xs):\n    return [*dict.fromkeys(xs)]\n"
AS_SLOW = SLOW.replace("x not in found", "not x in found")


def proposal(text: str) -> Proposal:
    return Proposal(text=text, origin="rewrite", steps=("by hand",), explain="")


def test_instructions_are_counted_of_texts_that_are_close_to_the_best(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(SLOW)
    config = ImproveConfig(tests="none", levels=1, top_s=0.01)
    with ExitStack() as stack:
        calls: list[Input] = [(([3, 1, 3, *range(40)],), {})]
        prepared = prepare(file, "f", config, stack, calls=calls, say=lambda _: None)
        judge = judge_of(prepared, stack, out=None, sandboxed=False)
        first, far, close = (
            judge.consider(proposal(text)) for text in (FAST, AS_SLOW, AS_FAST + "\n")
        )
    assert min(first.score, close.score) > 5 * far.score
    assert far.score < 2
    assert far.opcodes == 0
    assert first.opcodes > 0
    assert 0 < close.opcodes < 50  # of a call, not of its items
