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


def test_devices_one_does_not_have(invoke: Invoke, recipe: Path) -> None:
    done = invoke("plan", recipe, "--devices", "2xL40S", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["fits"] and found["devices"]["count"] == 2
    assert found["layout"]["dp_shard"] == 2
    text = invoke("plan", recipe, "--devices", "2xL40S").out
    assert "It fits" in text and "no causal discount" in text


def test_a_search_ranks_layouts(invoke: Invoke, recipe: Path) -> None:
    done = invoke("plan", recipe, "--devices", "2xL40S", "--search", "--top", "2", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert len(found["alternatives"]) == 2
    assert found["searched"]["fitting"] >= 2
    axes = invoke("plan", recipe, "--devices", "2xL40S", "--all-axes", "--top", "99")
    assert "planned only" in axes.out


def test_a_layout_that_does_not_fit_is_code_1(invoke: Invoke, recipe: Path) -> None:
    done = invoke("plan", recipe, "--devices", "2xL40S:memory_gb=0.5", "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert found["over_bytes"] == found["peak_bytes"] - 500_000_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--devices", "8xH1000"), "Did you mean 'h100'"),
        (("--devices", "0xH100"), "must be at least 1"),
        (("--devices", "3xH100", "train.parallel.sp=2"), "does not fit 3 processes"),
        (("--devices", "2xL40S:memory_gb=0.5", "--search"), "no layout fits"),
        (("--search",), "need --devices"),
    ],
)
def test_what_cannot_be_planned_is_code_2(
    invoke: Invoke, recipe: Path, words: tuple[str, ...], message: str
) -> None:
    done = invoke("plan", recipe, *words, "--json")
    assert done.code == 2
    assert message in json.loads(done.out)["error"]["message"]
