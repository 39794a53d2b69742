import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sharpen.core.errors import ConfigError
from sharpen.models.lora import LoraConfig, add_lora
from sharpen.models.nf4 import quantize_model_nf4
from sharpen.models.tiled import sequence_tiled, tiled_mlp
from small_models import small_model


class _Silus(TorchDispatchMode):
    """Counts the operation that only MLPs have."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.silu.default
        return func(*args, **(kwargs or {}))


def some(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def inputs(rows: int, *, bias: bool, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x, weights and biases of an MLP of width 5 and 7."""
    tensors = [some(rows, 5, dtype=dtype), some(7, 5, dtype=dtype)]
    tensors += [some(7, 5, dtype=dtype, seed=1), some(5, 7, dtype=dtype)]
    if bias:
        tensors += [some(n, dtype=dtype, seed=i) for i, n in enumerate((7, 7, 5))]
    return tensors


def plain(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, *biases: Tensor) -> Tensor:
    bg, bu, bd = biases or (None, None, None)
    return F.linear(F.silu(F.linear(x, gate, bg)) * F.linear(x, up, bu), down, bd)


def tiled(tile: int) -> Callable[..., Tensor]:
    def call(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, *biases: Tensor) -> Tensor:
        options = {"biases": biases} if biases else {}
        return tiled_mlp(x, gate, up, down, tile=tile, **options)  # type: ignore[arg-type]

    return call


def output_and_gradients(function: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    out = function(*tensors)
    weight = torch.linspace(0, 1, out.numel(), dtype=out.dtype).view(out.shape)
    wanted = [t for t in tensors if t.requires_grad]
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), wanted)]


@given(
    rows=st.integers(1, 30),
    tile=st.integers(1, 40),
    bias=st.booleans(),
    frozen=st.sets(st.integers(0, 3), max_size=3),
)
def test_output_and_gradients_are_those_without_tiles(
    rows: int, tile: int, bias: bool, frozen: set[int]
) -> None:
    tensors = inputs(rows, bias=bias)
    tensors = [t.detach() if i in frozen else t for i, t in enumerate(tensors)]
    expected = output_and_gradients(plain, tensors)
    for ours, theirs in zip(output_and_gradients(tiled(tile), tensors), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_float32_is_within_1e_6_of_the_untiled_result() -> None:
    tensors = inputs(64, bias=True, dtype=torch.float32)
    expected = output_and_gradients(plain, tensors)
    for ours, theirs in zip(output_and_gradients(tiled(10), tensors), expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-6


def test_the_gradient_passes_gradcheck() -> None:
    assert torch.autograd.gradcheck(tiled(3), inputs(7, bias=True))


def test_autocast_runs_the_products_in_bfloat16_and_sums_weight_gradients_in_float32() -> None:
    tensors = inputs(512, bias=False, dtype=torch.float32)
    exact = output_and_gradients(plain, tensors)
    with torch.autocast("cpu", torch.bfloat16):
        found = output_and_gradients(tiled(16), tensors)
    assert found[0].dtype == torch.bfloat16
    assert [g.dtype for g in found[1:]] == [torch.float32] * 4
    for ours, theirs in zip(found, exact, strict=True):
        # Five roundings of 2^-9 on each path; the sums over 512 rows average them out.
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-2


def test_only_the_input_and_the_weights_are_kept() -> None:
    tensors = inputs(40, bias=False)
    kept: list[int] = []

    def pack(t: Tensor) -> Tensor:
        kept.append(t.data_ptr())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        tiled(8)(*tensors)
    assert set(kept) == {t.data_ptr() for t in tensors}


def test_what_is_kept_is_freed_by_the_backward_pass_unless_the_graph_is_retained() -> None:
    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    alive: list[weakref.ref[Kept]] = []

    def pack(t: Tensor) -> Kept:
        kept = Kept(t)
        alive.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        out = tiled(8)(*inputs(40, bias=False)).sum()
    out.backward(retain_graph=True)
    assert alive and all(ref() is not None for ref in alive)
    out.backward()
    assert all(ref() is None for ref in alive)


def test_a_weight_gets_its_gradient_once_for_all_tiles() -> None:
    tensors = inputs(40, bias=False)
    times: list[int] = []
    for tensor in tensors:
        tensor.register_hook(lambda g: times.append(1))
    tiled(4)(*tensors).sum().backward()
    assert len(times) == 4


def test_any_module_runs_over_tiles_and_draws_the_same_numbers_again() -> None:
    module = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5), nn.Linear(7, 5)).double()
    x = some(2, 12, 5)
    torch.manual_seed(3)
    parts = torch.cat([module(part) for part in x.split(5, 1)], 1)
    expected = torch.autograd.grad(parts.square().sum(), [x, *module.parameters()])
    torch.manual_seed(3)
    out = sequence_tiled(module, x, tile=5)
    found = torch.autograd.grad(out.square().sum(), [x, *module.parameters()])
    assert torch.equal(out, parts)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["plain", "biases", "lora", "dora", "qlora"])
def test_a_model_of_any_layers_has_the_same_gradients_with_tiles(kind: str) -> None:
    gradients = []
    for tile in (0, 5):
        model = small_model(2, mlp_bias=kind == "biases")
        if kind == "qlora":
            quantize_model_nf4(model)
        if kind in ("lora", "dora", "qlora"):
            add_lora(model, LoraConfig(rank=2, dora=kind == "dora"), seed=1)
            torch.manual_seed(0)
            for name, parameter in model.named_parameters():
                if name.endswith("lora_B"):
                    nn.init.normal_(parameter, 0.0, 0.1)
        model.double().train().mlp_tile = tile
        ids = torch.arange(24).view(2, 12)
        model(ids).logsumexp(-1).sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert any("mlp" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        assert gradient is not None
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-11, atol=1e-11)


def test_a_checkpointed_block_computes_the_mlp_again_in_its_backward_pass_only() -> None:
    calls: list[int] = []
    gradients = []
    for mode, tile in (("none", 0), ("full", 0), ("full", 5), ("selective", 5)):
        model = small_model(2).double().train()
        model.checkpointing, model.mlp_tile = mode, tile  # type: ignore[assignment]
        with _Silus() as counter:
            model(torch.arange(24).view(2, 12)).logsumexp(-1).sum().backward()
        calls.append(counter.count)
        gradients.append([p.grad for p in model.parameters()])
    # Two blocks: each once forward and once in the backward pass of swiglu, and once more where
    # the block is computed again; five tiles of 24 tokens, forward and backward.
    assert calls == [4, 6, 20, 20]
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-11, atol=1e-11)


def test_decoding_and_evaluation_do_not_tile() -> None:
    model = small_model(2)
    model.mlp_tile = 1
    ids = torch.arange(12)[None]
    assert torch.equal(model(ids), small_model(2)(ids))


def test_an_empty_tile_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 token"):
        tiled(0)(*inputs(3, bias=False))
    with pytest.raises(ConfigError, match="at least 1 token"):
        sequence_tiled(torch.sin, some(3, 2), tile=-1)
