"""The names of optimizers; loads no torch, so that recipes are checked without it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sharpen.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from sharpen.optim.engine.base import Optimizer

__all__ = ["ALIASES", "CLASSES", "available", "canonical", "find"]

CLASSES = {
    "adafactor": "adafactor.Adafactor",
    "adagrad": "adagrad.Adagrad",
    "adagrad_8bit": "adagrad.Adagrad8bit",
    "adamw": "adamw.AdamW",
    "adamw_8bit": "adamw.AdamW8bit",
    "adamw_4bit": "adamw.AdamW4bit",
    "ademamix": "ademamix.AdEMAMix",
    "ademamix_8bit": "ademamix.AdEMAMix8bit",
    "lamb": "lamb.Lamb",
    "lamb_8bit": "lamb.Lamb8bit",
    "lion": "lion.Lion",
    "lion_8bit": "lion.Lion8bit",
    "nadamw": "nadamw.NAdamW",
    "sgd": "sgd.SGD",
    "sgd_8bit": "sgd.SGD8bit",
    "sign_sgd": "sgd.SignSGD",
    "apollo": "apollo.Apollo",
    "apollo_mini": "apollo.ApolloMini",
    "badam": "badam.BAdam",
    "fira": "fira.Fira",
    "frugal": "frugal.Frugal",
    "galore": "galore.GaLore",
    "galore_8bit": "galore.GaLore8bit",
    "q_apollo": "q_apollo.QApollo",
    "muon": "muon.Muon",
    "soap": "soap.Soap",
    "cosmos": "cosmos.Cosmos",
    "schedule_free_adamw": "schedule_free.ScheduleFreeAdamW",
}
"""Name: module of this package, and class."""

ALIASES = {
    "adamw8": "adamw_8bit",
    "adamw8bit": "adamw_8bit",
    "adamw4bit": "adamw_4bit",
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_torch_4bit": "adamw_4bit",
    "adamw_torch_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "ademamix8bit": "ademamix_8bit",
    "lion8": "lion_8bit",
    "lion8bit": "lion_8bit",
    "lion_32bit": "lion",
    "apollo_adamw": "apollo",
    "galore_adamw": "galore",
    "galore_adamw_8bit": "galore_8bit",
}
"""Other names for the same: those of transformers' trainer, and short ones."""


def available() -> list[str]:
    """The names, without the aliases."""
    return sorted(CLASSES)


def canonical(name: str) -> str:
    """The name that an optimizer has here; ``-`` and ``_`` are the same.

    Raises:
        ConfigError: there is none; the message has the nearest.

    Examples:
        >>> canonical("AdamW-8bit")
        'adamw_8bit'
    """
    key = name.lower().replace("-", "_")
    key = ALIASES.get(key, key)
    if key not in CLASSES:
        hint = did_you_mean(key, [*CLASSES, *ALIASES])
        raise ConfigError(f"there is no optimizer {name!r}.{hint} Known: {', '.join(available())}.")
    return key


def find(name: str) -> type[Optimizer]:
    """The class of a name; ``-`` and ``_`` are the same.

    Raises:
        ConfigError: there is none; the message has the nearest.

    Examples:
        >>> find("adamw-8bit").__name__
        'AdamW8bit'
    """
    module, _, attribute = CLASSES[canonical(name)].rpartition(".")
    found: type[Optimizer] = getattr(importlib.import_module(f"sharpen.optim.{module}"), attribute)
    return found
