"""The ``train`` stage's methods: what each writes, loads as, and is planned to take."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from plan_profile import PROFILE
from sharpen.core.stage import Artifact, StageContext
from sharpen.models import load_adapter, load_model, merge_lora
from sharpen.models.lora import LoraLinear
from sharpen.models.nf4 import dequantize_model_nf4, quantize_model_nf4
from sharpen.plan.training import training_memory, training_step_s
from sharpen.train import ActConfig, TrainConfig
from sharpen.train.half import choose_half
from sharpen.train.predict import training_job
from sharpen.train.prepare import prepare_model
from sharpen.train.run import run_train
from sharpen.train.stages import TRAIN
from small_models import save_small_dataset, save_small_model, small_model, small_spec

IDS = torch.tensor([[5, 9, 40]])


def context(tmp_path: Path, base: Path) -> StageContext:
    for name in ("out", "work"):
        (tmp_path / name).mkdir(parents=True)
    save_small_dataset(tmp_path / "data")
    return StageContext(
        stage="train",
        seed=0,
        model=str(base),
        inputs={"dataset": Artifact(kind="dataset", path=tmp_path / "data", stage="d", key="d")},
        output=tmp_path / "out",
        work=tmp_path / "work",
    )


def options(method: str, **changes: Any) -> TrainConfig:
    fields = {"steps": 3, "global_batch": 2, "lr": 1e-2, "rank": 4, **changes}
    return TrainConfig(method=method, **fields)  # type: ignore[arg-type]


def test_dora_writes_an_adapter_with_magnitudes(tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    lora = run_train(options("lora"), context(tmp_path / "a", base)).results
    dora = run_train(options("dora"), context(tmp_path / "b", base)).results
    outputs = sum(m.out_features for m in small_model().model.modules() if hasattr(m, "bias"))
    assert dora["trained_parameters"] - lora["trained_parameters"] == outputs
    assert dora["loss_last"] < dora["loss_first"]
    record = json.loads((tmp_path / "b" / "out" / "adapter_config.json").read_text())
    assert record["use_dora"] is True
    tuned, plain = load_model(base, adapter=tmp_path / "b" / "out"), load_model(base)
    assert not torch.equal(tuned(IDS), plain(IDS))


def test_qlora_trains_an_adapter_on_rounded_weights(tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    result = run_train(options("qlora"), context(tmp_path / "a", base)).results
    assert result["loss_last"] < result["loss_first"]
    assert TRAIN.kind(options("qlora")) == "adapter"
    run_train(options("qlora", merge=True), context(tmp_path / "b", base))
    assert TRAIN.kind(options("qlora", merge=True)) == "model"
    rounded = small_model()
    quantize_model_nf4(rounded)
    dequantize_model_nf4(rounded)
    load_adapter(rounded, tmp_path / "a" / "out")
    merge_lora(rounded)
    torch.testing.assert_close(load_model(tmp_path / "b" / "out")(IDS), rounded(IDS))


def test_weights_in_four_bits_take_the_planned_memory(tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    bytes_of = {}
    for method in ("lora", "qlora"):
        config = options(method, dtype="bfloat16")
        model = prepare_model(base, config, seed=0)
        tensors = [*model.parameters(), *model.buffers()]
        bytes_of[method] = sum(t.nbytes for t in {t.data_ptr(): t for t in tensors}.values())
        job = training_job(config, small_spec())
        # The norms stand for 2 bytes a weight in both.
        assert training_memory(job, 0)["weights"] == pytest.approx(bytes_of[method], rel=0.01)
    assert bytes_of["qlora"] < bytes_of["lora"] * 0.7
    assert sum(isinstance(m, LoraLinear) for m in model.modules()) == 14


def test_half_writes_a_whole_model_that_moved_by_halves(tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    result = run_train(options("half"), context(tmp_path / "a", base)).results
    before = dict(small_model().named_parameters())
    after = dict(load_model(tmp_path / "a" / "out").named_parameters())
    chosen = choose_half(before, seed=0)
    assert {n for n in before if not torch.equal(before[n], after[n])} == chosen
    assert result["trained_parameters"] == sum(before[n].numel() for n in chosen)


def test_a_plan_counts_the_unpacking_of_four_bits() -> None:
    spec = small_spec()
    lora, qlora = (
        sum(training_step_s(training_job(options(m), spec), PROFILE).values())
        for m in ("lora", "qlora")
    )
    weights = spec.num_layers * spec.layer_matmul_parameters
    # Forward and input gradient, in each of two forward passes of a step.
    assert qlora - lora == pytest.approx(2 * 2 * weights * PROFILE.elementwise["float32"])


@pytest.mark.parametrize("method", ["dora", "qlora", "half"])
def test_every_method_trains_in_bfloat16_and_twice_to_the_same_bytes(
    tmp_path: Path, method: str
) -> None:
    base = save_small_model(tmp_path / "base")
    files = []
    for name in ("a", "b"):
        place = context(tmp_path / name, base)
        result = run_train(options(method, dtype="bfloat16", act=ActConfig(mode="full")), place)
        assert result.results["loss_last"] < result.results["loss_first"]
        files.append(next(place.output.glob("*.safetensors")).read_bytes())
    assert files[0] == files[1]
