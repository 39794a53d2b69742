"""The methods as data: names, defaults, options; they load without torch.

What a method does is a :class:`sharpen.align.methods.Method`, which has all that stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from sharpen.align.options.losses import (
    BCoderConfig,
    DPOConfig,
    GRPOLossConfig,
    KTOConfig,
    ORPOConfig,
    PPOLossConfig,
    ReinforceConfig,
    RewardModelConfig,
    RLOOConfig,
    RRHFConfig,
    SFTLossConfig,
)
from sharpen.align.rows.parse import Kind
from sharpen.core.errors import ConfigError, did_you_mean

__all__ = [
    "DESCRIPTIONS",
    "REMAX_PAPER",
    "BCoderOptions",
    "Baseline",
    "Description",
    "GRPOOptions",
    "KLReturn",
    "PPOOptions",
    "RFTOptions",
    "RLOOOptions",
    "ReMaxOptions",
    "describe",
]

Baseline = Literal["greedy", "leave_one_out", "mean", "ema", "none"]
KLReturn = Literal["step", "to_go"]


class _ReMaxSettings(TypedDict):
    gamma: float
    clip: float
    kl_return: KLReturn


REMAX_PAPER: Final[_ReMaxSettings] = {"gamma": 0.99, "clip": 5.0, "kl_return": "step"}
"""Settings of :func:`remax` in the released code; they go with ``ReinforceConfig(reduce="token")``.

They bias the gradient: the clip cuts large differences, and the discount shrinks early tokens.
"""


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
            for name, value in {**REMAX_PAPER, "reduce": "token"}.items():
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


@dataclass(frozen=True, kw_only=True, slots=True)
class BCoderOptions(BCoderConfig):
    """Options of B-Coder."""

    stage: Literal["phi", "theta", "both"] = "both"
    """``phi`` fits values and leaves the model as it is; ``theta`` goes on from a model whose
    folder has fitted values."""
    phi_steps: int | None = None
    """Steps of stage phi; null takes as many as stage theta has."""
    phi_lr: float = 1e-3
    """Constant learning rate of stage phi, whose head alone learns."""

    def __post_init__(self) -> None:
        BCoderConfig.__post_init__(self)
        if self.phi_steps is not None and self.phi_steps < 1:
            raise ConfigError(f"phi_steps={self.phi_steps} must be at least 1, or null (bcoder).")
        if self.phi_lr <= 0:
            raise ConfigError(f"phi_lr={self.phi_lr} must be above 0 (bcoder).")


def _never(options: Any) -> bool:
    return False


def _always(options: Any) -> bool:
    return True


def _weighted(options: ReMaxOptions | RLOOOptions | GRPOOptions | PPOOptions) -> bool:
    return options.beta > 0


def _greedy(options: ReMaxOptions) -> bool:
    return options.baseline == "greedy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What may be known of a method before anything is loaded."""

    name: str

    title: str
    """In words."""

    kind: Kind
    """Rows it learns from; others become it where they can."""

    options: type
    """A frozen dataclass: the method's own settings."""

    online: bool = False
    """Whether completions are generated while it learns."""

    reference: Callable[[Any], bool] = _never
    """Whether a frozen reference is needed under these options."""

    has_critic: bool = False
    """Whether a second model learns what states are worth."""

    greedy: Callable[[Any], bool] = _never
    """Online: whether the reward of each prompt's greedy completion is needed."""

    fixed: dict[str, Any] | None = None
    """Options that the method's name decides."""

    lr: float
    """Default learning rate of whole models; adapters take ten times it."""

    generations: int = 1
    """Online: completions a prompt by default."""

    epochs: int = 1
    """Online: passes over each batch of completions by default."""


_ALL = (
    Description(
        name="sft",
        title="supervised fine-tuning",
        kind="completion",
        options=SFTLossConfig,
        lr=2e-5,
    ),
    Description(
        name="rm", title="reward model", kind="preference", options=RewardModelConfig, lr=1e-5
    ),
    Description(
        name="dpo",
        title="direct preference optimization",
        kind="preference",
        options=DPOConfig,
        reference=_always,
        lr=1e-6,
    ),
    Description(
        name="ipo",
        title="identity preference optimization",
        kind="preference",
        options=DPOConfig,
        fixed={"kind": "ipo"},
        reference=_always,
        lr=1e-6,
    ),
    Description(
        name="kto",
        title="Kahneman-Tversky optimization",
        kind="label",
        options=KTOConfig,
        reference=_always,
        lr=1e-6,
    ),
    Description(
        name="orpo",
        title="odds-ratio preference optimization",
        kind="preference",
        options=ORPOConfig,
        lr=1e-6,
    ),
    Description(name="rrhf", title="ranking responses", kind="ranked", options=RRHFConfig, lr=2e-5),
    Description(
        name="remax",
        title="ReMax: policy gradient with a greedy baseline",
        kind="prompt",
        options=ReMaxOptions,
        online=True,
        greedy=_greedy,
        reference=_weighted,
        lr=1e-6,
    ),
    Description(
        name="rloo",
        title="REINFORCE leave-one-out",
        kind="prompt",
        options=RLOOOptions,
        online=True,
        reference=_weighted,
        generations=2,
        lr=1e-6,
    ),
    Description(
        name="grpo",
        title="group-relative policy optimization",
        kind="prompt",
        options=GRPOOptions,
        online=True,
        reference=_weighted,
        generations=8,
        lr=1e-6,
    ),
    Description(
        name="ppo",
        title="proximal policy optimization with a critic",
        kind="prompt",
        options=PPOOptions,
        online=True,
        has_critic=True,
        reference=_weighted,
        epochs=4,
        lr=1e-6,
    ),
    Description(
        name="rft",
        title="rejection-sampling fine-tuning",
        kind="prompt",
        options=RFTOptions,
        online=True,
        generations=8,
        lr=2e-5,
    ),
    Description(
        name="bcoder",
        title="B-Coder: values of programs",
        kind="ranked",
        options=BCoderOptions,
        lr=3e-5,
    ),
)

DESCRIPTIONS: dict[str, Description] = {one.name: one for one in _ALL}
"""The methods by name."""


def describe(name: str) -> Description:
    """What is known of the method called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in DESCRIPTIONS:
        raise ConfigError(
            f"there is no method {name!r}.{did_you_mean(name, DESCRIPTIONS)} Known: "
            f"{', '.join(DESCRIPTIONS)}."
        )
    return DESCRIPTIONS[name]
