import math

import pytest
import torch

from sharpen.align.losses.base import Counts
from sharpen.align.losses.sft import SFTLossConfig, sft_loss
from sharpen.testing.align import logp_of, row_batch


def test_the_loss_is_the_mean_over_completion_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = row_batch(5, 8, generator)
    logp = logp_of(5, 8, generator)
    out = sft_loss(logp, batch)
    assert out.loss.item() == pytest.approx(-float(logp[batch.action_mask].mean()))
    total, tokens = out.metrics["nll"]
    assert total / tokens == pytest.approx(out.loss.item())


def test_the_mean_of_micro_batches_means_is_another_loss() -> None:
    """What counting first avoids: with unequal token numbers the two differ."""
    generator = torch.Generator().manual_seed(0)
    batch = row_batch(4, 8, generator)
    logp = logp_of(4, 8, generator)
    counts = Counts.of(batch)
    parts = [batch.select([row]) for row in range(4)]
    logps = [logp[row : row + 1, : part.width] for row, part in enumerate(parts)]
    added = sum(
        float(sft_loss(one, part, counts=counts).loss)
        for one, part in zip(logps, parts, strict=True)
    )
    averaged = sum(
        float(sft_loss(one, part).loss) / 4 for one, part in zip(logps, parts, strict=True)
    )
    whole = float(sft_loss(logp, batch).loss)
    assert added == pytest.approx(whole) and not math.isclose(averaged, whole, rel_tol=1e-3)


def test_all_examples_may_weigh_the_same() -> None:
    generator = torch.Generator().manual_seed(1)
    batch = row_batch(3, 8, generator)
    logp = logp_of(3, 8, generator)
    means = [
        -float(row[kept].mean()) if bool(kept.any()) else 0.0
        for row, kept in zip(logp, batch.action_mask, strict=True)
    ]
    found = sft_loss(logp, batch, SFTLossConfig(reduce="seq")).loss.item()
    assert found == pytest.approx(sum(means) / 3)
