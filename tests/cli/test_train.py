import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plan_profile import pretend
from small_models import save_small_model

Invoke = Callable[..., Any]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_small_model(tmp_path / "base")
    rows = [{"prompt": f"{i} + 1 =", "completion": str(i + 1)} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        "sharpen: 1\nname: demo\nmodel: ./base\n"
        "data: {source: {path: rows.jsonl}, format: prompt_completion, max_tokens: 64}\n"
        "train: {method: lora, rank: 4, steps: 2, global_batch: 2, lr: 1.0e-3}\n"
        "eval: {metrics: [loss]}\n"
    )
    monkeypatch.chdir(tmp_path)
    pretend(tmp_path, monkeypatch)
    return tmp_path / "recipe.yaml"


def test_training_stops_before_what_follows_it(invoke: Invoke, recipe: Path) -> None:
    done = invoke("train", recipe, "train.steps=3", "--output", "out", "--json")
    assert done.code == 0, done
    summary = json.loads(done.out)["summary"]
    assert {"data", "train"} <= set(summary)
    assert "eval" not in summary
    assert (recipe.parent / "out" / "train" / "adapter_model.safetensors").exists()
    for key in ("peak_bytes", "step_s", "tokens_per_s", "mfu"):
        assert summary["plan"]["train"][key] > 0
        assert summary["train"][key] > 0
    text = invoke("train", recipe, "train.steps=3", "--output", "out").out
    lines = [line.split() for line in text.splitlines() if line.split()[:1] == ["train"]]
    names = ("peak memory", "seconds a step", "tokens a second", "MFU")
    for line, name in zip(lines, names, strict=True):
        assert " ".join(line[1:]).startswith(name)
    assert [len(line) for line in lines] == [9, 6, 6, 5]
