from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sharpen.align.logprobs import token_logprobs, token_scores
from sharpen.core.errors import ConfigError

VOCAB, WIDTH = 23, 5


def _case(
    rows: int, dtype: torch.dtype = torch.float64, vocab: int = VOCAB, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, bias and tokens."""
    generator = torch.Generator().manual_seed(rows)
    shapes = ((rows, WIDTH), (vocab, WIDTH), (vocab,))
    h, w, b = (
        (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale)
        .to(dtype)
        .requires_grad_()
        for shape in shapes
    )
    return h, w, b, torch.randint(0, vocab, (rows,), generator=generator)


def _plain(h: Tensor, w: Tensor, b: Tensor | None, temperature: float, cap: float | None) -> Tensor:
    logits = h @ w.T if b is None else h @ w.T + b
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return torch.log_softmax(logits / temperature, dim=-1)


@given(
    rows=st.integers(1, 70),
    tile=st.integers(1, 64),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    cap=st.sampled_from([None, 1.5]),
    with_bias=st.booleans(),
    scale=st.sampled_from([1.0, 30.0]),  # logits in the thousands: exp overflows without the shift
)
def test_values_and_gradients_are_those_of_log_softmax_at_any_tile(
    rows: int, tile: int, temperature: float, cap: float | None, with_bias: bool, scale: float
) -> None:
    h, w, b, tokens = _case(rows, scale=scale)
    bias = b if with_bias else None
    inputs = (h, w, b) if with_bias else (h, w)
    logs = _plain(h, w, bias, temperature, cap)
    logp = logs.gather(1, tokens[:, None]).squeeze(1)
    entropy = -(logs.exp() * logs).sum(1)
    g, e = torch.linspace(-1, 2, rows).double(), torch.linspace(1, -1, rows).double()
    expected = torch.autograd.grad((logp * g + entropy * e).sum(), inputs, retain_graph=True)
    found = token_logprobs(
        h, w, tokens, temperature=temperature, tile=tile, entropy="gradient", bias=bias, softcap=cap
    )
    assert found.entropy is not None
    torch.testing.assert_close(found.logp, logp, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.entropy, entropy, rtol=1e-10, atol=1e-10)
    grads = torch.autograd.grad((found.logp * g + found.entropy * e).sum(), inputs)
    for ours, theirs in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    alone = token_logprobs(h, w, tokens, temperature=temperature, tile=tile, bias=bias, softcap=cap)
    assert alone.entropy is None
    expected = torch.autograd.grad((logp * g).sum(), inputs)
    for ours, theirs in zip(
        torch.autograd.grad((alone.logp * g).sum(), inputs), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@given(
    rows=st.integers(0, 70),
    tile=st.integers(1, 64),
    temperature=st.sampled_from([0.3, 1.0]),
    cap=st.sampled_from([None, 1.5]),
    with_bias=st.booleans(),
    entropy=st.sampled_from([False, True]),
    comes=st.sampled_from(["the same", "a multiple", "nothing", "something else"]),
)
def test_gradients_are_right_whatever_was_expected(
    rows: int,
    tile: int,
    temperature: float,
    cap: float | None,
    with_bias: bool,
    entropy: bool,
    comes: str,
) -> None:
    h, w, b, tokens = _case(rows)
    bias = b if with_bias else None
    inputs = (h, w, b) if with_bias else (h, w)
    expected = torch.linspace(-1, 2, rows).double()
    factor = {"a multiple": -3.0, "nothing": 0.0}.get(comes, 1.0)
    sent = expected * factor + (0.25 * (torch.arange(rows) == 0) if comes[0] == "s" else 0.0)
    logs = _plain(h, w, bias, temperature, cap)
    logp = logs.gather(1, tokens[:, None]).squeeze(1)
    exact = torch.autograd.grad((logp * sent).sum(), inputs)
    found = token_logprobs(
        h,
        w,
        tokens,
        temperature=temperature,
        tile=tile,
        entropy=entropy,
        bias=bias,
        softcap=cap,
        expected=expected,
    )
    torch.testing.assert_close(found.logp, logp, rtol=1e-10, atol=1e-10)
    if found.entropy is not None:
        torch.testing.assert_close(found.entropy, -(logs.exp() * logs).sum(1))
    for _ in range(2):  # the second time nothing is at hand
        grads = torch.autograd.grad((found.logp * sent).sum(), inputs, retain_graph=True)
        for ours, theirs in zip(grads, exact, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_logits_are_formed_once_where_it_is_known_what_comes_back() -> None:
    products = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            products.append(func is torch.ops.aten.mm.out)
            return func(*args, **(kwargs or {}))

    def counted(expected: Tensor | None) -> int:
        h, w, _, tokens = _case(64)
        products.clear()
        with Count():
            token_logprobs(h, w.detach(), tokens, tile=32, expected=expected).logp.sum().backward()
        return sum(products)

    assert counted(torch.ones(64).double()) == 4  # logits and states of two tiles
    assert counted(None) == counted(torch.arange(64).double()) - 2 == 6


@pytest.mark.parametrize("cap", [None, 2.0])
def test_gradients_pass_gradcheck(cap: float | None) -> None:
    h, w, b, tokens = _case(6, vocab=4)

    def both(h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        found = token_logprobs(
            h, w, tokens, temperature=0.7, tile=4, entropy="gradient", bias=b, softcap=cap
        )
        assert found.entropy is not None
        return found.logp, found.entropy

    assert torch.autograd.gradcheck(both, (h, w, b))

    def scores(h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        found = token_scores(h, w, tokens, tile=4, bias=b, softcap=cap)
        return found.logit, found.max_logit

    assert torch.autograd.gradcheck(scores, (h, w, b))


@pytest.mark.parametrize("tile", [None, 16])
def test_a_second_backward_pass_finds_the_same(tile: int | None) -> None:
    """Of one tile, whose memory the first pass used up, and of several."""
    h, w, b, tokens = _case(40)
    found = token_logprobs(h, w, tokens, tile=tile, entropy="gradient", bias=b, softcap=2.0)
    assert found.entropy is not None
    total = found.logp.sum() + found.entropy.square().sum()
    first = torch.autograd.grad(total, (h, w, b), retain_graph=True)
    for one, again in zip(first, torch.autograd.grad(total, (h, w, b)), strict=True):
        torch.testing.assert_close(one, again, rtol=1e-12, atol=1e-12)


def test_entropies_have_no_gradient_unless_asked() -> None:
    h, w, _, tokens = _case(8)
    found = token_logprobs(h, w, tokens, entropy=True)
    assert found.entropy is not None and not found.entropy.requires_grad
    assert found.logp.requires_grad


@pytest.mark.parametrize("cap", [None, 1.5])
def test_scores_are_those_of_whole_logits(cap: float | None) -> None:
    h, w, b, tokens = _case(70)
    logits = h @ w.T + b if cap is None else torch.tanh((h @ w.T + b) / cap) * cap
    top = logits.max(1)
    found = token_scores(h, w, tokens, tile=32, bias=b, softcap=cap)
    chosen = logits.gather(1, tokens[:, None]).squeeze(1)
    torch.testing.assert_close(found.logit, chosen)
    torch.testing.assert_close(found.max_logit, top.values)
    assert torch.equal(found.argmax, top.indices)
    advantage = found.logit - found.max_logit
    assert bool((advantage <= 1e-12).all()) and bool((advantage[tokens == top.indices] == 0).all())
    g = torch.linspace(-1, 1, 70).double()
    expected = torch.autograd.grad(((chosen - 2 * top.values) * g).sum(), (h, w, b))
    grads = torch.autograd.grad(((found.logit - 2 * found.max_logit) * g).sum(), (h, w, b))
    for ours, theirs in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes, and those of at least ``at_least``."""

    def __init__(self, at_least: int) -> None:
        super().__init__()
        self.at_least, self.largest, self.storages = at_least, 0, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor):
                self.largest = max(self.largest, one.numel())
                if one.numel() >= self.at_least:
                    self.storages.add(one.untyped_storage().data_ptr())
        return out


@pytest.mark.parametrize("entropy", [False, True, "gradient"])
def test_memory_is_that_of_one_tile(entropy: Literal[False, True, "gradient"]) -> None:
    """No operation makes more than a tile of logits, however many rows there are."""
    rows, tile, vocab = 512, 32, 500
    h, w, _, tokens = _case(rows, torch.float32, vocab=vocab)
    with _Largest(tile * vocab) as seen:
        found = token_logprobs(h, w, tokens, tile=tile, entropy=entropy)
        total = found.logp.sum()
        if entropy == "gradient" and found.entropy is not None:
            total = total + found.entropy.sum()
        total.backward()
    assert seen.largest == tile * vocab
    # Forward and backward: the tile's logits, and a second tile where there are entropies; some
    # addresses are used again.
    assert len(seen.storages) <= 4
    with _Largest(tile * vocab) as seen:
        torch.log_softmax(h @ w.T, dim=-1)
    assert seen.largest == rows * vocab


def test_only_rows_are_kept_for_the_backward_pass() -> None:
    h, w, _, tokens = _case(512, torch.float32, vocab=500)
    kept: list[int] = []

    def pack(t: Tensor) -> Tensor:
        kept.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        token_logprobs(h, w, tokens, tile=32)
    assert max(kept) == max(h.numel(), w.numel())


def test_bfloat16_gives_float32_values_near_the_exact_ones() -> None:
    h, w, b, tokens = _case(64)
    exact = token_logprobs(h, w, tokens, bias=b).logp
    rounded = token_logprobs(h.bfloat16(), w.bfloat16(), tokens, bias=b.bfloat16())
    assert rounded.logp.dtype == torch.float32
    # Inputs and products carry 8 bits: relative errors of 2^-8 in logits of size ~5.
    torch.testing.assert_close(rounded.logp.double(), exact, rtol=0, atol=0.1)
    scores = token_scores(h.bfloat16(), w.bfloat16(), tokens)
    assert scores.logit.dtype == torch.float32


def test_any_shape_of_rows_and_none_at_all() -> None:
    h, w, _, tokens = _case(6)
    flat = token_logprobs(h, w, tokens, entropy=True)
    shaped = token_logprobs(h.view(2, 3, WIDTH), w, tokens.view(2, 3), entropy=True)
    assert shaped.entropy is not None and flat.entropy is not None
    torch.testing.assert_close(shaped.logp, flat.logp.view(2, 3))
    torch.testing.assert_close(shaped.entropy, flat.entropy.view(2, 3))
    empty = token_logprobs(h[:0], w, tokens[:0])
    empty.logp.sum().backward()
    assert empty.logp.shape == (0,) and w.grad is not None and not bool(w.grad.any())
    assert token_scores(h[:0], w, tokens[:0]).argmax.shape == (0,)


def test_a_frozen_head_gets_no_gradient() -> None:
    h, w, _, tokens = _case(40)
    token_logprobs(h, w.detach(), tokens).logp.sum().backward()
    assert h.grad is not None and w.grad is None


def test_bad_options_and_shapes_are_refused() -> None:
    h, w, _, tokens = _case(4)
    for options in ({"temperature": 0.0}, {"tile": 0}, {"softcap": -1.0}):
        with pytest.raises(ConfigError, match="must be above 0"):
            token_logprobs(h, w, tokens, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="hidden is"):
        token_logprobs(h, w, tokens[:3])
    with pytest.raises(ConfigError, match="hidden is"):
        token_scores(h, w[:, :4], tokens)
