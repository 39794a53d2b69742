"""The native steps against their torch twins, in every variant this machine runs."""

import ctypes

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sharpen.models.kv_cache import KVCache
from sharpen.models.native_step import NativeStep, fused_step
from sharpen.models.products import Float32, Layers
from sharpen.models.rope import Rope
from sharpen.models.step import Rows, StepContext, TorchStep
from sharpen.native.build import build, function
from sharpen.native.info import compiler, supported
from small_models import small_spec

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
VARIANTS = supported()
DTYPES = [torch.float32, torch.bfloat16]
# bfloat16: one rounding of 2^-9 on each side, of values up to about 4.
CLOSE = {
    torch.float32: {"atol": 1e-5, "rtol": 1e-5},
    torch.bfloat16: {"atol": 2e-2, "rtol": 1.6e-2},
}


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def native(spec, variant, dtype):
    return NativeStep(spec, ctypes.CDLL(str(build("decode", variant))), dtype)


@needs_compiler
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 600])
@pytest.mark.parametrize("width", [64, 67])
@pytest.mark.parametrize("added", [True, False])
def test_add_norm(variant, dtype, rows, width, added):
    spec = small_spec()
    x, weight = random(rows, width, dtype=dtype), random(width, dtype=dtype, seed=1)
    delta = random(rows, width, dtype=dtype, seed=2) if added else None
    expected = TorchStep(spec).add_norm(x.clone(), delta, weight)
    found = native(spec, variant, dtype).add_norm(x.clone(), delta, weight)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1], expected[1], **CLOSE[dtype])


@needs_compiler
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 48), (5, 50), (600, 64)])
def test_gate(variant, dtype, rows, width):
    spec = small_spec()
    gate_up = 30 * random(rows, 2 * width, dtype=dtype)  # far into both tails of the sigmoid
    found = native(spec, variant, dtype).gate(gate_up)
    gate, up = gate_up.double().chunk(2, -1)
    exact = (F.silu(gate) * up).to(dtype)
    torch.testing.assert_close(found, exact, **CLOSE[dtype])


@needs_compiler
@pytest.mark.parametrize("variant", VARIANTS)
def test_gate_of_what_is_not_finite(variant):
    gate_up = torch.tensor([[float("inf"), -float("inf"), float("nan"), 1.0, 1.0, 1.0, 1.0, 2.0]])
    found = native(small_spec(), variant, torch.float32).gate(gate_up)
    assert found[0, 0] == float("inf")
    assert found[0, 2].isnan()
    assert found[0, 3] == pytest.approx(2 * 0.7310586)


def context(spec, dtype, *, batch, past, starts, window):
    """A cache with ``past`` random positions, and the step that follows them."""
    cache = KVCache(spec, batch, capacity=past + 3, dtype=dtype, starts=starts)
    for layer in range(spec.num_layers):
        for seed, buffer in enumerate(cache.buffers(layer)):
            buffer[:, :, :past] = random(
                batch, spec.num_kv_heads, past, spec.head_dim, dtype=dtype, seed=7 + seed
            )
    cache.length = past
    first = cache.starts if cache.starts is not None else torch.zeros(batch, dtype=torch.int64)
    cos, sin = Rope(spec)((past - first)[:, None], past + 1, torch.float32)
    positions = torch.arange(past + 1)
    seen = positions >= first[:, None]
    windowed = seen & (positions > past - window) if window else seen

    def added(mask):
        zeros = torch.zeros(batch, 1, 1, past + 1, dtype=dtype)
        return zeros.masked_fill(~mask[:, None, None], float("-inf"))

    return StepContext(
        batch=batch,
        num_tokens=1,
        cos=cos,
        sin=sin,
        mask=added(seen) if cache.starts is not None else None,
        window_mask=added(windowed),
        is_causal=False,
        cache=cache,
        rows=Rows.of(cache),
    )


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@given(
    variant=st.sampled_from(VARIANTS),
    batch=st.integers(1, 3),
    kv_heads=st.sampled_from([1, 2, 4]),
    size=st.sampled_from([16, 20, 64]),
    past=st.sampled_from([0, 1, 30, 700]),
    padding=st.sampled_from([None, 0.5, 1.0]),
    window=st.sampled_from([None, 1, 8, 10_000]),
    normed=st.booleans(),
)
def test_attention_of_one_token(
    dtype, variant, batch, kv_heads, size, past, padding, window, normed
):
    spec = small_spec(num_kv_heads=kv_heads, head_dim=size, rms_norm_eps=1e-6)
    starts = None
    if padding is not None:  # the last row is padded up to (a share of) the whole past
        starts = torch.zeros(batch, dtype=torch.int64)
        starts[-1] = int(padding * past)
    norms = (random(size, dtype=dtype, seed=3), random(size, dtype=dtype, seed=4))
    norms = norms if normed else None
    qkv = random(batch, (spec.num_heads + 2 * kv_heads) * size, dtype=dtype, seed=5)
    caches, outputs = [], []
    for step in (TorchStep(spec), native(spec, variant, dtype)):
        ctx = context(spec, dtype, batch=batch, past=past, starts=starts, window=window)
        outputs.append(step.attend(qkv.clone(), norms, 1, window, ctx))
        caches.append(ctx.cache)
    torch.testing.assert_close(outputs[1], outputs[0], **CLOSE[dtype])
    for before, after in zip(caches[0].buffers(1), caches[1].buffers(1), strict=True):
        torch.testing.assert_close(after, before, **CLOSE[dtype])
    for before, after in zip(caches[0].buffers(0), caches[1].buffers(0), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)  # other layers are not touched


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_number_of_threads(dtype):
    spec = small_spec(head_dim=64)
    step = fused_step(spec, dtype, torch.device("cpu"))
    qkv = random(8, (spec.num_heads + 2 * spec.num_kv_heads) * 64, dtype=dtype)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            ctx = context(spec, dtype, batch=8, past=200, starts=None, window=None)
            found.append(step.attend(qkv, None, 0, None, ctx))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@needs_compiler
@pytest.mark.parametrize("variant", VARIANTS)
@given(
    rows=st.integers(1, 8),
    inputs=st.sampled_from([1, 15, 16, 17, 96, 576]),
    outputs=st.sampled_from([1, 2, 33, 300]),
    biased=st.booleans(),
)
def test_products_of_few_rows(variant, rows, inputs, outputs, biased):
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    types = (*[pointer] * 4, *[integer] * 3, ctypes.c_int)
    linear = function(ctypes.CDLL(str(build("products", variant))), "linear_f32", *types)
    weight, x = random(outputs, inputs), random(rows, inputs, seed=1)
    bias = random(outputs, seed=2) if biased else None
    y = torch.full((rows + 1, outputs), 7.0)
    address = bias.data_ptr() if bias is not None else None
    sizes = (rows, inputs, outputs, 2)
    linear(weight.data_ptr(), address, x.data_ptr(), y.data_ptr(), *sizes)
    exact = F.linear(x.double(), weight.double(), bias.double() if bias is not None else None)
    torch.testing.assert_close(y[:rows].double(), exact, atol=1e-4, rtol=1e-5)
    assert torch.equal(y[rows], torch.full((outputs,), 7.0))  # nothing past the end


def test_without_native_code_torch_does_the_work(monkeypatch):
    monkeypatch.setenv("SHARPEN_NATIVE", "0")
    spec = small_spec()
    assert type(fused_step(spec, torch.float32, torch.device("cpu"))) is TorchStep
    layer = torch.nn.Linear(24, 16)
    product = Float32(layer.weight.detach(), layer.bias.detach())
    for rows in (1, 4, 20):
        x = random(rows, 24)
        torch.testing.assert_close(product(x), Layers(layer)(x).detach())


def test_other_types_are_torchs():
    assert type(fused_step(small_spec(), torch.float16, torch.device("cpu"))) is TorchStep
