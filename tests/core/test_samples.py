import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import SharpenError
from sharpen.core.samples import SampleLog, samples_path, spread_steps


def test_samples_come_back_as_they_were_whatever_they_hold(tmp_path: Path) -> None:
    log = SampleLog(samples_path(tmp_path, "rl"))
    assert log.path.name == "samples-rl.jsonl"
    assert log.steps() == []
    texts = ["plain", "line\nbreak\u2028", "half \ud800 a pair", "nul \0", "é" * 100_000]
    for step, text in enumerate(texts):
        log.append({"step": step, "prompt": text, "completion": "", "reward": 0.5})
    assert log.steps() == [0, 1, 2, 3, 4]
    assert [log.at(step)[0]["prompt"] for step in range(5)] == texts
    assert log.at(5) == []


def test_rewinding_drops_what_is_made_again_and_what_is_torn(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "s.jsonl")
    log.rewind(0)
    for step in (0, 0, 3, 6):
        log.append({"step": step, "prompt": "p"})
    with log.path.open("ab") as file:
        file.write(b'{"step": 2, "pro')
    log.rewind(3)
    assert log.steps() == [0]
    assert len(log.at(0)) == 2
    log.append({"step": 3, "prompt": "again"})
    assert log.at(3) == [{"step": 3, "prompt": "again"}]
    log.rewind(0)
    assert not log.path.exists()


def test_rows_that_are_none_are_passed_over(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "s.jsonl")
    log.path.write_bytes(
        b'\n[]\nnull\n\xff\n{"step": true}\n{"step": 1.5}\n{"step": 4, "reward": NaN}\n'
        b'{"prompt": "x", "step": 5}\r\n{"step": 6, "prompt": "{"step": 7}\n' + b"[" * 100_000
    )
    assert [row for step in log.steps() for row in log.at(step)] == [
        {"step": 4, "reward": None},
        {"prompt": "x", "step": 5},
    ]


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_any_bytes_are_read(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    log = SampleLog(tmp_path_factory.mktemp("any") / "s.jsonl")
    log.path.write_bytes(b"\n".join(lines))
    for step in log.steps():
        assert all(isinstance(row, dict) for row in log.at(step))
    log.rewind(10)


def test_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SharpenError, match="gone"):
        SampleLog(tmp_path / "gone" / "s.jsonl").append({"step": 1})


def test_steps_are_spread_from_the_first_to_the_last() -> None:
    assert spread_steps([], 3) == []
    assert spread_steps([4, 9], 3) == [4, 9]
    assert spread_steps(list(range(101)), 3) == [0, 50, 100]
    assert spread_steps(list(range(10)), 2) == [0, 9]


def test_a_row_is_one_line_of_json(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "s.jsonl")
    log.append({"step": 1, "prompt": "é\n", "completion": "\ud800", "reward": None})
    (line,) = log.path.read_text(encoding="utf-8").splitlines()
    assert "é" in line
    assert json.loads(line)["completion"] == "\ud800"
