"""NF4 against the published levels, against bitsandbytes, and against plain layers."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError
from sharpen.models.lora import LoraConfig, LoraLinear, add_lora, merge_lora, unmerge_lora
from sharpen.models.nf4 import (
    NF4Linear,
    dequantize_model_nf4,
    dequantize_nf4,
    nf4_levels,
    quantize_model_nf4,
    quantize_nf4,
)
from small_models import small_model

# Appendix E of the paper.
PUBLISHED = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
IDS = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(3))


def test_the_levels_are_those_of_the_paper() -> None:
    # The published ones were computed in float32.
    assert nf4_levels().tolist() == pytest.approx(PUBLISHED, abs=2e-7)


def test_each_weight_goes_to_its_nearest_level() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    found = quantize_nf4(weight)
    codes = torch.stack([found.packed >> 4, found.packed & 15], dim=1).view(8, 64)
    unit = weight / weight.abs().amax(1, keepdim=True)
    distances = (unit[..., None] - torch.tensor(PUBLISHED)).abs()
    torch.testing.assert_close(
        distances.gather(2, codes.long()[..., None])[..., 0], distances.amin(2), rtol=0, atol=3e-7
    )


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 130),
    scale=st.floats(1e-4, 1e3),
    seed=st.integers(0, 99),
)
def test_no_weight_moves_by_more_than_its_gap(
    rows: int, columns: int, scale: float, seed: int
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    found = dequantize_nf4(quantize_nf4(weight))
    assert found.shape == weight.shape
    padded = F.pad(weight.reshape(-1), (0, -weight.numel() % 64)).view(-1, 64)
    largest = padded.abs().amax(1)
    # Half the widest gap of the levels, and the rounding of the scale: its 8-bit levels are at most
    # 1/64 of 0.9 apart.
    spread = (largest - largest.mean()).abs().max()
    limit = 0.5 * (1 - 0.69619) * largest + spread / 70 + 1e-5 * scale
    error = (F.pad((found - weight).reshape(-1), (0, -weight.numel() % 64)).view(-1, 64)).abs()
    assert bool((error.amax(1) <= limit).all())


def test_zeros_stay_zero_and_rounding_twice_changes_little() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    once = dequantize_nf4(quantize_nf4(weight))
    assert not once[3].any()
    twice = dequantize_nf4(quantize_nf4(once))
    # Levels stay; only scales move, by their own 8-bit rounding.
    assert float((twice - once).abs().max()) < 0.02 * float(once.abs().max())
    assert torch.equal(quantize_nf4(torch.zeros(2, 64)).scales, torch.zeros(1))


def test_it_takes_4_13_bits_a_weight() -> None:
    weight = quantize_nf4(torch.randn(256, 512))
    assert weight.nbytes == 256 * 512 // 2 + 256 * 512 // 64 + 4 * 8 + 4


@pytest.mark.parametrize("bad", [torch.tensor([[math.nan]]), torch.ones(3), torch.ones(0, 3)])
def test_what_is_no_finite_matrix_is_refused(bad: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"NF4"):
        quantize_nf4(bad)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_the_plain_layer_with_the_rounded_weight(bias: bool) -> None:
    torch.manual_seed(0)
    base = torch.nn.Linear(48, 10, bias=bias)
    layer = NF4Linear(base)
    plain = layer.dequantize()
    x, y = (torch.linspace(-1, 1, 96).view(2, 48).requires_grad_() for _ in range(2))
    torch.testing.assert_close(layer(x), plain(y))
    seed = torch.randn(2, 10)
    (layer(x) * seed).sum().backward()
    (plain(y) * seed).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert not any(p.requires_grad for p in layer.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_adapter_on_four_bits_is_that_on_the_rounded_weights(dropout: float) -> None:
    config = LoraConfig(rank=4, dropout=dropout)
    quantized, rounded = small_model(family="qwen2"), small_model(family="qwen2")
    for model in (quantized, rounded):
        quantize_model_nf4(model)
    dequantize_model_nf4(rounded)
    outputs, gradients = [], []
    for model in (quantized, rounded):
        add_lora(model, config, seed=1)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.data.normal_(0, 0.1, generator=generator)
        torch.manual_seed(5)
        outputs.append(model.train()(IDS))
        outputs[-1].logsumexp(-1).mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_folding_in_makes_plain_layers_and_keeps_the_logits() -> None:
    model = small_model()
    quantize_model_nf4(model)
    config = LoraConfig(rank=4, targets=("q_proj",))
    add_lora(model, config)
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.lora_B.fill_(0.1)
    expected = model(IDS)
    with pytest.raises(ConfigError, match="cannot be folded into weights in 4 bits"):
        unmerge_lora(model, merged=True)
    merge_lora(model)
    dequantize_model_nf4(model)
    assert {n for n, _ in model.named_parameters()} == {
        n for n, _ in small_model().named_parameters()
    }
    torch.testing.assert_close(model(IDS), expected, rtol=1e-4, atol=1e-5)


def test_the_blocks_weights_are_really_gone() -> None:
    model = small_model(hidden_size=128, intermediate_size=256, head_dim=32)
    linear = sum(m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear))
    quantize_model_nf4(model)
    left = sum(p.numel() for n, p in model.named_parameters() if "proj" in n)
    stored = sum(b.nbytes for b in model.buffers())
    assert left == 0
    assert stored < linear * 4.2 / 8
    with pytest.raises(ConfigError, match="no plain linear layers"):
        quantize_model_nf4(model)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_codes_and_values_are_those_of_bitsandbytes() -> None:
    peer = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(96, 192, generator=torch.Generator().manual_seed(0))
    packed, state = peer.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    found = quantize_nf4(weight)
    assert torch.equal(found.packed, packed.view(-1))
    assert float(found.mean) == pytest.approx(float(state.offset), rel=1e-6)
    torch.testing.assert_close(found.scales, state.state2.absmax)
    values = peer.dequantize_4bit(packed, state)
    torch.testing.assert_close(dequantize_nf4(found), values, rtol=1e-5, atol=1e-6)
