"""How long keys and values keep a request waiting between prompt and next token.

Patel et al., Splitwise, ISCA 2024, arXiv 2311.18677, section IV-C. A prompt takes c a layer, and
the keys and values of a layer take x on the link; L layers. Sent after the prompt, they cost
``L x``. Sent layer by layer as they are computed, the last arrives at the end of the slowest chain
"compute l + 1 layers, then send L - l", so what is left after the prompt's ``L c`` is::

    max_l ((l + 1) c + (L - l) x) - L c  =  max(x, L x - (L - 1) c)

since the term is linear in l and largest at an end. Short prompts gain little and are sent at once.

Differs from the paper: it states no formula; the derivation is ours. Transfers do not share links.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sharpen.core.errors import ConfigError
from sharpen.plan.serving.machines import Link

__all__ = ["Overlap", "Transfer", "layerwise_exposed_s"]

Overlap = Literal["auto", "layers", "none", "x10"]
_OVERLAPS = ("auto", "layers", "none", "x10")


def layerwise_exposed_s(layers: int, compute_s: float, transfer_s: float) -> float:
    """Seconds between the end of a prompt and the arrival of its last layer.

    Args:
        layers: L.
        compute_s: c, of one layer.
        transfer_s: x, of one layer.

    Example:
        >>> layerwise_exposed_s(10, 2.0, 1.0), layerwise_exposed_s(10, 1.0, 2.0)
        (1.0, 11.0)
    """
    return max(transfer_s, layers * transfer_s - (layers - 1) * compute_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a link and the way of sending cost."""

    layers: int
    """L of the model."""

    kv_bytes: float
    """Of one token in all layers."""

    link: Link = field(default_factory=Link)
    """Between the machines."""

    overlap: Overlap = "auto"
    """``layers`` as they are computed, ``none`` after the prompt, ``auto`` by ``threshold``, and
    ``x10`` after the prompt at ten times the bandwidth, as the reference simulator has it."""

    threshold: int = 512
    """Tokens of a prompt from which ``auto`` sends layer by layer."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.layers < 1 or not self.kv_bytes >= 0 or self.threshold < 0:
            raise ConfigError(
                f"layers={self.layers} must be at least 1, kv_bytes={self.kv_bytes} and "
                f"threshold={self.threshold} at least 0."
            )
        if self.overlap not in _OVERLAPS:
            raise ConfigError(f"overlap={self.overlap!r} must be one of {', '.join(_OVERLAPS)}.")

    def exposed_s(self, tokens: int, prompt_s: float) -> float:
        """Seconds that the next token waits.

        Args:
            tokens: of the prompt.
            prompt_s: that it took to compute.
        """
        size = self.kv_bytes * tokens
        if self.overlap == "x10":
            return self.link.latency_s + size / (10 * self.link.bandwidth)
        serial = self.overlap == "none" or (self.overlap == "auto" and tokens < self.threshold)
        if serial or not size:
            return self.link.seconds(size)
        each = size / self.link.bandwidth / self.layers
        return self.link.latency_s + layerwise_exposed_s(self.layers, prompt_s / self.layers, each)
