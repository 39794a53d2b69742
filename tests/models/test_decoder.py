import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import RopeScaling
from sharpen.models.attention import attention_mask
from sharpen.models.decoder import DecoderLM
from small_models import small_model, small_spec

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"family": "mistral", "sliding_window": 6},
    "qwen2": {"family": "qwen2", "sliding_window": 5, "sliding_layers": (True, False)},
    "qwen3": {"family": "qwen3", "head_dim": 32},
    "parallel": {"family": "mistral", "sliding_window": 6, "block": "parallel"},
}
families = pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES.keys())


def some_ids(rows: int, tokens: int, seed: int = 5) -> torch.Tensor:
    return torch.randint(3, 300, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    # float32 sums in another order, on logits of size about 1.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@torch.no_grad()
def reference(model: DecoderLM, ids: list[int]) -> torch.Tensor:
    """Logits of one document, written out head by head in float64."""
    spec, weights = model.spec, {n: p.double() for n, p in model.named_parameters()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        scale = (x.pow(2).mean(-1, keepdim=True) + spec.rms_norm_eps).rsqrt()
        return x * scale * weights[name + ".weight"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, weights[name + ".weight"], weights.get(name + ".bias"))

    half = spec.head_dim // 2
    exponent = torch.arange(half).double() / half
    angle = torch.arange(len(ids)).double()[:, None] * spec.rope_theta**-exponent

    def turn(x: torch.Tensor) -> torch.Tensor:
        a, b = x[:, :half], x[:, half:]
        return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), 1)

    x = weights["model.embed_tokens.weight"][ids]
    for i in range(spec.num_layers):
        at = f"model.layers.{i}"
        h = norm(x, f"{at}.input_layernorm")
        heads = []
        for n in range(spec.num_heads):
            group = n // (spec.num_heads // spec.num_kv_heads)
            own = slice(n * spec.head_dim, (n + 1) * spec.head_dim)
            shared = slice(group * spec.head_dim, (group + 1) * spec.head_dim)
            q = linear(h, f"{at}.self_attn.q_proj")[:, own]
            k = linear(h, f"{at}.self_attn.k_proj")[:, shared]
            v = linear(h, f"{at}.self_attn.v_proj")[:, shared]
            if spec.qk_norm:
                q, k = norm(q, f"{at}.self_attn.q_norm"), norm(k, f"{at}.self_attn.k_norm")
            q, k = turn(q), turn(k)
            out = torch.zeros_like(q)
            for t in range(len(ids)):
                window = spec.sliding_window if spec.slides(i) else None
                first = 0 if window is None else max(0, t - window + 1)
                scores = k[first : t + 1] @ q[t] / math.sqrt(spec.head_dim)
                out[t] = scores.softmax(0) @ v[first : t + 1]
            heads.append(out)
        x = x + linear(torch.cat(heads, 1), f"{at}.self_attn.o_proj")
        if spec.block == "serial":
            h = norm(x, f"{at}.post_attention_layernorm")
        gate = F.silu(linear(h, f"{at}.mlp.gate_proj"))
        x = x + linear(gate * linear(h, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj")
    head = "model.embed_tokens" if spec.tie_word_embeddings else "lm_head"
    return linear(norm(x, "model.norm"), head)


@families
def test_logits_are_those_of_the_formula(changes: dict[str, Any]) -> None:
    model, ids = small_model(2, **changes), some_ids(1, 12)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
        close(model(ids)[0], reference(model, ids[0].tolist()).float())


@families
@torch.no_grad()
def test_decoding_in_pieces_with_a_cache_is_decoding_at_once(changes: dict[str, Any]) -> None:
    model, ids = small_model(2, **changes), some_ids(2, 20)
    expected = model(ids)
    for pieces in ([20], [1] * 20, [7, 1, 1, 8, 3]):
        cache = model.new_cache(2, capacity=4)
        close(torch.cat([model(part, cache=cache) for part in ids.split(pieces, 1)], 1), expected)
        assert cache.length == 20


@families
@torch.no_grad()
def test_left_padded_rows_are_those_rows_alone(changes: dict[str, Any]) -> None:
    model, lengths = small_model(2, **changes), [14, 3, 9]
    ids = some_ids(3, 14)
    expected = [model(row[14 - n :][None])[0] for row, n in zip(ids, lengths, strict=True)]
    starts = torch.tensor([14 - n for n in lengths])
    cache = model.new_cache(3, capacity=14, starts=starts)
    found = torch.cat([model(part, cache=cache) for part in ids.split([10, 1, 3], 1)], 1)
    for row, n, logits in zip(found, lengths, expected, strict=True):
        close(row[14 - n :], logits)
    assert bool(torch.isfinite(found).all())


@torch.no_grad()
def test_a_longer_context_stretches_what_pre_training_has_not_seen() -> None:
    model = small_model()
    ids, before = some_ids(1, 16), small_model()
    model.extend_context(512)
    assert model.spec.max_positions == 512
    assert model.spec.rope_scaling == RopeScaling(
        kind="yarn", factor=2.0, original_max_positions=256
    )
    changed = DecoderLM(model.spec)
    changed.load_state_dict(model.state_dict())
    assert torch.equal(model(ids), changed(ids))
    assert not torch.equal(model(ids), before(ids))
    with pytest.raises(ConfigError, match="stretched already"):
        model.extend_context(1024)
    before.extend_context(256)
    assert before.spec.rope_scaling is None


@families
@torch.no_grad()
def test_packed_documents_are_those_documents_alone(changes: dict[str, Any]) -> None:
    model = small_model(2, **changes)
    rows = [[8, 1, 11], [20]]
    ids, documents = some_ids(2, 20), torch.zeros(2, 20, dtype=torch.int64)
    positions = torch.zeros_like(documents)
    for r, lengths in enumerate(rows):
        at = 0
        for number, n in enumerate(lengths):
            documents[r, at : at + n] = number
            positions[r, at : at + n] = torch.arange(n)
            at += n
    found = model(ids, position_ids=positions, document_ids=documents)
    for r, lengths in enumerate(rows):
        alone = [model(part[None])[0] for part in ids[r].split(lengths)]
        close(found[r], torch.cat(alone))


@torch.no_grad()
def test_neighbouring_rows_with_equal_numbers_are_different_documents() -> None:
    model, ids = small_model(2), some_ids(2, 6)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 2, 2]])
    found = model(ids, document_ids=documents)
    changed = ids.clone()
    changed[0, 3:] = 17
    assert torch.equal(model(changed, document_ids=documents)[1], found[1])


@pytest.mark.parametrize("block", ["serial", "parallel"])
def test_recomputing_blocks_gives_the_same_gradients(block: str) -> None:
    gradients = []
    for mode, every in (("none", 1), ("full", 1), ("selective", 1), ("full", 2), ("selective", 3)):
        model = small_model(2, num_layers=3, block=block).train()
        model.checkpointing = mode  # type: ignore[assignment]
        model.checkpoint_every = every
        model(some_ids(2, 9)).logsumexp(-1).sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        for other in gradients[1:]:
            # A parallel block that keeps attention alone takes its norm twice: one more rounding.
            tolerance = 0 if block == "serial" else 1e-5 * float(gradient.abs().max())
            torch.testing.assert_close(other[name], gradient, rtol=0, atol=tolerance)


@torch.no_grad()
def test_only_the_last_logits_are_computed_when_asked() -> None:
    model, ids = small_model(2), some_ids(2, 9)
    close(model(ids, logits_to_keep=2), model(ids)[:, -2:])


@torch.no_grad()
def test_bfloat16_packing_is_close_to_float32() -> None:
    model, ids = small_model(2), some_ids(1, 16)
    documents = (torch.arange(16) > 6).long()[None]
    expected = model(ids, document_ids=documents)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(ids, document_ids=documents)
    assert found.dtype == torch.bfloat16
    # Some ten roundings of 2^-9 each, on logits of size 1.
    assert float((found.float() - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize("window", [None, 3])
def test_the_mask_is_that_of_the_definition(window: int | None) -> None:
    starts, past, tokens = torch.tensor([0, 4]), 3, 5
    mask = attention_mask(past, tokens, starts, window, torch.device("cpu"))
    assert mask.shape == (2, 1, tokens, past + tokens)
    for row, start in enumerate(starts.tolist()):
        for t in range(tokens):
            for key in range(past + tokens):
                q = past + t
                seen = start <= key <= q and (window is None or q - key < window)
                assert bool(mask[row, 0, t, key]) == (seen or key == q)


@torch.no_grad()
def test_new_weights_have_the_deviation_asked_for_and_depend_on_the_seed() -> None:
    spec = small_spec(family="qwen2", hidden_size=128, vocab_size=1000, intermediate_size=512)
    model, same, other = DecoderLM(spec), DecoderLM(spec), DecoderLM(spec)
    for one, seed in ((model, 0), (same, 0), (other, 1)):
        one.init_weights(seed, std=0.05)
    assert float(model.model.embed_tokens.weight.std()) == pytest.approx(0.05, rel=0.02)
    down = model.get_parameter("model.layers.0.mlp.down_proj.weight")
    assert float(down.std()) == pytest.approx(0.05 / math.sqrt(2 * 2), rel=0.02)
    assert float(model.get_parameter("model.layers.1.self_attn.q_proj.bias").abs().max()) == 0
    assert bool((model.model.norm.weight == 1).all())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, same.get_parameter(name))
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)


def test_a_tied_head_is_the_embedding() -> None:
    tied, loose = small_model(), small_model(tie_word_embeddings=False)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert loose.lm_head.weight is not loose.model.embed_tokens.weight
