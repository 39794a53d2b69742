import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.train.comm import Axis
from sharpen.train.sp import ring_attention, ulysses_attention, usp_attention
from sharpen.train.sp.block import (
    LocalAttention,
    attend,
    backward_pieces,
    forward_pieces,
    math_backward,
    math_forward,
)
from sharpen.train.sp.layout import block_places
from sharpen.train.sp.pieces import Block, Piece, cut_pieces


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@st.composite
def block_pairs(draw):
    """Two blocks of a sequence cut for a ring, with documents, and what is seen."""
    ring, layout = draw(st.integers(1, 4)), draw(st.sampled_from(["contiguous", "zigzag"]))
    length = 2 * ring * draw(st.integers(1, 3))
    rows = draw(st.integers(1, 2))
    documents = None
    if draw(st.booleans()):
        begins = draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
        documents = torch.tensor(begins).view(rows, length).cumsum(1)
    owners = draw(st.integers(0, ring - 1)), draw(st.integers(0, ring - 1))
    places = [block_places(length, ring, owner, layout) for owner in owners]
    blocks = [Block(p, None if documents is None else documents[:, p]) for p in places]
    return blocks, rows, draw(st.booleans()), draw(st.sampled_from([None, 1, 2, 5]))


@settings(max_examples=300)
@given(block_pairs())
def test_pieces_hold_every_pair_that_sees_each_other_once(pair):
    (queries, keys), rows, causal, window = pair
    distance = queries.places[:, None] - keys.places
    seen = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        seen &= distance >= 0
    if window is not None:
        seen &= distance.abs() < window
    seen = seen.expand(rows, -1, -1).clone()
    if queries.documents is not None:
        seen &= queries.documents[:, :, None] == keys.documents[:, None]
    covered = torch.zeros_like(seen, dtype=torch.int64)
    times = torch.zeros(rows, len(queries.places), dtype=torch.int64)
    for piece in cut_pieces(queries, keys, rows, causal=causal, window=window):
        part = covered[piece.rows, piece.queries, piece.keys]
        assert part.numel() > 0
        inside = torch.ones(part.shape[1:], dtype=torch.int64)
        if piece.is_causal:
            assert part.shape[1] == part.shape[2]
            inside.tril_()
        mask = piece.seen()
        part += inside if mask is None else mask.long()
        times[piece.rows, piece.queries] += 1
    assert torch.equal(covered, seen.long())
    assert int(times.max()) <= 1


def test_a_window_costs_its_own_width_and_not_the_whole_sequence():
    block = Block(torch.arange(4096), None)
    pieces = cut_pieces(block, block, 1, causal=True, window=100)
    area = sum((p.queries.stop - p.queries.start) * (p.keys.stop - p.keys.start) for p in pieces)
    assert area < 4096 * (256 + 100)


def test_blocks_that_causality_hides_are_left_out():
    early, late = (Block(block_places(8, 2, r, "contiguous"), None) for r in (0, 1))
    assert cut_pieces(early, late, 1, causal=True, window=None) == []
    (piece,) = cut_pieces(late, early, 1, causal=True, window=None)
    assert piece == Piece(slice(0, 1), slice(0, 4), slice(0, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["full", "causal", "banded"])
def test_kernel_and_plain_products_agree(kind, dtype):
    q, k, v = (random(2, 7, n, 8, seed=n, dtype=dtype) for n in (4, 2, 2))
    grad = random(2, 7, 4, 8, seed=9, dtype=dtype)
    places = torch.arange(7)
    piece = Piece(
        slice(0, 2),
        slice(0, 7),
        slice(0, 7),
        kind == "causal",
        *((places, places + 3) if kind == "banded" else (None, None)),
        window=(0, 3),
    )
    ((_, out, sums),) = forward_pieces(q, k, v, pieces=[piece], scale=0.5, kv_index=None)
    arguments = kind == "causal", piece.seen(), 0.5
    plain, plain_sums = math_forward(*(x.transpose(1, 2) for x in (q, k, v)), *arguments)
    torch.testing.assert_close(out.transpose(1, 2), plain)
    torch.testing.assert_close(sums, plain_sums)
    if kind == "banded":
        assert bool(sums[:, :, :3].isneginf().all())
        sums = sums.nan_to_num(neginf=0.0)
    ((_, *grads),) = backward_pieces(
        grad, q, k, v, out, sums, pieces=[piece], scale=0.5, kv_index=None
    )
    parts = [x.transpose(1, 2) for x in (grad, q, out, k, v)]
    for found, expected in zip(grads, math_backward(*parts, sums, *arguments), strict=True):
        torch.testing.assert_close(found.transpose(1, 2), expected)


def test_gradients_of_plain_products_are_those_of_autograd():
    q, k, v = (random(1, n, 5, 4, seed=n).requires_grad_() for n in (4, 2, 2))
    grad = random(1, 4, 5, 4, seed=9)
    out, sums = math_forward(q, k, v, True, None, None)
    expected = torch.autograd.grad(out, (q, k, v), grad)
    found = math_backward(grad, q, out, k, v, sums, True, None, None)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.detach(), b)
    exact = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(out, exact)


@pytest.mark.parametrize("length", [40, 700])
def test_bfloat16_is_exact_up_to_its_rounding(length):
    block = Block(torch.arange(length), None)
    inner = LocalAttention(
        cut_pieces(block, block, 1, causal=True, window=None), scale=None, kv_index=None
    )
    low = [random(1, length, 2, 16, seed=i, dtype=torch.bfloat16) for i in range(3)]
    inputs = [x.requires_grad_() for x in low]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    found, expected = attend(*inputs, inner), attend(*exact, inner)
    assert found.dtype == torch.bfloat16
    (found.double() * expected.detach()).sum().backward()
    (expected * expected.detach()).sum().backward()
    for a, b in [
        (found, expected),
        *((x.grad, y.grad) for x, y in zip(inputs, exact, strict=True)),
    ]:
        assert a.dtype == torch.bfloat16
        assert float((a.detach().double() - b.detach()).norm() / b.detach().norm()) < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": (2, 3, 4)}, r"q \[2, 3, 4\].* do not fit: give q \[b, t, query heads, d\]"),
        ({"k": (2, 4, 2, 8)}, "the same rows and tokens on every rank"),
        ({"q": (2, 3, 4, 6)}, "the head size must be the same"),
        ({"q": (2, 3, 1, 8)}, "no more key heads than query heads"),
        ({"q": (2, 0, 4, 8), "k": (2, 0, 2, 8), "v": (2, 0, 2, 8)}, "hold no tokens"),
        ({"dtype": torch.float32}, r"q is torch.float32, k torch.float64"),
        ({"window": 0}, "window=0 must be at least 1 token, or None"),
        ({"doc_ids": (2, 4)}, r"doc_ids has the shape \[2, 4\]; give \[b, 3\]"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    shapes = {"q": (2, 3, 4, 8), "k": (2, 3, 2, 8), "v": (2, 3, 2, 8)}
    q, k, v = (random(*change.get(name, shape)) for name, shape in shapes.items())
    options = {"causal": True, "window": change.get("window")}
    if "doc_ids" in change:
        options["doc_ids"] = torch.zeros(change["doc_ids"], dtype=torch.int64)
    q = q.to(change.get("dtype", q.dtype))
    alone = Axis(None)
    for call in (
        lambda: ulysses_attention(q, k, v, group=alone, **options),
        lambda: ring_attention(q, k, v, group=alone, **options),
        lambda: usp_attention(q, k, v, sp_group=alone, ring_group=alone, **options),
    ):
        with pytest.raises(ConfigError, match=message):
            call()


def test_a_scale_of_its_own_changes_the_scores():
    q, k, v = (random(1, 5, 1, 4, seed=i) for i in range(3))
    alone = Axis(None)
    plain = ulysses_attention(q, k, v, group=alone, causal=True)
    same = ulysses_attention(q, k, v, group=alone, causal=True, scale=1 / math.sqrt(4))
    other = ulysses_attention(q, k, v, group=alone, causal=True, scale=2.0)
    torch.testing.assert_close(plain, same)
    assert float((plain - other).abs().max()) > 0.01
