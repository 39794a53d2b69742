import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.align.domains import program_rows, run_tests
from sharpen.align.domains.program_tasks import KINDS
from sharpen.align.rewards import find_reward
from sharpen.align.rows import read_feedback
from sharpen.core.errors import ConfigError


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_of_their_format(kind: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    made = program_rows(20, kind=kind, seed=1)
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    rows = read_feedback(file)
    assert rows.kind == kind
    assert all({"tests", "solution"} <= set(row.meta) for row in rows.rows)
    assert program_rows(20, kind=kind, seed=1) == made
    assert program_rows(20, kind=kind, seed=2) != made


@pytest.mark.parametrize("letters", [1, 2])
def test_solutions_are_right_and_fit_the_prompt(letters: int) -> None:
    for slow in (False, True):
        for row in program_rows(30, letters=letters, slow=slow):
            assert run_tests(row["completion"], row["tests"]).ending == "correct"
            assert row["prompt"] == " ".join(f"{a}>{b}" for a, b in row["tests"][:2]) + "="
            assert len(row["solution"]) <= letters
            assert slow == (row["completion"] != row["solution"])


def test_splits_share_no_prompt() -> None:
    train = {row["prompt"] for seed in range(3) for row in program_rows(300, seed=seed)}
    test = {row["prompt"] for row in program_rows(300, split="test")}
    assert not train & test
    assert len(test) > 250


def test_pairs_and_candidates_are_what_they_say() -> None:
    for row in program_rows(20, kind="preference", letters=2):
        assert run_tests(row["chosen"], row["tests"]).ending == "correct"
        assert run_tests(row["rejected"], row["tests"]).ending == "wrong"
    for row in program_rows(20, kind="label"):
        assert (run_tests(row["completion"], row["tests"]).ending == "correct") == row["label"]
    for row in program_rows(20, kind="ranked"):
        endings = [run_tests(one, row["tests"]).ending for one in row["responses"]]
        assert endings == ["correct", "correct", "wrong", "error", "compile"]
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert find_reward("programs")([""] * 5, row["responses"], [row] * 5) == [
            1.0,
            1.0,
            -0.3,
            -0.6,
            -1.0,
        ]


def test_wrong_settings_are_named() -> None:
    for options in ({"kind": "x"}, {"letters": 4}, {"split": "valid"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            program_rows(1, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="count=0"):
        program_rows(0)
