from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.train.loss import IGNORE, linear_cross_entropy, tiled_loss


def _case(
    rows: int, vocab: int, hidden: int, masked: float, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * vocab + hidden)
    h = torch.randn(rows, hidden, generator=generator, dtype=torch.float64).to(dtype)
    w = torch.randn(vocab, hidden, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, vocab, (rows,), generator=generator)
    labels[torch.rand(rows, generator=generator) < masked] = IGNORE
    return h.requires_grad_(), w.requires_grad_(), labels


@given(
    rows=st.integers(1, 90),
    vocab=st.integers(2, 40),
    tile=st.integers(1, 64),
    masked=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
def test_loss_and_gradients_are_those_of_torch_at_any_tile(
    rows: int, vocab: int, tile: int, masked: float
) -> None:
    h, w, labels = _case(rows, vocab, 5, masked)
    valid = int((labels != IGNORE).sum())
    scale = 1.0 / max(valid, 1)
    expected = F.cross_entropy(h @ w.T, labels, ignore_index=IGNORE, reduction="sum") * scale
    expected_grads = torch.autograd.grad(expected, (h, w))
    loss = linear_cross_entropy(h, w, labels, scale=scale, tile=tile)
    grads = torch.autograd.grad(loss, (h, w))
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_passes_gradcheck() -> None:
    h, w, labels = _case(7, 5, 3, 0.3)
    assert torch.autograd.gradcheck(
        lambda h, w: linear_cross_entropy(h, w, labels, scale=0.5, tile=3), (h, w)
    )


def _plain(
    h: Tensor, w: Tensor, labels: Tensor, *, bias: Tensor, z: float, smoothing: float, cap: float
) -> Tensor:
    """The same loss from whole logits, by torch."""
    logits = torch.tanh((h @ w.T + bias) / cap) * cap
    loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    squares = logits.logsumexp(1).square() * (labels != IGNORE)
    return loss + z * squares.sum()


@given(
    rows=st.integers(1, 60),
    tile=st.integers(1, 64),
    z=st.sampled_from([0.0, 1e-2]),
    smoothing=st.sampled_from([0.0, 0.1]),
    cap=st.sampled_from([1.5, 30.0]),
)
def test_options_are_those_of_torch_on_whole_logits(
    rows: int, tile: int, z: float, smoothing: float, cap: float
) -> None:
    h, w, labels = _case(rows, 23, 5, 0.3)
    bias = torch.linspace(-1, 1, 23, dtype=torch.float64, requires_grad=True)
    expected = _plain(h, w, labels, bias=bias, z=z, smoothing=smoothing, cap=cap)
    expected_grads = torch.autograd.grad(expected, (h, w, bias))
    loss = linear_cross_entropy(
        h, w, labels, bias=bias, tile=tile, z_loss=z, label_smoothing=smoothing, softcap=cap
    )
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(loss, (h, w, bias)), expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("shards", ["auto", 1, 3, 100])
def test_tiled_loss_is_cross_entropy_with_any_number_of_tiles(reduction: Any, shards: Any) -> None:
    h, w, labels = _case(50, 30, 8, 0.4)
    marked = labels.masked_fill(labels == IGNORE, -1)
    expected = F.cross_entropy(h @ w.T, marked, ignore_index=-1, reduction=reduction)
    found = tiled_loss(h, w, marked, shards, ignore_index=-1, reduction=reduction)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    nothing = torch.full_like(labels, IGNORE)
    assert tiled_loss(h, w, nothing, shards, reduction=reduction).item() == 0.0


def test_options_out_of_range_are_refused() -> None:
    h, w, labels = _case(4, 3, 2, 0.0)
    for options in ({"z_loss": -1.0}, {"label_smoothing": 1.0}, {"softcap": 0.0}):
        with pytest.raises(ConfigError, match="softcap"):
            linear_cross_entropy(h, w, labels, **options)  # type: ignore[arg-type]
    for wrong in ({"shards": 0}, {"reduction": "none"}):
        with pytest.raises(ConfigError, match="shards"):
            tiled_loss(h, w, labels, **wrong)  # type: ignore[arg-type]


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_do() -> None:
    h, w, labels = _case(40, 30, 8, 0.5)
    w = w.detach()
    linear_cross_entropy(h, w, labels).backward()
    assert h.grad is not None and w.grad is None
    assert bool((h.grad[labels == IGNORE] == 0).all())


def test_bfloat16_hidden_states_give_a_float32_loss_near_the_exact_one() -> None:
    h, w, labels = _case(64, 50, 16, 0.2)
    exact = linear_cross_entropy(h, w, labels)
    rounded = linear_cross_entropy(h.bfloat16(), w.bfloat16(), labels)
    assert rounded.dtype == torch.float32
    # Inputs and products carry 8 bits: relative errors of 2^-8 in logits of size ~10.
    assert rounded.item() == pytest.approx(exact.item(), rel=2e-2)


def test_logits_are_never_held_whole() -> None:
    """Only the hidden gradient is kept for the backward pass, not rows times vocabulary."""
    h, w, labels = _case(64, 500, 8, 0.0, torch.float32)
    kept: list[int] = []

    def pack(t: Tensor) -> Tensor:
        kept.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        linear_cross_entropy(h, w.detach(), labels, tile=16)
    assert max(kept) <= 64 * 8
