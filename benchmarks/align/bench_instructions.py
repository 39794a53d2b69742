"""What instructions do for a small pretrained model that acts: none, a sentence, two examples.

SmolLM2 135M plays questions that take two look-ups (``RetrievalTask``) as it is, nothing is
trained; the likeliest tokens, 16 a turn, the same tasks for all. The text with the examples is
``examples/align/retrieval.txt``, the sentence is its first line.

    python -m benchmarks.align.bench_instructions [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from benchmarks.common import OURS, arguments, save

from sharpen.align.agents.playing import play_world

MODEL, FIRST, TURN = "smollm2-135m-instruct", 100_000, 16
TEXT = Path(__file__).parents[2] / "examples/align/retrieval.txt"


def main() -> int:
    args = arguments(__doc__, "align_instructions")
    torch.set_num_threads(1)
    text = TEXT.read_text(encoding="utf-8").strip()
    texts = {"none": "", "one sentence": text.splitlines()[0], "and two examples": text}
    judged = 2 if args.quick else 40
    results = {}
    for name, instructions in texts.items():
        results[name] = play_world(
            MODEL,
            "retrieval",
            tasks=range(FIRST, FIRST + judged),
            max_tokens=TURN,
            temperature=0.0,
            instructions=instructions,
        )
        print(name, results[name], flush=True)

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        values = [one["success"] for one in results.values()]
        bars = [
            [one["value"] - one["low"] for one in values],
            [one["high"] - one["value"] for one in values],
        ]
        axes.bar(list(results), [one["value"] for one in values], yerr=bars, color=OURS, capsize=4)
        axes.set_ylabel("success, 95 %")

    save(args, results, config={"model": MODEL, "judged": judged, "max_tokens": TURN}, plot=plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
