import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plan_profile import PROFILE
from small_models import save_small_model

Invoke = Callable[..., Any]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_small_model(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "recipe.yaml").write_text(
        "sharpen: 1\nname: demo\nmodel: ./base\n"
        "data: {source: {path: rows.jsonl}, max_tokens: 64}\n"
        "train: {method: lora, rank: 4, steps: 2, global_batch: 2}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sharpen.plan.planner.load_profile", lambda: PROFILE)
    return tmp_path / "recipe.yaml"


def test_a_recipe_that_fits_is_code_0(invoke: Invoke, recipe: Path) -> None:
    done = invoke("plan", recipe, "train.steps=7", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["fits"]
    assert found["stages"]["train"]["steps"] == 7
    assert "It fits" in invoke("plan", recipe).out


def test_a_recipe_that_does_not_fit_is_code_1(
    invoke: Invoke, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(PROFILE, memory_bytes=1 << 20)
    monkeypatch.setattr("sharpen.plan.planner.load_profile", lambda: small)
    done = invoke("plan", recipe, "--json")
    assert done.code == 1
    assert not json.loads(done.out)["fits"]


def test_a_bad_override_is_code_2(invoke: Invoke, recipe: Path) -> None:
    done = invoke("plan", recipe, "train.steps=0", "--json")
    assert done.code == 2
    assert "steps" in json.loads(done.out)["error"]["message"]
