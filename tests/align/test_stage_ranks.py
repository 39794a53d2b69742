"""The align stage in several processes: as in one, and whatever happens to a process."""

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from align_stage import REWARD, ROWS, Stage
from sharpen.align.config import AlignConfig
from sharpen.align.methods import METHODS
from sharpen.align.predict import predict_align
from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.stage import RecipeContext
from small_models import save_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for kind, rows in ROWS.items():
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    return folder


def config(method: str, files: Path, **changes: Any) -> dict[str, Any]:
    found = METHODS[method]
    own: dict[str, Any] = {"method": method, "data": f"{files}/{found.kind}.jsonl"}
    # What is nearly 0 is not blown up to a whole step.
    own |= {"steps": 3, "batch": 4, "lr": 1e-2, "optimizer_options": {"eps": 1e-4}}
    own |= {"ft": {"heartbeat_s": 2}, "checkpoint": {"every": 1}}
    if found.online:
        own["reward"] = {"uses": f"{files}/reward.py:even", "workers": 1}
        own["sampling"] = {"max_tokens": 6}
    return {**own, **changes}


def tensors(done: Stage) -> dict[str, Any]:
    return {
        f"{path.stem} {name}": tensor
        for path in done.output.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("dpo", {"parallel": {"zero_stage": 3}}),
        ("rm", {"tune": "lora"}),
        ("bcoder", {"options": {"phi_steps": 2}}),
        ("ppo", {"parallel": {"zero_stage": 1}, "steps": 2}),  # then rounding draws other tokens
        ("grpo", {"tune": "lora"}),
    ],
)
def test_two_processes_end_where_one_does(
    method: str, own: dict[str, Any], model: Path, files: Path, tmp_path: Path
) -> None:
    alone = {name: value for name, value in own.items() if name != "parallel"}
    one = Stage(model, tmp_path / "one", **config(method, files, **alone))
    two = Stage(model, tmp_path / "two", **config(method, files, nproc=2, **own))
    assert two.result.results["steps"] == one.result.results["steps"]
    assert two.result.measured["restarts"] == 0
    assert two.metrics.keys() == one.metrics.keys()
    for name in ("loss", "phi.loss"):
        if name in one.metrics:
            assert two.metrics[name] == pytest.approx(one.metrics[name], rel=1e-4, abs=1e-6)
    found, expected = tensors(two), tensors(one)
    assert found.keys() == expected.keys()
    start = load_file(model / "model.safetensors")
    moved = [
        name for name in expected if name not in start or (start[name] != expected[name]).any()
    ]
    assert moved
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 1e-4, name
    if METHODS[method].online:
        assert two.metrics["reward"] == pytest.approx(one.metrics["reward"], abs=1e-6)
        logged = [(done.folder / "samples-align.jsonl") for done in (one, two)]
        assert len(logged[0].read_text().splitlines()) == len(logged[1].read_text().splitlines())


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again(
    model: Path, files: Path, tmp_path: Path
) -> None:
    given = config("grpo", files, nproc=2, steps=6)
    whole = Stage(model, tmp_path / "whole", **given)
    killed: list[int] = []

    def kill(folder: Path) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            ranks = [
                p for p in psutil.Process().children(recursive=True) if p.name() == "rank:work"
            ]
            if len(ranks) == 2 and any(folder.glob("work/step-*")):
                last = max(ranks, key=lambda process: process.pid)
                last.send_signal(signal.SIGKILL)
                killed.append(last.pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill, args=(tmp_path / "again",))
    killer.start()
    again = Stage(model, tmp_path / "again", **given)
    killer.join()
    assert killed and again.result.measured["restarts"] == 1
    assert again.weights == whole.weights
    assert again.metrics["reward"][-1] == whole.metrics["reward"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("nproc", [1, 2])
def test_a_timeline_shows_all_processes(
    nproc: int, model: Path, files: Path, tmp_path: Path
) -> None:
    done = Stage(model, tmp_path, **config("dpo", files, nproc=nproc, metrics={"timeline": True}))
    found = json.loads((done.folder / "timeline-align.json").read_text())["traceEvents"]
    assert {event["pid"] for event in found} == set(range(nproc))
    assert {"forward", "backward"} <= {event["name"] for event in found}


@pytest.mark.slow
def test_an_error_of_a_process_is_told_once(model: Path, files: Path, tmp_path: Path) -> None:
    (files / "broken.py").write_text("def score(prompts, completions, meta):\n    return 1 / 0\n")
    reward = {"uses": f"{files}/broken.py:score", "workers": 1}
    with pytest.raises(ExecutionError, match="division by zero"):
        Stage(model, tmp_path, **config("grpo", files, nproc=2, reward=reward))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("dpo", {"nproc": 0}, "nproc=0 .*at least 1"),
        ("dpo", {"nproc": 3}, r"batch=4 cannot be shared by 3 processes\. Take 3"),
        ("dpo", {"nproc": 2, "parallel": {"sp": 2}}, "shares no sequence"),
        ("grpo", {"nproc": 2, "parallel": {"zero_stage": 2}}, "whole weights in every process"),
        ("dpo", {"nproc": 4, "micro_batch": 2}, "micro_batch"),
        ("dpo", {"nproc": 3, "parallel": {"dp_replicate": 2}}, "3"),
        (
            "grpo",
            {"nproc": 2, "engine": "http://127.0.0.1:1/v1", "tune": "lora"},
            "takes the weights of one process",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(
    method: str, changes: dict[str, Any], message: str, files: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(AlignConfig, config(method, files, **changes))


def test_a_plan_is_that_of_one_process(model: Path, files: Path) -> None:
    def planned(**changes: Any) -> dict[str, int]:
        made = from_dict(AlignConfig, config("ppo", files, **changes))
        return predict_align(made, RecipeContext(model=str(model), seed=0)).parts

    one, two = planned(), planned(nproc=2, parallel={"zero_stage": 1})
    assert two["activations"] == pytest.approx(one["activations"] / 2, rel=0.01)
    assert two["optimizer"] == pytest.approx(one["optimizer"] / 2, rel=0.01)
    assert two["weights"] == one["weights"]
    assert two["keys and values"] == one["keys and values"] / 2
