"""Signals of an alignment: which are drawn, and which are said to be out of bounds."""

import math
import re
from dataclasses import fields

import pytest

from sharpen.align.config import RewardConfig, SamplingConfig
from sharpen.align.health import PANELS, check_health
from sharpen.align.options.methods import DESCRIPTIONS
from sharpen.core.signals import Curve

HEALTHY = {
    "reward": [0.1, 0.5],
    "reward_std": [0.3, 0.2],
    "zero_std": [0.2, 0.4],
    "truncated": [0.1, 0.0],
    "dropped": [0.0, 0.05],
    "entropy": [1.0, 0.4],
    "kl_k3": [0.0, 0.08],
    "engine_gap": [1e-6, 1e-6],
    "clip_low": [0.1, 0.1],
    "clip_high": [0.1, 0.1],
    "explained_variance": [-0.5, 0.9],
    "generate_s": [1.0, 1.0],
    "reward_wait_s": [9.0, 0.1],
    "score_s": [0.5, 0.5],
    "learn_s": [2.0, 2.0],
    "accuracy": [0.0, 0.9],
    "reward_chosen": [0.0, 0.2],
    "logp_chosen": [-5.0, -4.0],
}


def curves(numbers):
    """Of ten equal values before the last ten."""
    return {
        name: Curve(list(range(20)), [first] * 10 + [last] * 10)
        for name, (first, last) in numbers.items()
    }


def test_a_healthy_run_needs_no_remark():
    assert check_health(curves(HEALTHY)) == []
    assert check_health({}) == []
    nothing = {name: Curve([1], [math.nan]) for name in HEALTHY}
    assert check_health(nothing) == []


@pytest.mark.parametrize(
    ("signal", "last", "told"),
    [
        ("zero_std", 0.9, "90% of the prompts"),
        ("truncated", 0.6, "60% of the completions were cut off"),
        ("dropped", 0.2, "reward.deadline_s"),
        ("entropy", 0.05, "from 1 to 0.05 nats"),
        ("kl_k3", 2.0, "2 nats a token away"),
        ("engine_gap", 0.1, "engine_dtype=same"),
        ("clip_high", 0.4, "50% of the tokens are clipped"),
        ("explained_variance", -0.2, "worse than their mean"),
        ("reward_wait_s", 3.5, "50% of the time"),
        ("accuracy", 0.3, "30% of the pairs"),
        ("reward_chosen", -3.0, "less likely than under the reference"),
    ],
)
def test_a_signal_out_of_bounds_is_told_with_what_to_do(signal, last, told):
    (remark,) = check_health(curves({**HEALTHY, signal: (HEALTHY[signal][0], last)}))
    assert remark.signal == signal
    assert told in remark.text


def test_rewards_without_spread_are_told_once():
    flat = {"reward": (0, 0.0), "reward_std": (0, 0.0)}
    (remark,) = check_health(curves(flat))
    assert "same reward (0)" in remark.text
    (remark,) = check_health(curves({**flat, "zero_std": (1, 1.0)}))
    assert remark.signal == "zero_std"


def test_the_first_batch_waits_for_the_workers_to_start_and_is_left_out():
    spent = {"reward_wait_s": [2.0, 0.1], "generate_s": [1.0, 1.0]}
    found = {name: Curve([1, 2], values) for name, values in spent.items()}
    assert check_health(found) == []


def test_what_remarks_name_as_remedies_are_settings():
    sick = {
        name: (1.0, -3.0 if name in ("explained_variance", "reward_chosen") else 0.0)
        for name in HEALTHY
    }
    high = ("zero_std", "truncated", "dropped", "kl_k3", "engine_gap", "clip_high")
    found = check_health(curves({**sick, **dict.fromkeys((*high, "reward_wait_s"), (1.0, 1.0))}))
    assert len(found) == 11
    named = re.findall(r"\b(options|reward|sampling)\.(\w+)", " ".join(one.text for one in found))
    known = {
        "options": {f.name for one in DESCRIPTIONS.values() for f in fields(one.options)},
        "reward": {f.name for f in fields(RewardConfig)},
        "sampling": {f.name for f in fields(SamplingConfig)},
    }
    assert len(named) > 10
    for part, name in named:
        assert name in known[part]


def test_a_number_stands_in_one_panel_only():
    names = [name for panel in PANELS for name in panel.lines]
    assert len(names) == len(set(names))
