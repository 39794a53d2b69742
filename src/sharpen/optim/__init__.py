"""Gradient optimizers and learning-rate schedules; names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.optim.adafactor import Adafactor
    from sharpen.optim.adagrad import Adagrad, Adagrad8bit
    from sharpen.optim.adamw import AdamW, AdamW4bit, AdamW8bit
    from sharpen.optim.ademamix import AdEMAMix, AdEMAMix8bit
    from sharpen.optim.apollo import Apollo, ApolloMini
    from sharpen.optim.backward import fuse_into_backward
    from sharpen.optim.badam import BAdam
    from sharpen.optim.conversion import convert
    from sharpen.optim.cosmos import Cosmos
    from sharpen.optim.engine.base import Optimizer
    from sharpen.optim.engine.orthogonal import orthogonalize
    from sharpen.optim.engine.quant import (
        BlockQuantTensor,
        dequantize_blockwise,
        quantize_blockwise,
    )
    from sharpen.optim.engine.rule import Rule
    from sharpen.optim.engine.slots import SlotSpec
    from sharpen.optim.fira import Fira
    from sharpen.optim.frugal import Frugal
    from sharpen.optim.galore import GaLore, GaLore8bit
    from sharpen.optim.groups import describe, param_groups, roles
    from sharpen.optim.lamb import Lamb, Lamb8bit
    from sharpen.optim.line_search import SLS, ArmijoGD
    from sharpen.optim.lion import Lion, Lion8bit
    from sharpen.optim.memory import MemoryReport, estimate
    from sharpen.optim.mezo import MeZO
    from sharpen.optim.muon import Muon
    from sharpen.optim.nadamw import NAdamW
    from sharpen.optim.names import available
    from sharpen.optim.program import Program, ProgramOptimizer
    from sharpen.optim.q_apollo import (
        Int8Linear,
        Int8Weight,
        QApollo,
        dequantize_weights,
        quantize_weights,
    )
    from sharpen.optim.registry import create, parse_options
    from sharpen.optim.schedule_free import ScheduleFreeAdamW
    from sharpen.optim.schedules import Schedule
    from sharpen.optim.sgd import SGD, SGD8bit, SignSGD
    from sharpen.optim.soap import Soap
    from sharpen.optim.sso import TargetOptimizer
    from sharpen.optim.stable_embedding import StableEmbedding

__all__ = [
    "SGD",
    "SLS",
    "AdEMAMix",
    "AdEMAMix8bit",
    "Adafactor",
    "Adagrad",
    "Adagrad8bit",
    "AdamW",
    "AdamW4bit",
    "AdamW8bit",
    "Apollo",
    "ApolloMini",
    "ArmijoGD",
    "BAdam",
    "BlockQuantTensor",
    "Cosmos",
    "Fira",
    "Frugal",
    "GaLore",
    "GaLore8bit",
    "Int8Linear",
    "Int8Weight",
    "Lamb",
    "Lamb8bit",
    "Lion",
    "Lion8bit",
    "MeZO",
    "MemoryReport",
    "Muon",
    "NAdamW",
    "Optimizer",
    "Program",
    "ProgramOptimizer",
    "QApollo",
    "Rule",
    "SGD8bit",
    "Schedule",
    "ScheduleFreeAdamW",
    "SignSGD",
    "SlotSpec",
    "Soap",
    "StableEmbedding",
    "TargetOptimizer",
    "available",
    "convert",
    "create",
    "dequantize_blockwise",
    "dequantize_weights",
    "describe",
    "estimate",
    "fuse_into_backward",
    "orthogonalize",
    "param_groups",
    "parse_options",
    "quantize_blockwise",
    "quantize_weights",
    "roles",
]

_MODULES = {
    "adafactor": ("Adafactor",),
    "adagrad": ("Adagrad", "Adagrad8bit"),
    "adamw": ("AdamW", "AdamW4bit", "AdamW8bit"),
    "ademamix": ("AdEMAMix", "AdEMAMix8bit"),
    "apollo": ("Apollo", "ApolloMini"),
    "backward": ("fuse_into_backward",),
    "badam": ("BAdam",),
    "engine.base": ("Optimizer",),
    "conversion": ("convert",),
    "cosmos": ("Cosmos",),
    "fira": ("Fira",),
    "frugal": ("Frugal",),
    "galore": ("GaLore", "GaLore8bit"),
    "groups": ("describe", "param_groups", "roles"),
    "lamb": ("Lamb", "Lamb8bit"),
    "line_search": ("SLS", "ArmijoGD"),
    "lion": ("Lion", "Lion8bit"),
    "memory": ("MemoryReport", "estimate"),
    "mezo": ("MeZO",),
    "muon": ("Muon",),
    "nadamw": ("NAdamW",),
    "names": ("available",),
    "engine.orthogonal": ("orthogonalize",),
    "program": ("Program", "ProgramOptimizer"),
    "q_apollo": (
        "Int8Linear",
        "Int8Weight",
        "QApollo",
        "dequantize_weights",
        "quantize_weights",
    ),
    "engine.quant": ("BlockQuantTensor", "dequantize_blockwise", "quantize_blockwise"),
    "registry": ("create", "parse_options"),
    "engine.rule": ("Rule",),
    "schedule_free": ("ScheduleFreeAdamW",),
    "schedules": ("Schedule",),
    "sgd": ("SGD", "SGD8bit", "SignSGD"),
    "engine.slots": ("SlotSpec",),
    "soap": ("Soap",),
    "stable_embedding": ("StableEmbedding",),
    "sso": ("TargetOptimizer",),
}

__getattr__ = exports(
    __name__,
    {name: f"sharpen.optim.{module}" for module, names in _MODULES.items() for name in names},
)
