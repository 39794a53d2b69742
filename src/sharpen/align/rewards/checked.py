"""One call of a reward, of which nothing is believed: what it gave, or why it gave nothing."""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.align.rewards.registry import Meta, RewardFunction
from sharpen.core.errors import DataError
from sharpen.core.feedback import Feedback, plain_number
from sharpen.core.parameters import Int
from sharpen.core.problem import TrialContext
from sharpen.core.space import Space

__all__ = ["Samples", "Scored", "Scores", "scores"]

Samples = tuple[Sequence[Any], Sequence[str], Sequence[Meta]]
"""Prompts, completions and meta, of one length."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a call gave."""

    values: list[float | None]
    """Finite numbers; None where there is none."""

    reasons: list[str]
    """Why there is none, in a word; empty where there is one."""

    error: str = ""
    """The traceback, where the reward raised."""


def scores(function: RewardFunction, samples: Samples) -> Scores:
    """Call a reward and check what it gives.

    Reasons: ``dropped`` (it gave None itself), ``not finite``, ``wrong type``, ``wrong length``,
    ``raised``.
    """
    count = len(samples[1])
    try:
        given: Any = function(*samples)
    except Exception:
        return Scores([None] * count, ["raised"] * count, traceback.format_exc())
    if hasattr(given, "tolist"):  # of numpy and torch
        given = given.tolist()
    if not isinstance(given, (list, tuple)):
        return Scores([None] * count, ["wrong type"] * count)
    if len(given) != count:
        return Scores([None] * count, ["wrong length"] * count)
    found = [_checked(one) for one in given]
    return Scores([value for value, _ in found], [reason for _, reason in found])


def _checked(given: Any) -> tuple[float | None, str]:
    if given is None:
        return None, "dropped"
    try:
        value = plain_number(int(given) if isinstance(given, bool) else given)
    except (DataError, ValueError, TypeError, OverflowError):
        return None, "wrong type"
    return (value, "") if math.isfinite(value) else (None, "not finite")


class Scored:
    """A reward as a problem whose trials are calls, so that the executor of trials can run them."""

    name = "reward"
    space = Space(sample=Int(0, 1))
    objectives = ()
    constraints = ()

    def __init__(self, function: RewardFunction) -> None:
        self.function = function

    def evaluate(self, config: dict[str, Any], trial: TrialContext) -> Feedback:
        """Call it with ``config["samples"]``."""
        found = scores(self.function, config["samples"])
        return Feedback(info={"scores": found})
