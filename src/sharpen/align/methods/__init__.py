"""The methods by name."""

from __future__ import annotations

from sharpen.align.methods import offline, online
from sharpen.align.methods.base import Estimation, Method, Policy, Scale
from sharpen.align.methods.bcoder import BCODER
from sharpen.align.options.methods import describe

__all__ = ["METHODS", "Estimation", "Method", "Policy", "Scale", "find_method"]

METHODS: dict[str, Method] = {one.name: one for one in (*offline.METHODS, *online.METHODS, BCODER)}


def find_method(name: str) -> Method:
    """The method called ``name``.

    Raises:
        ConfigError: there is none.
    """
    return METHODS[describe(name).name]
