"""Check a claim again: the same inputs, the same question, without any search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sharpen.code.improver.equality import Equality
from sharpen.code.improver.observer import Watcher
from sharpen.code.improver.reference import call_text, record_baseline
from sharpen.code.improver.target import Target, functions_of, locate, parsed
from sharpen.code.measure import compare
from sharpen.core.errors import FileFormatError, MissingFileError
from sharpen.core.sandbox import CodecError, decode

__all__ = ["reproduce"]


def reproduce(folder: Path) -> int:
    """Compare the texts in a folder of results and time them; prints what it finds.

    The improved text is run as it is, without a sandbox.

    Returns:
        0 where nothing differs and the gain is there again, else 1.

    Raises:
        MissingFileError: a file is gone.
        FileFormatError: one is damaged.
    """
    settings, inputs, timed = _read(folder)
    text = (folder / "improved.py.txt").read_bytes().decode("utf-8")
    target = _target(folder, settings)
    equality = Equality(settings["equal"])
    with Watcher(target.program(), 0) as one, Watcher(target.program(), 1) as other:
        judged = settings["equal"].startswith("mod")
        baseline = record_baseline(inputs, one, other, equality, judged=judged)
    with Watcher(target.program(text)) as improved:
        refuted = baseline.refute(improved, equality)
    if refuted is not None:
        call = "" if refuted.index is None else call_text(baseline.inputs[refuted.index])
        print(f"different: {call} {refuted.difference}")
        return 1
    print(f"no difference on {len(baseline.inputs)} inputs")
    gain = False
    for name, calls in timed:
        found = compare(target.program(), target.program(text), calls, budget_s=3)
        print(f"{name}: {found.summary()}")
        gain = found.low >= settings["min_gain"]
    return 0 if gain else 1


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
