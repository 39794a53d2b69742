"""The completions of an iteration: what the engine is asked, and the batch that it makes.

Seeds come from the run's seed, the prompt's place in the stream and the completion's number, so
that a run that goes on from a checkpoint generates what it would have generated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from sharpen.align.batch import RolloutBatch
from sharpen.align.engines import Engine, Generated
from sharpen.align.rows.batches import pad_rows
from sharpen.align.rows.tokens import TokenRow
from sharpen.core.config import digest
from sharpen.serve.sampling import SamplingParams

__all__ = ["CHECKED", "batch_of", "engine_gap", "generate"]

_log = logging.getLogger(__name__)
CHECKED = 2
"""Completions an iteration whose log-probabilities engine and trainer compare."""
_MISMATCH = 0.05


def generate(
    engine: Engine,
    prompts: Sequence[tuple[int, Sequence[int]]],
    sampling: SamplingParams,
    *,
    generations: int,
    seed: int,
    greedy: bool,
) -> tuple[list[Generated], list[Generated]]:
    """Completions of some prompts, of which the first tell log-probabilities.

    Args:
        engine: with the policy's weights.
        prompts: [P] the prompt's number in the stream, and its tokens.
        sampling: how; its seed and number are not used.
        generations: K, of each prompt.
        seed: of the run.
        greedy: one more of each prompt, in the same call.

    Returns:
        [P K], those of a prompt are neighbours; and [P] greedy ones, or none.
    """
    asked: list[Sequence[int]] = []
    params: list[SamplingParams] = []
    for sample, prompt in prompts:
        for k in range(generations):
            own = int(digest({"seed": seed, "sample": sample, "completion": k})[:15], 16)
            told = 0 if len(asked) < CHECKED else None
            asked.append(prompt)
            params.append(replace(sampling, seed=own, logprobs=told))
    count = len(asked)
    if greedy:
        asked += [prompt for _, prompt in prompts]
        params += [replace(sampling, temperature=0.0, top_k=0, top_p=1.0)] * len(prompts)
    found = engine.generate(asked, params)
    return found[:count], found[count:]


def batch_of(
    rows: Sequence[TokenRow],
    found: Sequence[Generated],
    groups: Sequence[int],
    *,
    version: int,
    pad_id: int,
) -> RolloutBatch:
    """Completions as a batch, log-probabilities and rewards still 0.

    Args:
        rows: [N] the prompt of each.
        found: [N] completions.
        groups: [N] equal for those of one prompt.
        version: of the weights that generated them.
        pad_id: what stands in padding.
    """
    sequences = [
        (row.prompt, one.token_ids, [True] * len(one.token_ids))
        for row, one in zip(rows, found, strict=True)
    ]
    ids, text, actions = pad_rows(sequences, pad_id)
    return RolloutBatch(
        input_ids=ids,
        attention_mask=text,
        action_mask=actions,
        logp_old=torch.zeros(ids.shape),
        reward=torch.zeros(len(rows)),
        group_id=torch.tensor(groups),
        finish_reason=[one.finish_reason for one in found],
        meta=[dict(row.row.meta) for row in rows],
        version=torch.full((len(rows),), version),
    )


def engine_gap(batch: RolloutBatch, found: Sequence[Generated]) -> tuple[float, float]:
    """The engine's log-probabilities of the first completions against the trainer's.

    Args:
        batch: at least those, with log-probabilities by the trainer.
        found: what the engine told of them.

    Returns:
        The sum of the distances and their number; a mean above 0.05 is warned of.
    """
    gaps: list[float] = []
    for row, one in zip(range(len(batch)), found, strict=False):
        own = batch.logp_old[row][batch.action_mask[row]].tolist()
        gaps += [abs(a - b) for a, b in zip(own, one.logprobs or [], strict=False)]
    if gaps and sum(gaps) / len(gaps) > _MISMATCH:
        _log.warning(
            "log-probabilities of the engine and the trainer differ by %.3g on average, %.3g at "
            "most: completions are not quite the policy's. Take one dtype for both.",
            sum(gaps) / len(gaps),
            max(gaps),
        )
    return sum(gaps), float(len(gaps))
