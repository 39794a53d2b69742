"""The bundled model is the trained one: its bytes, its loss, its size."""

import json
from pathlib import Path

import pytest
import torch

from sharpen.core.assets import asset_path, check_asset
from sharpen.models import load_model, load_tokenizer

TEXT = (
    "def get(self, key, default=None):\n    try:\n        return self[key]\n"
    "    except KeyError:\n        return default\n\n"
    "    def __len__(self):\n        return len(self.data)\n"
)


def test_its_bytes_are_pinned_and_small_enough_to_ship() -> None:
    assert check_asset("tiny").sha256_ok
    files = [p for p in asset_path("tiny").iterdir() if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 12 << 20
    assert {"README.md", "training.json"} <= {p.name for p in files}


def test_it_predicts_python_far_better_than_chance_and_uses_its_context() -> None:
    """Chance is ln 4096 = 8.3 nats; shuffled context is worse than the right one."""
    model, tokenizer = load_model("tiny"), load_tokenizer("tiny")
    ids = torch.tensor(tokenizer.encode(TEXT))

    def loss(ids: torch.Tensor, last: int) -> float:
        with torch.inference_mode():
            logits = model(ids[None])[0]
        scored = torch.nn.functional.cross_entropy(logits[-last - 1 : -1], ids[-last:])
        return float(scored)

    half = len(ids) // 2
    right = loss(ids, half)
    assert right < 3.0
    order = torch.randperm(len(ids) - half, generator=torch.Generator().manual_seed(0))
    shuffled = torch.cat((ids[: len(ids) - half][order], ids[-half:]))
    assert loss(shuffled, half) > right + 0.1


def test_its_record_tells_how_it_was_made() -> None:
    record = json.loads((Path(asset_path("tiny")) / "training.json").read_text())
    assert record["curve"][0]["loss"] == pytest.approx(8.37, abs=0.01)
    assert record["curve"][-1]["loss"] < 2.6
    assert record["config"]["steps"] == 2600
