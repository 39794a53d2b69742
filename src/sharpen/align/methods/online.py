"""Methods that learn from their own completions: ReMax, RLOO, GRPO, PPO, rejection sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from sharpen.align import advantages
from sharpen.align.advantages import Baseline, KLReturn, Moments
from sharpen.align.batch import RolloutBatch
from sharpen.align.heads import add_critic
from sharpen.align.kl import AdaptiveKL
from sharpen.align.losses.base import LossOut, Metrics
from sharpen.align.losses.grpo import GRPOLossConfig, grpo_loss
from sharpen.align.losses.ppo import PPOLossConfig, ppo_loss
from sharpen.align.losses.reinforce import ReinforceConfig, reinforce_loss
from sharpen.align.losses.rloo import RLOOConfig, rloo_loss
from sharpen.align.methods.base import Estimation, Method, Policy, Scale
from sharpen.align.scoring import values_of
from sharpen.core.errors import ConfigError

__all__ = ["METHODS", "GRPOOptions", "PPOOptions", "RFTOptions", "RLOOOptions", "ReMaxOptions"]

_EMA = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class ReMaxOptions(ReinforceConfig):
    """Options of ReMax and, by its baseline, of other policy gradients."""

    baseline: Baseline = "greedy"
    """What a reward is compared with: that of the prompt's greedy completion (ReMax), the mean of
    its other completions, the batch's mean, a running mean, or nothing."""
    beta: float = 0.05
    """Weight of the KL penalty in the reward; 0 needs no reference."""
    gamma: float = 1.0
    """Discount of a token."""
    clip: float | None = None
    """Differences of rewards are kept within ± this."""
    kl_return: KLReturn = "to_go"
    """Whether a token pays for the divergence of those after it, or for its own alone."""
    preset: Literal["paper"] | None = None
    """``paper``: gamma 0.99, clip 5, ``step`` and ``token``, as in the released code."""

    def __post_init__(self) -> None:
        if self.preset == "paper":
            for name, value in {**advantages.REMAX_PAPER, "reduce": "token"}.items():
                object.__setattr__(self, name, value)
        ReinforceConfig.__post_init__(self)
        if self.beta < 0 or not 0 < self.gamma <= 1 or (self.clip is not None and self.clip <= 0):
            raise ConfigError(
                f"beta={self.beta} must be at least 0, gamma={self.gamma} above 0 and at most 1, "
                f"clip={self.clip} above 0 or null (remax)."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RLOOOptions(RLOOConfig):
    """Options of RLOO."""

    beta: float = 0.05
    """Weight of the KL penalty in the reward; 0 needs no reference."""
    normalize: bool = False
    """Shift and scale advantages over the batch."""

    def __post_init__(self) -> None:
        RLOOConfig.__post_init__(self)
        if self.beta < 0:
            raise ConfigError(f"beta={self.beta} must be at least 0 (rloo).")


@dataclass(frozen=True, kw_only=True, slots=True)
class GRPOOptions(GRPOLossConfig):
    """Options of GRPO."""

    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What a reward's distance from its group's mean is divided by."""
    mask_truncated: bool = False
    """Completions that were cut off teach nothing."""
    drop_zero_std: bool = False
    """Groups whose rewards are all equal take no part, not even in the denominators (DAPO)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOOptions(PPOLossConfig):
    """Options of PPO."""

    beta: float = 0.05
    """Weight of the KL penalty in the reward; 0 needs no reference."""
    kl_target: float | None = None
    """Nats of a completion that the weight is adapted to; null keeps it."""
    gamma: float = 1.0
    """Discount of a token."""
    trace: float = 0.95
    """Lambda of the generalized advantage estimate."""
    reward_clip: float | None = None
    """Rewards are kept within ± this."""
    whiten_rewards: bool = False
    """Scale token rewards to variance 1, their mean kept."""
    missing_eos_penalty: float = 0.0
    """Taken off the reward of completions that were cut off."""

    def __post_init__(self) -> None:
        PPOLossConfig.__post_init__(self)
        if self.beta < 0 or not 0 < self.gamma <= 1 or not 0 <= self.trace <= 1:
            raise ConfigError(
                f"beta={self.beta} must be at least 0, gamma={self.gamma} above 0 and at most 1, "
                f"trace={self.trace} from 0 to 1 (ppo)."
            )
        if self.kl_target is not None and (self.kl_target <= 0 or not self.beta):
            raise ConfigError(f"kl_target={self.kl_target} must be above 0, and so must beta.")


@dataclass(frozen=True, kw_only=True, slots=True)
class RFTOptions:
    """Options of rejection-sampling fine-tuning."""

    threshold: float | None = None
    """Least reward of a completion that is learnt; null learns the best of every prompt."""


def _kl(batch: RolloutBatch) -> torch.Tensor | None:
    if batch.ref_logp is None:
        return None
    return advantages.kl_penalty(batch.logp_old, batch.ref_logp, batch.action_mask)


def _remax(batch: RolloutBatch, options: ReMaxOptions, estimation: Estimation) -> RolloutBatch:
    ema = None
    if options.baseline == "ema":
        found = estimation.total(_moments(batch))
        ema = estimation.state.get("reward_ema", found.mean)
        estimation.state["reward_ema"] = _EMA * ema + (1 - _EMA) * found.mean
    difference = batch.reward - advantages.baseline_of(
        options.baseline,
        batch.reward,
        group_id=batch.group_id,
        greedy_reward=batch.baseline_reward,
        ema=ema,
        total=estimation.total,
    )
    if options.clip is not None:
        difference = difference.clamp(-options.clip, options.clip)
    spread = advantages.spread(
        difference,
        batch.action_mask,
        kl=_kl(batch),
        beta=options.beta,
        gamma=options.gamma,
        kl_return=options.kl_return,
    )
    return replace(batch, advantage=spread)


def _rloo(batch: RolloutBatch, options: RLOOOptions, estimation: Estimation) -> RolloutBatch:
    found = advantages.rloo(
        batch.reward,
        batch.group_id,
        kl=_kl(batch),
        beta=options.beta,
        normalize=options.normalize,
        total=estimation.total,
    )
    return replace(batch, advantage=advantages.spread(found, batch.action_mask))


def _grpo(batch: RolloutBatch, options: GRPOOptions, estimation: Estimation) -> RolloutBatch:
    flat = advantages.zero_std(batch.reward, batch.group_id)
    estimation.metrics["zero_std"] = (float(flat.sum()), len(flat))
    found = advantages.grpo(
        batch.reward, batch.group_id, scale=options.scale_rewards, total=estimation.total
    )
    batch = replace(batch, advantage=advantages.spread(found, batch.action_mask))
    if options.mask_truncated:
        batch = batch.without_truncated()
    if options.drop_zero_std:
        anywhere = estimation.total(advantages.moments((~flat).float(), torch.ones_like(flat)))
        if anywhere.total:  # otherwise all stay, since a step needs tokens
            batch = _chosen(batch, (~flat).nonzero().squeeze(1).tolist())
    return batch


def _ppo(batch: RolloutBatch, options: PPOOptions, estimation: Estimation) -> RolloutBatch:
    assert batch.values is not None
    mask, kl = batch.action_mask, _kl(batch)
    beta = estimation.state.get("beta", options.beta)
    if kl is not None and options.kl_target is not None:
        found = estimation.total(advantages.moments(kl.sum(1), torch.ones_like(mask[:, 0])))
        control = AdaptiveKL(beta=beta, target=options.kl_target)
        estimation.state["beta"] = control.updated(found.mean, int(found.count)).beta
        estimation.metrics["beta"] = (beta, 1.0)
    reward = batch.reward
    if options.missing_eos_penalty:
        reward = advantages.missing_eos_penalty(
            reward, batch.truncated, options.missing_eos_penalty
        )
    rewards = advantages.token_rewards(
        reward, mask, kl=kl, beta=beta, clip=options.reward_clip, extra=batch.token_reward
    )
    if options.whiten_rewards:
        over = estimation.total(advantages.moments(rewards, mask))
        rewards = advantages.whiten_rewards(rewards, mask, over=over)
    made = advantages.gae(rewards, batch.values, mask, gamma=options.gamma, trace=options.trace)
    spread = estimation.total(advantages.moments(made.returns, mask))
    errors = estimation.total(advantages.moments(made.advantage, mask))
    explained = 1 - errors.variance / spread.variance if spread.variance else 0.0
    estimation.metrics["explained_variance"] = (explained, 1.0)
    whitened = advantages.whiten(made.advantage, mask, over=errors)
    return replace(batch, advantage=whitened, returns=made.returns)


def _rft(batch: RolloutBatch, options: RFTOptions, estimation: Estimation) -> RolloutBatch:
    """The best of each prompt, if it is good enough, and once."""
    kept: list[int] = []
    seen: set[tuple[int, ...]] = set()
    for group in dict.fromkeys(batch.group_id.tolist()):
        rows = (batch.group_id == group).nonzero().squeeze(1)
        best = int(rows[batch.reward[rows].argmax()])
        text = tuple(batch.input_ids[best][batch.attention_mask[best]].tolist())
        good = options.threshold is None or float(batch.reward[best]) >= options.threshold
        if good and text not in seen:
            kept.append(best)
            seen.add(text)
    estimation.metrics["kept"] = (len(kept), batch.num_rows)
    return _chosen(replace(batch, advantage=batch.action_mask.to(batch.logp_old.dtype)), kept)


def _chosen(batch: RolloutBatch, rows: list[int]) -> RolloutBatch:
    """Some rows; of none, one without actions: other ranks may have some."""
    if rows:
        return batch.select(rows)
    return replace(batch.select([0]), action_mask=torch.zeros_like(batch.action_mask[:1]))


def _moments(batch: RolloutBatch) -> Moments:
    return advantages.moments(batch.reward, torch.ones_like(batch.reward, dtype=torch.bool))


def _scored(
    policy: Policy, batch: RolloutBatch, scale: Scale
) -> tuple[torch.Tensor, RolloutBatch, Metrics]:
    """Log-probabilities, and the batch with the old ones, which may be the same."""
    if not scale.on_policy:
        return policy.logp(batch), batch, {}
    logp, entropy = policy.logp_and_entropy(batch)
    told = {"entropy": (float(entropy.sum()), float(batch.action_mask.sum()))}
    return logp, replace(batch, logp_old=logp.detach()), told


def _told(found: LossOut, metrics: Metrics) -> LossOut:
    return LossOut(loss=found.loss, metrics=found.metrics | metrics)


def _reinforce_loss(
    policy: Policy, batch: RolloutBatch, options: ReMaxOptions, scale: Scale
) -> LossOut:
    logp, batch, told = _scored(policy, batch, scale)
    return _told(reinforce_loss(logp, batch, options, scale.counts), told)


def _rloo_loss(policy: Policy, batch: RolloutBatch, options: RLOOOptions, scale: Scale) -> LossOut:
    logp, batch, told = _scored(policy, batch, scale)
    return _told(rloo_loss(logp, batch, options, scale.counts), told)


def _grpo_loss(policy: Policy, batch: RolloutBatch, options: GRPOOptions, scale: Scale) -> LossOut:
    logp, batch, told = _scored(policy, batch, scale)
    return _told(grpo_loss(logp, batch, options, scale.counts), told)


def _rft_loss(policy: Policy, batch: RolloutBatch, options: RFTOptions, scale: Scale) -> LossOut:
    logp, batch, told = _scored(policy, batch, scale)
    return _told(reinforce_loss(logp, batch, ReinforceConfig(reduce="token"), scale.counts), told)


def _ppo_loss(policy: Policy, batch: RolloutBatch, options: PPOOptions, scale: Scale) -> LossOut:
    model, entropy = policy.model, None
    if options.entropy_coef:
        logp, entropy = policy.logp_and_entropy(batch, gradient=True)
    else:
        logp = policy.logp(batch)
    critic = replace(policy, model=model.critic).states(batch)  # type: ignore[arg-type]
    values = values_of(model.critic_head, critic, batch.action_mask)  # type: ignore[arg-type]
    return ppo_loss(logp, batch, options, scale.counts, values=values, entropy=entropy)


def _beta(options: ReMaxOptions | RLOOOptions | GRPOOptions | PPOOptions) -> bool:
    return options.beta > 0


METHODS = (
    Method(
        name="remax",
        title="ReMax: policy gradient with a greedy baseline",
        kind="prompt",
        options=ReMaxOptions,
        loss=_reinforce_loss,
        estimate=_remax,
        reference=_beta,
        greedy=lambda options: options.baseline == "greedy",
        lr=1e-6,
    ),
    Method(
        name="rloo",
        title="REINFORCE leave-one-out",
        kind="prompt",
        options=RLOOOptions,
        loss=_rloo_loss,
        estimate=_rloo,
        reference=_beta,
        generations=2,
        lr=1e-6,
    ),
    Method(
        name="grpo",
        title="group-relative policy optimization",
        kind="prompt",
        options=GRPOOptions,
        loss=_grpo_loss,
        estimate=_grpo,
        reference=_beta,
        generations=8,
        lr=1e-6,
    ),
    Method(
        name="ppo",
        title="proximal policy optimization with a critic",
        kind="prompt",
        options=PPOOptions,
        loss=_ppo_loss,
        estimate=_ppo,
        reference=_beta,
        add_heads=add_critic,
        has_critic=True,
        epochs=4,
        lr=1e-6,
    ),
    Method(
        name="rft",
        title="rejection-sampling fine-tuning",
        kind="prompt",
        options=RFTOptions,
        loss=_rft_loss,
        estimate=_rft,
        generations=8,
        lr=2e-5,
    ),
)
