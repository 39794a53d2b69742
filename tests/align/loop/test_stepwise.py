"""An agent finds pairs of steps by itself, learns from them, and plays on with what it learnt."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from align_stage import Stage
from e2e.command import document, sharpen, start
from sharpen.core.errors import ConfigError, DataError
from small_models import save_small_model

WORLD = Path(__file__).with_name("letters.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny", max_positions=512)


SETTINGS: dict[str, Any] = {
    "world": f"{WORLD}:Letters",
    "tasks": 32,
    "batch": 8,
    "branches": {"margin": 0.1},
    "sampling": {"max_tokens": 4},
    "lr": 3e-3,
    "schedule": "constant",
}


@pytest.mark.parametrize("method", ["dpo", "ipo", "orpo"])
def test_agents_learn_from_pairs_of_their_steps(method: str, model: Path, tmp_path: Path) -> None:
    done = Stage(model, tmp_path, **{**SETTINGS, "method": method, "steps": 15})
    rewards = done.metrics["reward"]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:2]) / 2 + 0.25
    assert len(done.metrics["success_after"]) == len(done.metrics["success"]) == 15
    assert sum(done.metrics["success_after"]) > sum(done.metrics["success"])
    assert all(pairs > 0 for pairs in done.metrics["pairs"][:3])
    # Of 8 tasks: one episode, and from each of two steps two others, four times.
    assert done.metrics["episodes"][:3] == [8 * (1 + 2 * 2 * 4)] * 3
    assert done.result.measured["success_after_last"] > done.result.measured["success_first"]


def test_adapters_learn_beside_the_start(model: Path, tmp_path: Path) -> None:
    own = {"method": "dpo", "steps": 15, "tune": "lora", "rank": 8, "lr": 1e-2, "merge": True}
    done = Stage(model, tmp_path, **{**SETTINGS, **own})
    rewards = done.metrics["reward"]
    assert done.metrics["loss"][0] == pytest.approx(0.6931, abs=1e-3)
    assert sum(rewards[-3:]) / 3 > sum(rewards[:2]) / 2 + 0.15


def test_only_the_tokens_of_actions_are_learnt_from(model: Path, tmp_path: Path) -> None:
    done = Stage(model, tmp_path, **{**SETTINGS, "method": "dpo", "steps": 1})
    pairs = done.metrics["pairs"][0]
    # Two actions of at most four tokens, of which the end may be one.
    assert 0 < done.result.results["labels"] <= pairs * 2 * 4
    assert done.metrics["loss"] == [pytest.approx(0.6931, abs=1e-3)]  # log 2: the start itself


def test_rounds_resume_in_the_same_bits(model: Path, tmp_path: Path) -> None:
    own = {
        **SETTINGS,
        "method": "dpo",
        "steps": 3,
        "minibatches": 2,
        "epochs_per_batch": 2,
        "checkpoint": {"every": 1, "async_": False},
    }
    whole = Stage(model, tmp_path / "whole", **own)
    assert whole.result.results["steps"] == 12
    with pytest.raises(KeyboardInterrupt):
        Stage(model, tmp_path / "parts", stop_at=7, **own)
    parts = Stage(model, tmp_path / "parts", **own)
    assert parts.weights == whole.weights
    assert parts.metrics["success_after"][-1] == whole.metrics["success_after"][-1]


def test_a_round_without_pairs_teaches_nothing(model: Path, tmp_path: Path) -> None:
    # One task a round, and a margin that only some rounds reach.
    own = {"method": "dpo", "batch": 1, "steps": 8, "tasks": 28, "branches": {"margin": 0.1}}
    done = Stage(model, tmp_path, **{**SETTINGS, **own})
    empty = sum(pairs == 0 for pairs in done.metrics["pairs"])
    assert 0 < empty == done.result.results["skipped_steps"] < 8


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"world": f"{WORLD}:Deaf"}, DataError, "All earn the same"),
        ({"branches": {"margin": 5.0}}, DataError, "branches.margin=5"),
        ({"generations": 2}, ConfigError, "min_visits=3"),
        ({"branches": {"width": 0}}, ConfigError, "width=0"),
        ({"branches": {"points": 0}}, ConfigError, "points=0"),
        ({"method": "kto"}, ConfigError, "learns from rows; in a world, take .*dpo"),
        ({"reward": {"uses": "number"}}, ConfigError, "leave reward out"),
        ({"staleness": 1}, ConfigError, "rewards at once"),
        ({"world": "romms"}, ConfigError, "Did you mean 'rooms'"),
        ({"max_length": 40}, DataError, "Take a world with fewer"),
    ],
)
def test_what_cannot_teach_is_named(
    changes: dict[str, Any], error: type[Exception], told: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=told):
        Stage(model, tmp_path, **{"method": "dpo", "steps": 1, **SETTINGS, **changes})


@pytest.mark.slow
def test_a_killed_command_ends_in_the_same_bits(model: Path, tmp_path: Path) -> None:
    call = ("align", "agent", "--model", str(model), "--world", SETTINGS["world"], "--json")
    call += ("--method", "dpo", "--steps", "8", "batch=4", "lr=1e-3", "sampling.max_tokens=4")
    call += ("branches.margin=0.1", "checkpoint.every=1")
    whole = document(sharpen(*call, "--output", "whole", cwd=tmp_path))
    with start(*call, "--output", "parts", cwd=tmp_path) as process:
        end = time.monotonic() + 120
        while process.poll() is None and not list((tmp_path / "parts").rglob("step-*")):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = sharpen(*call, "--output", "parts", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = document(done)
    weights = [
        [path.read_bytes() for path in sorted(Path(tmp_path / one["model"]).glob("*.safetensors"))]
        for one in (whole, told)
    ]
    assert weights[0]
    assert weights[0] == weights[1]
    assert told["summary"]["align"]["steps"] == 8
