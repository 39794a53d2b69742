"""The default size of a pass: the largest that divides the batch and has about 8,192 tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.config import AlignConfig, RewardConfig
from sharpen.align.options.methods import describe
from sharpen.align.passes import Lengths, default_micro_batch, pass_tokens


def config(method, **own):
    online = describe(method).online
    return AlignConfig(
        method=method, data="d", reward=RewardConfig(uses="x") if online else None, **own
    )


@pytest.mark.parametrize(
    ("method", "own", "lengths", "expected"),
    [
        ("sft", {"batch": 64}, Lengths(100, 412), 16),
        ("dpo", {"batch": 16}, Lengths(512, 256), 8),  # 8 (512 + 2 256): both texts share a prompt
        ("rrhf", {"batch": 16}, Lengths(512, 128), 8),
        ("grpo", {"batch": 16, "generations": 8}, Lengths(512, 256), 16),
        ("grpo", {"batch": 1, "generations": 8}, Lengths(20_000, 100), 1),
        ("ppo", {"batch": 16}, Lengths(512, 256), 8),
        ("sft", {"batch": 7}, Lengths(1, 4000), 1),  # 2 would fit and does not divide
    ],
)
def test_by_hand(method, own, lengths, expected):
    assert default_micro_batch(config(method, **own), describe(method), lengths) == expected


@given(
    method=st.sampled_from(["sft", "dpo", "rrhf", "ppo", "grpo"]),
    batch=st.integers(1, 60),
    draws=st.integers(2, 9),
    prompt=st.integers(0, 3000),
    completion=st.integers(1, 3000),
)
def test_no_larger_one_fits(method, batch, draws, prompt, completion):
    own = {"generations": draws} if method == "grpo" else {}
    described, lengths = describe(method), Lengths(prompt, completion)
    made = config(method, batch=batch, **own)
    size = default_micro_batch(made, described, lengths)
    assert made.completions % size == 0
    assert size == 1 or pass_tokens(made, described, lengths, size) <= 8192
    rows = {"dpo": 2, "rrhf": 4}.get(method, 1) * size
    tokens = pass_tokens(made, described, lengths, size)
    assert rows * completion + prompt * (size > 0) <= tokens <= rows * (prompt + completion)
    for larger in range(size + 1, made.completions + 1):
        if made.completions % larger == 0:
            assert pass_tokens(made, described, lengths, larger) > 8192
