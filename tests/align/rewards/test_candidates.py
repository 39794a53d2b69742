from collections.abc import Iterator
from typing import Any

import pytest

from sample_rewards import sample
from sharpen.align.rewards import RewardPool, best_rows, ranked_rows
from sharpen.align.rewards.candidates import distinct, same_form
from sharpen.align.rows.parse import Row, parse_row
from sharpen.core.errors import DataError


@pytest.fixture
def pool() -> Iterator[RewardPool]:
    with RewardPool(sample, workers=0) as made:  # the length of a text
        yield made


def row(**keys: Any) -> Row:
    return parse_row({"prompt": "p", **keys}, "f:1")


def test_programs_are_the_same_by_their_syntax() -> None:
    texts = ["x = 1", "x=1  # one", "```python\nx  =  1\n```", "x = 1\n```\nDone.", "x = 2"]
    assert distinct(texts) == ["x = 1", "x = 2"]
    assert distinct(["no  program, no", "no program, no", "no program, yes"]) == [
        "no  program, no",
        "no program, yes",
    ]
    assert same_form("x = 1") != same_form("x = 1.0")


def test_the_rows_own_completions_stand_beside_the_models(pool: RewardPool) -> None:
    found = ranked_rows([row(completion="fine, yes", id=3)], [["no, no", "no,  no", "drop"]], pool)
    assert found.rows == [
        {"query": "p", "responses": ["fine, yes", "no, no"], "scores": [9.0, 6.0], "id": 3}
    ]
    assert found.dropped == {"double": 1, "dropped": 1}
    assert parse_row(found.rows[0], "made").kind == "ranked"


def test_lists_that_teach_nothing_are_left_out(pool: RewardPool) -> None:
    rows = [row(), row(), row()]
    found = ranked_rows(rows, [["a b"], ["a b", "c d"], ["a b", "nan"]], pool)
    assert found.rows == []
    assert found.dropped == {"one candidate": 2, "no difference": 1, "not finite": 1}


def test_the_best_of_n(pool: RewardPool) -> None:
    rows = [row(), row()]
    some = [["a", "bb, b", "ccc, ccc"], ["a", "b"]]
    found = best_rows(rows, some, pool, least=5, keep=1)
    assert found.rows == [{"prompt": "p", "completion": "ccc, ccc", "reward": 8.0}]
    assert found.dropped == {"below the least": 3}
    assert parse_row(found.rows[0], "made").kind == "completion"


def test_what_does_not_fit_is_named(pool: RewardPool) -> None:
    with pytest.raises(DataError, match="1 rows and 2 lists"):
        ranked_rows([row()], [["a"], ["b"]], pool)
    chat = parse_row({"prompt": [{"role": "user", "content": "x"}]}, "f:9")
    with pytest.raises(DataError, match="f:9"):
        ranked_rows([chat], [["a"]], pool)
