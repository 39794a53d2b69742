"""What the ``train`` stage foresees of its data and its method."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plan_profile import PROFILE, pretend
from sharpen.core.recipe import load_recipe
from sharpen.core.run import predict, run
from sharpen.data import TokenDataset
from small_models import save_small_model


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    lengths = np.random.default_rng(0).integers(4, 300, 40)
    rows = [json.dumps({"text": f"{i:03d}" + "x" * int(n)}) for i, n in enumerate(lengths)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    return {
        "sharpen": 1,
        "name": "p",
        "model": str(save_small_model(tmp_path / "base")),
        "data": {"source": {"path": str(tmp_path / "rows.jsonl")}, "max_tokens": 256},
        "train": {"steps": 4, "global_batch": 1},
    }


def foreseen(recipe: dict[str, Any], **changes: Any) -> Any:
    changed = {f"{stage}.{key}": v for stage, part in changes.items() for key, v in part.items()}
    return predict(load_recipe(recipe, changed), device=PROFILE)["train"]


def attention(recipe: dict[str, Any], **changes: Any) -> float:
    seconds: float = foreseen(recipe, **changes).details["step_s_by"]["attention"]
    return seconds


def test_packed_texts_attend_within_themselves(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch)
    done = run(recipe, output=tmp_path / "run", until="data")
    data = TokenDataset(done.folder / "data", "train")
    squares = total = 0
    for row in (data[i] for i in range(len(data))):
        counts = np.bincount(row.document_ids[row.document_ids >= 0])
        squares, total = squares + int((counts**2).sum()), total + int(counts.sum())
    whole = attention(recipe, data={"packing": False})
    # Attention counts (s + 1) / 2 positions a token; the made-up rates do not depend on s.
    share = attention(recipe) / whole * 257 - 1
    assert share == pytest.approx(squares / total, rel=0.05)


def test_rows_of_one_text_attend_as_a_whole(recipe: dict[str, Any]) -> None:
    whole = attention(recipe, data={"packing": False, "max_tokens": 32})
    assert attention(recipe, data={"max_tokens": 32}) <= whole
    short = attention(recipe, data={"max_tokens": 8})
    assert short == attention(recipe, data={"packing": False, "max_tokens": 8})


def test_a_source_that_cannot_be_read_is_taken_for_long_texts(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    whole = attention(recipe, data={"packing": False})
    assert attention(recipe) < whole
    (tmp_path / "rows.jsonl").write_text("not JSON")
    assert attention(recipe) == whole
    (tmp_path / "rows.jsonl").write_text("")
    assert attention(recipe) == whole


def test_methods_train_what_they_train(recipe: dict[str, Any]) -> None:
    full = foreseen(recipe).details["trained_parameters"]
    half = foreseen(recipe, train={"method": "half"})
    assert 0.3 < half.details["trained_parameters"] / full < 0.7
    assert half.peak_bytes < foreseen(recipe).peak_bytes
    assert half.details["model_flops_a_step"] < foreseen(recipe).details["model_flops_a_step"]
    halves = foreseen(recipe, train={"method": "half", "half_every": 1})
    assert halves.details["trained_parameters"] >= half.details["trained_parameters"]
    lora, dora = (foreseen(recipe, train={"method": m}) for m in ("lora", "dora"))
    assert dora.details["trained_parameters"] > lora.details["trained_parameters"]
    assert dora.parts["activations"] > lora.parts["activations"]
    assert dora.step_s > lora.step_s
