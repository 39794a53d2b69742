"""``sharpen code pie``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Invoke = Callable[..., Any]


def test_a_report(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "p1"
    folder.mkdir(parents=True)
    (folder / "input.0.txt").write_text("400000\n")
    (folder / "output.0.txt").write_text("80000200000\n")
    row = {
        "submission_id_v0": "s1",
        "problem_id": "p1",
        "input": "n = int(input())\nt = 0\nfor i in range(n + 1):\n    t += i\nprint(t)\n",
        "target": "n = int(input())\nprint(n * (n + 1) // 2)\n",
    }
    row["generated_answers"] = row["target"]
    made = tmp_path / "made.jsonl"
    made.write_text(json.dumps(row) + "\n")
    call = ("code", "pie", made, "--tests", folder.parent, "--trials", 2)
    done = invoke(*call, "--json")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert metrics["is_correct_best@1"] == 1
    assert metrics["mean_speedup_best@1"] > 1
    done = invoke(*call)
    assert "mean_speedup_best@1: " in done.out


def test_wrong_use(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("code", "pie", tmp_path / "nothing.jsonl")
    assert done.code == 2
    assert "nothing.jsonl" in done.err
    (tmp_path / "a.jsonl").write_text("{}\n")
    done = invoke("code", "pie", tmp_path / "a.jsonl", "--trials", 1)
    assert done.code == 2
    assert "num_trials" in done.err
