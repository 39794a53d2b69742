import copy

import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.models import LoraConfig, add_lora, generate, prepare_for_inference
from sharpen.models.products import Float32, Layers, product
from small_models import small_model

LAYOUTS = [
    {},
    {"family": "qwen2"},
    {"family": "qwen3", "tie_word_embeddings": False},
    {"family": "mistral", "sliding_window": 4},
    {"family": "qwen2", "sliding_window": 5, "sliding_layers": (True, False)},
    {"attention_bias": True, "mlp_bias": True},
    {"num_kv_heads": 1},
    {"num_kv_heads": 4},
    {"block": "parallel"},
    {"block": "parallel", "family": "qwen2", "sliding_window": 4},
]
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [16, 17]]


def kind(changes):
    return "-".join(str(value) for value in changes.values()) or "llama"


@pytest.mark.parametrize("changes", LAYOUTS, ids=kind)
def test_logits_are_those_of_the_decoder(changes):
    model = small_model(**changes)
    with torch.no_grad():
        ids = torch.randint(0, 300, (3, 17), generator=torch.Generator().manual_seed(0))
        expected = model(ids)
        found = prepare_for_inference(copy.deepcopy(model))(ids)
    # Two float32 evaluations that sum in another order, at logits of about 5.
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("changes", LAYOUTS, ids=kind)
def test_steps_after_a_padded_prefill_are_those_of_the_decoder(changes):
    model = small_model(**changes)
    fast = prepare_for_inference(copy.deepcopy(model))
    assert generate(fast, PROMPTS, max_new_tokens=12) == generate(model, PROMPTS, max_new_tokens=12)


def test_a_prompt_may_be_prefilled_in_parts():
    model = prepare_for_inference(small_model())
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
    whole = model(ids)
    cache = model.new_cache(1, capacity=2)
    parts = [model(part, cache=cache) for part in ids.split((2, 4, 1), dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=5e-5, rtol=0)
    kept = model(ids, logits_to_keep=1)
    torch.testing.assert_close(kept, whole[:, -1:], atol=5e-5, rtol=0)


def test_bfloat16_is_as_near_to_float32_as_the_decoder_is():
    exact = small_model()
    model = copy.deepcopy(exact).to(torch.bfloat16)
    ids = torch.randint(0, 300, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = exact(ids)
        plain = (model(ids).float() - expected).abs().mean()
        fast = (prepare_for_inference(model)(ids).float() - expected).abs().mean()
    assert fast < 1.3 * plain


class Halved(nn.Module):
    """Stands for a quantized layer: a forward, and no float weight."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("stored", (layer.weight.detach() / 2).to(torch.float16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.stored.to(x.dtype) * 2)


@pytest.mark.parametrize(
    "names",
    [
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        ("k_proj", "gate_proj"),
    ],
)
def test_layers_of_other_kinds_are_called_as_they_are(names):
    model = small_model()
    for block in model.model.layers:
        for parent in (block.self_attn, block.mlp):
            for name, layer in list(parent.named_children()):
                if name in names:
                    setattr(parent, name, Halved(layer))
    with torch.no_grad():
        expected = model(torch.tensor([PROMPTS[2]]))
    fast = prepare_for_inference(model)
    torch.testing.assert_close(fast(torch.tensor([PROMPTS[2]])), expected, atol=5e-5, rtol=0)


def test_adapters_not_yet_merged_still_count():
    model = small_model()
    add_lora(model, LoraConfig(rank=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(torch.tensor([PROMPTS[2]]))
    fast = prepare_for_inference(model)
    torch.testing.assert_close(fast(torch.tensor([PROMPTS[2]])), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 16, 17, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_the_layers(rows, bias, dtype):
    layers = [nn.Linear(24, width, bias=bias, dtype=dtype) for width in (16, 8)]
    x = torch.randn(rows, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        made = product(*layers)
        torch.testing.assert_close(made(x), Layers(*layers)(x))


def test_only_middling_batches_of_float32_need_a_second_copy_of_the_weights():
    layer = nn.Linear(24, 16)
    made = product(layer)
    assert isinstance(made, Float32)
    assert made._weight.data_ptr() == layer.weight.data_ptr()
    with torch.no_grad():
        for rows in (1, 8, 64):
            made(torch.zeros(rows, 24))
        assert made._blocked is None
        made(torch.zeros(12, 24))
    assert made._blocked is not None


def test_layers_with_and_without_bias_stay_apart():
    layers = nn.Linear(8, 4), nn.Linear(8, 4, bias=False)
    assert isinstance(product(*layers), Layers)


def test_weights_move_and_are_not_copied():
    model = small_model()
    prepare_for_inference(model)
    left = [name for name, _ in model.named_parameters() if "proj" in name]
    assert left == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", LAYOUTS, ids=kind)
def test_weights_put_in_later_give_the_same_bits_as_a_model_made_of_them(changes, dtype):
    fast = prepare_for_inference(small_model(**changes).to(dtype))
    new = small_model(**changes, seed=7)
    batches = [torch.randint(0, 300, (rows, 1)) for rows in (1, 4, 12, 20)]
    for ids in batches:
        fast(ids)  # what is made when first needed is made
    fast.copy_weights(new)
    made = prepare_for_inference(copy.deepcopy(new).to(dtype))
    for ids in batches:
        assert torch.equal(fast(ids), made(ids))


def test_adapters_are_folded_into_weights_that_are_put_in():
    fast, new = prepare_for_inference(small_model()), small_model(seed=3)
    add_lora(new, LoraConfig(rank=2, dora=True))
    with torch.no_grad():
        for name, parameter in new.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    fast.copy_weights(new)
    ids = torch.arange(5)[None]
    torch.testing.assert_close(fast(ids), new(ids), atol=1e-4, rtol=1e-4)


def test_weights_of_another_shape_and_for_compressed_ones_are_refused():
    fast = prepare_for_inference(small_model())
    with pytest.raises(ConfigError, match="another shape"):
        fast.copy_weights(small_model(num_layers=1))
    odd = small_model()
    odd.model.layers[0].mlp.down_proj = nn.Sequential(odd.model.layers[0].mlp.down_proj)
    with pytest.raises(ConfigError, match="compressed"):
        prepare_for_inference(odd).copy_weights(small_model())
