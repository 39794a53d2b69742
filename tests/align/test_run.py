"""Every method as a recipe: what it writes, resuming, refusing."""

import json

import pytest
import torch

from sharpen.align.config import AlignConfig
from sharpen.align.methods import METHODS
from sharpen.align.run import run_align
from sharpen.align.score_model import load_score_model
from sharpen.core.config import from_dict
from sharpen.core.stage import StageContext
from sharpen.models import load_adapter, load_model
from small_models import save_small_model

WORDS = ["ab", "cd", "ef", "gh", "ij", "kl"]
ROWS = {
    "completion": [{"prompt": f"{word} ", "completion": word[::-1]} for word in WORDS],
    "preference": [
        {"prompt": f"{word} ", "chosen": word[::-1], "rejected": word + word} for word in WORDS
    ],
    "label": [
        {"prompt": f"{word} ", "completion": word, "label": i % 2 == 0}
        for i, word in enumerate(WORDS)
    ],
    "ranked": [
        {"query": f"{word} ", "responses": [word, word[::-1], "x"], "scores": [0, 2, 1]}
        for word in WORDS
    ],
    "prompt": [{"prompt": f"{word} ", "answer": i} for i, word in enumerate(WORDS)],
}
REWARD = "def even(prompts, completions, meta):\n    return [len(c) % 7 / 7 for c in completions]\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, rows in ROWS.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{kind}.jsonl").write_text(text)
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def config(method, **changes):
    found = METHODS[method]
    own = {"method": method, "data": f"{found.kind}.jsonl", "steps": 3, "batch": 4, "lr": 1e-3}
    if found.online:
        own["reward"] = {"uses": "reward.py:even", "workers": 0}
        own["sampling"] = {"max_tokens": 8}
    return {**own, **changes}


class Run:
    """The stage in this process, with what it tells."""

    def __init__(self, model, folder, **own):
        self.rows = {}
        self.output, self.work, self.folder = (folder / name for name in ("out", "work", "run"))
        for path in (self.output, self.work, self.folder):
            path.mkdir(parents=True, exist_ok=True)
        context = StageContext(
            stage="align",
            seed=3,
            model=str(model),
            inputs={},
            output=self.output,
            work=self.work,
            folder=folder,
            run_folder=self.folder,
            on_metric=self.metric,
        )
        self.result = run_align(from_dict(AlignConfig, own), context)

    def metric(self, name, value, step):
        self.rows.setdefault(name, []).append(value)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_changes_the_model_and_writes_it(method, model, folder):
    done = Run(model, folder, **config(method))
    assert done.result.results["steps"] == 3 * (4 if method == "ppo" else 1)
    assert done.result.results["skipped_steps"] == 0
    assert {"loss", "grad_norm", "lr"} <= done.rows.keys()
    if METHODS[method].online:
        told = {"reward", "reward_std", "length", "truncated", "entropy", "engine_gap"}
        assert told <= done.rows.keys()
        assert max(done.rows["engine_gap"]) < 1e-4
        samples = (done.folder / "samples-align.jsonl").read_text().splitlines()
        assert len(samples) == 3 * 2
    if method == "rm":
        assert bool(load_score_model(done.output).score.weight.any())
        return
    before, after = load_model(model), load_model(done.output)
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", ["dpo", "kto", "ppo", "grpo"])
def test_adapters_are_trained_and_written(method, model, folder):
    done = Run(model, folder, **config(method, tune="lora", rank=2))
    adapted = load_model(model)
    load_adapter(adapted, done.output)
    written = [p for name, p in adapted.named_parameters() if "lora_B" in name]
    assert any(bool(p.any()) for p in written)
