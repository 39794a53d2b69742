"""The integer grid that weights are rounded to; plans and recipes know it without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sharpen.core.errors import ConfigError

__all__ = ["Grid", "Head"]

_GROUPS = (32, 64, 128, -1)

Head = Literal["keep", "int8"]
"""How embedding and head are stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How a weight is rounded."""

    bits: int = 4
    """4 or 8."""

    group: int | None = None
    """Weights that share a scale: 32, 64, 128, or -1 for a whole row. Default 32 for 4 bits and the
    row for 8 bits, which is what the fast kernels take."""

    symmetric: bool = True
    """No zero points. Asymmetric files are read by Sharpen only."""

    clip: Literal["none", "mse"] = "none"
    """``mse`` searches each group's scale for the least squared error."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.bits not in (4, 8):
            raise ConfigError(f"bits={self.bits} must be 4 or 8.")
        if self.group is not None and self.group not in _GROUPS:
            raise ConfigError(f"group={self.group} must be 32, 64, 128, or -1 for a whole row.")

    @property
    def group_size(self) -> int:
        """``group`` with its default filled in."""
        if self.group is not None:
            return self.group
        return 32 if self.bits == 4 else -1

    @property
    def low(self) -> int:
        """Smallest integer of the grid."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """Largest integer of the grid."""
        return (1 << (self.bits - 1)) - 1

    def groups(self, columns: int, where: str = "the weight") -> int:
        """Number of groups in a row of ``columns`` weights.

        Raises:
            ConfigError: the group size does not divide the row.
        """
        if self.group_size == -1:
            return 1
        if columns % self.group_size:
            legal = [str(g) for g in _GROUPS if g > 0 and columns % g == 0]
            raise ConfigError(
                f"group={self.group_size} does not divide the {columns} columns of {where}. "
                f"Choose {', '.join([*legal, '-1 (a whole row)'])}."
            )
        return columns // self.group_size
