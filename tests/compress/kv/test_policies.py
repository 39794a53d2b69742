import pytest
import torch

from kv_reading import Recorded, full_projections, random_ids, read
from sharpen.compress.kv import (
    EvictionConfig,
    H2OPolicy,
    KnormPolicy,
    SinksPolicy,
    SnapKVPolicy,
    WindowPolicy,
    select,
)
from sharpen.core.errors import ConfigError
from small_models import small_model, small_spec

CONFIG = EvictionConfig(budget=12, chunk=8, stabilizers=4, local=5)
IDS = random_ids(45)
POLICIES = {
    "window": WindowPolicy(CONFIG),
    "sinks": SinksPolicy(CONFIG, sinks=3),
    "knorm": KnormPolicy(CONFIG),
    "h2o": H2OPolicy(CONFIG, recent=0.5),
    "snapkv": SnapKVPolicy(CONFIG, window=3, kernel=3),
}


def simulated(name, q, k, head):
    """Positions kept by key head ``head`` of the first layer, token by token."""
    plan, groups = CONFIG.plan(len(IDS)), q.shape[1] // k.shape[1]
    stored, scores, weights = [], {}, []
    for t in range(plan.last_border):
        stored.append(t)
        norm = round(float(k[t, head].norm()) * 1024) / 1024
        scores[t] = {"window": t, "sinks": 999 if t < 3 else t, "knorm": -norm}
        scores[t] = float(scores[t].get(name, 0.0))
        keys = torch.stack([k[s, head] for s in stored])
        row = torch.zeros(len(IDS))
        for g in range(groups):
            logits = keys @ q[t, head * groups + g] / q.shape[-1] ** 0.5
            row[stored] += logits.softmax(0)
        weights.append(row)
        if name == "h2o":
            for s in stored:
                scores[s] += float(row[s])
        if plan.next_border(t) != t + 1:
            continue
        last = t + 1 == plan.last_border
        always = 0 if last else 4
        ranks = [scores[s] for s in stored]
        if name == "h2o":
            always = max(always, 6)
        if name == "snapkv":
            always = max(always, 3)
            begin = max(t - 2, (t // 8) * 8)  # queries of this chunk only
            votes = [float(sum(weights[i][s] for i in range(begin, t + 1))) for s in stored[:-3]]
            padded = [0.0, *votes, 0.0]
            ranks = [sum(padded[i : i + 3]) / 3 for i in range(len(votes))] + [0.0] * 3
        for i in range(always):
            ranks[-1 - i] = 9e9
        order = sorted(range(len(stored)), key=lambda i: (ranks[i], i))
        stored = sorted(stored[i] for i in order[-12:])
    return stored


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("part_tokens", [512, 3])
def test_kept_units_are_those_of_the_rule_written_out(name, part_tokens):
    q, k = full_projections(small_model(), IDS)[0][1:3]
    _, text = read(POLICIES[name], IDS, part_tokens=part_tokens)
    kept = text.retention.positions(0)
    assert kept.shape == (2, 12)
    for head in range(2):
        assert kept[head].tolist() == simulated(name, q, k, head)


@pytest.mark.parametrize("name", ["knorm", "h2o", "snapkv"])
def test_heads_keep_units_of_their_own(name):
    _, text = read(POLICIES[name], IDS)
    rows = {
        tuple(text.retention.positions(layer)[head].tolist())
        for layer in range(2)
        for head in range(2)
    }
    assert len(rows) == 4


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_kept_does_not_depend_on_what_follows(name):
    other = IDS[:24] + random_ids(21, seed=9)
    found = []
    for ids in (IDS, other):
        policy = Recorded(POLICIES[name])
        read(policy, ids)
        found.append(policy.ranks_by_border[24])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [n for n, p in POLICIES.items() if p.is_causal])
def test_scores_of_a_causal_policy_never_change(name):
    """The score of a unit at its first border is that at every later one."""
    policy = Recorded(POLICIES[name])
    policy.config = EvictionConfig(budget=12, chunk=8, stabilizers=0, local=5)
    policy._policy.config, old = policy.config, policy._policy.config
    try:
        read(policy, IDS)
    finally:
        policy._policy.config = old
    first, second = (policy.ranks_by_border[border][0] for border in (16, 24))
    kept = select(first, 12)
    torch.testing.assert_close(second[:, :12], first.gather(1, kept), rtol=0, atol=0)


def test_of_equal_units_the_newer_stay():
    assert select(torch.zeros(2, 5), 2).tolist() == [[3, 4], [3, 4]]


def test_models_with_sliding_windows_are_refused():
    with pytest.raises(ConfigError, match="sliding window"):
        WindowPolicy(CONFIG).check(small_spec(sliding_window=8))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: SinksPolicy(CONFIG, sinks=9), "from 1 to 8"),
        (lambda: H2OPolicy(CONFIG, recent=1.0), "recent=1.0"),
        (lambda: SnapKVPolicy(CONFIG, window=12), "from 1 to 8"),
        (lambda: SnapKVPolicy(CONFIG, window=4, kernel=2), "kernel=2"),
    ],
)
def test_settings_out_of_range_are_refused(make, told):
    with pytest.raises(ConfigError, match=told):
        make()
