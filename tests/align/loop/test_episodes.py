"""Agents learn by their own episodes; what a world says is never learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align_stage import Stage
from sharpen.core.errors import ConfigError, DataError
from small_models import save_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny", max_positions=512)


WORLD = f"{Path(__file__).with_name('letters.py')}:Letters"
SETTINGS: dict[str, Any] = {
    "world": WORLD,
    "tasks": 8,
    "batch": 4,
    "generations": 4,
    "sampling": {"max_tokens": 4},
    "lr": 3e-3,
    "schedule": "constant",
}


@pytest.mark.parametrize("method", ["grpo", "rloo", "ppo", "rft"])
def test_agents_learn_from_their_episodes(method: str, model: Path, tmp_path: Path) -> None:
    steps = {"ppo": 25, "rft": 25}.get(method, 15)
    own = {**SETTINGS, "method": method, "steps": steps}
    if method == "ppo":
        own |= {"lr": 1e-3, "batch": 16, "generations": 1, "tasks": 16}
    if method != "rft":
        own["options"] = {"beta": 0.0}
    done = Stage(model, tmp_path, **own)
    rewards = done.metrics["reward"]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:2]) / 2 + 0.2
    assert done.metrics["turns"] == [2.0] * steps
    assert {"success", "entropy"} <= done.metrics.keys()
    samples = (done.folder / "samples-align.jsonl").read_text()
    assert "Go on.\\n> " in samples and "Again.\\n> " in samples


def test_episodes_resume_in_the_same_bits(model: Path, tmp_path: Path) -> None:
    own = {**SETTINGS, "method": "grpo", "steps": 3, "checkpoint": {"every": 1, "async_": False}}
    whole = Stage(model, tmp_path / "whole", **own)
    with pytest.raises(KeyboardInterrupt):
        Stage(model, tmp_path / "parts", stop_at=2, **own)
    assert Stage(model, tmp_path / "parts", **own).weights == whole.weights


def test_only_the_models_words_are_learnt_from(model: Path, tmp_path: Path) -> None:
    done = Stage(model, tmp_path, **{**SETTINGS, "method": "grpo", "steps": 1})
    # Two turns of at most four tokens and an end each, of 16 episodes.
    assert done.result.results["labels"] <= 16 * 2 * 5
    assert done.result.results["tokens"] > 4 * done.result.results["labels"]


def test_what_worlds_cannot_is_refused(model: Path, tmp_path: Path) -> None:
    for changes, told in (
        ({"method": "remax"}, "greedy"),
        ({"method": "kto", "options": {}}, "learns from rows"),
        ({"method": "grpo", "reward": {"uses": "number"}}, "leave reward out"),
        ({"method": "grpo", "data": "a.jsonl"}, "one of them"),
        ({"method": "grpo", "world": "romms"}, "Did you mean 'rooms'"),
    ):
        with pytest.raises(ConfigError, match=told):
            Stage(model, tmp_path, **{**SETTINGS, **changes})
    with pytest.raises(DataError, match="Take a world with fewer"):
        Stage(model, tmp_path, **{**SETTINGS, "method": "grpo", "max_length": 40})
