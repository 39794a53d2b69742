import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import save_model
from sharpen.models.load import load_model
from sharpen.models.lora import (
    LoraConfig,
    LoraLinear,
    add_lora,
    load_adapter,
    merge_lora,
    save_adapter,
    unmerge_lora,
)
from small_models import small_model

IDS = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(3))


def adapted(config: LoraConfig, seed: int = 1, **changes: Any) -> DecoderLM:
    """A small model whose adapters do something."""
    model = small_model(seed, **changes)
    add_lora(model, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            with torch.no_grad():
                parameter.normal_(0, 0.1, generator=generator)
        if name.endswith("lora_magnitude_vector"):
            with torch.no_grad():
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 2, generator=generator))
    return model


def weights(model: DecoderLM) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora" not in n}


CONFIGS = [
    LoraConfig(rank=4),
    LoraConfig(rank=8, alpha=4.0, rslora=True, targets=("v_proj", "q_proj")),
    LoraConfig(rank=4, dora=True),
]
NAMES = ["plain", "rslora", "dora"]


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (LoraConfig(rank=4), 2.0),
        (LoraConfig(rank=8, alpha=4.0), 0.5),
        (LoraConfig(rank=16, alpha=8.0, rslora=True), 2.0),
    ],
)
def test_the_scale_is_that_of_the_paper(config: LoraConfig, scale: float) -> None:
    assert config.scale == scale


@torch.no_grad()
def test_a_new_adapter_changes_nothing_and_only_it_is_trainable() -> None:
    model, expected = small_model(1), small_model(1)(IDS)
    add_lora(model, LoraConfig(rank=4))
    torch.testing.assert_close(model(IDS), expected)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {n for n, _ in model.named_parameters() if "lora_" in n}
    assert len(trainable) == 2 * 7 * 2
    layer = model.get_submodule("model.layers.0.mlp.down_proj")
    assert isinstance(layer, LoraLinear)
    bound = 1 / math.sqrt(128)
    assert bound * 0.95 < float(layer.lora_A.abs().max()) <= bound
    with pytest.raises(ConfigError, match="already has adapters"):
        add_lora(model, LoraConfig(rank=4))


def test_the_seed_decides_the_adapters() -> None:
    models = [small_model() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        add_lora(model, LoraConfig(rank=4), seed=seed)
    a, b, c = (m.get_parameter("model.layers.0.mlp.up_proj.lora_A") for m in models)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_dropout_drops_only_the_adapters_input_and_only_in_training() -> None:
    base = torch.nn.Linear(64, 8)
    layer = LoraLinear(base, LoraConfig(rank=64, alpha=64.0, dropout=0.5))
    with torch.no_grad():
        layer.lora_A.copy_(torch.eye(64))
        layer.lora_B.copy_(torch.ones(8, 64))
        x = torch.ones(1, 64)
        plain = F.linear(x, base.weight, base.bias)
        torch.testing.assert_close(layer.eval()(x), plain + 64)
        torch.manual_seed(0)
        added = (layer.train()(x) - plain)[0, 0]
    kept = float(added) / 2  # those kept are doubled
    assert kept == pytest.approx(round(kept), abs=1e-4)
    assert 16 < kept < 48


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@torch.no_grad()
def test_folding_in_keeps_the_logits_and_taking_out_restores_the_weights(
    config: LoraConfig,
) -> None:
    model = adapted(config, family="qwen2")  # with biases
    before, expected = weights(model), model(IDS)
    unmerge_lora(model, merged=True)
    assert any(not torch.equal(v, before[n]) for n, v in weights(model).items())
    torch.testing.assert_close(model(IDS), expected, rtol=1e-4, atol=1e-5)
    unmerge_lora(model)
    for name, value in weights(model).items():
        # One rounding each way of weights below 1.
        torch.testing.assert_close(value, before[name], rtol=0, atol=2e-7)
    merge_lora(model)
    torch.testing.assert_close(model(IDS), expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, LoraLinear) for m in model.modules())
    assert set(weights(model)) == set(weights(small_model(family="qwen2")))


@torch.no_grad()
def test_folding_what_is_folded_already_changes_nothing() -> None:
    model = adapted(LoraConfig(rank=4))
    unmerge_lora(model, merged=True)
    expected = weights(model)
    unmerge_lora(model, merged=True)
    merge_lora(model)
    for name, value in weights(model).items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@torch.no_grad()
def test_a_saved_adapter_loads_on_its_base(tmp_path: Path, config: LoraConfig) -> None:
    model = adapted(config)
    save_adapter(model, tmp_path / "a", config, base="base")
    again = small_model(1)
    found = load_adapter(again, tmp_path / "a")
    assert (found.rank, found.scale, set(found.names)) == (
        config.rank,
        config.scale,
        set(config.names),
    )
    assert torch.equal(again(IDS), model(IDS))
    save_model(small_model(1), tmp_path / "base")
    merged = load_model(tmp_path / "base", adapter=tmp_path / "a")
    torch.testing.assert_close(merged(IDS), model(IDS), rtol=1e-4, atol=1e-5)
    mode = stat.S_IMODE((tmp_path / "a" / "adapter_model.safetensors").stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    assert mode == 0o666 & ~umask


def test_a_model_without_adapters_has_none_to_save(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no adapters"):
        save_adapter(small_model(), tmp_path / "a", LoraConfig())
    assert not (tmp_path / "a").exists()


def test_a_model_without_plain_layers_cannot_be_adapted() -> None:
    model = small_model()
    for layer in model.model.layers:
        layer.mlp = torch.nn.Identity()
    with pytest.raises(ConfigError, match="no plain linear layer called down_proj"):
        add_lora(model, LoraConfig(targets=("down_proj",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"alpha": math.nan}, "alpha=nan"),
        ({"targets": ()}, "targets is empty"),
        ({"targets": ("q_pro",)}, "Did you mean 'q_proj'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraConfig(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "not the config of a LoRA"),
        ({"use_dora": True}, "14 tensors are missing"),
        ({"use_qalora": True}, "'use_qalora' is set to True"),
        ({"rank_pattern": {"q_proj": 2}}, "'rank_pattern'"),
        ({"bias": "all"}, "'bias' is 'all'"),
        ({"target_modules": ".*proj"}, "as a pattern"),
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": []}, "target_modules is"),
        ({"target_modules": [["q_proj"]]}, "target_modules is"),
        ({"target_modules": ["c_attn"]}, "target_modules is"),
        ({"target_modules": ["q_proj"]}, "is not an adapter of this model"),
        ({"r": None}, "is damaged"),
        ({"r": math.inf}, "is damaged"),
        ({"r": 0}, "rank=0"),
        ({"r": 10**9}, r"has shape \[4, 64\]"),
        ({"lora_alpha": "x"}, "is damaged"),
    ],
)
def test_an_adapter_config_that_lies_is_refused_and_the_model_stays(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    config = LoraConfig(rank=4)
    save_adapter(adapted(config), tmp_path / "a", config)
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    model = small_model(1)
    with pytest.raises(FileFormatError, match=message):
        load_adapter(model, tmp_path / "a")
    assert all(p.requires_grad for p in model.parameters())
    assert not any(isinstance(m, LoraLinear) for m in model.modules())


def test_adapter_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    config = LoraConfig(rank=4)
    save_adapter(adapted(config), tmp_path / "a", config)
    file = tmp_path / "a" / "adapter_model.safetensors"
    whole = load_file(file)
    name = next(iter(whole))
    for value, message in (
        (whole[name] * math.inf, "NaN or infinity"),
        (whole[name][:2].contiguous(), "has shape"),
        (whole[name].int(), "int32"),
    ):
        save_file({**whole, name: value}, file)
        with pytest.raises(FileFormatError, match=message):
            load_adapter(small_model(1), tmp_path / "a")
    save_file({n: t for n, t in whole.items() if n != name}, file)
    with pytest.raises(FileFormatError, match="1 tensors are missing or unexpected"):
        load_adapter(small_model(1), tmp_path / "a")
    file.unlink()
    with pytest.raises(MissingFileError):
        load_adapter(small_model(1), tmp_path / "a")
    with pytest.raises(MissingFileError, match="adapter config"):
        load_adapter(small_model(1), tmp_path / "nowhere")


def test_a_config_without_a_rank_or_with_all_linear_is_understood(tmp_path: Path) -> None:
    config = LoraConfig(rank=4)
    save_adapter(adapted(config), tmp_path / "a", config)
    file = tmp_path / "a" / "adapter_config.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "target_modules": "all-linear"}))
    assert load_adapter(small_model(1), tmp_path / "a").targets == "all-linear"
    del data["r"]
    file.write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match="lacks the key 'r'"):
        load_adapter(small_model(1), tmp_path / "a")


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_forward_gradients_and_files_are_pefts(tmp_path: Path, config: LoraConfig) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    model = adapted(config, tie_word_embeddings=False)
    save_model(small_model(1, tie_word_embeddings=False), tmp_path / "base")
    save_adapter(model, tmp_path / "ours", config)
    base = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", dtype=torch.float32, attn_implementation="eager"
    )
    peer = PeftModel.from_pretrained(base, tmp_path / "ours", is_trainable=True)
    logits, expected = model(IDS), peer(IDS).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=2e-5)
    logits.logsumexp(-1).mean().backward()
    expected.logsumexp(-1).mean().backward()
    theirs = {n.replace(".default", ""): p.grad for n, p in peer.named_parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = theirs[f"base_model.model.{name}.weight"]
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)

    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    options = PeftConfig(
        r=config.rank,
        lora_alpha=6,
        target_modules=list(config.names),
        use_rslora=config.rslora,
        use_dora=config.dora,
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    other = get_peft_model(fresh, options)
    other.save_pretrained(tmp_path / "theirs")
    again = small_model(1, tie_word_embeddings=False)
    load_adapter(again, tmp_path / "theirs")
    with torch.no_grad():
        wanted = other.eval()(IDS).logits
        scale = float(wanted.abs().max())
        torch.testing.assert_close(again(IDS), wanted, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_one_layer_is_pefts_to_rounding() -> None:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    for config in CONFIGS:
        torch.manual_seed(0)
        ours = LoraLinear(torch.nn.Linear(16, 8), config)
        stack = torch.nn.Sequential()
        stack.add_module("q_proj", torch.nn.Linear(16, 8))
        options = PeftConfig(
            r=config.rank,
            lora_alpha=config.alpha or 2 * config.rank,
            target_modules=["q_proj"],
            use_rslora=config.rslora,
            use_dora=config.dora,
        )
        peer = get_peft_model(stack, options)
        theirs = dict(peer.named_parameters())
        prefix = "base_model.model.q_proj."
        with torch.no_grad():
            ours.lora_B.normal_(0, 0.1)
            theirs[prefix + "lora_A.default.weight"].copy_(ours.lora_A.normal_(0, 0.1))
            theirs[prefix + "lora_B.default.weight"].copy_(ours.lora_B)
            theirs[prefix + "base_layer.weight"].copy_(ours.weight)
            theirs[prefix + "base_layer.bias"].copy_(ours.bias)
            if config.dora:
                magnitude = theirs[prefix + "lora_magnitude_vector.default.weight"]
                magnitude.copy_(ours.lora_magnitude_vector.mul_(1.5))
        x, y = torch.randn(5, 16, requires_grad=True), torch.randn(5, 8)
        one, two = ours(x), peer(x)
        assert float((one - two).detach().abs().max()) <= 1e-6
        (one * y).mean().backward()
        gradient, x.grad = x.grad, None
        (two * y).mean().backward()
        assert float((gradient - x.grad).abs().max()) <= 1e-6
        parts = ("lora_A", "lora_B", *(["lora_magnitude_vector"] if config.dora else []))
        for part in parts:
            other = theirs[f"{prefix}{part}.default.weight"].grad
            assert float((getattr(ours, part).grad - other).abs().max()) <= 1e-6
