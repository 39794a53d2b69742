"""Options of the losses. They load without torch, so that a recipe is checked at once.

What each number does stands in the loss's own file, :mod:`sharpen.align.losses`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

from sharpen.core.errors import ConfigError

__all__ = [
    "Aggregation",
    "BCoderConfig",
    "DPOConfig",
    "GRPOLossConfig",
    "KTOConfig",
    "ORPOConfig",
    "PPOLossConfig",
    "RLOOConfig",
    "RRHFConfig",
    "Reduce",
    "ReinforceConfig",
    "RewardModelConfig",
    "SFTLossConfig",
    "SmallCapWarning",
    "check_reduce",
]

Reduce = Literal["sum", "token", "seq", "dr"]
Aggregation = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo"]
_DPO_KINDS = ("sigmoid", "ipo", "robust", "hinge")
_CISPO_CAP = 5.0


def check_reduce(reduce: str, where: str) -> None:
    """Refuse what is none of the four, in the config ``where``.

    Raises:
        ConfigError: it is none of them.
    """
    if reduce not in get_args(Reduce):
        raise ConfigError(f"reduce={reduce!r} ({where}) must be one of {get_args(Reduce)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SFTLossConfig:
    """Options of supervised fine-tuning."""

    reduce: Reduce = "token"
    """``token`` weighs all tokens alike, ``seq`` all completions; see
    :mod:`sharpen.align.losses.base`."""

    def __post_init__(self) -> None:
        check_reduce(self.reduce, "SFTLossConfig")


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardModelConfig:
    """Options of a reward model."""

    centering: float = 0.0
    """Weight c of the squared sum of a pair's scores; 0.01 is usual, 0 is off."""

    def __post_init__(self) -> None:
        if self.centering < 0:
            raise ConfigError(f"centering={self.centering} (RewardModelConfig) must be at least 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DPOConfig:
    """Options of DPO's loss."""

    kind: Literal["sigmoid", "ipo", "robust", "hinge"] = "sigmoid"
    """Which of the formulas of :mod:`sharpen.align.losses.dpo`."""
    beta: float = 0.1
    """b: how strongly the policy is held near the reference."""
    label_smoothing: float = 0.0
    """e, below 1/2; only ``sigmoid`` and ``robust`` have it."""

    def __post_init__(self) -> None:
        if self.kind not in _DPO_KINDS:
            raise ConfigError(f"kind={self.kind!r} (DPOConfig) must be one of {_DPO_KINDS}.")
        if self.beta <= 0 or not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"beta={self.beta} must be above 0 and label_smoothing={self.label_smoothing} from "
                "0 to below 0.5 (DPOConfig)."
            )
        if self.label_smoothing and self.kind in ("ipo", "hinge"):
            raise ConfigError(
                f"label_smoothing={self.label_smoothing} has no meaning for kind={self.kind!r} "
                "(DPOConfig): take 'sigmoid' or 'robust', or 0."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class KTOConfig:
    """Options of KTO's loss."""

    beta: float = 0.1
    """b: how strongly the policy is held near the reference."""
    desirable_weight: float = 1.0
    """w_D; :func:`~sharpen.align.losses.kto.kto_weights` has both for given numbers of
    completions."""
    undesirable_weight: float = 1.0
    """w_U."""

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.desirable_weight < 0 or self.undesirable_weight < 0:
            raise ConfigError(
                f"beta={self.beta} must be above 0, desirable_weight={self.desirable_weight} and "
                f"undesirable_weight={self.undesirable_weight} at least 0 (KTOConfig)."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ORPOConfig:
    """Options of ORPO's loss."""

    weight: float = 0.1
    """c: weight of the odds."""
    nll_on: Literal["all", "completion"] = "all"
    """Whether the likelihood is of prompt and completion, or of the completion alone."""

    def __post_init__(self) -> None:
        if self.weight < 0 or self.nll_on not in ("all", "completion"):
            raise ConfigError(
                f"weight={self.weight} must be at least 0 and nll_on={self.nll_on!r} 'all' or "
                "'completion' (ORPOConfig)."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RRHFConfig:
    """Options of RRHF's loss."""

    rank_weight: float = 1.0
    """w: weight of the ranking."""
    length_penalty: float = 1.0
    """k: power of the length that log-probabilities are divided by."""
    length: Literal["completion", "padded"] = "completion"
    """Which length: of the candidate, or of the query's longest text, prompt included."""
    sft_reduce: Literal["mean", "sum", "padded_mean"] = "mean"
    """What the likelihood of the best is divided by: its length, 1 (the paper) or the padded width
    (the released code)."""

    def __post_init__(self) -> None:
        if self.rank_weight < 0 or self.length_penalty < 0:
            raise ConfigError(
                f"rank_weight={self.rank_weight} and length_penalty={self.length_penalty} "
                "(RRHFConfig) must be at least 0."
            )
        if self.length not in ("completion", "padded"):
            raise ConfigError(
                f"length={self.length!r} (RRHFConfig) must be 'completion' or 'padded'."
            )
        if self.sft_reduce not in ("mean", "sum", "padded_mean"):
            raise ConfigError(
                f"sft_reduce={self.sft_reduce!r} (RRHFConfig) must be 'mean', 'sum' or "
                "'padded_mean'."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReinforceConfig:
    """Options of the policy gradient."""

    reduce: Reduce = "sum"
    """See :mod:`sharpen.align.losses.base`: ``sum`` is unbiased, ``token`` that of the released
    ReMax code."""

    def __post_init__(self) -> None:
        check_reduce(self.reduce, "ReinforceConfig")


@dataclass(frozen=True, kw_only=True, slots=True)
class RLOOConfig:
    """Options of RLOO's loss."""

    clip: float = 0.2
    """e: how far the ratio of a completion may go below 1 before its gradient stops."""
    clip_high: float | None = None
    """How far above 1; None is the same as below."""

    def __post_init__(self) -> None:
        if not 0 < self.clip < 1 or (self.clip_high is not None and self.clip_high <= 0):
            raise ConfigError(
                f"clip={self.clip} must be between 0 and 1 and clip_high={self.clip_high} above 0 "
                "(RLOOConfig)."
            )


class SmallCapWarning(UserWarning):
    """The cap of CISPO scales nearly every token down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GRPOLossConfig:
    """Options of GRPO's loss."""

    aggregation: Aggregation = "dapo"
    """Which mean over tokens; see :mod:`sharpen.align.losses.grpo`."""
    ratio: Literal["token", "sequence"] = "token"
    """Of what the ratio is; ``sequence`` is GSPO, which goes with ``aggregation="grpo"``."""
    eps_low: float = 0.2
    """How far the ratio may go below 1 before its gradient stops."""
    eps_high: float | None = None
    """How far above 1; None is the same as below. For ``cispo`` the largest ratio itself, None is
    5."""
    delta: float | None = None
    """Largest ratio of bad actions too, above 1 + eps_high (two-sided clip); None for no bound."""
    beta: float = 0.0
    """Weight of the KL divergence from the reference; above 0 the batch needs its log-probs."""
    kl_weight: Literal["ratio", "none"] = "ratio"
    """Whether each token's divergence is multiplied by its ratio."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("aggregation", self.aggregation, get_args(Aggregation)),
            ("ratio", self.ratio, ("token", "sequence")),
            ("kl_weight", self.kl_weight, ("ratio", "none")),
        ):
            if value not in allowed:
                raise ConfigError(f"{name}={value!r} (GRPOLossConfig) must be one of {allowed}.")
        if not 0 < self.eps_low < 1 or self.high <= 0 or self.beta < 0:
            raise ConfigError(
                f"eps_low={self.eps_low} must be between 0 and 1, eps_high={self.eps_high} above 0 "
                f"and beta={self.beta} at least 0 (GRPOLossConfig)."
            )
        if self.delta is not None and self.delta <= self.high:
            raise ConfigError(
                f"delta={self.delta} (GRPOLossConfig) must be above the upper clip {self.high}."
            )
        if self.aggregation == "cispo" and self.high < 1:
            warnings.warn(
                f"eps_high={self.eps_high} is the largest ratio itself in cispo: below 1 it scales "
                f"nearly every token by it. 5.0 is usual.",
                SmallCapWarning,
                stacklevel=3,
            )

    @property
    def high(self) -> float:
        """Where the ratio is clipped above."""
        if self.aggregation == "cispo":
            return _CISPO_CAP if self.eps_high is None else self.eps_high
        return 1 + (self.eps_low if self.eps_high is None else self.eps_high)


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOLossConfig:
    """Options of PPO's loss."""

    clip: float = 0.2
    """e: how far the ratio may go from 1 before its gradient stops."""
    value_clip: float = 0.2
    """e_v: how far the critic may go from its old values in one batch."""
    value_coef: float = 0.1
    """c_v: weight of the critic's loss."""
    entropy_coef: float = 0.0
    """c_H: weight of the entropy bonus; above 0 the loss needs entropies."""

    def __post_init__(self) -> None:
        if not 0 < self.clip < 1 or self.value_clip <= 0:
            raise ConfigError(
                f"clip={self.clip} must be between 0 and 1 and value_clip={self.value_clip} above "
                "0 (PPOLossConfig)."
            )
        if self.value_coef < 0 or self.entropy_coef < 0:
            raise ConfigError(
                f"value_coef={self.value_coef} and entropy_coef={self.entropy_coef} "
                "(PPOLossConfig) must be at least 0."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class BCoderConfig:
    """Options of both stages."""

    gamma: float = 0.999
    """g: discount of a token; 0.99 leaves 0.7 % of a reward after 500 tokens."""
    alpha: float = 1.0
    """c: temperature between logits and advantages."""
    operator: Literal["conservative", "optimal"] = "conservative"
    """Whose choice the next state's value is asked for."""
    softabs: Literal["zero_at_zero", "as_printed", "none"] = "zero_at_zero"
    """How values are bounded; ``none`` takes raw values."""
    max_return: float = 1.0
    """U: the best return there is."""
    advantage_weight: float = 0.1
    """b_adv: weight of the advantages of right programs' tokens, which should be 0."""
    cross_entropy_weight: float = 0.5
    """b_ce: weight of right programs' likelihood."""
    imitation_reduce: Literal["seq", "sum"] = "seq"
    """Whether these two terms are means over a right program's tokens, or sums."""

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1 or self.alpha <= 0:
            raise ConfigError(
                f"gamma={self.gamma} must be above 0 and at most 1, alpha={self.alpha} above 0 "
                "(BCoderConfig)."
            )
        if self.advantage_weight < 0 or self.cross_entropy_weight < 0:
            raise ConfigError(
                f"advantage_weight={self.advantage_weight} and cross_entropy_weight="
                f"{self.cross_entropy_weight} (BCoderConfig) must be at least 0."
            )
        for name, value, allowed in (
            ("operator", self.operator, ("conservative", "optimal")),
            ("softabs", self.softabs, ("zero_at_zero", "as_printed", "none")),
            ("imitation_reduce", self.imitation_reduce, ("seq", "sum")),
        ):
            if value not in allowed:
                raise ConfigError(f"{name}={value!r} (BCoderConfig) must be one of {allowed}.")
