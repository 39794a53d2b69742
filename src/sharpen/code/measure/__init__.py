"""Times that can be believed: interleaved pairs, intervals, counts that confirm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.code.measure.comparison import Comparison, compare, compare_timers
    from sharpen.code.measure.instructions import count_instructions, has_counter
    from sharpen.code.measure.process import Late, Timer, encode_inputs
    from sharpen.code.measure.program import Program
    from sharpen.code.measure.single import Figures, growth, measure
    from sharpen.code.measure.statistics import Ratio, decide, ratio_of_pairs

_MODULES = {
    "comparison": ["Comparison", "compare", "compare_timers"],
    "instructions": ["count_instructions", "has_counter"],
    "process": ["Late", "Timer", "encode_inputs"],
    "program": ["Program"],
    "single": ["Figures", "growth", "measure"],
    "statistics": ["Ratio", "decide", "ratio_of_pairs"],
}

__all__ = [
    "Comparison",
    "Figures",
    "Late",
    "Program",
    "Ratio",
    "Timer",
    "compare",
    "compare_timers",
    "count_instructions",
    "decide",
    "encode_inputs",
    "growth",
    "has_counter",
    "measure",
    "ratio_of_pairs",
]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
