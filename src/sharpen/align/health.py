"""Health of an alignment: which numbers are looked at together, and which are out of bounds.

Bounds are rules of thumb, not laws: a signal beyond one is worth a look, and the remark says where.
Each is about the mean of the last ten logged values, so that one odd batch says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sharpen.core.signals import Curve, Panel, Remark

__all__ = ["PANELS", "check_health"]

PANELS: Final = (
    Panel(
        title="Reward",
        unit="reward",
        lines={
            "reward": "mean",
            "reward_greedy": "of greedy completions",
            "reward_std": "standard deviation",
        },
    ),
    Panel(
        title="KL divergence from the reference",
        unit="nats a token",
        lines={"kl_k1": "k1", "kl_k3": "k3", "ref_kl": "k3, in the loss"},
    ),
    Panel(title="Entropy of the policy", unit="nats a token", lines={"entropy": "entropy"}),
    Panel(
        title="Length of completions",
        unit="tokens",
        lines={"length": "mean", "length_max": "longest"},
    ),
    Panel(
        title="Completions and prompts",
        unit="share",
        lines={
            "truncated": "cut off",
            "dropped": "without a reward",
            "zero_std": "prompts without spread",
            "kept": "learnt",
            "success": "successful",
            "success_after": "successful after learning",
        },
    ),
    Panel(
        title="Ratio to the policy that generated",
        unit="ratio, mean over tokens",
        lines={"ratio": "ratio"},
    ),
    Panel(
        title="Clipped",
        unit="share of tokens",
        lines={
            "clip_low": "ratios, below",
            "clip_high": "ratios, above",
            "value_clip": "values",
        },
    ),
    Panel(
        title="Critic: error",
        unit="squared reward, mean over tokens",
        lines={"value_error": "values"},
    ),
    Panel(
        title="Critic: what it explains",
        unit="share of the variance",
        lines={"explained_variance": "explained variance"},
    ),
    Panel(
        title="Engine beside trainer",
        unit="nats a token, mean difference",
        lines={"engine_gap": "log-probabilities"},
    ),
    Panel(
        title="Time of a step",
        unit="seconds",
        lines={
            "generate_s": "generate",
            "reward_wait_s": "wait for rewards",
            "score_s": "score",
            "learn_s": "learn",
        },
    ),
    Panel(
        title="Preferences told apart",
        unit="share of pairs",
        lines={"accuracy": "chosen preferred", "rank_accuracy": "pairs in order"},
    ),
    Panel(
        title="Margin and implied rewards",
        unit="reward",
        lines={
            "margin": "margin",
            "reward_chosen": "chosen",
            "reward_rejected": "rejected",
            "reward_desirable": "desirable",
            "reward_undesirable": "undesirable",
        },
    ),
    Panel(
        title="Log-probabilities and divergence",
        unit="nats a completion",
        lines={
            "logp_chosen": "chosen",
            "logp_rejected": "rejected",
            "kl": "KL divergence from the reference",
        },
    ),
)

_WAITED: Final = 0.2
_PARTS: Final = ("generate_s", "reward_wait_s", "score_s", "learn_s")


def check_health(curves: Mapping[str, Curve]) -> list[Remark]:
    """What is out of bounds, by the last ten values of each signal.

    Args:
        curves: what the stage has logged, by name.
    """
    found: list[Remark] = []
    for signal, look in _CHECKS.items():
        if signal in curves and (text := look(curves)):
            found.append(Remark(signal=signal, text=text))
    return found


def _entropy(curves: Mapping[str, Curve]) -> str:
    first, last = curves["entropy"].first(), curves["entropy"].last()
    if not last < 0.1 * first:
        return ""
    return (
        f"The entropy fell from {first:.3g} to {last:.3g} nats a token: completions of a prompt "
        "hardly differ any more, so that little is left to learn from. If the reward should still "
        "rise, lower lr, hold the policy near the reference (options.beta above 0) or, with ppo, "
        "set options.entropy_coef=0.01."
    )


def _divergence(curves: Mapping[str, Curve]) -> str:
    last = curves["kl_k3"].last()
    if not last > 0.5:
        return ""
    return (
        f"The policy is {last:.3g} nats a token away from the reference (k3; below 0.1 is usual). "
        "Read the samples: where the reward rises and they get worse, the reward is being gamed. "
        "Raise options.beta, lower lr, or stop earlier."
    )


def _truncated(curves: Mapping[str, Curve]) -> str:
    last = curves["truncated"].last()
    if not last > 0.5:
        return ""
    return (
        f"{last:.0%} of the completions were cut off before they ended, and are rewarded as if "
        "they had. Raise sampling.max_tokens; or leave them out with options.mask_truncated=true "
        "(grpo), or charge them with options.missing_eos_penalty=1 (ppo)."
    )


def _flat(curves: Mapping[str, Curve]) -> str:
    last = curves["zero_std"].last()
    if not last > 0.8:
        return ""
    return (
        f"All completions of {last:.0%} of the prompts earned the same, so they teach nothing. "
        "Take prompts that are neither hopeless nor solved, raise generations or "
        "sampling.temperature, or give a reward with finer steps."
    )


def _spread(curves: Mapping[str, Curve]) -> str:
    if curves["reward_std"].last() > 0 or "zero_std" in curves:
        return ""
    level = curves["reward"].last() if "reward" in curves else float("nan")
    return (
        f"All completions earn the same reward ({level:.3g}): there is nothing to learn from. "
        "Look at the samples: does the reward read the answer where the model writes it? Take "
        "easier prompts, raise sampling.temperature, or give a reward with finer steps."
    )


def _gap(curves: Mapping[str, Curve]) -> str:
    last = curves["engine_gap"].last()
    if not last > 0.05:
        return ""
    return (
        f"Engine and trainer differ by {last:.3g} nats a token (0.05 is much): completions are not "
        "quite the policy's. Take one type for both (engine_dtype=same), engine=model, or, on a "
        "server, one that serves the same weights in the same type."
    )


def _dropped(curves: Mapping[str, Curve]) -> str:
    last = curves["dropped"].last()
    if not last > 0.1:
        return ""
    return (
        f"{last:.0%} of the completions got no reward and taught nothing; rewards.missing in the "
        "summary has the reasons. Raise reward.deadline_s where they are late; mend what raises."
    )


def _explained(curves: Mapping[str, Curve]) -> str:
    last = curves["explained_variance"].last()
    if not last < 0:
        return ""
    return (
        f"The critic explains {last:.3g} of the variance of returns: it is worse than their mean. "
        "This is so in the first batches; if it stays, raise options.value_coef or batch, or take "
        "remax or rloo, which need no critic."
    )


def _clipped(curves: Mapping[str, Curve]) -> str:
    low, high = (
        curves[name].last() if name in curves else 0.0 for name in ("clip_low", "clip_high")
    )
    if not low + high > 0.3:
        return ""
    return (
        f"{low + high:.0%} of the tokens are clipped: the policy moves too far on one batch. Lower "
        "lr, epochs_per_batch or minibatches."
    )


def _waited(curves: Mapping[str, Curve]) -> str:
    later = {  # the first batch also waits for the workers to start
        name: Curve(curves[name].steps[1:], curves[name].values[1:])
        for name in _PARTS
        if name in curves
    }
    spent = {name: curve.last() for name, curve in later.items()}
    share = spent["reward_wait_s"] / total if (total := sum(spent.values())) else 0.0
    if not share > _WAITED:
        return ""
    return (
        f"{share:.0%} of the time is spent waiting for rewards. Raise reward.workers or "
        "reward.chunk, lower reward.deadline_s where rewards hang, or learn a batch behind while "
        "rewards come (staleness=1)."
    )


def _reversed(curves: Mapping[str, Curve]) -> str:
    curve = curves["accuracy"]
    if len(curve.values) < 5 or not curve.last() < 0.5:
        return ""
    return (
        f"The chosen answer is preferred in {curve.last():.0%} of the pairs only, less than by "
        "chance. Look at the rows (sharpen align inspect): chosen and rejected may be swapped; "
        "otherwise raise lr or steps."
    )


def _sinking(curves: Mapping[str, Curve]) -> str:
    last = curves["reward_chosen"].last()
    if "logp_chosen" not in curves or not last < -1:  # not of reward models, which score freely
        return ""
    return (
        f"Chosen answers too became less likely than under the reference (implied reward "
        f"{last:.3g}): the margin grows because rejected ones sink faster. Lower lr, stop earlier, "
        "raise options.beta, or take orpo, which also learns the chosen answers."
    )


_CHECKS: Final[Mapping[str, Callable[[Mapping[str, Curve]], str]]] = {
    "reward_std": _spread,
    "zero_std": _flat,
    "truncated": _truncated,
    "dropped": _dropped,
    "entropy": _entropy,
    "kl_k3": _divergence,
    "engine_gap": _gap,
    "clip_high": _clipped,
    "explained_variance": _explained,
    "reward_wait_s": _waited,
    "accuracy": _reversed,
    "reward_chosen": _sinking,
}
