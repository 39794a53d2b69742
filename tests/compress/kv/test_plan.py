import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.compress.kv import EvictionConfig
from sharpen.core.errors import ConfigError


def simulated(config, prompt, total):
    """Units in a head after each token, before and after units are dropped; and the borders."""
    last = prompt - config.local
    before, after, borders = [0], [0], []
    stored = 0
    for token in range(1, total + 1):
        stored += 1
        before.append(stored)
        if token <= last and last > config.budget:
            at_border = token == last or token % config.chunk_tokens == 0
            if at_border and stored > config.budget:
                stored = config.budget
                borders.append(token)
        after.append(stored)
    return before, after, borders


@given(
    budget=st.integers(2, 20),
    chunk=st.integers(1, 12),
    local=st.integers(1, 9),
    prompt=st.integers(1, 90),
    new=st.integers(0, 9),
    data=st.data(),
)
def test_a_plan_is_the_loop_over_tokens(budget, chunk, local, prompt, new, data):
    config = EvictionConfig(budget=budget, chunk=chunk, stabilizers=1, local=local)
    plan, total = config.plan(prompt), prompt + new
    before, after, borders = simulated(config, prompt, total)
    assert plan.evicts == bool(borders)
    for computed in range(total + 1):
        assert computed - plan.dropped(computed) == after[computed]
        following = [border for border in borders if border > computed]
        assert plan.next_border(computed) == (following[0] if following else None)
    start = data.draw(st.integers(0, total))
    end = data.draw(st.integers(start, total))
    assert plan.most(start, end) == max([*before[start + 1 : end + 1], after[end]])
    assert plan.most(0, prompt) <= budget + chunk + local


def test_defaults_are_the_papers():
    config = EvictionConfig()
    assert (config.budget, config.chunk_tokens, config.num_stabilizers) == (6000, 3072, 2500)
    assert config.local == 100
    assert not config.plan(100).evicts


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"budget": 0}, "budget=0"),
        ({"chunk": 0}, "chunk=0"),
        ({"local": 0}, "local=0"),
        ({"budget": 8, "stabilizers": 8}, "from 0 to 7"),
        ({"stabilizers": -1}, "stabilizers=-1"),
    ],
)
def test_settings_out_of_range_are_refused(fields, told):
    with pytest.raises(ConfigError, match=told):
        EvictionConfig(**fields)
