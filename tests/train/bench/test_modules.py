"""A cut step is the step; its FLOPs are those that torch counts."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plan_profile import PROFILE
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.report import write_html
from sharpen.models.decoder import DecoderLM
from sharpen.models.lora import LoraConfig, add_lora
from sharpen.train import TrainConfig
from sharpen.train.bench.module_times import ModuleBench
from sharpen.train.bench.modules import (
    _job,
    bench_modules,
    measure_modules,
    part_flops,
    random_batch,
    whole_step,
)
from sharpen.train.bench.segments import PARTS, run_segments
from small_models import save_small_model, small_model


def make_model(method: str, **changes: object) -> DecoderLM:
    model = small_model(**changes)
    model.requires_grad_(True)
    if method == "lora":
        add_lora(model, LoraConfig(rank=4), seed=1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first: half of the gradients would be
                torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def gradients(model: DecoderLM) -> dict[str, torch.Tensor]:
    found = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(grad is not None for grad in found.values())
    return {n: grad.clone() for n, grad in found.items() if grad is not None}


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("documents", [None, 20])
def test_a_cut_step_has_the_loss_and_gradients_of_the_step(
    method: str, dtype: torch.dtype, documents: int | None
) -> None:
    model = make_model(method, family="qwen3" if documents else "llama")
    batch = random_batch(
        ModuleBench(batch=2, seq_len=48, document_tokens=documents, labelled=0.7), 304, 0
    )
    whole = whole_step(model, batch, dtype, 64)
    expected = gradients(model)
    model.zero_grad()
    loss, costs = run_segments(model, batch, dtype=dtype, tile=64)
    assert torch.equal(loss, whole)
    assert set(costs) == set(PARTS)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2  # residual gradients add in another order
    for name, grad in gradients(model).items():
        assert float((grad - expected[name]).norm()) <= tolerance * float(expected[name].norm())


def test_the_costs_count_every_part_and_the_bytes_it_cannot_do_without() -> None:
    model = make_model("full")
    batch = random_batch(ModuleBench(batch=2, seq_len=32), 304, 0)
    _, costs = run_segments(model, batch, dtype=torch.float32, tile=64)
    calls = {name: cost.calls for name, cost in costs.items()}
    assert (calls["qkv"], calls["norms"], calls["residual"], calls["head and loss"]) == (2, 5, 4, 1)
    rows = 2 * 32 * 4  # bytes of one number a token
    hidden, wide, weight = 64, 128, 64 * 128 * 4
    assert costs["down"].forward_bytes == 2 * (rows * (hidden + wide) + weight)
    assert costs["down"].backward_bytes == 2 * (rows * (hidden + 2 * wide) + 2 * weight)
    assert costs["embedding"].forward_bytes == 2 * rows * hidden
    assert costs["embedding"].backward_bytes == rows * hidden + 304 * 64 * 4
    assert all(cost.forward_s > 0 and cost.backward_s > 0 for cost in costs.values())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_flops_are_those_that_torch_counts(method: str) -> None:
    config = ModuleBench(batch=2, seq_len=64, train=TrainConfig(method=method, rank=4))  # type: ignore[arg-type]
    model = make_model(method)
    flops = part_flops(_job(config, model), method == "lora")
    attention = flops.pop("attention")
    # Pairs that see each other, 4 heads of 16, two products, forward and twice that backward.
    assert attention == 2 * 2 * (64 * 65 / 2) * 4 * 64 * 3
    counter = FlopCounterMode(display=False)
    with counter:
        whole_step(model, random_batch(config, 304, 0), torch.float32, 64)
    counted = sum(
        count
        for op, count in counter.get_flop_counts()["Global"].items()
        if "attention" not in str(op)
    )
    ours = sum(flops.values())
    if method == "lora":
        # Nothing below the first block is trained: its q, k and v need no gradient of their input.
        ours -= 2 * 128 * (64 * 64 + 2 * 64 * 32) + 2 * 128 * 4 * (3 * 64)
        # Torch leaves out addmm_ in place: B in every forward pass, A where inputs get a gradient.
        outputs, inputs = 64 + 32 + 32 + 64 + 128 + 128 + 64, 6 * 64 + 128
        ours -= 2 * 128 * 4 * (2 * outputs + 2 * inputs - 3 * 64)
    assert counted == pytest.approx(ours, rel=1e-6)


def test_windows_and_documents_bound_the_positions_that_are_seen() -> None:
    config = ModuleBench(seq_len=10, document_tokens=4)
    model = small_model(family="mistral", sliding_window=2)
    seen = sum(min(place % 4 + 1, 2) for place in range(10))
    assert part_flops(_job(config, model), False)["attention"] == 2 * 3 * 4 * 64 * seen


def test_measured_parts_make_a_table_a_report_and_plain_data(tmp_path: Path) -> None:
    config = ModuleBench(batch=1, seq_len=32, repeats=2)
    times = measure_modules(make_model("full"), "small", config, PROFILE)
    assert times.loss_of_parts == pytest.approx(times.loss, rel=1e-6)
    assert [row.part for row in times.rows] == list(PARTS)
    for row in times.rows:
        assert row.seconds > 0 and row.roof_s > 0
        assert row.bound in ("compute", "memory")
    down = next(row for row in times.rows if row.part == "down")
    assert down.flops == 2 * 3 * 2 * 32 * 64 * 128
    assert down.roof_s == pytest.approx(max(down.flops / 20e9, down.bytes / 10e9))
    assert "head and loss" in times.table() and "whole step" in times.table()
    plain = json.loads(json.dumps(times.to_dict()))
    assert plain["rows"][0]["part"] == "embedding" and plain["rows"][0]["roof_share"] > 0
    write_html(tmp_path / "modules.html", "modules", times.sections())
    assert "Time of a step by module" in (tmp_path / "modules.html").read_text()


def test_a_model_is_measured_in_its_own_process(tmp_path: Path) -> None:
    model = save_small_model(tmp_path / "model")
    config = ModuleBench(seq_len=32, repeats=1, train=TrainConfig(method="lora", dtype="bfloat16"))
    times = bench_modules(model, config, profile=PROFILE)
    assert times.model == "model" and times.config == config
    assert times.step_s > 0 and len(times.rows) == len(PARTS)


def test_a_model_that_cannot_be_trained_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"measuring .* failed"):
        bench_modules(tmp_path, ModuleBench(), profile=PROFILE)


@pytest.mark.parametrize(
    "changes", [{"batch": 0}, {"seq_len": 0}, {"document_tokens": 0}, {"labelled": 0.0}]
)
def test_impossible_measurements_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        dataclasses.replace(ModuleBench(), **changes)  # type: ignore[arg-type]
