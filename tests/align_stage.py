"""The align stage in this process, for tests that look at what it writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.align.config import AlignConfig
from sharpen.align.run import run_align
from sharpen.core.config import from_dict
from sharpen.core.stage import StageContext

WORDS = ("ab", "cd", "ef", "gh", "ij", "kl")
PAIRS = [{"prompt": f"{word} ", "chosen": word[::-1], "rejected": word + word} for word in WORDS]
ROWS: dict[str, list[dict[str, Any]]] = {
    "completion": [{"prompt": f"{word} ", "completion": word[::-1]} for word in WORDS],
    "preference": PAIRS,
    "label": [
        {"prompt": f"{word} ", "completion": word, "label": i % 2 == 0}
        for i, word in enumerate(WORDS)
    ],
    "ranked": [
        {"query": f"{word} ", "responses": [word, word[::-1], "x"], "scores": [0, 2, 1]}
        for word in WORDS
    ],
    "prompt": [{"prompt": f"{word} ", "answer": i} for i, word in enumerate(WORDS)],
}
"""Feedback of every kind."""

REWARD = "def even(prompts, completions, meta):\n    return [len(c) % 7 / 7 for c in completions]\n"


class Stage:
    """One alignment: its files, results, and metrics by name.

    Args:
        model: the start.
        folder: everything is written there; what was begun there goes on.
        stop_at: interrupt after this optimizer step.
        own: the stage's config.
    """

    def __init__(
        self, model: Path, folder: Path, *, stop_at: int | None = None, **own: Any
    ) -> None:
        self.metrics: dict[str, list[float]] = {}
        self.stop_at = stop_at
        self.output, self.work, self.folder = (folder / name for name in ("out", "work", "run"))
        for path in (self.output, self.work, self.folder):
            path.mkdir(parents=True, exist_ok=True)
        context = StageContext(
            stage="align",
            seed=3,
            model=str(model),
            inputs={},
            output=self.output,
            work=self.work,
            folder=folder,
            run_folder=self.folder,
            on_metric=self._metric,
        )
        self.result = run_align(from_dict(AlignConfig, own), context)

    def _metric(self, name: str, value: float, step: int | None) -> None:
        if step is not None and step == self.stop_at:
            raise KeyboardInterrupt
        self.metrics.setdefault(name, []).append(value)

    @property
    def weights(self) -> dict[str, bytes]:
        """What was written, by file."""
        return {path.name: path.read_bytes() for path in self.output.glob("*.safetensors")}


def align(model: Path, folder: Path, rows: Sequence[Mapping[str, Any]], **own: Any) -> Path:
    """Where the model of an alignment is.

    Args:
        model: the start.
        folder: new; everything is written there.
        rows: what is learnt from.
        own: the stage's config, but ``data``.
    """
    folder.mkdir(parents=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Stage(model, folder, **{"data": str(data), **own}).output
