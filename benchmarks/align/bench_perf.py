"""Whether ranked programs teach a model to write faster ones than those it was tuned on.

python -m benchmarks.align.bench_perf [--quick]

As PerfRL (Duan et al., 2023): a small model is tuned on slow programs that are right, then by RRHF
on lists of programs with scores: a fast one, a slow one, a wrong one, one that fails and a text
that is none. Tasks are those of ``sharpen.align.domains`` with prompts that training never saw.
%Opt is the share of prompts for which the greedy program is right and costs at most 1 / 1.1 of the
row's slow one, in instructions of the interpreter; %Correct the share of right ones. Everything is
trained through the command line. Beside it, as long a second tuning on the fast programs of the
same lists alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import OURS, PEER, arguments, save, summarize

from sharpen.align.domains import program_rows, run_tests, write_program_model
from sharpen.align.domains.programs import cost
from sharpen.models import generate, load_model
from sharpen.models.tokenizer import load_tokenizer

MIN_SPEEDUP = 1.1


def train(folder: Path, method: str, model: str, data: str, out: str, *words: str) -> str:
    """Run ``sharpen align``; the folder of the model that it wrote."""
    line = [sys.executable, "-m", "sharpen.cli.main", "align", method, "--model", model]
    line += ["--data", data, "--output", f"runs/{out}", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(line, cwd=folder, check=True, env=environment, stdout=subprocess.DEVNULL)
    return f"runs/{out}/align"


def judge(model: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Shares of prompts with a right program, and with a right and faster one."""
    tokenizer, loaded = load_tokenizer(model), load_model(model)
    end = tokenizer.eos_id
    assert end is not None
    prompts = [tokenizer.encode(row["prompt"]) for row in rows]
    correct = optimized = 0
    for one, row in zip(
        generate(loaded, prompts, max_new_tokens=9, stop_ids=(end,)), rows, strict=True
    ):
        program = tokenizer.decode(one.ids).strip()
        if run_tests(program, row["tests"]).ending != "correct":
            continue
        correct += 1
        inputs = tuple(given for given, _ in row["tests"])
        optimized += cost(row["completion"], inputs) >= MIN_SPEEDUP * cost(program, inputs)
    return {"correct": correct / len(rows), "optimized": optimized / len(rows)}


def one_seed(seed: int, steps: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Tune, rank, judge."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_program_model(folder / "model", seed=seed)
        sets = {
            "slow": program_rows(3000, slow=True, seed=10 * seed),
            "ranked": program_rows(1000, kind="ranked", seed=10 * seed + 1),
            "fast": program_rows(1000, seed=10 * seed + 1),
        }
        for kind, rows in sets.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{kind}.jsonl").write_text(lines)
        first = [str(steps[0]), "--lr", "3e-3", "batch=64"]
        second = [str(steps[1]), "--lr", "1e-3", "batch=32"]
        seeded = ["--seed", str(seed), "--steps"]
        tuned = train(folder, "sft", "model", "slow.jsonl", "sft", *seeded, *first)
        ranked = train(folder, "rrhf", tuned, "ranked.jsonl", "rrhf", *seeded, *second)
        again = train(folder, "sft", tuned, "fast.jsonl", "again", *seeded, *second)
        test = program_rows(300, split="test", slow=True, seed=seed)
        found = {}
        for way, model in {
            "SFT on slow programs": tuned,
            "then RRHF on lists": ranked,
            "or SFT on the fast ones": again,
        }.items():
            found[way] = judge(folder / model, test)
        return found


def main() -> None:
    """Measure."""
    args = arguments(__doc__, "align_perf")
    torch.set_num_threads(1)
    seeds, steps = ([0], (20, 3)) if args.quick else ([0, 1, 2], (700, 60))
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        begin = time.perf_counter()
        found = one_seed(seed, steps)
        rows.append({"seed": seed, "seconds": time.perf_counter() - begin, "shares": found})
        print(json.dumps(rows[-1]), flush=True)
    ways = list(rows[0]["shares"])
    summary = {
        way: {
            share: summarize([row["shares"][way][share] for row in rows])
            for share in ("correct", "optimized")
        }
        for way in ways
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for i, (share, colour, hatch) in enumerate(
            (("correct", PEER, "//"), ("optimized", OURS, ""))
        ):
            values = [100 * summary[way][share]["median"] for way in ways]
            places = [j + 0.4 * i for j in range(len(ways))]
            axes.bar(places, values, 0.38, color=colour, hatch=hatch, label=share)
        axes.set_xticks([j + 0.2 for j in range(len(ways))], ways)
        axes.set_ylabel("share of prompts, %")
        axes.set_title("programs that are right, and at least 1.1 times as fast")
        axes.set_ylim(0, 100)
        axes.legend()

    config = {"seeds": seeds, "steps": list(steps), "min_speedup": MIN_SPEEDUP}
    save(args, {"rows": rows, "summary": summary}, config=config, plot=plot)


if __name__ == "__main__":
    main()
