"""Rows without the key that a reward needs."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from align_stage import Stage
from sharpen.align.config import AlignConfig
from sharpen.align.predict import predict_align
from sharpen.align.rewards import find_reward
from sharpen.align.rewards.keys import judged
from sharpen.align.rows import read_feedback
from sharpen.core.config import from_dict
from sharpen.core.errors import DataError
from sharpen.core.stage import RecipeContext
from small_models import save_small_model


def written(folder: Path, *about: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    rows = [{"prompt": f"{number}?", **more} for number, more in enumerate(about)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["exact", "number"])
def test_that_no_row_has_the_key_is_an_error_with_the_keys_there_are(
    name: str, tmp_path: Path
) -> None:
    found = read_feedback(written(tmp_path, {"gold": 4}, {"gold": 5, "id": 1}))
    with pytest.raises(DataError) as told:
        judged(find_reward(name), found)
    for word in (str(tmp_path / "rows.jsonl"), "'answer'", "2 rows", "gold, id", "options.key"):
        assert word in str(told.value)
    assert judged(find_reward(name, ["key=gold"]), found) is found
    assert judged(find_reward("length", ["target=3"]), found) is found


def test_rows_without_any_key_beside_the_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no key beside the text"):
        judged(find_reward("exact"), read_feedback(written(tmp_path, {}, {})))


def test_rows_that_lack_it_are_counted_and_left_out_where_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = read_feedback(written(tmp_path, {"answer": 4}, {}, {"answer": 5}, {"id": 3}))
    with caplog.at_level(logging.WARNING):
        assert judged(find_reward("number"), found) is found
        kept = judged(find_reward("number"), found, skip_bad=True)
    assert [row.meta["answer"] for row in kept.rows] == [4, 5]
    assert kept.skipped == {"no answer": 2}
    first, second = (record.getMessage() for record in caplog.records)
    assert "2 of 4 rows lack the key 'answer'" in first
    assert "--skip-bad" in first
    assert "left out" in second


def test_a_reward_of_a_file_may_need_a_key(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def near(prompts, completions, meta):\n"
        "    return [float(one['goal']) for one in meta]\n\n\n"
        "near.needs = 'goal'\n"
    )
    found = read_feedback(written(tmp_path, {"id": 1}))
    with pytest.raises(DataError, match="'goal'"):
        judged(find_reward(f"{tmp_path / 'own.py'}:near"), found)


def test_plan_and_training_tell_it_before_a_model_is_loaded(tmp_path: Path) -> None:
    own: dict[str, Any] = {
        "method": "rloo",
        "data": str(written(tmp_path, {"gold": "a"})),
        "steps": 1,
        "batch": 1,
        "reward": {"uses": "exact", "workers": 0},
        "sampling": {"max_tokens": 2},
    }
    model = save_small_model(tmp_path / "model")
    context = RecipeContext(model=str(model), seed=0)
    with pytest.raises(DataError, match="'answer'"):
        predict_align(from_dict(AlignConfig, own), context)
    with pytest.raises(DataError, match="'answer'"):
        Stage(model, tmp_path / "stage", **own)
    own |= {"data": str(written(tmp_path, {"answer": "a"}, {})), "skip_bad": True}
    results = Stage(model, tmp_path / "stage", **own).result.results
    assert results["rows"] == 1
    assert results["dropped"] == {"no answer": 1}
