"""Parallel blocks with all that models are made of elsewhere."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sharpen.compress import Grid, PruneConfig, prune_model, save_quantized, zero_share
from sharpen.models import (
    LoraConfig,
    add_lora,
    generate,
    load_model,
    merge_lora,
    prepare_for_inference,
    save_model,
)
from small_models import byte_tokenizer, small_model

IDS = torch.tensor([[5, 9, 40, 7, 3]])
DEEP = {"block": "parallel", "num_layers": 5}


def test_a_saved_folder_comes_back_and_says_what_it_is(tmp_path: Path) -> None:
    model = small_model(**DEEP)
    save_model(model, tmp_path / "m", tokenizer=byte_tokenizer())
    assert json.loads((tmp_path / "m" / "config.json").read_text())["block"] == "parallel"
    again = load_model(tmp_path / "m")
    assert again.spec == model.spec
    assert torch.equal(again(IDS), model(IDS))


@pytest.mark.peer
def test_transformers_refuses_a_folder_that_it_would_misread(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    save_model(small_model(block="parallel"), tmp_path / "m")
    with pytest.raises(ValueError, match="llama_parallel"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "m")


@torch.no_grad()
def test_adapters_and_fewer_bits_work_on_it_as_on_others(tmp_path: Path) -> None:
    model = small_model(**DEEP)
    add_lora(model, LoraConfig(rank=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    adapted = model(IDS)
    merge_lora(model)
    torch.testing.assert_close(model(IDS), adapted, rtol=1e-4, atol=2e-5)

    save_quantized(model, tmp_path / "int8", Grid(bits=8), dtype=torch.float32)
    stored = load_model(tmp_path / "int8")
    error = (stored(IDS) - adapted).norm() / adapted.norm()
    assert 0 < float(error) < 0.03  # 8 bits a weight: steps of 1/254 of a row's largest
    expected = generate(stored, [[5, 6, 7], [8]], max_new_tokens=8)
    fast = prepare_for_inference(stored)
    assert generate(fast, [[5, 6, 7], [8]], max_new_tokens=8) == expected

    prune_model(model, PruneConfig(method="magnitude", sparsity=0.25))
    assert zero_share(model) == pytest.approx(0.25, abs=0.01)
