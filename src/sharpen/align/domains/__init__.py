"""Synthetic tasks whose rewards are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.align.domains.program_models import (
        program_model,
        program_tokenizer,
        write_program_model,
    )
    from sharpen.align.domains.program_rewards import ProgramReward
    from sharpen.align.domains.program_tasks import program_rows
    from sharpen.align.domains.programs import pessimized, python_source, run_program, run_tests

_MODULES = {
    "program_models": ["program_model", "program_tokenizer", "write_program_model"],
    "program_rewards": ["ProgramReward"],
    "program_tasks": ["program_rows"],
    "programs": ["pessimized", "python_source", "run_program", "run_tests"],
}

__all__ = [
    "ProgramReward",
    "pessimized",
    "program_model",
    "program_rows",
    "program_tokenizer",
    "python_source",
    "run_program",
    "run_tests",
    "write_program_model",
]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
