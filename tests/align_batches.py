"""Random batches of every kind, with log-probabilities to go with them, for tests of alignment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sharpen.align.batch import LabelBatch, PairBatch, RankBatch, RolloutBatch, RowBatch

VOCAB = 11


def sequences(rows: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Ids, text and action masks: a prompt, then a completion that may be empty, then padding."""
    columns = torch.arange(width)
    prompt = torch.randint(1, max(2, width // 2), (rows, 1), generator=generator)
    length = torch.randint(0, width, (rows, 1), generator=generator)
    length[0] = width  # one row fills the width
    text = columns < (prompt + length).clamp(max=width)
    ids = torch.randint(1, VOCAB, (rows, width), generator=generator) * text
    return {"input_ids": ids, "attention_mask": text, "action_mask": text & (columns >= prompt)}


def logp_of(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """[rows, width] log-probabilities, float64; the first column is 0."""
    found = -torch.rand(rows, width, generator=generator, dtype=torch.float64) * 2
    found[:, 0] = 0
    return found


def row_batch(rows: int, width: int, generator: torch.Generator) -> RowBatch:
    return RowBatch(**sequences(rows, width, generator))


def pair_batch(pairs: int, width: int, generator: torch.Generator) -> PairBatch:
    return PairBatch(
        **sequences(2 * pairs, width, generator),
        ref_logp=-5 * torch.rand(2 * pairs, generator=generator, dtype=torch.float64),
        margin=torch.rand(pairs, generator=generator, dtype=torch.float64),
    )


def label_batch(examples: int, width: int, generator: torch.Generator) -> LabelBatch:
    return LabelBatch(
        **sequences(2 * examples, width, generator),
        desirable=torch.rand(examples, generator=generator) < 0.6,
        ref_logp=-5 * torch.rand(2 * examples, generator=generator, dtype=torch.float64),
    )


def rank_batch(queries: int, width: int, generator: torch.Generator) -> RankBatch:
    sizes = torch.randint(1, 5, (queries,), generator=generator)
    rows = int(sizes.sum())
    return RankBatch(
        **sequences(rows, width, generator),
        # few values, so that some scores are equal
        scores=torch.randint(0, 4, (rows,), generator=generator).double() / 3,
        query_id=torch.arange(queries).repeat_interleave(sizes) + 7,
    )


def rollout_batch(
    rows: int, width: int, generator: torch.Generator, *, group: int = 2, **changes: Any
) -> RolloutBatch:
    """Rollouts whose log-probabilities, values and advantages are random."""
    shared = sequences(rows, width, generator)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn if len(shape) == 1 else drawn * shared["attention_mask"]

    fields: dict[str, Any] = {
        **shared,
        "logp_old": logp_of(rows, width, generator) * shared["attention_mask"],
        "ref_logp": logp_of(rows, width, generator) * shared["attention_mask"],
        "reward": normal(rows),
        "group_id": torch.arange(rows) // group,
        "finish_reason": [
            "length" if i % 3 == 1 or not bool(shared["action_mask"][i].any()) else "stop"
            for i in range(rows)
        ],
        "meta": [{"ground_truth": i % 2 == 0, "name": f"row {i}"} for i in range(rows)],
        "version": torch.zeros(rows, dtype=torch.int64),
        "values": normal(rows, width),
        "token_reward": normal(rows, width),
        "baseline_reward": normal(rows),
        "advantage": normal(rows, width),
        "returns": normal(rows, width),
    }
    return RolloutBatch(**{**fields, **changes})
