import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sharpen.core import stage as stage_module
from sharpen.core.errors import TrainingError
from sharpen.core.stage import StageContext, StageResult, StageType, register

Invoke = Callable[..., Any]
RECIPE = "sharpen: 1\nname: demo\nfit: {lr: 0.5}\ncheck: {uses: measure}\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    lr: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureConfig:
    limit: int = 4


def fit(config: FitConfig, context: StageContext) -> StageResult:
    if config.lr > 1:
        raise TrainingError(f"lr={config.lr} diverges. Lower it.")
    (context.output / "weights").write_text(str(config.lr))
    with context.progress("fit", 3) as bar:
        for step in (1, 2, 3):
            context.metric("loss", config.lr / step, step)
            bar.advance()
    return StageResult(results={"loss": config.lr / 3, "seed": context.seed})


def measure(config: MeasureConfig, context: StageContext) -> StageResult:
    (context.output / "result").write_text("x")
    return StageResult(results={"score": float(config.limit)})


@pytest.fixture(autouse=True)
def _recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "_registered", {})
    register(StageType(name="fit", version=1, config=FitConfig, run=fit, makes="model"))
    register(
        StageType(name="measure", version=1, config=MeasureConfig, run=measure, makes="report")
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)


def document(done: Any, code: int = 0) -> Any:
    assert done.code == code, done
    return json.loads(done.out)


def test_a_recipe_runs_and_a_second_time_is_reused(invoke: Invoke) -> None:
    found = document(invoke("run", "recipe.yaml", "--json"))
    assert found["summary"]["fit"]["loss"] == 0.5 / 3
    assert found["summary"]["check"]["score"] == 4.0
    assert found["reused"] == []
    assert Path(found["run"]).name == "demo"
    assert (Path(found["run"]) / "summary.json").exists()
    assert document(invoke("run", "recipe.yaml", "--json"))["reused"] == ["fit", "check"]


def test_overrides_seed_until_and_output_are_carried(invoke: Invoke, tmp_path: Path) -> None:
    words = ["fit.lr=0.25", "--seed", "7", "--until", "fit", "-o", "other", "--json"]
    found = document(invoke("run", "recipe.yaml", *words))
    fitted = found["summary"]["fit"]
    assert (fitted["loss"], fitted["seed"]) == (0.25 / 3, 7)
    assert "check" not in found["summary"]
    assert "lr: 0.25" in (tmp_path / "other" / "resolved.yaml").read_text()


def test_people_get_a_table_and_the_folder(invoke: Invoke) -> None:
    done = invoke("run", "recipe.yaml")
    assert done.code == 0
    assert "fit.loss" in done.out
    assert "run folder: " in done.out


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["fit.lrr=1"], 2, ["lrr", "Did you mean 'lr'"]),
        (["fit.lr=abc"], 2, ["lr", "abc"]),
        (["nonsense"], 2, ["nonsense"]),
        (["--until", "fti"], 2, ["fti"]),
        (["fit.lr=2"], 1, ["lr=2.0 diverges"]),
    ],
)
def test_errors_are_one_json_document_with_their_code(
    invoke: Invoke, words: list[str], code: int, parts: list[str]
) -> None:
    error = document(invoke("run", "recipe.yaml", *words, "--json"), code)["error"]
    assert error["exit_code"] == code
    assert all(part in error["message"] for part in parts), error


def test_a_missing_asset_is_code_3(invoke: Invoke, tmp_path: Path) -> None:
    import dataclasses

    from sharpen.core.assets import ASSETS, get_asset

    gone = dataclasses.replace(get_asset("smollm2-135m-instruct"), distribution="no-such-dist")
    (tmp_path / "recipe.yaml").write_text("sharpen: 1\nname: d\nmodel: gone\nfit: {}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ASSETS, "gone", gone)
        error = document(invoke("run", "recipe.yaml", "--json"), 3)["error"]
    assert "pip install --no-deps no-such-dist" in error["message"]


def test_training_needs_a_stage_that_trains(invoke: Invoke) -> None:
    error = document(invoke("train", "recipe.yaml", "--json"), 2)["error"]
    assert "no stage of type 'train'" in error["message"]
