"""Rotary position embedding and its stretched variants.

Su et al., RoFormer, 2021 (arXiv 2104.09864). With frequencies w_j = theta^(-2j/D) and position p,
the pair (x_j, x_{j+D/2}) is turned by the angle p w_j (the half-split layout of Hugging Face
checkpoints)::

    y_j       = x_j cos(p w_j) - x_{j+D/2} sin(p w_j)
    y_{j+D/2} = x_{j+D/2} cos(p w_j) + x_j sin(p w_j)

Variants: ``linear`` (w / s; Chen et al., 2023), ``dynamic`` (theta grows with the length past
max_positions), ``llama3`` (long wavelengths / s, short ones kept, a ramp between; Llama 3, 2024),
``yarn`` (ramp by number of rotations, cos and sin scaled by 0.1 ln s + 1; Peng et al., 2023, arXiv
2309.00071).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sharpen.core.model_spec import ModelSpec, RopeScaling
from sharpen.models.functional import rotate

__all__ = ["Rope", "apply_rope", "frequencies"]


def frequencies(spec: ModelSpec, length: int = 0) -> tuple[Tensor, float]:
    """Frequencies w [D/2] in float32 and the factor on cos and sin.

    Args:
        spec: the model's shape.
        length: longest position + 1 in use; only ``dynamic`` depends on it.
    """
    dim, theta, scaling = spec.head_dim, spec.rope_theta, spec.rope_scaling
    exponent = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    if scaling is None:
        return 1.0 / theta**exponent, 1.0
    if scaling.kind == "linear":
        return 1.0 / theta**exponent / scaling.factor, 1.0
    original = scaling.original_max_positions or spec.max_positions
    if scaling.kind == "dynamic":
        stretch = scaling.factor * max(length, original) / original - (scaling.factor - 1)
        return 1.0 / (theta * stretch ** (dim / (dim - 2))) ** exponent, 1.0
    plain = 1.0 / theta**exponent
    if scaling.kind == "llama3":
        return _llama3(plain, scaling, original), 1.0
    return _yarn(plain, scaling, original, dim, theta)


def _llama3(plain: Tensor, scaling: RopeScaling, original: int) -> Tensor:
    wavelength = 2 * math.pi / plain
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = ((original / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * plain / scaling.factor + smooth * plain


def _yarn(
    plain: Tensor, scaling: RopeScaling, original: int, dim: int, theta: float
) -> tuple[Tensor, float]:
    def dimension(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32) - low) / max(high - low, 1e-3)
    ramp = ramp.clamp(0, 1)
    scaled = plain / scaling.factor * ramp + plain * (1 - ramp)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return scaled, factor


class Rope:
    """Tables of cos and sin, grown to the longest position seen.

    With ``dynamic`` scaling they are made for the longest position in use: a text longer than the
    pre-training's context changes them for itself and not for those that follow.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._cos = torch.empty(0)
        self._sin = torch.empty(0)

    def __call__(self, position_ids: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Cos and sin, each [B, T, 1, D/2], for positions [B, T] below ``length``."""
        cos, sin = (table[position_ids] for table in self.tables(length, position_ids.device))
        return cos.unsqueeze(2).to(dtype), sin.unsqueeze(2).to(dtype)

    def tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cos and sin [length, D/2] float32 of all positions below ``length``."""
        if not self._fits(length) or self._cos.device != device:
            self._grow(length, device)
        return self._cos[:length], self._sin[:length]

    def _dynamic_length(self, length: int) -> int | None:
        scaling = self.spec.rope_scaling
        if scaling is None or scaling.kind != "dynamic":
            return None
        return max(length, self.spec.max_positions)

    def _fits(self, length: int) -> bool:
        exact = self._dynamic_length(length)
        return self._cos.shape[0] >= length if exact is None else self._cos.shape[0] == exact

    def _grow(self, length: int, device: torch.device) -> None:
        size = self._dynamic_length(length) or 1 << max(length - 1, 255).bit_length()
        w, factor = frequencies(self.spec, size)
        angles = torch.arange(size, dtype=torch.float32)[:, None] * w
        self._cos = (angles.cos() * factor).to(device)
        self._sin = (angles.sin() * factor).to(device)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn ``x`` [B, T, heads, D] by the angles of ``cos`` and ``sin`` [B, T, 1, D/2]."""
    return rotate(x, cos, sin)
