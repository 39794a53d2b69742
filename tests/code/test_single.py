"""Figures of one program, and inputs as users name them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sharpen.code.inputs import read_inputs, read_program
from sharpen.code.measure import Program, growth, measure
from sharpen.code.measure.single import sizes_of
from sharpen.core.errors import (
    ConfigError,
    DataError,
    ExecutionError,
    FileFormatError,
    MissingFileError,
)

QUADRATIC = "def f(n):\n    return [i for i in range(n) for j in range(n)][-1]\n"


def test_time_that_grows_with_the_square_is_seen() -> None:
    inputs = [((n,), {}) for n in (40, 80, 160, 320)]
    found = measure(Program(source=QUADRATIC, entry="f"), inputs, processes=3)
    assert found.growth is not None
    assert found.growth.exponent == pytest.approx(2, abs=0.25)
    assert found.growth.r2 > 0.97
    assert np.argsort(found.seconds).tolist() == [0, 1, 2, 3]
    assert found.opcodes[3] > 10 * found.opcodes[1]
    assert found.to_dict()["processes"] == 3


def test_growth_is_the_slope_of_the_logarithms() -> None:
    sizes = [10, 20, 50, 100]
    found = growth(sizes, [3e-6 * n**1.5 for n in sizes])
    assert found.exponent == pytest.approx(1.5)
    assert found.r2 == pytest.approx(1)
    with pytest.raises(DataError):
        growth([1, 1], [1.0, 2.0])


def test_sizes_are_lengths_or_numbers_of_the_first_argument() -> None:
    assert sizes_of([(([0] * n,), {}) for n in (1, 2, 4)]) == [1, 2, 4]
    assert sizes_of([((), {"n": n}) for n in (5, 10, 20)]) == [5, 10, 20]
    assert sizes_of([((n,), {}) for n in (5, 6, 7)]) is None  # too much alike
    assert sizes_of([((True,), {})] * 3) is None
    assert sizes_of([((1.5,), {})] * 3) is None
    assert sizes_of([((), {})]) is None


def test_inputs_of_files(tmp_path: Path) -> None:
    file = tmp_path / "in.json"
    file.write_text(json.dumps([[1, [2]], {"n": 3}]))
    assert read_inputs(str(file)) == [((1, [2]), {}), ((), {"n": 3})]
    (tmp_path / "gen.py").write_text(
        "ONE = [(1, 2), [3], 'x']\ndef many():\n    yield from ONE\n"
        "def fails():\n    raise ValueError('no')\ndef endless():\n    while True: yield 1\n"
        "def lost():\n    return {}['k']\n"
    )
    wanted = [((1, 2), {}), (([3],), {}), (("x",), {})]
    for name in ("ONE", "many"):
        assert read_inputs(f"{tmp_path}/gen.py:{name}") == wanted
    for name, error, message in (
        ("none", FileFormatError, "defines no 'none'"),
        ("fails", ExecutionError, "ValueError: no"),
        ("lost", ExecutionError, "KeyError"),
        ("endless", FileFormatError, "more than 10,000"),
    ):
        with pytest.raises(error, match=message):
            read_inputs(f"{tmp_path}/gen.py:{name}")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "list of calls"), ("[", "no JSON"), ("[1]", "a call is a list"), ("[]", "no inputs")],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "in.json"
    file.write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_inputs(str(file))
    with pytest.raises(MissingFileError):
        read_inputs(str(tmp_path / "none.json"))
    with pytest.raises(MissingFileError):
        read_inputs(str(tmp_path / "none.py:x"))


def test_programs_are_named_by_file_and_function(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("def f(): pass\n")
    assert read_program(f"{file}:f").entry == "f"
    for text in ("a.py", ":f", "a.txt:f", f"{file}:"):
        with pytest.raises(ConfigError, match=r"FILE\.py:FUNCTION"):
            read_program(text)
    with pytest.raises(MissingFileError):
        read_program(f"{tmp_path}/b.py:f")
    with pytest.raises(ConfigError, match="does not lie below"):
        read_program(f"{file}:f", root=tmp_path / "else")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(FileFormatError, match="UTF-8"):
        read_program(f"{file}:f")
