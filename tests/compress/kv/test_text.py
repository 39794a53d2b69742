import pytest
import torch

from kv_reading import masked_logits, random_ids, read
from sharpen.compress.kv import (
    EvictionConfig,
    H2OPolicy,
    KeptText,
    KnormPolicy,
    SinksPolicy,
    SnapKVPolicy,
)
from sharpen.compress.kv.retention import compact
from sharpen.core.errors import ConfigError
from sharpen.models.decode import prepare_for_inference
from small_models import small_model

CONFIG = EvictionConfig(budget=12, chunk=8, stabilizers=4, local=5)
POLICIES = [KnormPolicy(CONFIG), H2OPolicy(CONFIG), SnapKVPolicy(CONFIG, window=3)]


def masks_of(policy, ids, prompt):
    """[layers][K] bool [T, T]: what each token sees, from the units kept at every border."""
    count = len(ids)
    masks = torch.zeros(2, 2, count, count, dtype=torch.bool)
    plan = policy.plan(prompt)
    border, kept = 0, [torch.empty(2, 0, dtype=torch.int32)] * 2
    text = KeptText(prepare_for_inference(small_model()), policy, prompt, new_tokens=count - prompt)
    for t in range(count):
        for layer in range(2):
            for head in range(2):
                masks[layer, head, t, kept[layer][head].long()] = True
                masks[layer, head, t, border : t + 1] = True
        text.read([ids[t]])
        if plan.next_border(t) == t + 1:
            border, kept = t + 1, [text.retention.positions(layer) for layer in range(2)]
    return masks


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("part_tokens", [512, 11])
def test_logits_are_those_of_full_attention_under_masks(policy, part_tokens):
    ids = random_ids(52)
    logits, _ = read(policy, ids, prompt=45, part_tokens=part_tokens)
    expected = masked_logits(small_model(), ids, masks_of(policy, ids, 45))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    plain, _ = read(None, ids)
    assert float((plain - expected).abs().max()) > 1e-2


def test_a_budget_that_holds_the_prompt_changes_no_bit():
    ids = random_ids(40)
    logits, text = read(SinksPolicy(EvictionConfig(budget=40, chunk=8)), ids, part_tokens=16)
    plain, _ = read(None, ids, part_tokens=16)
    assert text.retention is None
    assert torch.equal(logits, plain)


@pytest.mark.parametrize("prompt", [60, 63, 64, 65, 200])
def test_memory_is_the_budget_a_chunk_and_the_last_tokens(prompt):
    ids = random_ids(prompt)
    _, text = read(KnormPolicy(CONFIG), ids, block_size=1)
    unit = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, size, float32
    assert text.num_bytes <= (12 + 8 + 5) * unit
    assert text.num_bytes < prompt * unit


def test_more_tokens_than_announced_are_refused():
    text = KeptText(prepare_for_inference(small_model()), None, 3)
    text.read([5, 6])
    with pytest.raises(ConfigError, match="3 were announced"):
        text.read([7, 8])


def test_something_else_is_read_after_a_prompt():
    ids, one, other = random_ids(45), random_ids(4, 1), random_ids(6, 2)
    found = []
    for answers in ([one, other], [other]):
        model = prepare_for_inference(small_model())
        text = KeptText(model, POLICIES[1], 45, new_tokens=6)
        with pytest.raises(ConfigError, match="0 of 45"):
            text.rewind()
        text.read(ids)
        for answer in answers:
            text.rewind()
            last = text.read(answer, wanted=6)
        found.append(last)
    assert torch.equal(*found)


def test_kept_units_move_in_place_over_many_steps():
    generator = torch.Generator().manual_seed(0)
    units, kept_units, size = 1500, 1100, 16
    table = torch.randperm(100, generator=generator)
    keys = torch.randn(100, 2, size, 3, generator=generator)
    values = torch.randn(100, 2, size, 3, generator=generator)
    rows = [torch.randperm(units, generator=generator)[:kept_units].sort().values for _ in "ab"]
    kept = torch.stack(rows)

    def laid(buffer, count):
        return buffer[table].transpose(1, 2).reshape(-1, 2, 3)[:count].transpose(0, 1)

    expected = [
        laid(x, units).gather(1, kept[..., None].expand(-1, -1, 3)).clone() for x in (keys, values)
    ]
    compact((keys, values), table, kept)
    assert torch.equal(laid(keys, kept_units), expected[0])
    assert torch.equal(laid(values, kept_units), expected[1])
