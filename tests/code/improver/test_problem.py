"""A function's text as a problem of a study."""

from __future__ import annotations

import json
from pathlib import Path

import sharpen as sh
import sharpen.text as st
from sharpen import LM, Scripted
from sharpen.code import code_problem
from sharpen.core.problem import Problem

SLOW = """def f(xs: list[int]) -> list[int]:
    return [x for i, x in enumerate(xs) if x not in xs[:i]]
"""
FAST = "def f(xs):\n    return list(dict.fromkeys(xs))\n"


def test_a_study_judges_texts(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SLOW)
    problem = code_problem(path, "f", tests="none", levels=1, top_s=0.003)
    checked: Problem = problem
    assert checked.space.default()["code"] == SLOW
    reply = json.dumps({"suggestion": {"code": FAST}})
    study = sh.Study(
        problem,
        optimizer=st.OPRO.maker(LM(Scripted([reply])), start="best"),
        store="sqlite://",
        budget=sh.Budget(trials=2),
    ).run()
    assert study.best.config == {"code": FAST}
    assert study.best.value > 2
    wrong = problem.evaluate({"code": "def f(xs):\n    return sorted(set(xs))\n"})
    assert wrong.status == "failed"
    assert "wrong: for" in str(wrong.error)
    assert problem.evaluate({"code": "nothing"}).status == "failed"
    problem.close()
