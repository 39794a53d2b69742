"""Code of the user's, and that it runs only if it is allowed."""

from __future__ import annotations

import json

import pytest

from data.texts import make_batch
from sharpen.core.errors import ConfigError, DataError, MissingFileError
from sharpen.data import Dataset, ops


def test_code_runs_only_if_allowed(tmp_path):
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')")
    for make in (
        lambda: ops.python_lambda(code="lambda text: text"),
        lambda: ops.python_filter(code="lambda row: True"),
        lambda: ops.python_file(path=str(tmp_path / "own.py")),
    ):
        with pytest.raises(ConfigError, match="allow_code: true"):
            make()


def test_a_lambda_edits_texts():
    one = ops.python_lambda(code="lambda text: text.strip().upper()", allow_code=True)
    assert one.edit(make_batch([" a ", "b"])).to_pylist() == ["A", "B"]
    number = ops.python_lambda(code="lambda text: len(text)", allow_code=True)
    with pytest.raises(DataError, match="returned int, not a text"):
        number.edit(make_batch(["a"]))


@pytest.mark.parametrize(
    "code", ["1 +", "print", "lambda: 1", "lambda a, b: a", "(lambda a: a)(1)"]
)
def test_anything_else_is_no_lambda(code):
    with pytest.raises(ConfigError, match="lambda"):
        ops.python_lambda(code=code, allow_code=True)


def test_a_function_of_a_file_edits_texts(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("def process(text):\n    return text[::-1]\n\nother = 1\n")
    one = ops.python_file(path=str(path), allow_code=True)
    assert one.edit(make_batch(["abc"])).to_pylist() == ["cba"]
    before = one.describe()
    path.write_text("def process(text):\n    return text * 2\n")
    assert one.describe() != before
    assert one.edit(make_batch(["abc"])).to_pylist() == ["abcabc"]
    with pytest.raises(ConfigError, match="has no function 'gone'"):
        ops.python_file(path=str(path), function="gone", allow_code=True)
    with pytest.raises(MissingFileError, match="no such file"):
        ops.python_file(path=str(tmp_path / "no.py"), allow_code=True)


def test_a_lambda_keeps_rows_and_names_those_that_fail(tmp_path):
    rows = [{"text": "a", "n": 1}, {"text": "b", "n": 5}, {"text": "c"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = ops.python_filter(code="lambda row: row['n'] > 3", allow_code=True)
    data = Dataset.read(tmp_path / "a.jsonl").apply(one)
    with pytest.raises(DataError, match=r"'python_filter' failed on row 2: KeyError"):
        data.write(tmp_path / "out")
    result = data.write(tmp_path / "skipped", on_error="skip", trace=True)
    assert result.rows_out == 1
    assert result.why(0)[0]["reason"] == "not: lambda row: row['n'] > 3"
    assert "KeyError" in result.why(2)[0]["reason"]
