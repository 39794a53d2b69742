"""How long the training loop itself waits for rewards of which one in twenty hangs.

python -m benchmarks.align.bench_stalls [--quick]

GRPO on a small model with random weights, the whole loop: hand over weights, generate, have
completions rewarded by processes beside, score, learn. A reward takes some milliseconds; that of
one completion in twenty, chosen by its text, never ends and is killed at the deadline. Waiting is
the share of the whole run, its first iteration included, that the loop spent on taking rewards:
with ``staleness=0``, where every batch is learnt from at once, and with ``staleness=s``, where it
is while the s next ones are generated and rewarded. They are run in turn, on the same prompts.

What is hidden is no more than s iterations: a batch's rewards have the time of learning from the s
batches before and of generating the s next ones. So the deadlines are one well below the length of
an iteration, for ``staleness=1``, and one above it, where one is too few; the length of an
iteration without its waiting is published beside the deadline. There are more workers than calls
that hang hold: these are ``completions * 5 % * deadline / iteration`` on average.

Checked: as many optimizer steps as asked; completions without a reward are those that hang (those
that do not and were late, on a busy machine, are counted).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from benchmarks.align.hanging import HANGS, WORK_S, hangs, judged
from benchmarks.common import OURS, PEER, arguments, save, summarize

from sharpen.align.engines import PlainEngine
from sharpen.align.loop.rollouts import Rollouts, RolloutWork
from sharpen.align.methods import find_method
from sharpen.align.rewards import RewardPool
from sharpen.align.rows import tokenize_rows
from sharpen.align.rows.parse import parse_row
from sharpen.core.config import from_dict
from sharpen.models import DecoderLM, load_spec, load_tokenizer
from sharpen.serve.sampling import SamplingParams
from sharpen.train import StepReport, Trainer
from sharpen.train.config import TrainConfig

PROMPTS, DRAWS, NEW = 4, 8, 64
WORKERS = 8
CASES = ((1.0, (0, 1)), (5.0, (0, 1, 3)))
"""Seconds of the deadline, and staleness."""
SIZES = {"hidden_size": 192, "num_layers": 4}
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Counting(PlainEngine):
    """Counts completions, and those whose reward will hang."""

    made = hanging = 0

    def generate(self, prompts: Any, params: Any) -> Any:
        """As the engine does."""
        found = super().generate(prompts, params)
        self.made += len(found)
        self.hanging += sum(hangs(one.text) for one in found)
        return found


class Clock:
    """Seconds of each iteration, and of these waiting."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.waited: list[float] = []

    def on_start(self, trainer: Trainer) -> None:
        """Nothing."""

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """Keep them."""
        self.seconds.append(report.seconds)
        self.waited.append(report.metrics["reward_wait_s"])


def train(
    sizes: Mapping[str, int], deadline_s: float, staleness: int, iterations: int, seed: int
) -> dict[str, Any]:
    """One training; what it took."""
    width = sizes["hidden_size"]
    spec = dataclasses.replace(
        load_spec("tiny"),
        **sizes,
        intermediate_size=4 * width,
        num_heads=width // 32,
        num_kv_heads=width // 32,
        head_dim=32,
    )
    model = DecoderLM(spec)
    model.init_weights(seed)
    tokenizer, method = load_tokenizer("tiny"), find_method("grpo")
    parsed = [parse_row({"prompt": f"Say {a} and {b}: "}, a) for a in WORDS for b in WORDS]
    config = TrainConfig(
        steps=iterations, micro_batch=8, global_batch=PROMPTS * DRAWS, lr=1e-5, warmup=0
    )
    engine, clock = Counting(tokenizer), Clock()
    with RewardPool(judged, workers=WORKERS, deadline_s=deadline_s) as pool:
        warm = [text for text in map(str, range(3 * WORKERS)) if not hangs(text)]
        pool.score([""] * len(warm), warm)  # processes start
        before = pool.stats
        work = RolloutWork(
            tokenize_rows(parsed, tokenizer).rows,
            method,
            from_dict(method.options, {}),
            Rollouts(
                prompts=PROMPTS,
                generations=DRAWS,
                sampling=SamplingParams(max_tokens=NEW),
                staleness=staleness,
            ),
            engine=engine,
            pool=pool,
            eos_ids=frozenset({*spec.eos_token_ids, tokenizer.eos_id}),
        )
        done = Trainer(model, work, config, seed=seed, callbacks=[clock]).fit()
        stats = pool.stats
    assert (done.steps, done.skipped_steps) == (iterations, 0)
    assert stats.samples - before.samples == engine.made == iterations * PROMPTS * DRAWS
    missing = {name: count - before.missing.get(name, 0) for name, count in stats.missing.items()}
    assert set(missing) <= {"deadline"}
    assert missing.get("deadline", 0) >= engine.hanging
    working = [a - b for a, b in zip(clock.seconds, clock.waited, strict=True)]
    return {
        "waited": sum(clock.waited) / sum(clock.seconds),
        "seconds": sum(clock.seconds),
        "iteration_s": summarize(working[1:] or working)["median"],
        "waited_s": clock.waited,
        "made": engine.made,
        "hung": engine.hanging,
        "late": missing.get("deadline", 0) - engine.hanging,
    }


def main() -> None:
    """Measure."""
    args = arguments(__doc__, "align_stalls")
    torch.set_num_threads(1)
    iterations, repeats = (4, 1) if args.quick else (12, 3)
    cases = CASES[:1] if args.quick else CASES
    sizes = {"hidden_size": 64, "num_layers": 2} if args.quick else SIZES
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        f"{deadline_s:g}": {str(staleness): [] for staleness in ways} for deadline_s, ways in cases
    }
    for repeat in range(repeats):
        for deadline_s, ways in cases:
            for staleness in ways:
                told = train(sizes, deadline_s, staleness, iterations, repeat)
                runs[f"{deadline_s:g}"][str(staleness)].append(told)
                print(deadline_s, staleness, {**told, "waited_s": None}, flush=True)
    summary = {
        deadline: {
            staleness: {
                name: summarize([one[name] for one in own])
                for name in ("waited", "seconds", "iteration_s")
            }
            for staleness, own in ways.items()
        }
        for deadline, ways in runs.items()
    }
    results = {"runs": runs, "summary": summary, "wanted": 0.02}

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        names, values, colors = [], [], []
        for deadline, ways in summary.items():
            for staleness, own in ways.items():
                names.append(f"deadline {deadline} s, staleness={staleness}")
                values.append(100 * own["waited"]["median"])
                colors.append(PEER if staleness == "0" else OURS)
        axes.barh(names, values, color=colors)
        axes.invert_yaxis()
        axes.axvline(2, color="black", linestyle=":")
        axes.set_xlabel("share of the time that the training loop waited, %")
        axes.set_title(f"{HANGS:.0%} of the rewards hang until their deadline")

    config = {
        "hangs": HANGS,
        "workers": WORKERS,
        "completions": PROMPTS * DRAWS,
        "new_tokens": NEW,
        "work_s": WORK_S,
        "iterations": iterations,
        "repeats": repeats,
        **sizes,
    }
    save(args, results, config=config, plot=plot)


if __name__ == "__main__":
    main()
