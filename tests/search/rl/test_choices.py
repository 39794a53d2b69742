from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from sharpen.core.collections import Permutation, Subset
from sharpen.core.conditions import Eq
from sharpen.core.parameters import Categorical, Fixed, Float, Int, Ordinal
from sharpen.core.space import Space, random_stream
from sharpen.search.rl.choices import Choices, in_order
from sharpen.search.rl.policy_gradient import DesignPolicy, RewardScale, agent_groups
from sharpen.testing.search import mixed_space

SPACE = Space(
    depth=Int(1, 8, log=True).active_if(Eq("kind", "b")),
    kind=Categorical("a", "b", "c", weights=[1, 9, 2]),
    x=Float(0, 1),
    size=Ordinal([1, 2, 4, 8]),
    version=Fixed(1),
    order=Permutation(3),
    chosen=Subset(2),
    wide=Int(0, 999),
)


def numbers(choices: Choices, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(1, choices.num_outputs)))


@pytest.mark.parametrize("ranges", ["bins", "beta"])
def test_probabilities_are_those_of_what_is_drawn(ranges: Any) -> None:
    choices = Choices(SPACE, 10, ranges)
    outputs = numbers(choices)
    flat, x = outputs.numpy()[0], np.full((4000, SPACE.dimensions), 0.5)
    rng = np.random.default_rng(1)
    for row in x:
        for i, choice in enumerate(choices.choices):
            part = flat[choices.starts[i] : choices.starts[i + 1]]
            row[choice.columns] = choices.draw(i, part, rng)
    actions = choices.actions(x)
    log_p = choices.log_prob(outputs, actions).numpy()
    entropy = choices.entropy(outputs).numpy()[0]
    for i, choice in enumerate(choices.choices):
        part = flat[choices.starts[i] : choices.starts[i + 1]]
        if choice.kind == "beta":
            a, b = 1 + np.logaddexp(0, part)
            law = scipy.stats.beta(a, b)
            np.testing.assert_allclose(log_p[:, i], law.logpdf(x[:, choice.columns.start]),
                                       rtol=1e-9, atol=1e-9)  # fmt: skip
            assert entropy[i] == pytest.approx(law.entropy(), rel=1e-9)
            assert scipy.stats.kstest(x[:, choice.columns.start], law.cdf).pvalue > 1e-3
            continue
        keys = [tuple(row) for row in np.round(x[:, choice.columns], 6)]
        if choice.kind == "bins":
            keys = [(int(u * choice.width),) for u in x[:, choice.columns.start]]
        seen = dict.fromkeys(keys, 0)
        for key in keys:
            seen[key] += 1
        total = 0.0
        for key, count in seen.items():
            p = float(np.exp(log_p[keys.index(key), i]))
            total += p
            assert count / 4000 == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 4000) + 1e-3)
        assert total == pytest.approx(1, abs=0.01)
        if choice.kind != "order":
            p = np.exp(part - part.max())
            p /= p.sum()
            assert entropy[i] == pytest.approx(-(p * np.log(p)).sum(), rel=1e-12)


def test_every_level_stands_for_a_value_and_is_found_again() -> None:
    choices = Choices(SPACE, 10)
    for i, choice in enumerate(choices.choices):
        if choice.kind not in ("values", "bins") or choice.name == "chosen":
            continue
        values = set()
        for level in range(choice.width):
            certain = np.where(np.arange(choice.width) == level, 50.0, 0.0)
            u = choices.draw(i, certain, np.random.default_rng(level))
            assert choices.level(choice, float(u[0])) == level
            values.add(SPACE[choice.name].decode(u))
        if choice.kind == "values":
            assert len(values) == SPACE[choice.name].cardinality


def test_parameters_come_after_those_they_depend_on() -> None:
    names = in_order(mixed_space())
    assert names.index("kind") < names.index("depth") < names.index("width")
    assert in_order(SPACE)[:2] == ["kind", "depth"]


def test_a_policy_that_sees_gives_what_it_draws_and_learns_the_same_probability() -> None:
    """The features it drew by are those that its trial is learnt from."""
    choices = Choices(SPACE, 10)
    groups = list(agent_groups(choices, "per_parameter").values())
    place = np.arange(len(groups))
    before = torch.from_numpy((place[None] < place[:, None]).astype(float))
    policy = DesignPolicy(choices, groups, (16,), random_stream(3, 0))
    sees = choices.spread(before @ policy.member.T)
    policy = DesignPolicy(choices, groups, (16,), random_stream(3, 0), sees)
    for w in policy.networks.weights:
        torch.nn.init.normal_(w, generator=torch.Generator().manual_seed(1))
    x = policy.draw([random_stream(1, n) for n in range(3000)])
    encoded = SPACE.encode(SPACE.decode(x))
    active = choices.active(encoded.mask)
    actions = choices.actions(x)
    outputs = policy.outputs(actions.features * choices.spread(active))
    log_p = (choices.log_prob(outputs, actions) * active).detach().numpy()
    # Depth is drawn by what kind was: its frequency given the kind is its probability given it.
    kind, depth = (
        next(i for i, c in enumerate(choices.choices) if c.name == name)
        for name in ("kind", "depth")
    )
    rows = [r for r, config in enumerate(SPACE.decode(x)) if config["kind"] == "b"]
    assert len(rows) > 100
    counts = np.zeros(8)
    for r in rows:
        counts[SPACE.decode(x[r][None])[0]["depth"] - 1] += 1
    for r in rows[:20]:
        p = float(np.exp(log_p[r, depth]))
        seen = counts[SPACE.decode(x[r][None])[0]["depth"] - 1] / len(rows)
        assert seen == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / len(rows)) + 1e-3)
    inactive = [r for r in range(len(x)) if r not in set(rows)]
    assert (log_p[inactive, depth] == 0).all()
    assert (log_p[:, kind] < 0).all()


def test_rewards_are_standardized_by_all_losses_so_far() -> None:
    scale, rng = RewardScale(), np.random.default_rng(0)
    losses = rng.normal(5, 3, size=90)
    for part in np.split(losses, [1, 7, 50]):
        keys = np.stack([np.zeros(len(part)), part], axis=1)
        scale.add(keys)
    expected = (losses.mean() - part) / losses.std()
    np.testing.assert_allclose(scale.rewards(keys), expected, rtol=1e-12)
    worst = (losses.mean() - losses.max()) / losses.std()
    found = scale.rewards(np.array([[1.0, 1.0], [1.0, 1e9], [2.0, 0.0]]))
    np.testing.assert_allclose(found, [worst - 1.5, worst - 2, worst - 2], rtol=1e-8)
    assert RewardScale().rewards(np.array([[2.0, 0.0]])).tolist() == [-2.0]


def test_a_constant_that_is_inactive_decides_nothing() -> None:
    space = Space(
        kind=Categorical("a", "b"),
        mode=Fixed("on").active_if(Eq("kind", "b")),
        n=Int(1, 4).active_if(Eq("mode", "on")),
    )
    choices = Choices(space)
    policy = DesignPolicy(
        choices, [[0], [1]], (4,), random_stream(0, 0), torch.zeros(2, choices.num_features)
    )
    x = policy.draw([random_stream(1, k) for k in range(200)])
    for row, config in zip(x, space.decode(x), strict=True):
        assert ("n" in config) == (config["kind"] == "b")
        assert config["kind"] == "b" or row[space.columns["n"]][0] == 0.5
    assert len({config["n"] for config in space.decode(x) if "n" in config}) == 4
