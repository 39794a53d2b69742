"""A training begun with another package goes on as if it had been ours."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim import (
    SGD,
    Adafactor,
    Adagrad,
    AdamW,
    AdamW8bit,
    AdEMAMix8bit,
    Lion,
    Lion8bit,
    Optimizer,
    SGD8bit,
    convert,
)
from sharpen.optim.engine.quant import codebook

SHAPES = [(70, 70), (7,)]


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) * 0.1 for shape in SHAPES]


def take(optimizer: Any, ps: list[nn.Parameter], first: int, last: int) -> None:
    for step in range(first, last):
        for p, g in zip(ps, gradients(step), strict=True):
            p.grad = g.clone()
        optimizer.step()


def begun(make: Any) -> tuple[Any, list[nn.Parameter], list[nn.Parameter]]:
    """An optimizer of another package after 5 steps, its weights, and copies of these."""
    torch.manual_seed(0)
    ps = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = make(ps)
    take(theirs, ps, 0, 5)
    return theirs, ps, [nn.Parameter(p.detach().clone()) for p in ps]


CASES: list[tuple[str, Any, type[Optimizer], dict[str, Any]]] = [
    ("torch.AdamW", torch.optim.AdamW, AdamW, {"lr": 0.01}),
    ("torch.SGD", torch.optim.SGD, SGD, {"lr": 0.1, "momentum": 0.9}),
    ("torch.Adagrad", torch.optim.Adagrad, Adagrad, {"lr": 0.1}),
    ("torch.Adafactor", torch.optim.Adafactor, Adafactor, {"lr": 0.1}),
]


@pytest.mark.parametrize(("src", "theirs", "ours", "options"), CASES)
def test_steps_go_on_as_the_other_optimizer_would(
    src: str, theirs: Any, ours: type[Optimizer], options: dict[str, Any]
) -> None:
    other, ps, qs = begun(lambda ps: theirs(ps, **options))
    new = ours(qs, **options)  # type: ignore[arg-type]
    convert(other.state_dict(), src=src, dst=new)
    take(other, ps, 5, 10)
    take(new, qs, 5, 10)
    for p, q in zip(ps, qs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "ours", "options"),
    [
        ("AdamW8bit", AdamW8bit, {}),
        ("Lion8bit", Lion8bit, {}),
        ("SGD8bit", SGD8bit, {"momentum": 0.9}),
        ("AdEMAMix8bit", AdEMAMix8bit, {}),
    ],
)
def test_codes_of_bitsandbytes_are_taken_as_they_are(
    name: str, ours: type[Optimizer], options: dict[str, Any]
) -> None:
    library = pytest.importorskip("bitsandbytes")
    options = {"lr": 1e-3, **options}
    other, ps, qs = begun(lambda ps: getattr(library.optim, name)(ps, **options))
    new = ours(qs, **options, code_rounding="lut16", v_floor=False)  # type: ignore[arg-type]
    convert(other.state_dict(), src=f"bnb.{name}", dst=new)
    codes = [value for key, value in new.state[qs[0]].items() if key.endswith("_codes")]
    theirs = [other.state[ps[0]][key] for key in ("state1", "state2") if key in other.state[ps[0]]]
    flat = torch.cat([x.flatten() for x in theirs])
    assert torch.equal(torch.cat(codes), flat)
    take(other, ps, 5, 10)
    take(new, qs, 5, 10)
    for p, q in zip(ps, qs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.peer
def test_other_blocks_and_full_precision_are_read_and_packed_again() -> None:
    library = pytest.importorskip("bitsandbytes")
    other, ps, qs = begun(lambda ps: library.optim.AdamW8bit(ps, lr=1e-3))
    state = other.state[ps[0]]
    scales = state["absmax1"].repeat_interleave(256)[:4900].view(70, 70)
    expected = state["qmap1"][state["state1"].long()] * scales
    full = AdamW(qs, lr=1e-3)
    convert(copy.deepcopy(other.state_dict()), src="bnb.AdamW8bit", dst=full)
    assert torch.equal(full.state[qs[0]]["exp_avg"], expected)
    small = AdamW8bit(qs, lr=1e-3, block_size=64)
    convert(other.state_dict(), src="bnb.AdamW8bit", dst=small)
    read = small.stored(qs[0], small.param_groups[0], (70, 70))["exp_avg"].dequantize()
    torch.testing.assert_close(read, expected, rtol=0, atol=float(expected.abs().max()) * 0.02)


@pytest.mark.peer
def test_lion_pytorch_goes_on_with_the_same_bits() -> None:
    peer = pytest.importorskip("lion_pytorch")
    other, ps, qs = begun(lambda ps: peer.Lion(ps, lr=1e-3))
    new = Lion(qs, lr=1e-3)
    convert(other.state_dict(), src="lion_pytorch.Lion", dst=new)
    take(other, ps, 5, 10)
    take(new, qs, 5, 10)
    assert all(torch.equal(p, q) for p, q in zip(ps, qs, strict=True))


def test_what_does_not_fit_is_refused_and_nothing_is_changed() -> None:
    other, _, qs = begun(lambda ps: torch.optim.AdamW(ps))
    state = other.state_dict()
    new = AdamW(qs)
    with pytest.raises(ConfigError, match=r"src='torch\.Adamw' is no source"):
        convert(state, src="torch.Adamw", dst=new)
    with pytest.raises(ConfigError, match="of 2 parameters and AdamW has 1"):
        convert(state, src="torch.AdamW", dst=AdamW(qs[:1]))
    with pytest.raises(ConfigError, match="follows the rule 'lion'"):
        convert(state, src="torch.AdamW", dst=Lion(qs))
    with pytest.raises(ConfigError, match="exp_avg of param 0 has shape"):
        convert(state, src="torch.AdamW", dst=AdamW(qs[::-1]))
    with pytest.raises(ConfigError, match=r"has no state1; is it that of bnb\.AdamW8bit"):
        convert(state, src="bnb.AdamW8bit", dst=new)
    assert not new.state


def test_parameters_without_states_start_anew() -> None:
    ps = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4))]
    other = torch.optim.AdamW(ps)
    ps[0].grad = torch.ones(3)
    other.step()
    new = AdamW(ps)
    convert(other.state_dict(), src="torch.AdamW", dst=new)
    assert set(new.state) == {ps[0]}


def codes(absmax: int, change: float = 0.0) -> dict[str, Any]:
    """A state as bitsandbytes saves it, of 512 weights with codes of 1."""
    state = {
        "step": 3,
        "state1": torch.full((512,), 255, dtype=torch.uint8),
        "qmap1": codebook(True) * (1 + change),
        "absmax1": torch.full((absmax,), 2.0),
    }
    return {"param_groups": [{"params": [0]}], "state": {0: state}}


def test_another_codebook_is_read_with_its_own_values() -> None:
    for change in (0.0, 0.5):
        w = nn.Parameter(torch.ones(512))
        new = Lion8bit([w], min_quant_size=1)
        convert(codes(2, change), src="bnb.Lion8bit", dst=new)
        read = new.stored(w, new.param_groups[0], (512,))["exp_avg"].dequantize()
        assert torch.equal(read, torch.full((512,), 2.0 * (1 + change)))
        assert int(new.state[w]["step"]) == 3


def test_blocks_of_unknown_size_are_refused() -> None:
    new = Lion8bit([nn.Parameter(torch.ones(512))], min_quant_size=1)
    with pytest.raises(ConfigError, match="512 codes and 3 scales; blocks must have 256 or 2048"):
        convert(codes(3), src="bnb.Lion8bit", dst=new)


def test_master_weights_start_as_the_weights_are() -> None:
    w = nn.Parameter(torch.full((4,), 1.5, dtype=torch.bfloat16))
    old = torch.optim.AdamW([w])
    w.grad = torch.ones_like(w)
    old.step()
    new = AdamW([w], master_weights=True)
    convert(old.state_dict(), src="torch.AdamW", dst=new)
    assert torch.equal(new.state[w]["master"], w.detach().float())
    torch.testing.assert_close(new.state[w]["exp_avg"], torch.full((4,), 0.1), rtol=0.01, atol=0)
