"""ENAMEL's problems, from the file ``enamel.csv``.

Qiu et al., *How Efficient is LLM-Generated Code? A Rigorous and High-Standard Benchmark*, ICLR 2025
(arXiv 2406.06647). The file is in the repository q-rz/enamel (Apache-2.0) and in no package; it has
the 164 problems of HumanEval with references of an expert, generators of inputs and checkers, of
which 142 are evaluated. Generators and checkers are code of others: they run in a sandbox.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from sharpen.code.problems.base import Problem
from sharpen.core.errors import DataError, FileFormatError, MissingFileError

__all__ = ["LEFT_OUT", "load_enamel"]

LEFT_OUT = frozenset(
    (
        *(2, 23, 41, 45, 53, 60, 71, 92, 97, 99, 102),
        *(123, 124, 135, 137, 138, 144, 148, 156, 157, 159, 160),
    )
)
"""Problems of HumanEval on which a solution cannot be slow."""

_COLUMNS = (
    *("task_id", "prompt", "input_generator", "input_levels"),
    *("reference_solution", "checker", "entry_point"),
)
_HELPERS = Path(__file__).with_name("enamel_inputs.py")
_BEFORE = """
import random, string, time

"""
_GENERATE = """

def generate(size, level, index, seed):
    random.seed(seed)
    return generate_input(size=size, lid=level, cid=index)
"""
_CHECK = """

check = __check
"""


def load_enamel(path: Path | None) -> list[Problem]:
    """The 142 problems that are evaluated.

    Args:
        path: of ``enamel.csv``.

    Raises:
        MissingFileError: there is no such file, or none is named.
        FileFormatError: it has other columns, or a row is damaged.
    """
    if path is None:
        raise MissingFileError(
            "the problems of ENAMEL are in no package: name the file dataset/enamel.csv of the"
            " repository q-rz/enamel (Apache-2.0), with --data enamel.csv or data=."
        )
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path} cannot be read: {error}.") from None
    if not rows or any(name not in rows[0] for name in _COLUMNS):
        raise FileFormatError(f"{path} must have the columns {', '.join(_COLUMNS)}.")
    helpers = _HELPERS.read_text(encoding="utf-8")
    found = []
    for line, row in enumerate(rows, 1):
        try:
            problem = _problem(row, helpers)
        except (ValueError, AttributeError, DataError) as error:
            raise FileFormatError(f"{path}, row {line}: {error}") from None
        if problem.number not in LEFT_OUT:
            found.append(problem)
    return found


def _problem(row: dict[str, str], helpers: str) -> Problem:
    prompt = row["prompt"]
    return Problem(
        name=row["task_id"],
        entry=row["entry_point"],
        prompt=prompt,
        reference=f"{prompt}\n{row['reference_solution']}",
        generator=helpers + _BEFORE + prompt + "\n" + row["input_generator"] + _GENERATE,
        levels=tuple(int(size) for size in row["input_levels"].split()),
        checker=f"{prompt}\n    pass\n{row['checker']}{_CHECK}",
        number=int(row["task_id"].rpartition("/")[2]),
    )
