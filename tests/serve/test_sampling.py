import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.serve.draw import Draw, draw, truncate
from sharpen.serve.sampling import Sampler, SamplingParams, penalize


def reference(logits, temperature, top_k, top_p, min_p):
    """The filtered distribution by its definition, in float64 NumPy, as {id: probability}."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    q = np.exp(scaled - scaled.max())
    q /= q.sum()
    order = sorted(range(len(q)), key=lambda i: -q[i])
    if top_k:
        order = order[:top_k]
        q = q / q[order].sum()
    kept, total = [], 0.0
    for i in order:
        if top_p < 1 and total >= top_p:
            break
        kept.append(i)
        total += q[i]
    kept = [i for i in kept if q[i] >= min_p * q[kept[0]]]
    mass = sum(q[i] for i in kept)
    return {i: q[i] / mass for i in kept}


@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=40, unique=True),
    temperature=st.floats(0.1, 2),
    top_k=st.integers(0, 50),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
    min_p=st.one_of(st.just(0.0), st.floats(0.01, 1)),
)
def test_truncated_distribution_is_that_of_the_definition(logits, temperature, top_k, top_p, min_p):
    expected = reference(logits, temperature, top_k, top_p, min_p)
    settings = Draw(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    values, ids = truncate(torch.tensor([logits]), [settings])
    found = {
        token: value
        for token, value in zip(ids[0].tolist(), values[0].tolist(), strict=True)
        if value > 0
    }
    # A sum or a ratio may fall on the border by one rounding: then one token more or less.
    assert len(found.keys() ^ expected.keys()) <= 1
    if found.keys() == expected.keys():
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.9999])
def test_a_nucleus_wider_than_the_nearest_tokens_is_found(top_p):
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 0.1
    values, ids = truncate(logits[None], [Draw(temperature=1.0, top_p=top_p)])
    expected = reference(logits.numpy(), 1.0, 0, top_p, 0.0)
    assert len(expected) > 1024
    assert set(ids[values > 0].tolist()) == set(expected)
    assert float(values.sum()) == pytest.approx(1)


def test_draws_follow_the_distribution():
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
    params = SamplingParams(temperature=0.8, top_k=5, seed=7)
    sampler, count = Sampler(params), 6000
    drawn = Counter(sampler.choose(logits) for _ in range(count))
    expected = reference(logits.numpy(), 0.8, 5, 1.0, 0.0)
    assert drawn.keys() <= expected.keys()
    chi2 = sum((drawn[i] - count * p) ** 2 / (count * p) for i, p in expected.items())
    assert chi2 < 18.5  # the 0.1 % quantile's upper bound for 4 degrees of freedom


def test_same_seed_same_draws_and_each_choice_its_own():
    logits = torch.zeros(1000)

    def draws(seed, choice):
        sampler = Sampler(SamplingParams(seed=seed), choice=choice)
        return [sampler.choose(logits) for _ in range(8)]

    assert draws(1, 0) == draws(1, 0)
    assert draws(1, 0) != draws(1, 1)
    assert draws(1, 0) != draws(2, 0)
    assert draws(None, 0) != draws(None, 0)


def test_temperature_zero_takes_the_largest_after_penalties():
    sampler = Sampler(SamplingParams(temperature=0, presence_penalty=2.0))
    logits = torch.tensor([1.0, 0.5, -2.0])
    assert [sampler.choose(logits) for _ in range(3)] == [0, 1, 0]
    assert sampler.drawn() is None
    assert Sampler(SamplingParams(temperature=0)).drawn() == Draw()


def test_penalties_follow_their_formulas():
    logits = torch.tensor([2.0, -2.0, 1.0, 3.0, 0.0])
    params = SamplingParams(
        repetition_penalty=2.0,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        logit_bias={4: 7.0},
    )
    found = penalize(logits, [1], {0: 2, 3: 1}, params)
    expected = [2 / 2 - 0.5 - 0.25 * 2, -2 * 2, 1.0, 3 / 2 - 0.5 - 0.25, 7.0]
    assert found.tolist() == pytest.approx(expected)
    assert logits.tolist() == [2.0, -2.0, 1.0, 3.0, 0.0]


def test_blocked_tokens_wait_for_the_minimum():
    sampler = Sampler(SamplingParams(temperature=0, min_tokens=2), blocked=[0])
    logits = torch.tensor([5.0, 1.0])
    assert [sampler.drawn(i) is None for i in range(4)] == [True, True, False, False]
    assert [sampler.choose(logits) for _ in range(3)] == [1, 1, 0]
    assert sampler.drawn() == Draw()


def test_draws_ahead_are_those_that_follow():
    logits = torch.randn(500, generator=torch.Generator().manual_seed(0))
    sampler = Sampler(SamplingParams(seed=3, top_p=0.9, top_k=100))
    ahead = draw(logits.expand(8, -1), [sampler.drawn(i) for i in range(8)])
    assert ahead == [sampler.choose(logits) for _ in range(8)]


def test_tokens_noted_elsewhere_count():
    sampler = Sampler(SamplingParams(temperature=0, frequency_penalty=1.0))
    sampler.note(0)
    sampler.note(0)
    assert sampler.choose(torch.tensor([1.5, 0.0])) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("max_tokens", 0),
        ("min_tokens", 300),
        ("n", 0),
        ("logprobs", 21),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 3.0),
        ("frequency_penalty", -3.0),
        ("logit_bias", {1: 101.0}),
        ("stop", ""),
        ("stop", ("a", "")),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        SamplingParams(**{field: value})


def test_one_stop_text_may_stand_alone():
    assert SamplingParams(stop="end").stop == ("end",)
