"""Methods that learn from their own completions: ReMax, RLOO, GRPO, PPO, rejection sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from sharpen.align import advantages
from sharpen.align.advantages import Moments
from sharpen.align.batch import RolloutBatch
from sharpen.align.heads import add_critic
from sharpen.align.kl import AdaptiveKL
from sharpen.align.losses.base import LossOut
from sharpen.align.losses.grpo import grpo_loss
from sharpen.align.losses.ppo import ppo_loss
from sharpen.align.losses.reinforce import reinforce_loss, reweighted
from sharpen.align.losses.rloo import rloo_loss
from sharpen.align.methods.base import Estimation, Method, Policy, Scale, described
from sharpen.align.options.losses import ReinforceConfig
from sharpen.align.options.methods import (
    GRPOOptions,
    PPOOptions,
    ReMaxOptions,
    RFTOptions,
    RLOOOptions,
)
from sharpen.align.scoring import values_of

__all__ = ["METHODS", "GRPOOptions", "PPOOptions", "RFTOptions", "RLOOOptions", "ReMaxOptions"]

_EMA = 0.9


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
            batch = batch.select((~flat).nonzero().squeeze(1))
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
    return replace(batch, advantage=batch.action_mask.to(batch.logp_old.dtype)).select(kept)


def _moments(batch: RolloutBatch) -> Moments:
    return advantages.moments(batch.reward, torch.ones_like(batch.reward, dtype=torch.bool))


def _learned(
    policy: Policy,
    batch: RolloutBatch,
    scale: Scale,
    loss: Callable[[torch.Tensor, RolloutBatch], LossOut],
) -> LossOut:
    """A loss of log-probabilities, which on policy are the old ones as well."""
    if not scale.on_policy:
        return loss(policy.logp(batch), batch)
    logp, entropy = policy.logp_and_entropy(batch, expected=_sent_back(batch, loss))
    found = loss(logp, replace(batch, logp_old=logp.detach()))
    told = {"entropy": (float(entropy.sum()), float(batch.action_mask.sum()))}
    return replace(found, metrics=found.metrics | told)


def _sent_back(
    batch: RolloutBatch, loss: Callable[[torch.Tensor, RolloutBatch], LossOut]
) -> torch.Tensor:
    """[N, T] gradient of a loss on policy: it is the same whatever the log-probabilities are."""
    logp = torch.zeros_like(batch.logp_old, requires_grad=True)
    with torch.enable_grad():
        found = loss(logp, replace(batch, logp_old=logp.detach())).loss
    return torch.autograd.grad(found, logp)[0]


def _reinforce_loss(
    policy: Policy, batch: RolloutBatch, options: ReMaxOptions, scale: Scale
) -> LossOut:
    def loss(logp: torch.Tensor, batch: RolloutBatch) -> LossOut:
        if not scale.is_moving:
            return reinforce_loss(logp, batch, options, scale.counts)
        batch, weight = reweighted(logp, batch)
        has_actions = batch.completion_lengths > 0
        told = {"weight": (float(weight[has_actions].sum()), float(has_actions.sum()))}
        found = reinforce_loss(logp, batch, options, scale.counts)
        return replace(found, metrics=found.metrics | told)

    return _learned(policy, batch, scale, loss)


def _rloo_loss(policy: Policy, batch: RolloutBatch, options: RLOOOptions, scale: Scale) -> LossOut:
    return _learned(policy, batch, scale, lambda p, b: rloo_loss(p, b, options, scale.counts))


def _grpo_loss(policy: Policy, batch: RolloutBatch, options: GRPOOptions, scale: Scale) -> LossOut:
    return _learned(policy, batch, scale, lambda p, b: grpo_loss(p, b, options, scale.counts))


def _rft_loss(policy: Policy, batch: RolloutBatch, options: RFTOptions, scale: Scale) -> LossOut:
    config = ReinforceConfig(reduce="token")
    return _learned(policy, batch, scale, lambda p, b: reinforce_loss(p, b, config, scale.counts))


def _ppo_loss(policy: Policy, batch: RolloutBatch, options: PPOOptions, scale: Scale) -> LossOut:
    model, entropy = policy.model, None
    if options.entropy_coef:
        logp, entropy = policy.logp_and_entropy(batch, gradient=True)
    else:
        logp = policy.logp(batch)
    critic = replace(policy, model=model.critic).states(batch)  # type: ignore[arg-type]
    values = values_of(model.critic_head, critic, batch.action_mask)  # type: ignore[arg-type]
    return ppo_loss(logp, batch, options, scale.counts, values=values, entropy=entropy)


METHODS = (
    Method(
        **described("remax"),
        loss=_reinforce_loss,
        estimate=_remax,
    ),
    Method(**described("rloo"), loss=_rloo_loss, estimate=_rloo),
    Method(**described("grpo"), loss=_grpo_loss, estimate=_grpo),
    Method(
        **described("ppo"),
        loss=_ppo_loss,
        estimate=_ppo,
        add_heads=add_critic,
    ),
    Method(**described("rft"), loss=_rft_loss, estimate=_rft),
)
