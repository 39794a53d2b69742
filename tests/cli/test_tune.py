import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.core import stage as stage_module
from sharpen.core.stage import StageContext, StageResult, StageType, register

RECIPE = "sharpen: 1\nname: demo\nfit: {lr: 0.5}\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    lr: float = 0.5
    rank: int = 4
    method: str = "a"


def fit(config: FitConfig, context: StageContext) -> StageResult:
    (context.output / "weights").write_text(str(config.lr))
    return StageResult(results={"loss": config.lr**2, "bytes": config.rank})


@pytest.fixture(autouse=True)
def _recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "_registered", {})
    register(StageType(name="fit", version=1, config=FitConfig, run=fit, makes="model"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)


def call(*arguments: str, code: int = 0) -> str:
    line = ["tune", "recipe.yaml", *arguments]
    result = CliRunner().invoke(build_app(line), line)
    assert result.exit_code == code, result.output
    return result.stdout


def document(*arguments: str, code: int = 0) -> Any:
    return json.loads(call(*arguments, "--json", code=code))


def test_a_recipe_is_tuned_from_the_command_line(tmp_path: Path) -> None:
    over = ["--over", "fit.lr=log:1e-3:1", "--over", "fit.method=a,b"]
    found = document(*over, "--minimize", "fit.loss", "--trials", "6", "fit.rank=9")
    assert found["trials"] == {"ok": 6}
    assert set(found["best"]["config"]) == {"fit.lr", "fit.method"}
    assert found["best"]["values"]["fit.loss"] == found["best"]["config"]["fit.lr"] ** 2
    resolved = (tmp_path / "runs/demo-tune/trials/0/resolved.yaml").read_text()
    assert "rank: 9" in resolved
    table = call(*over, "--minimize", "fit.loss", "--trials", "7", "fit.rank=9")
    assert "trials: 7 ok" in table
    assert "fit.lr" in table


def test_two_objectives_a_constraint_and_a_folder(tmp_path: Path) -> None:
    found = document(
        *["--over", "fit.lr=0.1:1", "--over", "fit.rank=int:1:8", "--minimize", "fit.loss"],
        *["--maximize", "fit.bytes", "--constraint", "fit.bytes <= 6", "--output", "out"],
        *["--trials", "8", "--optimizer", "random", "--seed", "3"],
    )
    assert (tmp_path / "out" / "study.db").exists()
    assert all(trial["constraints"]["fit.bytes"] <= 6 for trial in found["pareto"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minimize", "fit.loss"], "Give --over"),
        (["--over", "fit.lr=1", "--minimize", "fit.loss"], "neither a range nor choices"),
        (["--over", "fit.lr=0:1", "--over", "fit.lr=0:2", "--minimize", "fit.loss"], "twice"),
        (["--over", "fit.lr=0:1"], "needs minimize or maximize"),
        (["--over", "fit.l=0:1", "--minimize", "fit.loss"], "unknown key 'l'"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str) -> None:
    assert message in document(*arguments, code=2)["error"]["message"]
