"""Pictures of commands that take ``--plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, DependencyNotInstalled

__all__ = ["new_figure"]


def new_figure(path: Path, size: tuple[float, float]) -> Any:
    """An empty figure that is going to be saved at ``path``; made before the work it shows.

    Args:
        path: file to write.
        size: width and height in inches.

    Raises:
        ConfigError: there is no such folder, or pictures are not written in such a format.
        DependencyNotInstalled: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("--plot", "dev") from None
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: there is no folder {path.parent}. Make it first.")
    figure = Figure(figsize=size, layout="constrained")
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in kinds:
        raise ConfigError(f"--plot {path}: its ending must be one of {', '.join(sorted(kinds))}.")
    return figure
