import json
from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from plan_profile import PROFILE
from sharpen.core.errors import ConfigError
from small_models import save_small_model


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    base = save_small_model(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a"}) + "\n")
    return {
        "sharpen": 1,
        "name": "p",
        "model": str(base),
        "data": {"source": {"path": str(tmp_path / "rows.jsonl")}, "max_tokens": 256},
        "train": {"steps": 10, "global_batch": 4, "micro_batch": 4},
    }


def test_a_plan_says_what_fits_and_how_long(recipe: dict[str, Any]) -> None:
    plan = sh.plan.recipe(recipe, device=PROFILE)
    assert plan.fits and plan.peak_bytes < PROFILE.memory_bytes
    train = plan.stages["train"]
    assert sum(train.parts.values()) == train.peak_bytes == plan.peak_bytes
    assert plan.step_s == train.step_s
    assert plan.time_s == pytest.approx(10 * (train.step_s or 0))
    assert plan.unplanned == ("data",)
    table = plan.table()
    assert "It fits" in table and "train.act.mode=full saves" in table
    document = json.loads(json.dumps(plan.to_dict()))
    assert document["stages"]["train"]["steps"] == 10
    assert 0 < document["stages"]["train"]["details"]["mfu"] < 1


def test_a_plan_that_does_not_fit_says_what_to_change(recipe: dict[str, Any]) -> None:
    import dataclasses

    small = dataclasses.replace(PROFILE, memory_bytes=1 << 20)
    plan = sh.plan.recipe(recipe, device=small)
    assert not plan.fits
    table = plan.table()
    assert "DOES NOT FIT" in table and "To make it fit:" in table
    assert "train.micro_batch=1 saves" in table
    assert "data.max_tokens" not in table  # 256 is short enough already


def test_epochs_are_planned_a_step_at_a_time(recipe: dict[str, Any]) -> None:
    recipe["train"] = {"epochs": 2.0}
    plan = sh.plan.recipe(recipe, device=PROFILE)
    assert plan.stages["train"].steps is None and plan.step_s is not None
    assert plan.time_s == 0.0


def test_mistakes_are_those_of_the_recipe(recipe: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        sh.plan.recipe(recipe, {"train.stepz": 3}, device=PROFILE)
