"""Heads beside the language model's: their first weights, files, and what a stopped run keeps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from align_stage import Stage, align
from sharpen.align.heads import DuelingHead, add_dueling_head, read_dueling_head, take_off_heads
from sharpen.core.errors import ConfigError
from small_models import save_small_model, small_model

ROWS: list[dict[str, Any]] = [
    {"query": f"{word} ", "responses": [word, word[::-1], "x"], "scores": [-0.3, 1, -1]}
    for word in ("ab", "cd", "efg", "gh", "ijklm", "kl")
]


def test_values_begin_alike_and_draw_from_no_stream() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    one = DuelingHead(16)
    assert torch.equal(torch.rand(4), expected)
    other = DuelingHead(16)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    hidden = torch.randn(3, 16)
    assert not bool(one.gained(hidden).any())
    torch.testing.assert_close(one(hidden), one.phi[-1].bias.expand(3, 1))  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_values_of_a_run_that_was_stopped_end_in_the_same_bits(stop: int, tmp_path: Path) -> None:
    """In stage phi, after it, and in stage theta, with other draws in between."""
    model = save_small_model(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    own: dict[str, Any] = {"method": "bcoder", "data": str(tmp_path / "rows.jsonl")}
    own |= {"steps": 4, "batch": 4, "lr": 1e-3, "checkpoint": {"every": 1, "async_": False}}
    whole = Stage(model, tmp_path / "whole", **own)
    torch.rand(3)
    with pytest.raises(KeyboardInterrupt):
        Stage(model, tmp_path / "parts", stop_at=stop, **own)
    again = Stage(model, tmp_path / "parts", **own)
    assert set(again.weights) == {"model.safetensors", "value_head.safetensors"}
    assert again.weights == whole.weights


def test_values_of_another_model_are_refused(tmp_path: Path) -> None:
    start = save_small_model(tmp_path / "model")
    made = align(start, tmp_path / "run", ROWS, method="bcoder", steps=1)
    model = small_model(hidden_size=32, num_heads=2)
    add_dueling_head(model)
    with pytest.raises(ConfigError, match="belongs to another model"):
        read_dueling_head(model, made)
    with pytest.raises(ConfigError, match="fit values first"):
        read_dueling_head(model, tmp_path)
    take_off_heads(model)
    assert "dueling" not in dict(model.named_modules())
