"""``sharpen code make-dataset`` and ``selfplay``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharpen.code.problems import load_problems

Invoke = Callable[..., Any]
PAIRS = next(p for p in load_problems("own") if p.name == "pairs_with_sum")


def fenced(program: str) -> str:
    return f"```python\n{program}```"


def script(path: Path, replies: list[str]) -> str:
    path.write_text(json.dumps(replies))
    return f"scripted:{path}"


def test_tasks_become_rows(invoke: Invoke, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(json.dumps({**PAIRS.to_dict(), "trusted": False}) + "\n")
    replies = [fenced(str(PAIRS.slow)), fenced(PAIRS.reference)]
    out = tmp_path / "efficient.jsonl"
    call = ("code", "make-dataset", "--tasks", tasks, "--out", out, "--rounds", 2)
    done = invoke(*call, "--llm", script(tmp_path / "script.yaml", replies), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["rows"] == found["faster"] == 1
    assert found["speedup"] > 3
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["completion"].strip() == PAIRS.reference.strip()


def test_programs_become_pairs(invoke: Invoke, tmp_path: Path) -> None:
    slow = (
        "def solve(xs):\n    found = []\n    for x in xs:\n        if x not in found:\n"
        "            found.append(x)\n    return found\n\n"
        "def inputs():\n    return [([],), (list(range(1500)),)]\n"
    )
    replies = [fenced(slow), fenced("def solve(xs):\n    return list(dict.fromkeys(xs))\n")]
    out = tmp_path / "pairs.jsonl"
    llm = script(tmp_path / "script.yaml", replies)
    done = invoke("code", "selfplay", "--llm", llm, "--programs", 1, "--out", out)
    assert done.code == 0, done.err
    assert "1 pairs" in done.out
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["speedup"] > 3


def test_wrong_use(invoke: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "efficient.jsonl"
    done = invoke("code", "make-dataset", "--out", out)
    assert done.code == 2
    assert "--llm" in done.err
    llm = script(tmp_path / "script.yaml", ["x"])
    done = invoke("code", "make-dataset", "--tasks", "nowhere", "--llm", llm, "--out", out)
    assert done.code in (2, 3)
    done = invoke(
        "code", "make-dataset", "--llm", llm, "--limit", 1, "--rounds", 3, "--max-calls", 1,
        "--out", tmp_path / "missing" / "file.jsonl",
    )  # fmt: skip
    assert done.code != 0
    assert "Traceback" not in done.err
    assert not out.exists()
