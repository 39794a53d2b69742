"""Passes over a batch of completions: their order, and gradients whatever is cut where."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from sharpen.align.batch import RolloutBatch
from sharpen.align.loop.iteration import Rollouts, steps_of
from sharpen.align.loop.objective import Objective, counts_of_sums
from sharpen.align.loop.waiting import idle
from sharpen.align.methods import find_method
from sharpen.align.options.methods import GRPOOptions
from sharpen.align.rows.batches import pad_rows
from sharpen.align.scoring import states_of
from sharpen.models.decoder import DecoderLM
from sharpen.serve.sampling import SamplingParams
from sharpen.train import StepWork
from small_models import small_model

NEW = 6


def batch_of(sizes: list[int]) -> RolloutBatch:
    """As many completions of each prompt, of different lengths."""
    random = torch.Generator().manual_seed(0)
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    prompts = torch.randint(3, 60, (len(sizes), 10), generator=random).tolist()
    completions = [
        torch.randint(3, 60, (1 + row % NEW,), generator=random).tolist()
        for row in range(len(groups))
    ]
    ids, text, actions = pad_rows(
        [(prompts[g], c, [True] * len(c)) for g, c in zip(groups, completions, strict=True)], 0
    )
    return RolloutBatch(
        input_ids=ids,
        attention_mask=text,
        action_mask=actions,
        logp_old=-4 * torch.rand(ids.shape, generator=random).double() * actions,
        reward=torch.zeros(len(groups)),
        group_id=torch.tensor(groups) + 40,
        finish_reason=["length"] * len(groups),
        meta=[{"row": row} for row in range(len(groups))],
        version=torch.zeros(len(groups), dtype=torch.int64),
        advantage=torch.randn(len(groups), 1, generator=random).double() * actions,
    )


def steps(
    batch: RolloutBatch, *, micro_batch: int = 8, seed: int = 0, **own: int
) -> list[StepWork]:
    rollouts = Rollouts(prompts=4, generations=4, sampling=SamplingParams(max_tokens=NEW), **own)
    return steps_of(
        batch, idle(batch), rollouts, name={"seed": seed}, micro_batch=micro_batch, longest=NEW
    )


def rows_of(parts: list[RolloutBatch]) -> list[int]:
    return [about["row"] for part in parts for about in part.meta]


@pytest.mark.parametrize("sizes", [[4, 4, 4, 4], [4, 1, 3, 4, 2]])
@pytest.mark.parametrize("minibatches", [1, 2, 3])
def test_completions_of_a_prompt_are_neighbours_in_every_pass(
    sizes: list[int], minibatches: int
) -> None:
    batch = batch_of(sizes)
    found = steps(batch, epochs=3, minibatches=minibatches)
    passes = [
        rows_of([part for step in found[at : at + minibatches] for part in step.batches])
        for at in range(0, len(found), minibatches)
    ]
    groups = batch.group_id.tolist()
    for rows in passes:
        assert sorted(rows) == list(range(len(batch)))
        borders = sum(groups[a] != groups[b] for a, b in pairwise(rows))
        assert borders == len(sizes) - 1
    assert len({tuple(rows) for rows in passes}) == 3
    own = steps(batch, epochs=3, minibatches=minibatches)  # as a run that goes on makes them
    assert [rows_of(one.batches) for one in own] == [rows_of(one.batches) for one in found]
    other = steps(batch, seed=1, epochs=3, minibatches=minibatches)
    assert [rows_of(one.batches) for one in other] != [rows_of(one.batches) for one in found]


def test_prompts_come_in_every_order() -> None:
    batch = batch_of([1, 2, 1])
    first = Counter(rows_of(steps(batch, seed=seed, epochs=2)[0].batches)[0] for seed in range(120))
    assert set(first) == {0, 1, 3}
    assert min(first.values()) > 20  # of 40 expected; below 1e-4 by chance


def test_a_prompt_is_computed_once_in_a_forward_pass() -> None:
    model = small_model().double()
    tokens = 0
    for step in steps(batch_of([4, 4, 4, 4]), epochs=1, minibatches=2):
        for part in step.batches:
            tokens += len(states_of(model, part, torch.float64).hidden)
    lengths = sum(1 + row % NEW for row in range(16))
    assert tokens == 4 * 10 + lengths


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_the_gradient_of_a_pass_is_that_of_all_rows_at_once(micro_batch: int) -> None:
    batch = batch_of([4, 1, 3, 4, 2])
    whole = steps(batch, micro_batch=len(batch), epochs=1)[0]
    assert len(whole.batches) == 1
    expected = gradient(whole)
    found = gradient(steps(batch, micro_batch=micro_batch, epochs=2)[1])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def gradient(step: StepWork) -> torch.Tensor:
    model: DecoderLM = small_model(std=0.2).requires_grad_(True).double()
    objective = Objective(model, find_method("grpo"), GRPOOptions(), dtype=torch.float64)
    scale = replace(counts_of_sums(step.counts, NEW), is_moving=True)
    for part in step.batches:
        objective(part, scale).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
