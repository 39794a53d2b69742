"""Check a claim again: the same inputs, the same question, without any search."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sharpen.code.improver.equality import Equality
from sharpen.code.improver.objective import TIMES, counted
from sharpen.code.improver.observer import Observer, Sandboxed, Watcher
from sharpen.code.improver.reference import call_text, record_baseline
from sharpen.code.improver.sandbox_timer import SandboxTimer
from sharpen.code.improver.target import Target, functions_of, locate, parsed
from sharpen.code.inputs import Input
from sharpen.code.measure import Program, Timer, compare_timers, encode_inputs
from sharpen.core.errors import FileFormatError, MissingFileError
from sharpen.core.sandbox import CodecError, SandboxPool, decode

__all__ = ["reproduce"]

_BUDGET_S = 10.0  # most; a clear difference is seen sooner


def reproduce(folder: Path, *, trust_llm: bool = False) -> int:
    """Compare the texts in a folder of results and time them; prints what it finds.

    Args:
        folder: of ``sharpen improve``.
        trust_llm: run what a language model wrote outside of the sandbox.

    Returns:
        0 where nothing differs and the gain is there again, else 1.

    Raises:
        MissingFileError: a file is gone.
        FileFormatError: one is damaged.
        SandboxUnavailable: a language model wrote it, and there is no sandbox.
    """
    settings, inputs, timed = _read(folder)
    text = (folder / "improved.py.txt").read_bytes().decode("utf-8")
    target = _target(folder, settings)
    equality = Equality(settings["equal"])
    with ExitStack() as stack:
        pool = None
        if settings["origin"] == "llm" and not trust_llm:
            pool = stack.enter_context(SandboxPool(1, packages=settings["packages"]))
        one, other = (stack.enter_context(Watcher(target.program(), seed)) for seed in (0, 1))
        judged = settings["equal"].startswith("mod")
        baseline = record_baseline(inputs, one, other, equality, judged=judged)
        program = target.program(text)
        improved: Observer = Watcher(program) if pool is None else Sandboxed(program, pool)
        stack.callback(improved.close)
        refuted = baseline.refute(improved, equality)
        if refuted is not None:
            call = "" if refuted.index is None else call_text(baseline.inputs[refuted.index])
            print(f"different: {call} {refuted.difference}")
            return 1
        print(f"no difference on {len(baseline.inputs)} inputs")
        objective = settings["objective"]
        low = 0.0
        for name, calls in timed:
            with ExitStack() as measured:
                old, new = _timers(measured, target.program(), program, calls, pool)
                clock = objective if objective in TIMES else "cpu"
                found = compare_timers(old, new, clock=clock, budget_s=_BUDGET_S)
                print(f"{name}: {found.summary()}")
                low = found.low
                if calls is timed[-1][1] and objective not in TIMES:
                    gain = counted(objective, old, new, calls)
                    print(f"{name}: it {gain.summary()}")
                    low = gain.low
    return 0 if low >= settings["min_gain"] else 1


def _timers(
    stack: ExitStack, old: Program, new: Program, calls: list[Input], pool: SandboxPool | None
) -> list[Timer]:
    encoded = encode_inputs(calls)
    if pool is not None:
        return [SandboxTimer(one, encoded, pool) for one in (old, new)]
    processor = min(os.sched_getaffinity(0))
    return [stack.enter_context(Timer(one, encoded, processor)) for one in (old, new)]


def _target(folder: Path, settings: dict[str, Any]) -> Target:
    """The function as it was: the file itself may have changed since."""
    text = (folder / "original.py.txt").read_bytes().decode("utf-8")
    file = Path(settings["file"])
    found = locate(file, settings["entry"], root=settings["root"])
    node, _ = functions_of(parsed(text, file))[settings["entry"]]
    return Target(found.file, found.root, found.entry, text, found.kind, node)


def _read(folder: Path) -> tuple[dict[str, Any], Any, Any]:
    try:
        settings = json.loads((folder / "reproduce.json").read_text(encoding="utf-8"))
        inputs, timed = decode((folder / "inputs.bin").read_bytes())
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no {error.filename}.") from None
    except (ValueError, CodecError, TypeError) as error:
        raise FileFormatError(f"{folder} holds no result of sharpen improve: {error}.") from None
    return settings, inputs, timed
