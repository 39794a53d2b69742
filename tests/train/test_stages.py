import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from plan_profile import pretend
from sharpen.core.config import digest
from sharpen.core.errors import ConfigError
from sharpen.core.run import run
from sharpen.core.stage import Artifact, StageContext
from sharpen.data.config import DataConfig, SourceConfig, SplitConfig
from sharpen.models import load_model
from sharpen.plan.job import Adapters
from sharpen.plan.training import TrainingJob, training_memory
from sharpen.train import TrainConfig
from sharpen.train.predict import training_job
from sharpen.train.run import run_train
from sharpen.train.stages import TRAIN
from small_models import save_small_dataset, save_small_model, small_model, small_spec


def context(tmp_path: Path, base: Path, **inputs: Artifact) -> StageContext:
    for name in ("out", "work"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    data = tmp_path / "data"
    if not data.exists():
        save_small_dataset(data)
    dataset = Artifact(kind="dataset", path=data, stage="data", key="d")
    return StageContext(
        stage="train",
        seed=0,
        model=str(base),
        inputs={"dataset": dataset, **inputs},
        output=tmp_path / "out",
        work=tmp_path / "work",
    )


def options(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 3, "global_batch": 2, "lr": 1e-2, **changes})


def test_lora_writes_an_adapter_that_loads_on_its_base(tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    result = run_train(options(method="lora", rank=4), context(tmp_path, base))
    assert TRAIN.kind(options(method="lora")) == "adapter"
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    record = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert record["base_model_name_or_path"] == "base"  # no path of this machine
    tuned, plain = load_model(base, adapter=tmp_path / "out"), load_model(base)
    ids = torch.tensor([[5, 9, 40]])
    assert not torch.equal(tuned(ids), plain(ids))
    assert result.results["trained_parameters"] == 4 * 2 * (
        (64 + 64) + 2 * (64 + 32) + (64 + 64) + 3 * (64 + 128)
    )


def test_merged_lora_is_the_model_with_its_adapter(tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    merged = options(method="lora", rank=4, merge=True)
    assert TRAIN.kind(merged) == "model"
    run_train(options(method="lora", rank=4), context(tmp_path / "a", base))
    run_train(merged, context(tmp_path / "b", base))
    adapted = load_model(base, adapter=tmp_path / "a" / "out")
    whole = load_model(tmp_path / "b" / "out")
    ids = torch.tensor([[5, 9, 40]])
    torch.testing.assert_close(whole(ids), adapted(ids))


def test_full_training_writes_a_whole_model_and_goes_on_from_one(tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    first = context(tmp_path / "a", base)
    run_train(options(), first)
    model = Artifact(kind="model", path=first.output, stage="train", key="m")
    second = context(tmp_path / "b", base, model=model)
    run_train(options(), second)
    assert (second.output / "tokenizer.json").exists()
    start, end = (load_file(c.output / "model.safetensors") for c in (first, second))
    assert start.keys() == end.keys()
    assert any(not torch.equal(start[n], end[n]) for n in start)


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    for name in ("a", "b"):
        run_train(options(method="lora", dtype="bfloat16"), context(tmp_path / name, base))
    a, b = (tmp_path / n / "out" / "adapter_model.safetensors" for n in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    short = save_small_model(tmp_path / "short", max_positions=64)
    with pytest.raises(ConfigError, match="longer than the model's context of 64"):
        run_train(options(), context(tmp_path, short))
    manifest = tmp_path / "data" / "manifest.json"
    record = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**record, "tokenizer": digest("other")}))
    base = save_small_model(tmp_path / "base")
    with pytest.raises(ConfigError, match="another tokenizer"):
        run_train(options(), context(tmp_path, base))


def test_a_recipe_trains_and_compares_with_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through sharpen.run: its own process, metrics, plan errors, resume by address."""
    pretend(tmp_path, monkeypatch)
    base = save_small_model(tmp_path / "base")
    rows = [{"prompt": f"{i}+{i}=", "completion": str(2 * i)} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = {
        "sharpen": 1,
        "name": "t",
        "model": str(base),
        "data": {
            "source": {"path": str(tmp_path / "rows.jsonl")},
            "format": "prompt_completion",
            "max_tokens": 64,
            "split": {"valid": 0.2},
        },
        "train": {"steps": 4, "global_batch": 2, "method": "lora", "lr": 0.01},
    }
    done = run(recipe, output=tmp_path / "run")
    assert done.summary["train.steps"] == 4
    assert done.summary["plan.train.memory_error"] >= 0
    losses = [r for r in done.metrics if r["stage"] == "train" and r["name"] == "loss"]
    assert [r["step"] for r in losses] == [1, 2, 3, 4]
    assert run(recipe, output=tmp_path / "run").reused == ["data", "train"]


def test_the_job_follows_the_config_and_the_data() -> None:
    data = DataConfig(
        source=SourceConfig(path="x"),
        format="prompt_completion",
        split=SplitConfig(),
        max_tokens=128,
    )
    job = training_job(options(method="lora", micro_batch=2), small_spec(), data)
    assert (job.seq_len, job.micro_batch, job.grad_accum) == (128, 2, 1)
    assert job.labelled < 1 and job.document_tokens is not None
    plain = training_job(options(), small_spec())
    assert plain.labelled == 1.0 and plain.document_tokens is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(
    ("documents", "mode", "every", "tile"),
    [
        *((1, "none", 1, 0), (4, "none", 1, 0), (1, "none", 1, 48)),
        *((4, "selective", 1, 0), (1, "full", 1, 0), (4, "selective", 2, 48)),
    ],
)
def test_kept_activations_are_those_of_the_formula(
    dtype: str, method: str, documents: int, mode: Any, every: int, tile: int
) -> None:
    """Bytes that a block saves for its backward pass, by hooks, against the plan's formula."""
    from sharpen.models.lora import LoraConfig, add_lora
    from sharpen.plan.training import block_activation_bytes, checkpointed_block_bytes

    tokens, kind = 128, getattr(torch, dtype)

    def saved(layers: int) -> int:
        model = small_model(num_layers=layers)
        if method == "lora":
            model = model.to(kind)
            add_lora(model, LoraConfig(rank=4))
        else:
            model.requires_grad_(True)
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        seen: dict[int, int] = {}
        alive: list[torch.Tensor] = []

        def pack(t: torch.Tensor) -> torch.Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
                alive.append(t)
            return t

        ids = torch.zeros(1, tokens, dtype=torch.long)
        numbers = (torch.arange(tokens) * documents // tokens)[None]
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
            torch.autocast("cpu", kind, enabled=kind != torch.float32),
        ):
            model.checkpointing, model.checkpoint_every, model.mlp_tile = mode, every, tile
            model.train().hidden(ids, document_ids=numbers)
        return sum(seen.values())

    per_block = (saved(4) - saved(2)) / 2
    job = TrainingJob(
        spec=small_spec(),
        seq_len=tokens,
        adapters=Adapters(rank=4) if method == "lora" else None,
        dtype=dtype,  # type: ignore[arg-type]
        document_tokens=tokens // documents if documents > 1 else None,
        checkpointing=mode,
        checkpoint_every=every,
        mlp_tile=tile,
    )
    again = 0 if mode == "none" else 1 / every
    whole, part = block_activation_bytes(job), checkpointed_block_bytes(job)
    assert (1 - again) * whole + again * part == pytest.approx(per_block, rel=0.03)
    assert training_memory(job, 0)["activations"] > 2 * per_block
