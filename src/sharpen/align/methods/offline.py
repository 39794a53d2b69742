"""Methods that learn from rows that are there: SFT, reward models, DPO, KTO, ORPO, RRHF."""

from __future__ import annotations

import torch

from sharpen.align.batch import LabelBatch, PairBatch, RankBatch, RowBatch
from sharpen.align.heads import add_score_head
from sharpen.align.losses.base import LossOut, text_mask
from sharpen.align.losses.dpo import DPOConfig, dpo_loss
from sharpen.align.losses.kto import KTOConfig, kto_loss
from sharpen.align.losses.orpo import ORPOConfig, orpo_loss
from sharpen.align.losses.reward_model import RewardModelConfig, reward_model_loss
from sharpen.align.losses.rrhf import RRHFConfig, rrhf_loss
from sharpen.align.losses.sft import SFTLossConfig, sft_loss
from sharpen.align.methods.base import Method, Policy, Scale, described
from sharpen.align.rows.batches import label_batch, pair_batch, rank_batch, row_batch

__all__ = ["METHODS", "good_half"]


def _sft(policy: Policy, batch: RowBatch, options: SFTLossConfig, scale: Scale) -> LossOut:
    return sft_loss(policy.logp(batch), batch, options, scale.counts)


def _reward_model(
    policy: Policy, batch: PairBatch, options: RewardModelConfig, scale: Scale
) -> LossOut:
    last = policy.states(batch).last(batch)
    scores = policy.model.score(last.float()).squeeze(-1)  # type: ignore[operator]
    return reward_model_loss(scores, batch, options, scale.counts)


def _dpo(policy: Policy, batch: PairBatch, options: DPOConfig, scale: Scale) -> LossOut:
    return dpo_loss(policy.logp(batch), batch, options, scale.counts)


def _kto(policy: Policy, batch: LabelBatch, options: KTOConfig, scale: Scale) -> LossOut:
    """The mismatched half takes part by its divergence only, so no pass is spent on it."""
    logp = policy.logp(good_half(batch))
    return kto_loss(
        torch.cat([logp, torch.zeros_like(logp)]),
        batch,
        options,
        scale.counts,
        divergence=scale.divergence,
    )


def _orpo(policy: Policy, batch: PairBatch, options: ORPOConfig, scale: Scale) -> LossOut:
    mask = batch.action_mask
    if options.nll_on == "all":
        mask = mask.clone()
        mask[: len(batch)] = text_mask(batch)[: len(batch)]
    return orpo_loss(policy.logp(batch, mask=mask), batch, options, scale.counts)


def _rrhf(policy: Policy, batch: RankBatch, options: RRHFConfig, scale: Scale) -> LossOut:
    return rrhf_loss(policy.logp(batch), batch, options, scale.counts)


def good_half(batch: LabelBatch, *, mismatched: bool = False) -> RowBatch:
    """Rows of prompts with their own completions, or with those of others."""
    half = slice(len(batch), None) if mismatched else slice(None, len(batch))
    return RowBatch(
        input_ids=batch.input_ids[half],
        attention_mask=batch.attention_mask[half],
        action_mask=batch.action_mask[half],
    )


def _preferences(name: str) -> Method:
    return Method(**described(name), loss=_dpo, build=pair_batch)


METHODS = (
    Method(**described("sft"), loss=_sft, build=row_batch),
    Method(**described("rm"), loss=_reward_model, build=pair_batch, add_heads=add_score_head),
    _preferences("dpo"),
    _preferences("ipo"),
    Method(**described("kto"), loss=_kto, build=label_batch),
    Method(**described("orpo"), loss=_orpo, build=pair_batch),
    Method(**described("rrhf"), loss=_rrhf, build=rank_batch),
)
