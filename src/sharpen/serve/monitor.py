"""Monitoring a served model: has what users ask moved away from what was expected?

A :class:`Monitor` gathers live prompts into windows that do not overlap, and compares each with a
:class:`~sharpen.serve.reference.Reference`::

    length       Kolmogorov-Smirnov and the stability index of the lengths
    tokens       Jensen-Shannon divergence of the tokens' buckets
    perplexity   Kolmogorov-Smirnov and the stability index of the mean nats a token

An alarm needs a shift that is both large (``psi``, ``js``) and no accident: each of K signals is
tested at ``alpha`` / K, so at most a share ``alpha`` of the windows raises one while nothing has
changed. For the tokens that test resamples whole requests of the reference, because the tokens of
one request are alike: windows of one half of the reference against the other half.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sharpen.core.errors import ConfigError, DataError
from sharpen.serve.drift import (
    jensen_shannon,
    kolmogorov_smirnov,
    quantile_counts,
    resampled_limit,
    stability_index,
)
from sharpen.serve.reference import (
    COMMON,
    Observation,
    Prompt,
    Reference,
    bucket_counts,
    encode_prompt,
    prompt_nats,
)

if TYPE_CHECKING:
    from sharpen.serve.llm import LLM

__all__ = ["DriftReport", "Monitor", "MonitorConfig", "Signal", "check_prompts", "compare"]

_log = logging.getLogger(__name__)
_TINY = 2e-3  # the least alpha whose quantile 2000 resamples still have


@dataclass(frozen=True, kw_only=True, slots=True)
class MonitorConfig:
    """How live prompts are compared with the reference."""

    window: int = 200
    """Requests that are compared at once."""

    min_count: int = 20
    """Fewer values than this are not compared."""

    score_every: int = 4
    """One of so many live requests is scored for the perplexity, on its first 128 tokens."""

    alpha: float = 0.01
    """Share of windows that may raise an alarm while nothing has changed."""

    psi: float = 0.2
    """Least stability index of lengths and losses that counts as a shift."""

    js: float = 0.02
    """Least Jensen-Shannon divergence of the tokens that counts as a shift, in bits."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("min_count", "score_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.window < self.min_count:
            raise ConfigError(f"window={self.window} must be at least min_count={self.min_count}.")
        if not 3 * _TINY <= self.alpha < 1:
            raise ConfigError(f"alpha={self.alpha} must be at least {3 * _TINY} and below 1.")
        if self.psi < 0 or self.js < 0:
            raise ConfigError(f"psi={self.psi} and js={self.js} must be at least 0.")


@dataclass(frozen=True, slots=True)
class Signal:
    """One comparison of live prompts with the reference."""

    name: str
    """``length``, ``tokens`` or ``perplexity``."""

    count: int
    """Live values."""

    shift: float
    """Stability index, for ``tokens`` the Jensen-Shannon divergence in bits."""

    limit: float
    """What the shift must exceed."""

    p_value: float | None
    """Of the Kolmogorov-Smirnov test; None for ``tokens``, whose limit includes the test."""

    reference: float
    """Mean length, perplexity, or share of the common tokens in the reference."""

    live: float
    """The same of the live prompts."""

    drifted: bool
    """Whether it is an alarm."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What a window showed."""

    count: int
    """Live prompts."""

    signals: tuple[Signal, ...]
    """One for each with enough values."""

    @property
    def drifted(self) -> bool:
        """Whether any signal is an alarm."""
        return any(signal.drifted for signal in self.signals)

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {"drifted": self.drifted, **asdict(self)}


def compare(
    reference: Reference, live: Sequence[Observation], config: MonitorConfig | None = None
) -> DriftReport:
    """Compare prompts with the reference, leaving out signals with too few values.

    Args:
        reference: what was expected.
        live: from :meth:`Reference.observe`.
        config: limits.
    """
    config = config or MonitorConfig()
    if len(live) < config.min_count:
        return DriftReport(len(live), ())
    known = [o.nats for o in reference.prompts if o.nats is not None]
    scored = [o.nats for o in live if o.nats is not None]
    judged = min(len(known), len(scored)) >= config.min_count
    alpha = config.alpha / (3 if judged else 2)
    lengths = [o.length for o in reference.prompts], [o.length for o in live]
    signals = [
        _values("length", *lengths, config.psi, alpha, np.mean),
        _tokens(reference, live, config.js, alpha),
    ]
    if judged:
        signals.append(_values("perplexity", known, scored, config.psi, alpha, _perplexity))
    return DriftReport(len(live), tuple(signals))


def _perplexity(nats: Sequence[float]) -> float:
    return math.exp(min(float(np.mean(nats)), 700.0))


def _values(
    name: str,
    reference: Sequence[float],
    live: Sequence[float],
    limit: float,
    alpha: float,
    summary: Callable[[Any], Any],
) -> Signal:
    _, p_value = kolmogorov_smirnov(reference, live)
    shift = stability_index(*quantile_counts(reference, live))
    return Signal(
        name=name,
        count=len(live),
        shift=shift,
        limit=limit,
        p_value=p_value,
        reference=float(summary(reference)),
        live=float(summary(live)),
        drifted=shift > limit and p_value < alpha,
    )


def _tokens(
    reference: Reference, live: Sequence[Observation], least: float, alpha: float
) -> Signal:
    expected = bucket_counts(reference.prompts[::2]).sum(0)
    found = bucket_counts(live).sum(0)
    shift = jensen_shannon(expected, found)
    chance = resampled_limit(
        expected, bucket_counts(reference.prompts[1::2]), len(live), alpha=alpha
    )
    limit = max(least, chance)
    return Signal(
        name="tokens",
        count=len(live),
        shift=shift,
        limit=limit,
        p_value=None,
        reference=float(expected[:COMMON].sum() / expected.sum()),
        live=float(found[:COMMON].sum() / found.sum()),
        drifted=shift > limit,
    )


class Monitor:
    """Watches the prompts of a served model; safe from any thread.

    Args:
        reference: what is expected.
        config: windows and limits.
        score: mean nats a token of a prompt's ids; None leaves the perplexity out.
    """

    def __init__(
        self,
        reference: Reference,
        config: MonitorConfig | None = None,
        *,
        score: Callable[[Sequence[int]], float | None] | None = None,
    ) -> None:
        self.reference = reference
        self.config = config or MonitorConfig()
        self._score = score
        self._lock = threading.Lock()
        self._window: list[Observation] = []
        self._seen = self._windows = self._alarms = 0
        self._last: DriftReport | None = None

    def observe(self, ids: Sequence[int]) -> DriftReport | None:
        """Take one live prompt; returns a report when it completes a window.

        Args:
            ids: its tokens, at least one.
        """
        due = self._score is not None and self._seen % self.config.score_every == 0
        nats = self._score(ids) if due and self._score is not None else None
        with self._lock:
            self._seen += 1
            self._window.append(self.reference.observe(ids, nats))
            if len(self._window) < self.config.window:
                return None
            window, self._window = self._window, []
        report = compare(self.reference, window, self.config)
        with self._lock:
            self._windows += 1
            self._alarms += report.drifted
            self._last = report
        for signal in report.signals:
            if signal.drifted:
                _log.warning(
                    "the %s of the last %d requests drifted: shift %.3f above %.3f, mean %.4g "
                    "instead of %.4g",
                    signal.name,
                    report.count,
                    signal.shift,
                    signal.limit,
                    signal.live,
                    signal.reference,
                )
        return report

    def document(self) -> dict[str, Any]:
        """What is known now, as plain data."""
        with self._lock:
            last = self._last
            return {
                "requests": self._seen,
                "windows": self._windows,
                "alarms": self._alarms,
                "in_window": len(self._window),
                "window": self.config.window,
                "reference_prompts": len(self.reference.prompts),
                "drifted": last.drifted if last is not None else None,
                "last": last.document() if last is not None else None,
            }

    def lines(self, prefix: str) -> list[str]:
        """Prometheus lines, names beginning with ``prefix``."""
        with self._lock:
            last, windows, alarms = self._last, self._windows, self._alarms
        lines = [
            f"# TYPE {prefix}monitor_windows_total counter",
            f"{prefix}monitor_windows_total {windows}",
            f"# TYPE {prefix}monitor_alarms_total counter",
            f"{prefix}monitor_alarms_total {alarms}",
        ]
        signals = last.signals if last is not None else ()
        for name in ("drifted", "shift", "limit"):
            if signals:
                lines.append(f"# TYPE {prefix}drift_{name} gauge")
            for signal in signals:
                value = getattr(signal, name)
                shown = int(value) if isinstance(value, bool) else repr(float(value))
                lines.append(f'{prefix}drift_{name}{{signal="{signal.name}"}} {shown}')
        return lines


def check_prompts(
    llm: LLM, reference: Reference, prompts: Sequence[Prompt], config: MonitorConfig | None = None
) -> DriftReport:
    """Compare prompts from a log with a reference, all of them at once and scored.

    Raises:
        ConfigError: the reference is of another tokenizer.
        DataError: fewer than ``min_count`` prompts.
    """
    config = config or MonitorConfig()
    reference.check(llm.tokenizer.fingerprint)
    if len(prompts) < config.min_count:
        raise DataError(f"{len(prompts)} prompts are too few; at least {config.min_count} compare.")
    encoded = [encode_prompt(llm, prompt) for prompt in prompts]
    live = [reference.observe(ids, prompt_nats(llm.model, ids)) for ids in encoded]
    return compare(reference, live, config)
