import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sharpen.models.attention import (
    Documents,
    attention_mask,
    document_attention,
    document_lengths,
)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def heads(batch, tokens, *, heads=4, kv_heads=2, size=8, dtype=torch.float64):
    return [
        random(batch, tokens, n, size, seed=i, dtype=dtype)
        for i, n in enumerate((heads, kv_heads, kv_heads))
    ]


def by_formula(q, k, v, lengths, window):
    """softmax(q k^T / sqrt(D)) v with one mask over the whole batch laid in a row."""
    shape = q.shape
    q, k, v = (x.reshape(-1, *x.shape[2:]).transpose(0, 1) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k, v))
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    at = torch.arange(len(document))
    distance = at[:, None] - at
    seen = (document[:, None] == document) & (distance >= 0) & (distance < (window or len(at)))
    scores = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).masked_fill(~seen, -math.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(shape)


@st.composite
def packings(draw):
    """Rows of 12 tokens, each cut into documents."""
    rows = draw(st.integers(1, 3))
    lengths = []
    for _ in range(rows):
        left = 12
        while left:
            lengths.append(draw(st.integers(1, left)))
            left -= lengths[-1]
    return rows, lengths


@given(
    packing=packings(), kv_heads=st.sampled_from([1, 2, 4]), window=st.sampled_from([None, 1, 3])
)
def test_values_and_gradients_are_those_of_the_formula(packing, kv_heads, window):
    rows, lengths = packing
    found_in = [x.requires_grad_() for x in heads(rows, 12, kv_heads=kv_heads)]
    exact_in = [x.detach().clone().requires_grad_() for x in found_in]
    found = document_attention(*found_in, Documents(lengths), window)
    exact = by_formula(*exact_in, lengths, window)
    torch.testing.assert_close(found, exact)
    weight = random(*found.shape, seed=9)
    (found * weight).sum().backward()
    (exact * weight).sum().backward()
    for a, b in zip(found_in, exact_in, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@st.composite
def branches(draw):
    """Documents, and of those that go on from others from which."""
    lengths, follows = [], []
    for _ in range(draw(st.integers(1, 3))):
        begins = len(lengths)
        lengths.append(draw(st.integers(1, 5)))
        follows.append(None)
        for _ in range(draw(st.integers(0, 3))):
            lengths.append(draw(st.integers(1, 5)))
            follows.append(begins)
    return lengths, follows


@given(tree=branches(), kv_heads=st.sampled_from([1, 2]), window=st.sampled_from([None, 1, 3, 6]))
def test_what_goes_on_from_a_document_is_attended_as_if_that_stood_before_it(
    tree, kv_heads, window
):
    lengths, follows = tree
    found_in = [x.requires_grad_() for x in heads(1, sum(lengths), kv_heads=kv_heads)]
    exact_in = [x.detach().clone().requires_grad_() for x in found_in]
    found = document_attention(*found_in, Documents(lengths, follows), window)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    spans = [range(end - length, end) for length, end in zip(lengths, ends, strict=True)]
    parts = []
    for span, at in zip(spans, follows, strict=True):
        whole = [*(spans[at] if at is not None else ()), *span]
        alone = by_formula(*(x[:, whole] for x in exact_in), [len(whole)], window)
        parts.append(alone[:, len(whole) - len(span) :])
    exact = torch.cat(parts, 1)
    torch.testing.assert_close(found, exact)
    weight = random(*found.shape, seed=9)
    (found * weight).sum().backward()
    (exact * weight).sum().backward()
    for a, b in zip(found_in, exact_in, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@given(tree=branches(), window=st.sampled_from([None, 1, 3]))
def test_a_kernel_over_packed_documents_is_told_where_their_keys_lie(tree, window):
    lengths, follows = tree
    documents = Documents(lengths, follows)
    q, k, v = heads(1, sum(lengths), kv_heads=2)
    packed = documents.packed(q.device)
    seen = slice(None) if packed.places is None else packed.places
    parts = []
    for i in range(len(lengths)):
        own = slice(*packed.query_offsets[i : i + 2].tolist())
        keys = slice(*packed.key_offsets[i : i + 2].tolist())
        count, past = keys.stop - keys.start, (keys.stop - keys.start) - (own.stop - own.start)
        assert own.stop - own.start <= packed.most_queries
        assert count <= packed.most_keys
        mask = attention_mask(past, count - past, None, window, q.device)[0]
        one = (x[0, seen][keys].transpose(0, 1) for x in (k, v))
        parts.append(
            F.scaled_dot_product_attention(
                q[0, own].transpose(0, 1), *one, attn_mask=mask, enable_gqa=True
            ).transpose(0, 1)
        )
    torch.testing.assert_close(
        torch.cat(parts)[None], document_attention(q, k, v, documents, window)
    )


@pytest.mark.parametrize("lengths", [[600, 100, 68], [512, 256]])
def test_bfloat16_is_rounded_once(lengths):
    """Short documents are exact up to the rounding of what comes in and goes out."""
    inputs = [x.requires_grad_() for x in heads(1, 768, dtype=torch.bfloat16)]
    exact_in = [x.detach().double().requires_grad_() for x in inputs]
    found = document_attention(*inputs, Documents(lengths))
    exact = by_formula(*exact_in, lengths, None)
    (found.sum() + exact.sum()).backward()
    found, exact = found.detach(), exact.detach()
    short = slice(0 if max(lengths) <= 512 else 600, 768)
    error = (found.double() - exact)[:, short].abs()
    assert float((error - exact[:, short].abs() * 2**-8).max()) < 1e-5
    for a, b in zip(inputs, exact_in, strict=True):
        assert float((a.grad.double() - b.grad).norm() / b.grad.norm()) < 0.01


def saved_sizes(lengths):
    sizes = []

    def keep(x):
        sizes.append(x.numel())
        return x

    inputs = [x.requires_grad_() for x in heads(2, 12)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        document_attention(*inputs, Documents(lengths))
    return sizes


def test_what_is_kept_does_not_depend_on_the_lengths():
    assert saved_sizes([12, 12]) == saved_sizes([1, 2, 9, 5, 7])


def test_lengths_of_runs_row_by_row():
    ids = torch.tensor([[0, 0, 1], [1, 1, 1]])
    assert document_lengths(ids) == [2, 1, 3]
    assert document_lengths(torch.zeros(2, 5)) is None
