"""Row norms and DoRA layers against the formula in float64."""

import pytest
import torch
import torch.nn.functional as F

from sharpen.models.dora import adapted_row_norms, row_squares
from sharpen.models.lora import LoraConfig, LoraLinear, add_lora
from sharpen.models.nf4 import NF4Linear, quantize_model_nf4
from small_models import small_model

CONFIG = LoraConfig(rank=3, dora=True)


def layer(base: torch.nn.Linear | NF4Linear, config: LoraConfig = CONFIG) -> LoraLinear:
    made = LoraLinear(base, config)
    with torch.no_grad():
        made.lora_A.normal_(0, 0.3)
        made.lora_B.normal_(0, 0.3)
        made.lora_magnitude_vector.mul_(torch.linspace(0.5, 2, made.out_features))
    return made


def adapted(made: LoraLinear, m: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Equation 5 in float64, the norm held constant."""
    weight = made.full_weight().double() + made.scale * b @ a
    return (m / weight.norm(dim=1).detach())[:, None] * weight


def test_row_norms_need_no_sum_of_matrices() -> None:
    torch.manual_seed(0)
    weight, a, b = torch.randn(7, 12).double(), torch.randn(3, 12).double(), torch.randn(7, 3)
    found = adapted_row_norms(row_squares(weight), weight, a, b.double(), 1.7)
    torch.testing.assert_close(found, (weight + 1.7 * b.double() @ a).norm(dim=1))
    narrow = weight.bfloat16()
    found = adapted_row_norms(row_squares(narrow), narrow, a.float(), b, 1.7)
    assert found.dtype == torch.float32
    exact = (narrow.double() + 1.7 * b.double() @ a).norm(dim=1)
    # The cross term is rounded to bfloat16 once: 2^-9 of what is at most as large as the sum.
    torch.testing.assert_close(found.double(), exact, rtol=2**-7, atol=0)


def test_a_row_that_the_adapter_cancels_has_no_norm_of_nan() -> None:
    weight = torch.full((1, 5), 0.1)
    a, b = weight.clone(), torch.tensor([[-1.0]])
    found = adapted_row_norms(row_squares(weight), weight, a, b, 1.0)
    assert 0 < float(found) < 1e-3


@pytest.mark.parametrize("nf4", [False, True], ids=["plain", "nf4"])
def test_values_and_gradients_are_those_of_the_formula(nf4: bool) -> None:
    torch.manual_seed(1)
    base = torch.nn.Linear(64, 10)
    made = layer(NF4Linear(base) if nf4 else base)
    x = torch.randn(2, 5, 64, requires_grad=True)
    m, a, b, y = (
        t.detach().double().requires_grad_()
        for t in (made.lora_magnitude_vector, made.lora_A, made.lora_B, x)
    )
    expected = F.linear(y, adapted(made, m, a, b), base.bias.double())
    found = made(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    seed = torch.randn(found.shape)
    (found * seed).sum().backward()
    (expected * seed.double()).sum().backward()
    pairs = ((made.lora_magnitude_vector, m), (made.lora_A, a), (made.lora_B, b), (x, y))
    for one, two in pairs:
        torch.testing.assert_close(one.grad.double(), two.grad, rtol=1e-4, atol=1e-4)


def test_dropout_falls_on_the_adapter_alone() -> None:
    torch.manual_seed(2)
    base = torch.nn.Linear(16, 4)
    made = layer(base, LoraConfig(rank=3, dora=True, dropout=0.99))
    x = torch.randn(3, 16)
    with torch.no_grad():
        made.lora_A.zero_()
        expected = F.linear(x, base.weight) * torch.linspace(0.5, 2, 4) + base.bias
        torch.testing.assert_close(made.train()(x), expected)


@torch.no_grad()
def test_under_autocast_the_answer_is_that_of_float32_to_its_rounding() -> None:
    torch.manual_seed(3)
    made = layer(torch.nn.Linear(64, 10).bfloat16())
    x = torch.randn(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = made(x)
    assert found.dtype == torch.bfloat16
    weight = adapted(
        made, made.lora_magnitude_vector.double(), made.lora_A.double(), made.lora_B.double()
    )
    expected = F.linear(x.double(), weight, made.bias.double())
    assert float((found - expected).norm() / expected.norm()) < 0.01


@torch.no_grad()
def test_a_model_in_four_bits_takes_magnitudes_too() -> None:
    model = small_model()
    quantize_model_nf4(model)
    ids = torch.arange(3, 9)[None]
    expected = model(ids)
    add_lora(model, CONFIG)
    torch.testing.assert_close(model(ids), expected, rtol=1e-4, atol=1e-5)
    trained = {n.rpartition(".")[2] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"lora_A", "lora_B", "lora_magnitude_vector"}
