"""RRHF: likelier completions should be the better ones, whoever wrote them.

Zheng Yuan et al., "RRHF: Rank Responses to Align Language Models with Human Feedback without
tears", NeurIPS 2023, arXiv 2304.05302, equations 1 to 4. For the candidates of one query, with s_i
the sum of log pi over the actions of candidate i and r_i its score::

    p_i    = s_i / |y_i|^k
    L_rank = sum_{i, j: r_i < r_j} max(0, p_i - p_j)
    L_ft   = -(s of the candidate with the highest score), summed or divided by its length
    L      = mean over queries of w L_rank + L_ft

Candidates of equal score are not compared; of several best ones the first is learnt. Only scores
and texts are needed: candidates may come from people, other models or the policy itself.

Differs from the paper: the released code divides p_i by the padded width of the query's candidates
(``length="padded"``: lengths are not normalized among them) and L_ft too (``padded_mean``). Both
are options, so that its numbers can be had; the default divides by the candidate's own length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharpen.align.batch import RankBatch
from sharpen.align.losses.base import Counts, LossOut, measured, sequence_sum
from sharpen.align.options.losses import RRHFConfig

__all__ = ["RRHFConfig", "rrhf_loss"]


def rrhf_loss(
    logp: Tensor,
    batch: RankBatch,
    config: RRHFConfig = RRHFConfig(),
    counts: Counts | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        logp: [N, T] log-probability of each token by the policy.
        batch: all candidates of some queries.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.
    """
    counts = counts or Counts.of(batch)
    query = batch.query_index()
    size = int(query[-1]) + 1 if len(query) else 0
    lengths = batch.completion_lengths.clamp(min=1)
    texts = batch.attention_mask.sum(1)
    widths = torch.zeros(size, dtype=texts.dtype, device=texts.device)
    widths = widths.scatter_reduce(0, query, texts, "amax").clamp(min=1)[query]
    sums = sequence_sum(logp, batch.action_mask)
    divisor = lengths if config.length == "completion" else widths
    scores = sums / divisor.to(sums.dtype) ** config.length_penalty
    compared = (query[:, None] == query) & (batch.scores[:, None] < batch.scores)
    gaps = torch.relu(scores[:, None] - scores).masked_fill(~compared, 0.0)
    rank_loss = gaps.sum() / max(1, counts.examples)
    best = _best_rows(batch.scores, query, size)
    divisors = {"mean": lengths, "sum": torch.ones_like(lengths), "padded_mean": widths}
    likelihood = -(sums / divisors[config.sft_reduce])[best]
    right = ((scores[:, None] < scores) & compared).sum()
    return LossOut(
        loss=config.rank_weight * rank_loss + likelihood.sum() / max(1, counts.examples),
        metrics=measured(
            {
                "rank_loss": (gaps.sum(), size),
                "sft_loss": (likelihood.sum(), size),
                "rank_accuracy": (right, compared.sum()),
            }
        ),
    )


def _best_rows(scores: Tensor, query: Tensor, size: int) -> Tensor:
    """[queries] the first row of each query that has its highest score."""
    highest = scores.new_zeros(size).scatter_reduce(0, query, scores, "amax", include_self=False)
    rows = torch.arange(len(scores), device=scores.device)
    candidates = torch.where(scores == highest[query], rows, len(scores))
    first = torch.full((size,), len(scores), device=scores.device)
    return first.scatter_reduce(0, query, candidates, "amin")
