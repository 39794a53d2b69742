"""The align stage in this process, for tests that look at what it writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.align.config import AlignConfig
from sharpen.align.run import run_align
from sharpen.core.config import from_dict
from sharpen.core.stage import StageContext

PAIRS = [
    {"prompt": f"{word} ", "chosen": word[::-1], "rejected": word + word}
    for word in ("ab", "cd", "ef", "gh", "ij", "kl")
]


def align(model: Path, folder: Path, rows: Sequence[Mapping[str, Any]], **own: Any) -> Path:
    """Where the model of an alignment is.

    Args:
        model: the start.
        folder: new; everything is written there.
        rows: what is learnt from.
        own: the stage's config, but ``data``.
    """
    for name in ("out", "work", "run"):
        (folder / name).mkdir(parents=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    context = StageContext(
        stage="align",
        seed=3,
        model=str(model),
        inputs={},
        output=folder / "out",
        work=folder / "work",
        run_folder=folder / "run",
    )
    run_align(from_dict(AlignConfig, {"data": str(data), **own}), context)
    return folder / "out"
