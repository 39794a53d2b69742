"""Fast solutions as training data, with a script in the place of a model."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sharpen.code.problems import Problem, load_problems
from sharpen.code.training_data import SoapConfig, make_dataset
from sharpen.core.errors import ConfigError
from sharpen.core.lm import LM, Scripted

PAIRS = next(p for p in load_problems("own") if p.name == "pairs_with_sum")
WRONG = "def pairs_with_sum(*args):\n    return 0\n"


def fenced(program: str) -> str:
    return f"Here it is.\n```python\n{program}```\n"


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_fastest_right_version_is_kept(tmp_path: Path) -> None:
    assert PAIRS.slow is not None
    replies = ["no code at all", fenced(WRONG), fenced(PAIRS.slow), fenced(PAIRS.reference), WRONG]
    engine = Scripted(replies)
    out = tmp_path / "rows.jsonl"
    found = make_dataset([PAIRS], LM(engine), out)
    (row,) = rows_of(out)
    assert found["rows"] == found["faster"] == 1
    assert row["task"] == "pairs_with_sum"
    assert row["prompt"] == PAIRS.prompt
    assert str(row["completion"]).strip() == PAIRS.reference.strip()
    assert row["rounds"] == 3
    assert row["et_before"] > 3 * row["et_after"] > 0
    assert row["tmu_before"] >= 0
    assert found["speedup"] == pytest.approx(row["et_before"] / row["et_after"])
    asked = [one.prompt for one in engine.requests]
    assert "there is no program" in asked[1]
    assert "expected" in asked[2]
    assert "Time and memory by line" in asked[3]
    assert "hits" in asked[3]
    assert not out.with_name("rows.jsonl.journal").exists()


def test_problems_without_a_row_are_counted(tmp_path: Path) -> None:
    quick = Problem(
        name="quick",
        entry="one",
        prompt="def one():\n    'Gives 1.'\n",
        reference="def one():\n    return 1\n",
        tests="def check(candidate):\n    assert candidate() == 1\n",
    )
    unchecked = Problem(name="free", entry="f", prompt="def f(): ...", reference="def f(): ...\n")
    broken = Problem(
        name="broken",
        entry="f",
        prompt="def f(): ...",
        reference="def f(x):\n    return 1 / 0\n",
        generator="def generate(size, level, index, seed):\n    return (1,)\n",
        levels=(1, 1, 1, 1),
    )

    def reply(request: object) -> str:
        text = str(getattr(request, "prompt", ""))
        return fenced("def one():\n    return 1\n") if "one" in text else fenced(WRONG)

    out = tmp_path / "rows.jsonl"
    problems = [quick, unchecked, broken, PAIRS]
    found = make_dataset(problems, LM(Scripted(reply)), out, SoapConfig(rounds=2))
    assert found["rows"] == 0
    assert found["dropped"] == {
        "over too quickly": 1,
        "cannot be checked": 1,
        "its own solution fails": 1,
        "not solved": 1,
    }
    assert found["speedup"] is None
    assert out.read_text() == ""


def test_no_version_is_better_than_the_first(tmp_path: Path) -> None:
    replies = [fenced(PAIRS.reference), fenced(str(PAIRS.slow))]
    out = tmp_path / "rows.jsonl"
    config = SoapConfig(rounds=2, min_s=0.0)
    found = make_dataset([PAIRS], LM(Scripted(replies)), out, config)
    (row,) = rows_of(out)
    assert found["faster"] == 0
    assert row["rounds"] == 0
    assert row["et_before"] == row["et_after"]
    strict = SoapConfig(rounds=2, min_s=0.0, only_faster=True)
    again = make_dataset([PAIRS], LM(Scripted(replies)), out, strict)
    assert again["dropped"] == {"not made faster": 1}


def test_settings_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rounds=0"):
        SoapConfig(rounds=0)
    with pytest.raises(ConfigError, match="min_gain"):
        SoapConfig(min_gain=0.5)
    with pytest.raises(ConfigError, match="no problems"):
        make_dataset([], LM(Scripted([])), tmp_path / "x.jsonl")


_KILLED = """
import os, signal, sys
from pathlib import Path
from sharpen.code.problems import load_problems
from sharpen.code.training_data import SoapConfig, make_dataset
from sharpen.core.lm import LM, Scripted
names = ["pairs_with_sum", "count_pairs_with_difference"]
problems = [p for p in load_problems("own") if p.slow][:2]
kill = sys.argv[2] == "kill"
def reply(request):
    Path(sys.argv[1] + ".calls").open("a").write("x")
    for p in problems:
        if p.entry in request.prompt:
            return f"```python\\n{p.reference}```"
def on_problem(name):
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
make_dataset(problems, LM(Scripted(reply)), sys.argv[1], SoapConfig(rounds=1, min_s=0.0),
             on_problem=on_problem)
"""


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    line = [sys.executable, "-c", _KILLED, str(out)]
    killed = subprocess.run([*line, "kill"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    done = subprocess.run([*line, "no"], check=True)
    assert done.returncode == 0
    assert len(rows_of(out)) == 2
    assert (tmp_path / "rows.jsonl.calls").read_text() == "xx"  # none was asked for twice
