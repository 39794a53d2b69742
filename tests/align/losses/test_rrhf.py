from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.losses.base import mean_metrics
from sharpen.align.losses.rrhf import RRHFConfig, rrhf_loss
from sharpen.core.errors import ConfigError
from sharpen.testing.align import logp_of, rank_batch


@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 0.7, 1.0]),
    length=st.sampled_from(["completion", "padded"]),
    reduce=st.sampled_from(["mean", "sum", "padded_mean"]),
    weight=st.sampled_from([1.0, 100.0]),
)
def test_the_loss_is_a_double_loop(
    seed: int,
    queries: int,
    penalty: float,
    length: Literal["completion", "padded"],
    reduce: Literal["mean", "sum", "padded_mean"],
    weight: float,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = rank_batch(queries, 7, generator)
    logp = logp_of(batch.num_rows, 7, generator)
    total, index = 0.0, batch.query_index().tolist()
    for query in range(queries):
        rows = [row for row, one in enumerate(index) if one == query]
        width = max(int(batch.attention_mask[row].sum()) for row in rows)
        sums = {row: float(logp[row][batch.action_mask[row]].sum()) for row in rows}
        sizes = {row: max(1, int(batch.action_mask[row].sum())) for row in rows}
        p = {
            row: sums[row] / (sizes[row] if length == "completion" else width) ** penalty
            for row in rows
        }
        for i in rows:
            for j in rows:
                if batch.scores[i] < batch.scores[j]:
                    total += weight * max(0.0, p[i] - p[j])
        best = max(rows, key=lambda row: (float(batch.scores[row]), -row))
        total -= sums[best] / {"mean": sizes[best], "sum": 1, "padded_mean": width}[reduce]
    config = RRHFConfig(
        rank_weight=weight, length_penalty=penalty, length=length, sft_reduce=reduce
    )
    assert rrhf_loss(logp, batch, config).loss.item() == pytest.approx(total / queries, rel=1e-9)


def test_candidates_in_the_right_order_are_only_learnt() -> None:
    drawn = (rank_batch(1, 7, torch.Generator().manual_seed(seed)) for seed in range(20))
    batch = next(one for one in drawn if one.num_rows > 2)
    rows = batch.num_rows
    order = torch.arange(rows, dtype=torch.float64)
    right = type(batch)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        action_mask=batch.attention_mask & (torch.arange(7) > 0),
        scores=order,
        query_id=batch.query_id,
    )
    logp = (order - rows)[:, None].expand(rows, 7).contiguous()
    means = mean_metrics(rrhf_loss(logp, right).metrics)
    assert means["rank_loss"] == 0 and means["rank_accuracy"] == 1
    means = mean_metrics(rrhf_loss(logp.flip(0), right).metrics)
    assert means["rank_loss"] > 0 and means["rank_accuracy"] == 0


def test_bad_options_are_refused() -> None:
    for wrong in ({"rank_weight": -1.0}, {"length": "text"}, {"sft_reduce": "max"}):
        with pytest.raises(ConfigError, match="RRHFConfig"):
            RRHFConfig(**wrong)  # type: ignore[arg-type]
