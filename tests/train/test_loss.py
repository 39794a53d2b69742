import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharpen.train.loss import IGNORE, auto_tile, linear_cross_entropy


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


def test_auto_tile_holds_about_64_mib() -> None:
    assert auto_tile(49_152) * 49_152 * 4 <= 64 << 20
    assert auto_tile(10**9) == 16
