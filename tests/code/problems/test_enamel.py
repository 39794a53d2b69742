"""ENAMEL's file format, on a file of our own, and the helpers that its generators call."""

from __future__ import annotations

import csv
import math
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.code.evaluate import EvalConfig, evaluate, read_samples
from sharpen.code.problems import load_problems
from sharpen.code.problems.enamel import LEFT_OUT
from sharpen.code.problems.enamel_inputs import (
    miller_rabin,
    rand_parens,
    rand_primality,
    rand_probably_prime,
)
from sharpen.core.errors import FileFormatError, MissingFileError
from sharpen.core.sandbox import detect_tiers

COLUMNS = (
    *("task_id", "prompt", "input_generator", "input_levels"),
    *("reference_solution", "checker", "entry_point"),
)
PROMPT = 'from typing import List\n\n\ndef f(xs: List[int]) -> int:\n    """Sum."""\n'
CHECKER = "def __check(input, answer, output):\n    return type(output) == type(answer) and {}\n"


def write(path: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    row = {
        "task_id": "HumanEval/0",
        "prompt": PROMPT,
        "input_generator": "def generate_input(size: int, lid: int, cid: int):\n"
        "    return [random.randint(0, size) + len(rand_parens(size=4)) for _ in range(size)],\n",
        "input_levels": "3 20 40 80",
        "reference_solution": "    return sum(xs)\n",
        "checker": CHECKER.format("output == answer"),
        "entry_point": "f",
    }
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, **more} for more in rows)
    return path


def test_the_columns_become_problems(tmp_path: Path) -> None:
    file = write(
        tmp_path / "enamel.csv", {}, {"task_id": "HumanEval/2"}, {"task_id": "HumanEval/3"}
    )
    first, third = load_problems("enamel", data=file)
    assert (first.name, third.name, third.number) == ("HumanEval/0", "HumanEval/3", 3)
    assert first.levels == (3, 20, 40, 80)
    assert first.counts == (8, 4, 4, 4)
    assert not first.trusted
    assert 2 in LEFT_OUT
    assert len(LEFT_OUT) == 164 - 142
    assert [first.seed_of(*at) ^ 998244353 for at in ((0, 0), (0, 7), (1, 0), (3, 3))] == [
        *(0, 7, 8, 19),
    ]
    assert third.seed_of(1, 0) ^ 998244353 == 3 ^ 8


@pytest.mark.skipif(
    sys.platform != "linux" or detect_tiers().best < 1, reason="no sandbox on this machine"
)
def test_it_is_evaluated(tmp_path: Path) -> None:
    file = write(tmp_path / "enamel.csv", {}, {"task_id": "HumanEval/1"})
    problems = load_problems("enamel", data=file)
    one, other = (p.inputs(1) for p in problems)
    assert one == problems[0].inputs(1)
    assert one != other
    random.seed(problems[0].seed_of(1, 2))
    (xs,) = one[2]
    assert xs == [random.randint(0, 20) + len(str(rand_parens(size=4))) for _ in range(20)]
    config = EvalConfig(clock="opcodes", repeats=1)
    report = evaluate(problems, read_samples("reference", problems), config)
    assert report["metrics"]["eff@1(opcodes)"]["value"] == pytest.approx(1.0)
    samples = {p.name: [f"{p.prompt}\n    return float(sum(xs))\n"] for p in problems}
    report = evaluate(problems, samples, config)
    assert report["problems"]["HumanEval/0"]["why"] == ["level 0: input 0: wrong output"]


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({}, COLUMNS[:-1], "must have the columns"),
        ({"input_levels": "1 b 3 4"}, COLUMNS, "row 1: invalid literal"),
        ({"input_levels": "1 2"}, COLUMNS, "row 1: .*as many"),
        ({"task_id": "HumanEval/a"}, COLUMNS, "row 1: "),
    ],
)
def test_a_damaged_file_is_told(
    tmp_path: Path, row: dict[str, str], columns: tuple[str, ...], message: str
) -> None:
    file = write(tmp_path / "enamel.csv", row, columns=columns)
    with pytest.raises(FileFormatError, match=message):
        load_problems("enamel", data=file)


def test_a_missing_file_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="q-rz/enamel"):
        load_problems("enamel")
    with pytest.raises(MissingFileError, match=r"none\.csv"):
        load_problems("enamel", data=tmp_path / "none.csv")


@given(size=st.integers(1, 60), seed=st.integers(0, 99))
def test_brackets_pair_up_or_do_not(size: int, seed: int) -> None:
    random.seed(seed)
    text = str(rand_parens(size))
    assert len(text) == size + size % 2
    depths = [text[: i + 1].count("(") - text[: i + 1].count(")") for i in range(len(text))]
    assert min(depths) >= 0
    assert depths[-1] == 0
    groups = rand_parens(size, par="[]", sep=None)
    assert all(group.count("[") == group.count("]") > 0 for group in groups)
    wrong = str(rand_parens(size, valid=False))
    assert wrong.count("(") == wrong.count(")")
    assert any(wrong[: i + 1].count(")") > wrong[: i + 1].count("(") for i in range(len(wrong)))


def test_primes() -> None:
    random.seed(1)
    for n in range(1, 3000):
        assert miller_rabin(n) == (n > 1 and all(n % i for i in range(2, math.isqrt(n) + 1)))
    assert miller_rabin(2**61 - 1)
    for size in (5, 100, 10**6):
        assert size // 2 <= rand_probably_prime(size) <= size
        assert rand_probably_prime(size, size) >= size
    assert [rand_primality(9, 0, i) for i in range(4)] == [59 * 509, 561, 2, 125]
    square = rand_primality(10**4, 1, 1)
    assert math.isqrt(square) ** 2 == square
