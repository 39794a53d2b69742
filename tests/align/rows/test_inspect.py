import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.align.rows import inspect_rows
from sharpen.core.errors import DataError
from small_models import byte_tokenizer


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_preferences_are_described(tmp_path: Path) -> None:
    pair = {"prompt": "abcd", "chosen": "yes", "rejected": "n", "id": 1}
    shorter = {"prompt": "abcd", "chosen": "y", "rejected": "never"}
    file = write(
        tmp_path / "d.jsonl", pair, pair, shorter, {"prompt": "x", "chosen": "", "rejected": "b"}
    )
    found = inspect_rows(file)
    assert (found.kind, found.rows, found.duplicates, found.repeated_prompts) == (
        "preference",
        3,
        1,
        2,
    )
    assert found.bad == {"'chosen': empty": 1}
    assert found.bad_examples[0].startswith(f"{file}:4: 'chosen'")
    assert found.balance == {"chosen_longer": 2 / 3}
    assert found.lengths["rejected"] == {
        "min": 1,
        "median": 1,
        "p90": pytest.approx(4.2),
        "p99": pytest.approx(4.92),
        "max": 5,
    }
    assert found.lengths["total"]["max"] == 9
    assert found.keys == {"id": 2}
    assert json.loads(json.dumps(found.to_json()))["rows"] == 3
    for told in ("3 rows of the format 'preference'", "bad rows: 1", "duplicates: 1", "id (2)"):
        assert told in str(found)


def test_lengths_in_tokens_are_those_of_training(tmp_path: Path) -> None:
    rows = [{"prompt": "abc", "completion": "d", "label": i % 3 == 0} for i in range(4)]
    rows.append({"prompt": "abcdefgh", "completion": "d", "label": True})
    file = write(tmp_path / "d.jsonl", *rows)
    found = inspect_rows(file, byte_tokenizer(), max_length=8)
    assert found.unit == "tokens"
    assert found.lengths["completion"]["median"] == 2  # with the end token
    assert found.unusable == {"prompt leaves no room": 1}
    assert found.balance == {"desirable": 3, "undesirable": 2}


def test_ranked_rows_and_conversations(tmp_path: Path) -> None:
    ranked = {"query": "q", "responses": ["a", "b", "c"], "scores": [1, 1, 1]}
    file = write(tmp_path / "r.jsonl", ranked, {**ranked, "scores": [0, 1, 2]})
    assert inspect_rows(file).balance == {"candidates": 3.0, "ties": 0.5}
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    found = inspect_rows(write(tmp_path / "m.jsonl", chat), byte_tokenizer(chat=False))
    assert found.conversations == 1
    assert "no chat template" in next(iter(found.unusable))


def test_no_good_row_is_an_error_that_shows_one(tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", {"text": "a"})
    with pytest.raises(
        DataError, match=r"no good row.*d\.jsonl:1: the keys \(text\) fit no format"
    ):
        inspect_rows(file)
