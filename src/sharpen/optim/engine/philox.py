"""Counter-based random numbers: the same on every device, shard, thread count and resume.

Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011) turns a counter
of four 32-bit words and a key of two into four random words; nothing is remembered between calls.
A word becomes a uniform number by ``((word >> 9) + 0.5) 2^-23``, exact in float32, and two of them
two normal ones by Box and Muller, in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["normal", "philox", "round_bfloat16", "splitmix64", "uniform"]

_MASK = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85


def splitmix64(x: int) -> int:
    """A well mixed 64-bit number (Steele, Lea & Flood, 2014)."""
    full = 0xFFFFFFFFFFFFFFFF
    x = (x + 0x9E3779B97F4A7C15) & full
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & full
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & full
    return x ^ (x >> 31)


def philox(key: tuple[int, int], counters: tuple[Tensor | int, ...]) -> tuple[Tensor, ...]:
    """Four tensors of random words.

    Args:
        key: two 32-bit words.
        counters: four 32-bit words; int64 tensors that broadcast together, or numbers.

    Returns:
        Four int64 tensors with values from 0 to 2^32 - 1.

    Examples:
        >>> [hex(int(word)) for word in philox((0, 0), (torch.tensor(0), 0, 0, 0))]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    tensors = [c if isinstance(c, Tensor) else torch.tensor(c) for c in counters]
    device = next((c.device for c in counters if isinstance(c, Tensor)), torch.device("cpu"))
    shape = torch.broadcast_shapes(*(c.shape for c in tensors))  # type: ignore[no-untyped-call]
    c0, c1, c2, c3 = (c.to(device, torch.int64).expand(shape) for c in tensors)
    k0, k1 = (k & _MASK for k in key)
    for _ in range(10):
        # Products of two 32-bit words wrap in int64, but keep their bits.
        low, high = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (high >> 32 & _MASK) ^ c1 ^ k0,
            high & _MASK,
            (low >> 32 & _MASK) ^ c3 ^ k1,
            low & _MASK,
        )
        k0, k1 = k0 + _WEYL[0] & _MASK, k1 + _WEYL[1] & _MASK
    return c0, c1, c2, c3


def uniform(words: Tensor) -> Tensor:
    """Float32 numbers above 0 and below 1 from random words."""
    return ((words >> 9).to(torch.float32) + 0.5) * 2.0**-23


def normal(words: tuple[Tensor, ...]) -> Tensor:
    """Float32 normal numbers: four a counter, in a new last dimension."""
    pairs = []
    for a, b in (words[:2], words[2:]):
        radius = (uniform(a).log() * -2.0).sqrt()
        angle = uniform(b) * (2.0 * math.pi)
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs, -1)


def round_bfloat16(x: Tensor, key: tuple[int, int]) -> Tensor:
    """Round float32 to bfloat16 at random, so that the expected value is ``x``.

    Element i takes 16 bits of Philox's words at counter i // 8. Infinities and NaN stay.

    Args:
        x: float32.
        key: of the random numbers; another one each step.
    """
    flat = x.contiguous().view(-1)
    words = philox(key, (torch.arange(-(-len(flat) // 8), device=x.device), 0, 0, 0))
    halves = torch.stack([part for w in words for part in (w & 0xFFFF, w >> 16)], -1)
    noise = halves.view(-1)[: len(flat)].to(torch.int32)
    bits = flat.view(torch.int32)
    finite = flat.isfinite()
    rounded = torch.where(finite, (bits + noise) & -65536, bits)
    return rounded.view(torch.float32).to(torch.bfloat16).view(x.shape)
