"""PIE's files, and how programs that read standard input are judged and timed."""

from __future__ import annotations

from sharpen.code.pie.evaluation import PieConfig, pie_eval
from sharpen.code.pie.programs import Programs
from sharpen.code.pie.rows import PieRow, load_pie, read_tests

__all__ = ["PieConfig", "PieRow", "Programs", "load_pie", "pie_eval", "read_tests"]
