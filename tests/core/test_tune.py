import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from sharpen.core import stage as stage_module
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.parameters import Categorical, Float, Int, Parameter
from sharpen.core.stage import StageContext, StageResult, StageType, register
from sharpen.core.study import Budget
from sharpen.core.tune import parse_over, tune

calls: list[str] = []
RECIPE: dict[str, Any] = {
    "sharpen": 1,
    "name": "demo",
    "prepare": {"size": 3},
    "fit": {"lr": 0.5, "method": "a"},
    "score": {},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    size: int = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    lr: float = 0.5
    method: str = "a"
    rank: int = 4
    filters: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    scale: float = 1.0


def prepare(config: PrepareConfig, context: StageContext) -> StageResult:
    calls.append("prepare")
    (context.output / "data.txt").write_text("x" * config.size)
    return StageResult(results={"size": config.size})


def fit(config: FitConfig, context: StageContext) -> StageResult:
    calls.append("fit")
    if config.method == "broken":
        raise ValueError("diverged")
    weight = (config.lr - 0.3) ** 2 + (config.method == "b")
    (context.output / "weight.json").write_text(json.dumps(weight))
    return StageResult(results={"weight": weight, "bytes": config.rank})


def score(config: ScoreConfig, context: StageContext) -> StageResult:
    calls.append("score")
    weight = json.loads((context.inputs["model"].path / "weight.json").read_text())
    return StageResult(results={"loss": config.scale * weight, "nested": {"gain": -weight}})


@pytest.fixture(autouse=True)
def _types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "_registered", {})
    calls.clear()
    for name, config, run, makes, needs in (
        ("prepare", PrepareConfig, prepare, "dataset", ()),
        ("fit", FitConfig, fit, "model", ("dataset",)),
        ("score", ScoreConfig, score, "report", ("model",)),
    ):
        register(StageType(name=name, version=1, config=config, run=run, makes=makes, needs=needs))


OVER = {"fit.lr": Float(0, 1), "fit.method": Categorical("a", "b")}


def models(output: Path) -> list[str]:
    return sorted(p.parent.name for p in (output / ".store").glob("*/weight.json"))


def test_a_recipe_is_tuned_and_only_the_best_trials_weights_stay(tmp_path: Path) -> None:
    study = tune(
        RECIPE, OVER, minimize="score.loss", budget=Budget(trials=10), output=tmp_path / "t"
    )
    assert study.name == "demo"
    assert study.counts() == {"ok": 10}
    for trial in study.trials():
        method, lr = trial.config["fit.method"], trial.config["fit.lr"]
        assert trial.value == (lr - 0.3) ** 2 + (method == "b")
    best = study.best
    assert best.value == min(t.value for t in study.trials())
    assert calls.count("prepare") == 1
    assert calls.count("fit") == 10
    run = sh.load_run(tmp_path / "t" / "trials" / str(best.number))
    assert run.summary["score.loss"] == best.value
    assert models(tmp_path / "t") == [run.artifact("fit").resolve().name]
    assert best.feedback is not None
    assert best.feedback.info["run"] == f"trials/{best.number}"
    loser = next(t.number for t in study.trials() if t.number != best.number)
    folder = tmp_path / "t" / "trials" / str(loser)
    assert not (folder / "fit").is_symlink()
    assert (folder / "prepare" / "data.txt").exists()
    assert (folder / "summary.json").exists()


def test_the_recipes_own_settings_come_first(tmp_path: Path) -> None:
    study = tune(
        RECIPE, OVER, minimize="score.loss", budget=Budget(trials=3), output=tmp_path / "t"
    )
    assert study.trials()[0].config == {"fit.lr": 0.5, "fit.method": "a"}
    narrow = {"fit.lr": Float(0, 0.4)}
    study = tune(
        RECIPE, narrow, minimize="score.loss", budget=Budget(trials=3), output=tmp_path / "n"
    )
    assert all(trial.config["fit.lr"] <= 0.4 for trial in study.trials())
    assert len(study.trials()) == 3


def test_own_settings_inside_a_list_come_first_too(tmp_path: Path) -> None:
    recipe = {**RECIPE, "fit": {"filters": [{"length": {"min": 7}}, {"words": {"share": 0.25}}]}}
    over = {"fit.filters.0.length.min": Int(1, 50), "fit.filters.1.words.share": Float(0, 1)}
    options: dict[str, Any] = {"minimize": "score.loss", "budget": Budget(trials=2)}
    study = tune(recipe, over, output=tmp_path / "t", **options)
    assert study.trials()[0].config == {
        "fit.filters.0.length.min": 7,
        "fit.filters.1.words.share": 0.25,
    }
    # What the recipe leaves to a default has no value of its own to begin with.
    unsaid = {"fit.filters.0.length.max": Int(1, 50)}
    study = tune(recipe, unsaid, output=tmp_path / "u", **options)
    assert study.counts() == {"ok": 2}
    with pytest.raises(ConfigError, match="is not one of its indices"):
        tune(recipe, {"fit.filters.2.words.share": Float(0, 1)}, output=tmp_path / "v", **options)


def test_what_the_recipe_says_of_quality_is_made_small_where_nothing_is_asked(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="no stage of the recipe measures quality"):
        tune(RECIPE, OVER, budget=Budget(trials=1), output=tmp_path / "t")
    register(
        StageType(
            name="score",
            version=1,
            config=ScoreConfig,
            run=score,
            makes="report",
            needs=("model",),
            minimizes="nested.gain",
        )
    )
    study = tune(RECIPE, OVER, budget=Budget(trials=2), output=tmp_path / "t")
    assert [objective.name for objective in study.objectives] == ["score.nested.gain"]


def curved(config: FitConfig, context: StageContext) -> StageResult:
    (context.work / "checkpoint").write_text("half done")
    for step in range(1, 21):
        context.metric("loss", config.lr + 1 / step, step)
        calls.append(f"{config.lr} {step}")
    return fit(config, context)


def with_curve() -> None:
    register(
        StageType(
            name="fit",
            version=1,
            config=FitConfig,
            run=curved,
            makes="model",
            needs=("dataset",),
            curve="loss",
        )
    )


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_trials_whose_training_falls_behind_are_stopped(tmp_path: Path, direction: str) -> None:
    with_curve()
    goal: dict[str, Any] = {
        direction: {"minimize": "score.loss", "maximize": "score.nested.gain"}[direction]
    }
    study = tune(
        RECIPE,
        {"fit.lr": Float(0.0, 100.0)},
        **goal,
        pruner={"name": "median", "min_trials": 1, "warmup_steps": 3},
        optimizer="sobol",
        budget=Budget(trials=6),
        output=tmp_path / "t",
    )
    first, *others = study.trials()
    assert first.config == {"fit.lr": 0.5}  # lower than all others: none is as good
    assert first.state == "ok"
    assert {trial.state for trial in others} == {"pruned"}
    assert study.best.number == 0
    for trial in others:
        feedback = trial.feedback
        assert feedback is not None
        assert [point.step for point in feedback.trace] == [1, 2, 3, 4]
        mean = trial.config["fit.lr"] + (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4
        sign = -1 if direction == "maximize" else 1
        assert feedback.trace[-1].value == pytest.approx(sign * mean)
        assert f"{trial.config['fit.lr']} 5" not in calls
        assert not (tmp_path / "t" / "trials" / str(trial.number) / ".work").exists()


def test_without_a_pruner_or_with_several_objectives_all_run_to_their_end(
    tmp_path: Path,
) -> None:
    with_curve()
    options: dict[str, Any] = {"optimizer": "sobol", "budget": Budget(trials=6)}
    over = {"fit.lr": Float(0.0, 100.0)}
    one = tune(RECIPE, over, minimize="score.loss", pruner=None, output=tmp_path / "t", **options)
    assert one.counts() == {"ok": 6}
    two = tune(RECIPE, over, minimize=["score.loss", "fit.bytes"], output=tmp_path / "u", **options)
    assert two.counts() == {"ok": 6}


def test_the_same_call_resumes_and_a_larger_budget_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"minimize": "score.loss", "output": tmp_path / "t"}
    first = tune(RECIPE, OVER, budget=Budget(trials=4), **options).trials()
    done = len(calls)
    assert tune(RECIPE, OVER, budget=Budget(trials=4), **options).trials() == first
    assert len(calls) == done
    more = tune(RECIPE, OVER, budget=Budget(trials=7), **options)
    assert more.trials()[:4] == first
    assert len(models(tmp_path / "t")) == 1


def test_objectives_constraints_and_overrides(tmp_path: Path) -> None:
    study = tune(
        RECIPE,
        {"fit.rank": Int(1, 8), **OVER},
        minimize="fit.bytes",
        maximize="score.nested.gain",
        constraints=["fit.bytes <= 6"],
        overrides=["score.scale=2", "fit.lr=0.1"],
        budget=Budget(trials=12),
        output=tmp_path / "t",
    )
    front = study.pareto()
    assert front
    assert all(t.values["fit.bytes"] <= 6 for t in front)
    assert len(models(tmp_path / "t")) == len(front)
    resolved = (tmp_path / "t" / "trials" / "0" / "resolved.yaml").read_text()
    assert "scale: 2.0" in resolved


def test_two_runs_that_share_a_store_may_make_the_same_output_at_once(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=10)

    def wait(config: PrepareConfig, context: StageContext) -> StageResult:
        both.wait()
        return prepare(config, context)

    register(StageType(name="prepare", version=1, config=PrepareConfig, run=wait, makes="dataset"))
    store = tmp_path / ".store"
    with ThreadPoolExecutor(2) as pool:
        runs = list(
            pool.map(lambda n: sh.run(RECIPE, output=tmp_path / str(n), store=store), (1, 2))
        )
    assert runs[0].summary["score.loss"] == runs[1].summary["score.loss"]
    assert runs[0].artifact("prepare").resolve() == runs[1].artifact("prepare").resolve()


def test_a_failed_run_is_a_failed_trial(tmp_path: Path) -> None:
    over = {"fit.method": Categorical("a", "broken"), "fit.lr": Float(0, 1)}
    study = tune(RECIPE, over, minimize="score.loss", budget=Budget(trials=8), output=tmp_path)
    failed = [t for t in study.trials() if t.state == "failed"]
    assert failed
    for trial in failed:
        assert trial.config["fit.method"] == "broken"
        assert trial.feedback is not None
        assert "diverged" in str(trial.feedback.error)


def test_a_value_that_the_summary_lacks_stops_the_study_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"no 'score.los'. Did you mean 'score.loss'"):
        tune(RECIPE, OVER, minimize="score.los", output=tmp_path)


@pytest.mark.parametrize(
    ("over", "options", "message"),
    [
        ({"fti.lr": Float(0, 1)}, {}, "unknown key 'fti'"),
        ({"fit.lrr": Float(0, 1)}, {}, "unknown key 'lrr'"),
        ({"fit.lr": Categorical("x", "y")}, {}, "must be a number"),
        (OVER, {"minimize": "loss"}, "begins with no stage"),
        (OVER, {"constraints": ["memory <= 1"]}, "begins with no stage"),
        (OVER, {"minimize": None}, "needs minimize or maximize"),
        (OVER, {"overrides": ["fit.lr"]}, "KEY=VALUE"),
        ({"name": Categorical("x", "y")}, {}, "begins with no stage"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(
    tmp_path: Path, over: dict[str, Parameter], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(RECIPE, over, **{"minimize": "score.loss", "output": tmp_path / "t", **options})
    assert calls == []
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("text", "key", "parameter"),
    [
        ("train.lr=log:1e-5:1e-2", "train.lr", Float(1e-5, 1e-2, log=True)),
        ("a=-1.5:2", "a", Float(-1.5, 2)),
        ("a = int:2:64", "a", Int(2, 64)),
        ("a=log:int:2:64", "a", Int(2, 64, log=True)),
        ("a=int:log:2:64", "a", Int(2, 64, log=True)),
        ("a=x,y, 3,true,1e-3", "a", Categorical("x", "y", 3, True, 1e-3)),
        ("a=x:y,z", "a", Categorical("x:y", "z")),
        ('a="1","2"', "a", Categorical("1", "2")),
    ],
)
def test_ranges_and_choices_are_read(text: str, key: str, parameter: Parameter) -> None:
    assert parse_over(text) == (key, parameter)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lr", "not of the form KEY=VALUES"),
        ("=1:2", "not of the form"),
        ("a=", "not of the form"),
        ("a=5", "neither a range nor choices"),
        ("a=1:2:3", "neither a range nor choices"),
        ("a=lgo:1:2", "neither a range nor choices"),
        ("a=log:log:1:2", "once each"),
        ("a=x:y", "must be numbers"),
        ("a=int:1.5:3", "must be integers"),
        ("a=2:1", "must be less than"),
        ("a=log:0:1", "low > 0"),
        ("a=x,", "choice is text"),
        ("a=x,x", "twice"),
    ],
)
def test_a_wrong_range_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}.*|Write KEY=") as caught:
        parse_over(text)
    assert message in str(caught.value)
    assert "train.lr=log:1e-5:1e-2" in str(caught.value)
