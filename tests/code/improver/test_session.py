"""A person who steers, by a script; and small inputs for which two functions differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sharpen import LM, Scripted
from sharpen.code import improve
from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.session import read_session, replay, steered
from sharpen.code.improver.shrink import shrunk
from sharpen.code.inputs import Input
from sharpen.core.errors import FileFormatError, MissingFileError

SLOW = """def f(xs: list[int]) -> list[int]:
    found: list[int] = []
    for x in xs:
        if not any(x == one for one in found):
            found.append(x)
    return found
"""
WRONG = "```python\ndef f(xs):\n    return sorted(set(xs))\n```"
SLOWER = (
    "```python\ndef f(xs):\n    found = []\n    for x in xs:\n"
    "        if sum(x == one for one in found) + sum(x == one for one in found) == 0:\n"
    "            found.append(x)\n    return found\n```"
)
FAST = "```python\ndef f(xs):\n    return list(dict.fromkeys(xs))\n```"
SETTINGS: dict[str, Any] = {"tests": "none", "levels": 1, "top_s": 0.005, "propose": ("llm",)}


@pytest.mark.slow
def test_a_session_ends_with_the_faster_one_and_replays_to_the_same_decisions(
    tmp_path: Path,
) -> None:
    path = tmp_path / "module.py"
    path.write_text(SLOW)
    log = tmp_path / "session.jsonl"
    said: list[str] = []
    asked: list[str] = []
    replies = iter((WRONG, SLOWER, FAST))

    def reply(request: object) -> str:
        asked.append(request.prompt)  # type: ignore[attr-defined]
        return next(replies)

    lm = LM(Scripted(reply))
    commands = iter(["accept", "reject keep the order", "measure", "ask a dict", "diff", "accept"])
    steer = steered(lm, log, commands, said.append)
    result = improve(path, "f", lm=lm, steer=steer, say=said.append, **SETTINGS)
    assert result.improved
    assert "dict.fromkeys" in result.text
    assert path.read_text() == SLOW
    assert "keep the order" in asked[1]
    assert "a dict" in asked[2]

    rows = read_session(log)
    assert [row["action"] for row in rows] == [
        *("begin", "ask", "reject", "ask", "ask", "measure", "accept"),
    ]
    verdicts = [row["attempt"]["verdict"] for row in rows if row["action"] == "ask"]
    assert verdicts == ["wrong", "slower", "kept"]
    assert [row["accepted"] for row in rows if row["action"] == "measure"] == [True]

    config = ImproveConfig(**SETTINGS)
    assert replay(path, "f", log, config, said.append) == []
    # A claim that is not true is found.
    rows[1]["attempt"]["verdict"] = "kept"
    log.write_text("\n".join(map(json.dumps, rows)))
    (found,) = replay(path, "f", log, config, said.append)
    assert "kept then, wrong now" in found
    path.write_text(SLOW + "\n")
    with pytest.raises(FileFormatError, match="another text"):
        replay(path, "f", log, config, said.append)


def test_a_person_s_own_text_is_tried_and_stop_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SLOW)
    mine = tmp_path / "mine.py"
    mine.write_text("def f(xs):\n    return list(dict.fromkeys(xs))\n")
    said: list[str] = []
    commands = iter(["help", "accept", f"edit {tmp_path}/none.py", f"edit {mine}", "what", "stop"])
    steer = steered(None, None, commands, said.append)
    result = improve(path, "f", steer=steer, **SETTINGS)
    assert not result.improved
    assert [(one.origin, one.verdict) for one in result.attempts] == [("user", "kept")]
    assert any("there is no" in text for text in said)


def test_what_is_no_session_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_session(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text("[]")
    with pytest.raises(FileFormatError, match="no session"):
        read_session(tmp_path / "bad.jsonl")


def test_an_input_is_made_small_while_the_difference_stays() -> None:
    small = shrunk(
        (([9, 8, 7, 6, 5], "abcdef"), {"n": 40}), lambda call: 7 in call[0][0] and call[1]["n"] > 4
    )
    assert small == (([7], ""), {"n": 5})


def test_an_input_that_cannot_be_smaller_stays() -> None:
    call: Input = (([3, 1],), {})
    assert shrunk(call, lambda one: False) is call
