"""Every loss under the shared tests: parts add up, padding is nothing, no action no gradient."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from torch import Tensor

from sharpen.align.losses.base import Counts, LossOut
from sharpen.align.losses.bcoder import BCoderConfig, bcoder_phi_loss, bcoder_theta_loss
from sharpen.align.losses.dpo import DPOConfig, dpo_loss
from sharpen.align.losses.grpo import GRPOLossConfig, grpo_loss
from sharpen.align.losses.kto import Divergence, KTOConfig, kto_divergence, kto_loss
from sharpen.align.losses.orpo import ORPOConfig, orpo_loss
from sharpen.align.losses.ppo import PPOLossConfig, ppo_loss
from sharpen.align.losses.reinforce import ReinforceConfig, reinforce_loss
from sharpen.align.losses.reward_model import RewardModelConfig, reward_model_loss
from sharpen.align.losses.rloo import RLOOConfig, rloo_loss
from sharpen.align.losses.rrhf import RRHFConfig, rrhf_loss
from sharpen.align.losses.sft import SFTLossConfig, sft_loss
from sharpen.testing.align import (
    LossConformance,
    label_batch,
    pair_batch,
    rank_batch,
    rollout_batch,
    row_batch,
)

REDUCE: Any = ("sum", "token", "seq", "dr")


class TestSFT(LossConformance):
    make_batch = staticmethod(row_batch)
    configs = tuple(SFTLossConfig(reduce=one) for one in REDUCE)

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return sft_loss(logp, batch, config, counts)


class TestRewardModel(LossConformance):
    make_batch = staticmethod(pair_batch)
    configs = (RewardModelConfig(), RewardModelConfig(centering=0.01))
    actions_alone = False

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        scores = logp.masked_fill(~batch.attention_mask, 0.0).sum(1)
        return reward_model_loss(scores, batch, config, counts)


class TestDPO(LossConformance):
    make_batch = staticmethod(pair_batch)
    configs = (
        *(DPOConfig(kind=one) for one in ("sigmoid", "ipo", "robust", "hinge")),
        DPOConfig(label_smoothing=0.1),
        DPOConfig(kind="robust", label_smoothing=0.1),
    )

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return dpo_loss(logp, batch, config, counts)


class TestKTO(LossConformance):
    make_batch = staticmethod(label_batch)
    configs = (KTOConfig(), KTOConfig(beta=1.0, desirable_weight=1.2))

    def statistic(self, parts: Sequence[tuple[Tensor, Any]]) -> Divergence:
        total = Divergence(total=0.0, count=0)
        for logp, batch in parts:
            total = total + kto_divergence(logp, batch)
        return total

    def loss(
        self, logp: Tensor, batch: Any, config: Any, counts: Counts, statistic: Any
    ) -> LossOut:
        return kto_loss(logp, batch, config, counts, divergence=statistic)


class TestORPO(LossConformance):
    make_batch = staticmethod(pair_batch)
    configs = (ORPOConfig(nll_on="completion"), ORPOConfig(nll_on="completion", weight=1.0))

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return orpo_loss(logp, batch, config, counts)


class TestORPOOnPrompts(TestORPO):
    configs = (ORPOConfig(),)
    actions_alone = False


class TestRRHF(LossConformance):
    make_batch = staticmethod(rank_batch)
    configs = tuple(
        RRHFConfig(length=length, sft_reduce=reduce, length_penalty=penalty)  # type: ignore[arg-type]
        for length, reduce, penalty in product(
            ("completion", "padded"), ("mean", "sum", "padded_mean"), (0.7, 1.0)
        )
    )

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return rrhf_loss(logp, batch, config, counts)


class TestReinforce(LossConformance):
    make_batch = staticmethod(rollout_batch)
    configs = tuple(ReinforceConfig(reduce=one) for one in REDUCE)

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return reinforce_loss(logp, batch, config, counts)


class TestPPO(LossConformance):
    make_batch = staticmethod(rollout_batch)
    configs = (PPOLossConfig(), PPOLossConfig(entropy_coef=0.01))

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return ppo_loss(logp, batch, config, counts, values=logp * 2, entropy=-logp * logp.exp())


class TestRLOO(LossConformance):
    make_batch = staticmethod(rollout_batch)
    configs = (RLOOConfig(), RLOOConfig(clip=0.1, clip_high=0.3))

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return rloo_loss(logp, batch, config, counts)


class TestGRPO(LossConformance):
    make_batch = staticmethod(rollout_batch)
    configs = tuple(
        GRPOLossConfig(aggregation=aggregation, ratio=ratio, beta=beta)  # type: ignore[arg-type]
        for aggregation, ratio, beta in product(
            ("grpo", "bnpo", "dr_grpo", "dapo", "cispo"), ("token", "sequence"), (0.0, 0.1)
        )
    )

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return grpo_loss(logp, batch, config, counts)


class TestBCoderPhi(LossConformance):
    make_batch = staticmethod(rollout_batch)
    configs = (BCoderConfig(), BCoderConfig(softabs="none", gamma=0.9))

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return bcoder_phi_loss(logp, batch, config, counts, advantage=-batch.values.abs())


class TestBCoderTheta(LossConformance):
    make_batch = staticmethod(rollout_batch)
    configs = tuple(
        BCoderConfig(imitation_reduce=reduce, operator=operator)  # type: ignore[arg-type]
        for reduce, operator in product(("seq", "sum"), ("conservative", "optimal"))
    )

    def loss(self, logp: Tensor, batch: Any, config: Any, counts: Counts, _: Any) -> LossOut:
        return bcoder_theta_loss(
            logp,
            batch,
            config,
            counts,
            advantage=logp / 2,
            raw_value=logp + 1,
            greedy_advantage=-batch.values.abs(),
        )
