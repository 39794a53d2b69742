"""How many tokens are taken at a time where not all are: known to plans, which load no torch."""

from __future__ import annotations

from typing import Literal

__all__ = ["logits_tile", "mlp_tile"]

_LOGITS_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}
_LEAST_MLP = 1024


def logits_tile(vocab_size: int, device: str = "cpu") -> int:
    """Rows whose float32 logits take about 64 MiB, on CUDA 256 MiB; a multiple of 32, or 16.

    Each tile reads the whole head: on a GPU several hundred rows share that.

    Args:
        vocab_size: rows of the head.
        device: its type, ``cpu`` or ``cuda``.
    """
    return max(16, _LOGITS_BYTES[device] // (4 * vocab_size) // 32 * 32)


def mlp_tile(tile: int | Literal["auto"], hidden_size: int, tokens: int) -> int:
    """Tokens of an MLP's tile, or 0 when all fit into one.

    Args:
        tile: as asked for; ``auto`` is as many tokens as the model is wide, 1024 at least, so that
            the products stay fast. 0 is none.
        hidden_size: the model's width.
        tokens: of the batch at hand.
    """
    size = max(hidden_size, _LEAST_MLP) if tile == "auto" else tile
    # A given size holds even where it makes one tile: nothing but the input is kept then.
    return 0 if tile == "auto" and tokens <= size else size
