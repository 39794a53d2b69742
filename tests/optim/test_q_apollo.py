import copy
import io
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim import (
    Apollo,
    Int8Linear,
    Int8Weight,
    QApollo,
    create,
    dequantize_weights,
    fuse_into_backward,
    quantize_weights,
)
from sharpen.testing.optim import batch_loss, small_model, train


def matrix(rows: int = 5, columns: int = 30, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))


@pytest.mark.parametrize("group_size", [7, 128, 1000])
def test_values_are_within_half_a_step(group_size: int) -> None:
    """Also of a last group that is shorter."""
    w = matrix()
    packed = Int8Weight.quantize(w, group_size)
    steps = packed.scales.repeat_interleave(group_size)[: w.numel()].view_as(w)
    assert ((packed.dequantize() - w).abs() <= 1.01 * steps).all()
    assert float(((packed.dequantize() - w).abs() <= 0.501 * steps).float().mean()) > 0.95
    groups = -(-150 // group_size)
    assert packed.packed_bytes == 150 + 5 * groups


def test_groups_on_one_side_of_zero_are_representable() -> None:
    for w in (matrix().abs() + 3, -matrix().abs() - 3, torch.zeros(4, 4), torch.full((4, 4), 1e-9)):
        packed = Int8Weight.quantize(w, 10)
        assert (packed.dequantize() - w).abs().max() <= packed.scales.max()


def test_rounding_at_random_is_right_on_average() -> None:
    """Over 400 keys, within four standard errors of a rounding by up to a step."""
    w = matrix(4, 16)
    packed = Int8Weight.quantize(torch.zeros_like(w), 16)
    found = []
    for step in range(400):
        packed.requantize_(w, (3, step))
        found.append(packed.dequantize().clone())
    steps = packed.scales.repeat_interleave(16).view_as(w)
    inner = (w < w.amax(1, keepdim=True)) & (w > w.amin(1, keepdim=True))  # the ends are cut off
    error = (torch.stack(found).mean(0) - w).abs()
    assert (error[inner] < (4 * 0.5 * steps / 20)[inner]).all()


def test_what_did_not_change_keeps_its_codes() -> None:
    packed = Int8Weight.quantize(matrix(), 30)
    before = packed.codes.clone()
    w = packed.dequantize()
    w[2, 3] += 0.5
    packed.requantize_(w, (1, 1))
    changed = (packed.codes != before).view(5, 30).any(1)
    assert changed.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_and_gradients_are_those_of_the_read_weights(dtype: torch.dtype) -> None:
    linear = nn.Linear(30, 5).to(dtype)
    packed = Int8Linear(linear, 16)
    plain = nn.Linear(30, 5).to(dtype)
    plain.load_state_dict({"weight": packed.weight.dequantize(), "bias": linear.bias})
    x, y = (matrix(7, 30).to(dtype).requires_grad_() for _ in range(2))
    out, expected = packed(x), plain(y)
    out.square().sum().backward()
    expected.square().sum().backward()
    close = {"rtol": 0.05, "atol": 0.2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(out, expected, **close)  # type: ignore[arg-type]
    assert packed.weight.grad is not None and type(packed.weight.grad) is Tensor
    torch.testing.assert_close(packed.weight.grad, plain.weight.grad, **close)  # type: ignore[arg-type]
    torch.testing.assert_close(x.grad, y.grad, **close)  # type: ignore[arg-type]


def test_the_backward_pass_keeps_codes_only() -> None:
    kept: list[Tensor] = []
    layer = Int8Linear(nn.Linear(30, 5))

    def pack(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        layer(matrix(2, 30).requires_grad_())
    shapes = [tuple(x.shape) for x in kept if not isinstance(x, Int8Weight)]
    assert shapes == [(2, 30)]
    assert sum(isinstance(x, Int8Weight) for x in kept) == 1


def test_a_step_is_apollos_step_rounded() -> None:
    """From the same weights, within a code of the step in full precision."""
    model, plain = layers(), layers()
    quantize_weights(model, group_size=16)
    read = {
        n: p.dequantize() if isinstance(p, Int8Weight) else p for n, p in model.named_parameters()
    }
    plain.load_state_dict(read)
    a = QApollo(model.parameters(), rank=2, lr=0.05)
    b = Apollo(plain.parameters(), rank=2, lr=0.05)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        p.grad = matrix(*p.shape, seed=3) if p.ndim == 2 else torch.ones_like(p)
        q.grad = p.grad.clone()
    a.step()
    b.step()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        if isinstance(p, Int8Weight):
            assert (p.dequantize() - q).abs().max() <= 1.01 * p.scales.max()
        else:
            torch.testing.assert_close(p, q)


def test_small_steps_add_up() -> None:
    """Steps of a tenth of a code move the weights on average, which the nearest code would not."""
    layer = nn.Sequential(nn.Linear(40, 40, bias=False))
    quantize_weights(layer)
    weight: Any = layer[0].weight
    before = weight.dequantize().mean()
    step = 0.1 * float(weight.scales.mean())
    for t in range(50):
        weight.requantize_(weight.dequantize() - step, (1, t))
    assert float(before - weight.dequantize().mean()) == pytest.approx(50 * step, rel=0.1)


def test_models_are_copied_moved_and_saved() -> None:
    model = layers()
    assert quantize_weights(model, targets="^0") == ["0"]
    packed: Any = model[0].weight  # type: ignore[index]
    other = copy.deepcopy(model)
    other[0].weight.requantize_(torch.zeros(16, 6))  # type: ignore[index]
    assert packed.dequantize().abs().max() > 0
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other[0].weight.codes, packed.codes)  # type: ignore[index]
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half(torch.ones(2, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert isinstance(half[0].weight, Int8Weight)  # type: ignore[index]
    expected = model(torch.ones(2, 6))
    assert dequantize_weights(model) == ["0"]
    assert type(model[0]) is nn.Linear  # type: ignore[index]
    torch.testing.assert_close(model(torch.ones(2, 6)), expected)


def test_foreign_writes_are_refused() -> None:
    """A torch optimizer would write to a temporary tensor."""
    layer = Int8Linear(nn.Linear(8, 8))
    with torch.no_grad(), pytest.raises(ConfigError, match="8 bits"):
        layer.weight.add_(1.0)
    with pytest.raises(ConfigError, match="no linear layer"):
        quantize_weights(nn.Sequential(nn.Tanh()))
    with pytest.raises(ConfigError, match="group_size=0"):
        quantize_weights(layers(), group_size=0)


def test_weights_for_adamw_are_rounded_too() -> None:
    """A matrix that is too small for the rank."""
    model = nn.Sequential(nn.Linear(8, 8, bias=False))
    quantize_weights(model)
    optimizer = QApollo(model.parameters(), rank=8, lr=0.1)
    before = model[0].weight.dequantize()
    model[0].weight.grad = torch.ones(8, 8)
    optimizer.step()
    moved = before - model[0].weight.dequantize()
    torch.testing.assert_close(moved, torch.full((8, 8), 0.1), rtol=0.1, atol=0.01)


def test_it_learns_inside_the_backward_pass() -> None:
    """One gradient at a time, weights in 8 bits."""
    model = small_model()
    quantize_weights(model)
    stop = fuse_into_backward(create("q-apollo", model, lr=0.02, rank=4, min_lowrank_dim=1))
    losses = []
    for step in range(100):
        loss = batch_loss(model, step)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        assert all(p.grad is None for p in model.parameters())
    stop()
    assert sum(losses[-10:]) / 10 < 1.0


def test_a_model_without_such_weights_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        optimizer = create("q-apollo", small_model(), lr=0.02, rank=4, min_lowrank_dim=1)
    assert "quantize_weights" in caplog.text
    train(small_model(), optimizer, 0, 1)
