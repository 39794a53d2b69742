"""Which device a model runs on."""

from __future__ import annotations

import torch

from sharpen.core.errors import ConfigError

__all__ = ["resolve_device"]


def resolve_device(device: str | torch.device) -> torch.device:
    """The device named by ``device``; ``auto`` is the first CUDA device, or else the CPU.

    Raises:
        ConfigError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={str(device)!r} must be auto, cpu, cuda, or such as cuda:1.")
    count = torch.cuda.device_count() if found.type == "cuda" else 1
    if (found.index or 0) >= count:
        raise ConfigError(
            f"device={str(device)!r}: torch {torch.__version__} sees {count} CUDA devices here. "
            "Take device='cpu', or check the driver and that torch is built for CUDA."
        )
    return found
