"""Agents learn by their own episodes; what a world says is never learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align_stage import Stage
from sharpen.align.engines import PlainEngine
from sharpen.core.errors import ConfigError, DataError, MissingFileError
from small_models import byte_tokenizer, save_small_model


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


@pytest.mark.parametrize("method", ["grpo", "dpo"])
def test_instructions_stand_before_what_is_read_and_learnt(
    method: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[list[int]] = []

    class Heard(PlainEngine):
        def generate(self, prompts: Any, params: Any) -> Any:
            heard.extend(list(prompt) for prompt in prompts)
            return super().generate(prompts, params)

    monkeypatch.setattr("sharpen.align.alignment.PlainEngine", Heard)
    text = "Letters from the beginning of the alphabet are low, and all others are high."
    (tmp_path / "told.txt").write_text(f"{text}\n")
    told = f"@{tmp_path / 'told.txt'}"
    own = {**SETTINGS, "method": method, "steps": 1, "engine": "model", "instructions": told}
    if method == "dpo":
        own |= {"branches": {"margin": 0.1}}
    done = Stage(model, tmp_path, **own)
    start = byte_tokenizer().encode(f"{text}\nGoal: Say low letters.\nObservation: Go on.\n>")
    assert len(heard) > 30
    assert all(prompt[: len(start)] == start for prompt in heard)
    # Two rows of a pair, and 16 episodes, with two observations each.
    rows = 16 if method == "grpo" else 2 * round(done.metrics["pairs"][0])
    read = done.result.results["tokens"] - done.result.results["labels"]
    again = len("\nObservation: Again.\n>")
    assert rows * len(start) <= read <= rows * (len(start) + again + 5)
    if method == "grpo":
        assert read == rows * (len(start) + again)


def test_what_worlds_cannot_is_refused(model: Path, tmp_path: Path) -> None:
    for changes, told in (
        ({"method": "remax"}, "greedy"),
        ({"method": "kto", "options": {}}, "learns from rows"),
        ({"method": "grpo", "reward": {"uses": "number"}}, "leave reward out"),
        ({"method": "grpo", "data": "a.jsonl"}, "one of them"),
        ({"method": "grpo", "instructions": "@none.txt"}, "instructions: no such file"),
        ({"method": "sft", "world": "", "data": "a.jsonl", "instructions": "A."}, "give world"),
        ({"method": "grpo", "world": "romms"}, "Did you mean 'rooms'"),
    ):
        with pytest.raises((ConfigError, MissingFileError), match=told):
            Stage(model, tmp_path, **{**SETTINGS, **changes})
    with pytest.raises(DataError, match="Take a world with fewer"):
        Stage(model, tmp_path, **{**SETTINGS, "method": "grpo", "max_length": 40})
