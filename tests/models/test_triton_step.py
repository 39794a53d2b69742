"""The Triton kernels against their torch twins: on a GPU, or interpreted where there is none."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.models.step import Rows, Span, TorchStep
from sharpen.models.triton_step import TritonStep
from small_models import small_spec

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# The interpreter has no products of bfloat16.
DTYPES = [torch.float32, torch.bfloat16 if DEVICE.type == "cuda" else torch.float16]
# Torch rounds between the operations, the kernels once at the end.
CLOSE = {
    torch.float32: {"atol": 1e-5, "rtol": 1e-5},
    torch.float16: {"atol": 5e-3, "rtol": 2e-3},
    torch.bfloat16: {"atol": 3e-2, "rtol": 1.6e-2},
}
PAGE = 16

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (3, 67), (5, 1600)])
@pytest.mark.parametrize("added", [True, False])
def test_add_norm(dtype, rows, width, added):
    spec = small_spec()
    x, weight = random(rows, width, dtype=dtype), random(width, dtype=dtype, seed=1)
    delta = random(rows, width, dtype=dtype, seed=2) if added else None
    expected = TorchStep(spec).add_norm(x.clone(), delta, weight)
    found = TritonStep(spec).add_norm(x.clone(), delta, weight)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1], expected[1], **CLOSE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 48), (3, 1500)])
def test_gate(dtype, rows, width):
    gate_up = 30 * random(rows, 2 * width, dtype=dtype)  # far into both tails of the sigmoid
    found = TritonStep(small_spec()).gate(gate_up)
    exact = TorchStep(small_spec()).gate(gate_up.double()).to(dtype)
    torch.testing.assert_close(found, exact, **CLOSE[dtype])


def cache_and_rows(spec, dtype, lengths, firsts, seed=0):
    """Random pages, and rows that are each at the end of a sequence of its own."""
    pages = -(-max(lengths) // PAGE)
    order = torch.randperm(pages * len(lengths), generator=torch.Generator().manual_seed(seed))
    tables = order.view(len(lengths), pages).int()
    last = torch.tensor(lengths) - 1
    places = tables[torch.arange(len(lengths)), last // PAGE] * PAGE + last % PAGE
    shape = (tables.numel(), spec.num_kv_heads, PAGE, spec.head_dim)
    buffers = random(*shape, dtype=dtype, seed=1), random(*shape, dtype=dtype, seed=2)
    rows = Rows(
        places=places.long().to(DEVICE),
        tables=tables.to(DEVICE),
        sequences=torch.arange(len(lengths), dtype=torch.int32, device=DEVICE),
        positions=last.int().to(DEVICE),
        firsts=torch.tensor(firsts, dtype=torch.int32, device=DEVICE) if firsts else None,
    )
    return buffers, rows


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=5)
@given(
    lengths=st.lists(st.sampled_from([1, 2, 16, 17, 70]), min_size=1, max_size=3),
    kv_heads=st.sampled_from([1, 2, 4]),
    size=st.sampled_from([16, 20, 64]),
    window=st.sampled_from([None, 1, 8, 10_000]),
    normed=st.booleans(),
    padded=st.booleans(),
)
def test_turn_and_attend(dtype, lengths, kv_heads, size, window, normed, padded):
    spec = small_spec(num_kv_heads=kv_heads, head_dim=size, rms_norm_eps=1e-6)
    firsts = [length // 2 for length in lengths] if padded else None
    norms = (random(size, dtype=dtype, seed=3), random(size, dtype=dtype, seed=4))
    norms = norms if normed else None
    qkv = random(len(lengths), (spec.num_heads + 2 * kv_heads) * size, dtype=dtype, seed=5)
    angles = 3 * random(len(lengths), 1, size // 2, seed=6)
    found = []
    for step in (TorchStep(spec), TritonStep(spec)):
        buffers, rows = cache_and_rows(spec, dtype, lengths, firsts)
        q = step.turn_rows(qkv.clone(), norms, angles.cos(), angles.sin(), buffers, rows)
        out = step.attend_rows(q, buffers, rows, window)
        found.append((q, *buffers, out))
    for expected, made in zip(*found, strict=True):
        torch.testing.assert_close(made, expected, **CLOSE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", [1, 2, 8])
def test_parts_of_the_context_meet(dtype, parts, monkeypatch):
    spec = small_spec(head_dim=32)
    buffers, rows = cache_and_rows(spec, dtype, [1, 70, 500], None)
    q = random(3, spec.num_heads, 32, dtype=dtype, seed=9)
    monkeypatch.setattr(TritonStep, "_parts", lambda self, rows: parts)
    expected = TorchStep(spec).attend_rows(q, buffers, rows, None)
    found = TritonStep(spec).attend_rows(q, buffers, rows, None)
    torch.testing.assert_close(found, expected, **CLOSE[dtype])


@pytest.mark.parametrize("parts", [1, 4])
def test_a_row_that_only_fills_up_touches_nothing(parts, monkeypatch):
    spec = small_spec(head_dim=32)
    monkeypatch.setattr(TritonStep, "_parts", lambda self, rows: parts)
    buffers, rows = cache_and_rows(spec, torch.float32, [5, 5], None)
    rows.places[1] = rows.positions[1] = -1
    before = [buffer.clone() for buffer in buffers]
    qkv = random(2, (spec.num_heads + 2 * spec.num_kv_heads) * 32, seed=5)
    step = TritonStep(spec)
    ones = torch.ones(2, 1, 16, device=DEVICE)
    q = step.turn_rows(qkv, None, ones, ones, buffers, rows)
    out = step.attend_rows(q, buffers, rows, None)
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    assert bool((out[0] != 0).all())
    for old, new in zip(before, buffers, strict=True):
        changed = (old != new).flatten(1).any(1).nonzero().flatten().tolist()
        assert changed == [int(rows.tables[0, 0])]


def test_tables_may_be_a_longer_buffer():
    spec = small_spec(head_dim=32)
    buffers, rows = cache_and_rows(spec, torch.float32, [40, 33], None)
    q = random(2, spec.num_heads, 32, seed=9)
    step = TritonStep(spec)
    expected = step.attend_rows(q, buffers, rows, None)
    longer = torch.cat((rows.tables.flatten(), torch.full((9,), -1, device=DEVICE))).int()
    width = torch.tensor([rows.tables.shape[1]], dtype=torch.int32, device=DEVICE)
    laid = Rows(rows.places, longer, rows.sequences, rows.positions, width=width)
    assert torch.equal(step.attend_rows(q, buffers, laid, None), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("shape", [{"head_dim": 32}, {"head_dim": 20}, {"num_kv_heads": 4}])
def test_spans(dtype, window, shape):
    spec = small_spec(**shape)
    counts, slots = [50, 9, 17], [0, 30, 1]
    lengths = [count + slot for count, slot in zip(counts, slots, strict=True)]
    buffers, rows = cache_and_rows(spec, dtype, lengths, None)
    spans = [
        Span(0, count, slot, slot, table)
        for count, slot, table in zip(counts, slots, rows.tables, strict=True)
    ]
    q = random(sum(counts), spec.num_heads, spec.head_dim, dtype=dtype, seed=9)
    expected = TorchStep(spec).attend_spans(q, buffers, spans, window)
    found = TritonStep(spec).attend_spans(q, buffers, spans, window)
    torch.testing.assert_close(found, expected, **CLOSE[dtype])
