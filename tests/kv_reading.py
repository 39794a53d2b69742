"""Reading a text under a policy, and the same by full attention under masks of what was kept."""

import torch

from sharpen.compress.kv import KeptText
from sharpen.models.decode import prepare_for_inference
from sharpen.models.rope import Rope, apply_rope
from small_models import small_model


class Recorded:
    """A policy that notes what every head keeps at each border."""

    def __init__(self, policy):
        self._policy = policy
        self.ranks_by_border = {}

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def ranks(self, scores, border, *, last):
        ranks = self._policy.ranks(scores, border, last=last)
        self.ranks_by_border.setdefault(border, []).append(ranks.clone())
        return ranks


def random_ids(count, seed=0, vocab=304):
    return torch.randint(3, vocab, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def read(policy, ids, *, prompt=None, part_tokens=512, block_size=4, wanted=None, **changes):
    """Logits of the last tokens, and the text."""
    text = KeptText(
        prepare_for_inference(small_model(**changes)),
        policy,
        prompt or len(ids),
        new_tokens=len(ids) - (prompt or len(ids)),
        part_tokens=part_tokens,
        block_size=block_size,
    )
    return text.read(ids, wanted=wanted or len(ids)), text


def full_projections(model, ids):
    """Hidden states before every layer and its q, k, v, by plain attention under ``masks``."""
    return masked_logits(model, ids, None, return_projections=True)


def masked_logits(model, ids, masks, *, return_projections=False):
    """Logits [T, V] of a model whose layer l, key head h sees masks[l][h] [T, T]."""
    spec = model.spec
    count = len(ids)
    rope = Rope(spec)
    cos, sin = rope(torch.arange(count)[None], count, torch.float32)
    causal = torch.ones(count, count, dtype=torch.bool).tril()
    projections = []
    with torch.no_grad():
        x = model.model.embed_tokens(torch.tensor([ids]))
        for layer, block in enumerate(model.model.layers):
            attention = block.self_attn
            normed = block.input_layernorm(x)
            heads = (1, count, -1, spec.head_dim)
            flat = torch.cat([getattr(attention, f"{n}_proj")(normed) for n in "qkv"], -1)[0]
            q, k = (
                apply_rope(getattr(attention, f"{n}_proj")(normed).view(heads), cos, sin)
                for n in "qk"
            )
            v = attention.v_proj(normed).view(heads)
            projections.append((flat, q[0], k[0], v[0]))
            groups = spec.num_heads // spec.num_kv_heads
            out = torch.empty(count, spec.num_heads, spec.head_dim)
            for head in range(spec.num_heads):
                own = head // groups
                seen = causal if masks is None else masks[layer][own] & causal
                logits = q[0, :, head] @ k[0, :, own].T / spec.head_dim**0.5
                out[:, head] = logits.masked_fill(~seen, -torch.inf).softmax(-1) @ v[0, :, own]
            x = x + attention.o_proj(out.view(1, count, -1))
            x = x + block.mlp(block.post_attention_layernorm(x))
        if return_projections:
            return projections
        return model.lm_head(model.model.norm(x))[0]
