from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.batch import Sequences
from sharpen.align.losses.base import (
    Counts,
    Reduce,
    add_metrics,
    aggregate,
    masked,
    mean_metrics,
    measured,
)
from sharpen.align.losses.reinforce import ReinforceConfig
from sharpen.align.losses.sft import SFTLossConfig
from sharpen.core.errors import ConfigError
from sharpen.testing.align import label_batch, pair_batch, rank_batch, rollout_batch, row_batch

KINDS: list[Callable[..., Sequences]] = [
    row_batch,
    pair_batch,
    label_batch,
    rank_batch,
    rollout_batch,
]


@pytest.mark.parametrize("kind", KINDS)
@given(examples=st.integers(1, 6), seed=st.integers(0, 50), data=st.data())
def test_counts_of_parts_add_up(
    kind: Callable[..., Sequences], examples: int, seed: int, data: st.DataObject
) -> None:
    batch = kind(examples, 7, torch.Generator().manual_seed(seed))
    parts = batch.split(data.draw(st.integers(1, examples)))
    total = Counts.of(parts[0])
    for part in parts[1:]:
        total = total + Counts.of(part)
    assert total == Counts.of(batch)


def test_the_four_denominators_on_a_case_by_hand() -> None:
    """Two completions of 1 and 3 tokens, losses 4 and 1, 1, 1, and a longest of 8."""
    batch = row_batch(2, 4, torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 1, 0, 0], [0, 1, 1, 1]], dtype=torch.bool)
    batch = replace(batch, action_mask=mask)
    values = torch.tensor([[9.0, 4.0, float("nan"), 9.0], [9.0, 1.0, 1.0, 1.0]])
    counts = Counts.of(batch, max_completion_length=8)
    expected: dict[Reduce, float] = {"sum": 7 / 2, "token": 7 / 4, "seq": 5 / 2, "dr": 7 / 16}
    for reduce, value in expected.items():
        assert aggregate(values, mask, reduce, counts).item() == pytest.approx(value)


@pytest.mark.parametrize("config", [SFTLossConfig, ReinforceConfig])
def test_another_denominator_is_refused(config: type) -> None:
    with pytest.raises(ConfigError, match=f"reduce='mean' .{config.__name__}. must be one of"):
        config(reduce="mean")


def test_tokens_of_a_generation_batch_replace_those_of_a_step() -> None:
    a = Counts.of(row_batch(2, 5, torch.Generator().manual_seed(0)))
    b = replace(Counts.of(row_batch(3, 5, torch.Generator().manual_seed(1))), generation_tokens=2.5)
    assert (a + a).generation_tokens is None
    assert (a + b).generation_tokens == a.tokens + 2.5


def test_nothing_leaks_from_masked_positions_into_gradients() -> None:
    values = torch.tensor([[1.0, float("inf")]], requires_grad=True)
    masked(values.exp(), torch.tensor([[True, False]])).sum().backward()
    assert values.grad is not None
    assert values.grad[0, 0].item() == pytest.approx(torch.e)
    assert masked(torch.tensor([float("nan")]), torch.tensor([False])).item() == 0.0


def test_metrics_add_and_have_means() -> None:
    found = measured({"a": (torch.tensor(3.0), 2), "b": (1.0, torch.tensor(0))})
    both = add_metrics([found, {"a": (1.0, 2.0)}])
    assert both == {"a": (4.0, 4.0), "b": (1.0, 0.0)}
    means = mean_metrics(both)
    assert means["a"] == 1.0 and means["b"] != means["b"]
    assert measured({}) == {}
