"""Checks of options that agents share, with messages that name the option, its value and its owner.

Each takes the name of the class that the options are of, then the options by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.core.errors import ConfigError

__all__ = ["check_at_least", "check_positive", "check_shares", "check_widths"]


def check_positive(kind: str, **options: float) -> None:
    """All options are above 0.

    Raises:
        ConfigError: one is not.
    """
    for name, value in options.items():
        if not value > 0:
            raise ConfigError(f"{name}={value} must be positive ({kind}).")


def check_at_least(kind: str, least: float, **options: float) -> None:
    """All options are ``least`` or more.

    Raises:
        ConfigError: one is not.
    """
    for name, value in options.items():
        if not value >= least:
            wanted = f"be at least {least}" if least else "not be negative"
            raise ConfigError(f"{name}={value} must {wanted} ({kind}).")


def check_shares(kind: str, **options: float) -> None:
    """All options are from 0 to 1.

    Raises:
        ConfigError: one is not.
    """
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name}={value} must be from 0 to 1 ({kind}).")


def check_widths(kind: str, hidden: Sequence[int]) -> None:
    """The widths of a network's layers are at least 1, and there is one.

    Raises:
        ConfigError: they are not.
    """
    if not hidden or min(hidden) < 1:
        raise ConfigError(f"hidden={hidden} must be widths of at least 1 ({kind}).")
