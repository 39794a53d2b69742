"""A model plays: what it did is kept, and at temperature 0 it does the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharpen.align.agents import read_trajectories
from sharpen.align.agents.playing import play_world
from sharpen.core.errors import ConfigError
from small_models import save_small_model

WORLD = f"{Path(__file__).parents[1] / 'loop/letters.py'}:Letters"


def test_likeliest_tokens_are_the_same_in_every_draw(tmp_path: Path) -> None:
    model = save_small_model(tmp_path / "model", max_positions=512)
    told: dict[str, Any] = {
        "tasks": range(2),
        "draws": 3,
        "max_tokens": 6,
        "instructions": "Be brief.",
    }
    for temperature, different in ((0.0, 1), (1.0, 6)):
        file = tmp_path / f"{temperature}.jsonl"
        found = play_world(model, WORLD, temperature=temperature, save=file, **told)
        played = read_trajectories(file)
        assert found["trajectories"] == len(played) == 6
        assert {one.instructions for one in played} == {"Be brief."}
        assert len({one.actions for one in played}) == different


def test_pairs_need_something_to_compare(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--draws 8"):
        play_world("tiny", WORLD, tasks=range(2), pairs=tmp_path / "pairs.jsonl")
