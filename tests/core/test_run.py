import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sharpen.core import stage as stage_module
from sharpen.core.errors import (
    BusyError,
    ConfigError,
    ExecutionError,
    MissingFileError,
    OutOfMemoryError,
    TrainingError,
)
from sharpen.core.files import FileLock
from sharpen.core.fingerprint import model_fingerprint
from sharpen.core.run import run
from sharpen.core.run_folder import load_run
from sharpen.core.stage import Prediction, StageContext, StageResult, StageType, register

calls: list[str] = []


@dataclass(frozen=True, kw_only=True, slots=True)
class CountConfig:
    size: int = 3
    fail: str = ""
    peak: int = 10


def count(config: CountConfig, context: StageContext) -> StageResult:
    calls.append(context.stage)
    context.metric("value", 1.0, step=1)
    if config.fail == "value":
        raise ValueError("boom")
    if config.fail == "nan":
        raise TrainingError("loss is NaN")
    (context.output / "data.txt").write_text("x" * config.size + str(context.seed))
    for artifact in context.inputs.values():
        assert (artifact.path / "data.txt").exists()
    return StageResult(results={"size": config.size}, measured={"step_s": 2.0, "peak_bytes": 8})


def view(config: CountConfig, context: StageContext) -> StageResult:
    assert context.run is not None
    (context.output / "report.html").write_text(json.dumps(context.run.summary))
    return StageResult()


@pytest.fixture(autouse=True)
def _types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "_registered", {})
    calls.clear()
    register(
        StageType(
            name="first",
            version=1,
            config=CountConfig,
            run=count,
            makes="dataset",
            predict=lambda config, context: Prediction(peak_bytes=config.peak, step_s=1.0),
        )
    )
    register(
        StageType(
            name="second",
            version=1,
            config=CountConfig,
            run=count,
            makes="model",
            needs=("dataset",),
        )
    )
    register(
        StageType(
            name="view", version=1, config=CountConfig, run=view, makes="report", addressed=False
        )
    )


RECIPE: dict[str, Any] = {"sharpen": 1, "name": "t", "first": {}, "second": {}, "view": {}}


def test_a_run_leaves_the_documented_folder(tmp_path: Path) -> None:
    done = run(RECIPE, output=tmp_path / "r")
    names = {p.name for p in (tmp_path / "r").iterdir()}
    assert names == {
        ".lock",
        ".store",
        "environment.json",
        "first",
        "metrics.jsonl",
        "plan.json",
        "report.html",
        "resolved.yaml",
        "second",
        "summary.json",
    }
    assert done.summary["first.size"] == 3
    assert done.summary["plan.memory_error"] == pytest.approx(0.25)
    assert done.summary["plan.time_error"] == pytest.approx(0.5)
    assert (done.artifact("second") / "data.txt").read_text() == "xxx0"
    assert not (tmp_path / "r" / "second").readlink().is_absolute()
    record = json.loads((done.artifact("second") / "stage.json").read_text())
    assert set(record["files"]) == {"data.txt"}
    assert "time" not in json.dumps(record)
    assert load_run(tmp_path / "r").summary["second"]["size"] == 3


def test_what_is_done_is_not_done_again_and_what_changed_is(tmp_path: Path) -> None:
    run(RECIPE, output=tmp_path / "r")
    again = run(RECIPE, output=tmp_path / "r")
    assert calls == ["first", "second"]
    assert again.reused == ["first", "second"]
    assert again.summary["first.step_s"] == 2.0
    run(RECIPE, {"second.size": 5}, output=tmp_path / "r")
    assert calls == ["first", "second", "second"]
    run(RECIPE, {"first.size": 5}, output=tmp_path / "r")
    assert calls[3:] == ["first", "second"]
    run(RECIPE, {"seed": 1}, output=tmp_path / "r")
    assert calls[5:] == ["first", "second"]


def test_a_tampered_output_is_made_again(tmp_path: Path) -> None:
    done = run(RECIPE, output=tmp_path / "r")
    file = done.artifact("first") / "data.txt"
    file.write_text("yyy0")
    again = run(RECIPE, output=tmp_path / "r")
    assert again.reused == ["second"]
    assert (again.artifact("first") / "data.txt").read_text() == "xxx0"


def test_measurements_of_a_stage_killed_at_its_very_end_are_not_doubled(tmp_path: Path) -> None:
    done = run(RECIPE, output=tmp_path / "r")
    rows = [(row["stage"], row["name"]) for row in done.metrics]
    stored = (tmp_path / "r" / "first").resolve()
    (tmp_path / "r" / ".work" / stored.name).mkdir(parents=True)  # as if not renamed yet
    for file in stored.iterdir():
        file.unlink()
    stored.rmdir()
    again = run(RECIPE, output=tmp_path / "r")
    assert calls == ["first", "second", "first"]
    measured = [row for row in again.metrics if row["name"].startswith("measured.")]
    wanted = [name for name in rows if name[1].startswith("measured.")]
    assert sorted((row["stage"], row["name"]) for row in measured) == sorted(wanted)


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"key": 3, "files": []}'])
def test_a_damaged_record_is_made_again(tmp_path: Path, record: str) -> None:
    done = run(RECIPE, output=tmp_path / "r")
    (done.artifact("first") / "stage.json").write_text(record)
    assert run(RECIPE, output=tmp_path / "r").reused == ["second"]


def test_until_stops_early_and_must_name_a_stage(tmp_path: Path) -> None:
    run(RECIPE, output=tmp_path / "r", until="first")
    assert calls == ["first"]
    with pytest.raises(ConfigError, match=r"no stage 'frist'\. Did you mean 'first'"):
        run(RECIPE, output=tmp_path / "r", until="frist")


def test_errors_of_a_stage_pass_through_and_keep_what_is_done(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="NaN"):
        run(RECIPE, {"second.fail": "nan"}, output=tmp_path / "r")
    with pytest.raises(ValueError, match="boom"):
        run(RECIPE, {"second.fail": "value"}, output=tmp_path / "r")
    assert not (tmp_path / "r" / "second").exists()
    assert run(RECIPE, output=tmp_path / "r").reused == ["first"]


def test_a_plan_that_does_not_fit_stops_the_run_unless_forced(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError, match=r"'first' is planned to need .* GiB.*--force"):
        run(RECIPE, {"first.peak": 10**15}, output=tmp_path / "r")
    assert calls == []
    run(RECIPE, {"first.peak": 10**15}, output=tmp_path / "r", force=True)
    assert calls == ["first", "second"]


def test_a_folder_in_use_and_a_file_in_the_way_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with FileLock(tmp_path / "r" / ".lock"), pytest.raises(BusyError, match="in use by pid"):
        run(RECIPE, output=tmp_path / "r")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        run(RECIPE, output=tmp_path / "file")


def test_reading_a_run_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="summary"):
        load_run(tmp_path)


def test_the_summary_takes_dotted_paths_and_names_what_it_has(tmp_path: Path) -> None:
    done = run(RECIPE, output=tmp_path / "r")
    with pytest.raises(KeyError, match=r"first\.size"):
        done.summary["first.sise"]


DRIVER = """
import sys, time
from dataclasses import dataclass
from sharpen.core.run import run
from sharpen.core.stage import StageResult, StageType, register

@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    steps: int = 30

def slow(config, context):
    done = context.work / "done"
    step = int(done.read_text()) if done.exists() else 0
    context.rewind(step)
    while step < config.steps:
        step += 1
        context.metric("x", step, step)
        time.sleep(0.002)
        (context.work / "tmp").write_text(str(step))
        (context.work / "tmp").replace(done)
    for part in range(5):
        (context.output / f"{part}.txt").write_text(f"{context.stage} {part}" * 1000)
        time.sleep(0.002)
    return StageResult(results={"steps": step})

kinds = {"a": "dataset", "b": "model", "c": "adapter"}
for name, kind in kinds.items():
    register(StageType(name=name, version=1, config=Config, run=slow, makes=kind))
run({"sharpen": 1, "a": {}, "b": {}, "c": {}}, output=sys.argv[1])
"""


def _hash(folder: Path) -> dict[str, str]:
    from sharpen.core.files import sha256_file

    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): sha256_file(p) for p in files}


def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DRIVER, tmp_path / "whole"], check=True)
    expected = _hash(tmp_path / "whole" / ".store")
    assert len(expected) == 18
    random.seed(0)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", DRIVER, tmp_path / "killed"])
        time.sleep(random.uniform(0.1, 0.5))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, "-c", DRIVER, tmp_path / "killed"], check=True)
    assert _hash(tmp_path / "killed" / ".store") == expected
    rows = load_run(tmp_path / "killed").metrics
    steps = [row["step"] for row in rows if row["stage"] == "b" and row["name"] == "x"]
    assert steps == list(range(1, 31))


def test_a_foreign_exception_in_a_worker_keeps_its_traceback() -> None:
    from sharpen.core.stage_worker import _describe, _rebuild

    try:
        raise RuntimeError("odd")
    except RuntimeError as error:
        rebuilt = _rebuild(_describe(error, "s"))
    assert isinstance(rebuilt, ExecutionError)
    assert "Traceback" in str(rebuilt)


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkConfig:
    steps: int = 4
    stop_at: int = 99


def walk(config: WalkConfig, context: StageContext) -> StageResult:
    done = context.work / "done"
    first = len(done.read_text()) if done.exists() else 0
    for step in range(first, config.steps):
        if step == config.stop_at:
            raise TrainingError("stopped")
        done.write_text("x" * (step + 1))
    return StageResult(results={"first": first})


@pytest.mark.parametrize(("may_change", "first"), [(("stop_at",), 2), ((), 0)])
def test_work_goes_on_under_another_config_where_the_stage_says_it_may(
    tmp_path: Path, may_change: tuple[str, ...], first: int
) -> None:
    register(
        StageType(
            name="walk", version=1, config=WalkConfig, run=walk, makes="x", may_change=may_change
        )
    )
    with pytest.raises(TrainingError):
        run({"sharpen": 1, "walk": {"stop_at": 2}}, output=tmp_path / "r")
    done = run({"sharpen": 1, "walk": {}}, output=tmp_path / "r")
    assert done.summary["walk.first"] == first
    again = run({"sharpen": 1, "walk": {"stop_at": 50}}, output=tmp_path / "r")
    assert again.reused == []  # a finished output is of its whole config


def test_what_is_in_the_way_of_an_output_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    before = len(calls)
    with pytest.raises(BusyError, match=r"first is in the way .*--output"):
        run({"sharpen": 1, "name": "x", "first": {}}, output=tmp_path)
    assert len(calls) == before
    assert not (tmp_path / "resolved.yaml").exists()


def test_a_model_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:  # others may enter it, unlike tmp_path
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "weights").write_text("w")
        (folder / "weights").chmod(0)
        user = os.geteuid()
        if user == 0:  # who may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(MissingFileError, match=r"cannot read .*weights: Permission denied"):
                model_fingerprint(str(folder))
        finally:
            os.seteuid(user)
