"""Native steps against the reference: the same bits where a bit may become a jump."""

from typing import Any

import pytest
import torch
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.native.info import compiler, supported
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.names import find

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

SHAPES = [(3,), (17, 31), (5, 300), (64, 16), (1, 1), (2, 3, 5)]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("adamw", {}),
    "nadamw": ("nadamw", {}),
    "ademamix": ("ademamix", {"t_alpha": 5, "t_beta3": 6}),
    "adagrad": ("adagrad", {"lr_decay": 0.1, "decoupled_wd": True}),
    "lion": ("lion", {}),
    "sgd": ("sgd", {}),
    "momentum": ("sgd", {"momentum": 0.9, "dampening": 0.5}),
    "nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "decoupled": ("sgd", {"momentum": 0.9, "decoupled_wd": True}),
    "sign": ("sign_sgd", {}),
}
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {  # step all of a parameter, or nothing of it
    "lamb": ("lamb", {"max_norm_weight": 3.0}),
    "lamb, all": ("lamb", {"decoupled_wd": False, "eps": 1e-2}),
    "adafactor": ("adafactor", {}),
    "adafactor, all": ("adafactor", {"scale_parameter": False, "eps1": 0.3, "clip": 0.5}),
}
EXACT = set(CASES) - {"adamw", "nadamw", "ademamix", "adagrad"}
STATES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "flat": {"state_dtype": "q8", "min_quant_size": 16, "block_size": 100},
    "row": {"state_dtype": "q8", "min_quant_size": 16, "layout": "row", "block_size": 64},
    "no floor": {"state_dtype": "q8", "min_quant_size": 16, "v_floor": False},
    "4 bits": {"state_dtype": "q4", "min_quant_size": 16, "block_size": 100},
    "4 bits, row": {"state_dtype": "q4", "min_quant_size": 16, "layout": "row", "block_size": 12},
}


def run(
    kind: type[Optimizer], steps: int, spoiled: int = 1, **options: Any
) -> tuple[list[nn.Parameter], Optimizer]:
    """Weights after a few steps with gradients of many sizes, some of them 0, some NaN in one of
    ``spoiled`` steps; 0 for none."""
    generator = torch.Generator().manual_seed(0)
    ps = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    half = [{"params": ps[:2]}, {"params": ps[2:], "lr": 3e-3, "weight_decay": 0.3}]
    optimizer = kind(half, lr=1e-2, weight_decay=0.1, **options)
    for step in range(steps):
        for p in ps:
            size = 10.0 ** (-4 * torch.rand(p.shape, generator=generator))
            p.grad = torch.randn(p.shape, generator=generator) * size
            p.grad.view(-1)[:: 7 + step] = 0.0
            if p.numel() > 100 and spoiled and step % spoiled == 0:
                p.grad.view(-1)[step] = float("nan")
                p.grad.view(-1)[-1] = float("inf") if step == 3 else 1.0
        optimizer.step(max_norm=None if options["skip_nonfinite"] else 1.0)
    return ps, optimizer


@pytest.mark.parametrize("variant", supported())
@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("case", CASES)
def test_native_steps_are_those_of_the_reference(
    case: str, states: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, own = CASES[case]
    options = {**own, **STATES[states], "maximize": case == "lion", "skip_nonfinite": True}
    monkeypatch.setenv("SHARPEN_NATIVE", "0")
    ps, expected = run(find(name), 8, impl="eager", **options)
    monkeypatch.setenv("SHARPEN_NATIVE", variant)
    qs, found = run(find(name), 8, impl="fused", **options)
    assert found.stats() == expected.stats() and found.stats()["nonfinite"] > 20
    for p, q in zip(ps, qs, strict=True):
        assert p.isfinite().all()
        for slot, value in expected.state[p].items():
            assert torch.equal(found.state[q][slot], value), slot
        if case in EXACT:
            assert torch.equal(p, q)
        else:  # torch's root is not always the nearest number
            torch.testing.assert_close(q, p, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("variant", supported())
@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("case", WHOLE)
def test_native_steps_of_whole_parameters_are_those_of_the_reference(
    case: str, states: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, own = WHOLE[case]
    skips = not case.endswith("all")
    options = {**own, **STATES[states], "maximize": not skips, "skip_nonfinite": skips}
    spoiled = 3 if skips else 0  # the first step, then some
    monkeypatch.setenv("SHARPEN_NATIVE", "0")
    ps, expected = run(find(name), 8, spoiled, impl="eager", **options)
    monkeypatch.setenv("SHARPEN_NATIVE", variant)
    qs, found = run(find(name), 8, spoiled, impl="fused", **options)
    assert found.stats() == expected.stats()
    assert (found.stats()["nonfinite"] > 5) == skips
    for p, q in zip(ps, qs, strict=True):
        assert p.isfinite().all()
        torch.testing.assert_close(q, p, rtol=1e-6, atol=1e-6)
        for slot, value in expected.state[p].items():
            bits = name == "lamb"  # else sums, in another order
            torch.testing.assert_close(
                found.state[q][slot], value, rtol=0 if bits else 1e-6, atol=0, msg=slot
            )
        assert int(found.state[q]["step"]) == (5 if skips and p.numel() > 100 else 8)


@pytest.mark.parametrize("name", ["lamb", "lamb_8bit", "adafactor"])
def test_norms_have_the_same_bits_for_any_threads_and_vectors(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in ((700, 300), (3,), (9, 11111))]
    grads = [torch.randn(v.shape, generator=generator) for v in values]

    def steps(impl: str) -> list[torch.Tensor]:
        ps = [nn.Parameter(v.clone()) for v in values]
        optimizer = find(name)(ps, lr=1e-2, impl=impl)  # type: ignore[arg-type]
        for _ in range(2):
            for p, g in zip(ps, grads, strict=True):
                p.grad = g
            optimizer.step()
        return [*(p.detach() for p in ps), *(s for p in ps for s in optimizer.state[p].values())]

    expected, found = steps("eager"), []
    threads = torch.get_num_threads()
    try:
        for variant in supported():
            monkeypatch.setenv("SHARPEN_NATIVE", variant)
            for number in (1, 3):
                torch.set_num_threads(number)
                found.append(steps("fused"))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    for a, b in zip(found[0], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lion", "lion_8bit"])
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(size, generator=generator) for size in (200_000, 3, 70_000)]
    grads = [torch.randn(v.shape, generator=generator) for v in values]
    found = []
    threads = torch.get_num_threads()
    try:
        for number, impl in ((1, "eager"), (1, "fused"), (2, "fused"), (3, "fused")):
            torch.set_num_threads(number)
            ps = [nn.Parameter(v.clone()) for v in values]
            optimizer = find(name)(ps, lr=1e-2, impl=impl)  # type: ignore[arg-type]
            for _ in range(3):
                for p, g in zip(ps, grads, strict=True):
                    p.grad = g
                optimizer.step()
            found.append([*ps, *(s for p in ps for s in optimizer.state[p].values())])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_clipping_scales_gradients_on_the_way() -> None:
    results = []
    for impl in ("eager", "fused"):
        p = nn.Parameter(torch.ones(50))
        optimizer = find("sgd")([p], lr=0.1, impl=impl)
        p.grad = torch.arange(50.0)
        optimizer.step(max_norm=1.0)
        assert torch.equal(p.grad, torch.arange(50.0))
        results.append(p.detach())
    assert torch.equal(*results)
    assert float((results[0] - 1).norm()) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"cautious": True},
        {"update_rms_clip": 1.0},
        {"state_dtype": "bf16"},
        {"wd_order": "after"},
        {"state_dtype": "q4", "min_quant_size": 1, "block_size": 7},  # a block ends within a byte
    ],
)
def test_what_the_kernels_do_not_serve_is_left_to_torch(options: dict[str, Any]) -> None:
    p = nn.Parameter(torch.ones(8, 8))
    p.grad = torch.ones(8, 8)
    find("lion")([p], lr=0.1, **options).step()
    assert float(p.detach().mean()) == pytest.approx(0.9)
    with pytest.raises(ConfigError, match="no native kernel"):
        find("lion")([p], lr=0.1, impl="fused", **options).step()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw_4bit", {"code_rounding": "lut16"}),
        ("ademamix", {"cautious": True}),
        ("ademamix", {"decoupled_wd": False}),
        ("lamb_8bit", {"update_rms_clip": 1.0}),
        ("lamb", {"state_dtype": "bf16"}),
        ("adafactor", {"wd_order": "after"}),
        ("adafactor", {"decoupled_wd": False}),
    ],
)
def test_torch_takes_the_same_steps_where_the_kernels_do_not_serve(
    name: str, options: dict[str, Any]
) -> None:
    results = []
    for impl in ("eager", "auto"):
        p = nn.Parameter(torch.linspace(-1, 1, 6000).view(60, 100))
        optimizer = find(name)([p], weight_decay=0.1, impl=impl, **options)
        for step in range(3):
            p.grad = torch.cos(p.detach() * (step + 1))
            optimizer.step()
        results.append(p.detach())
    assert torch.equal(*results)
    with pytest.raises(ConfigError, match="no native kernel"):
        find(name)([p], impl="fused", **options).step()


def test_weights_with_strides_are_left_to_torch() -> None:
    storage = torch.ones(6, 4)
    p = nn.Parameter(storage.t())
    p.grad = torch.ones(4, 6)
    find("lion")([p], lr=0.5).step()
    assert (storage == 0.5).all()
