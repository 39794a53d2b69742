"""ReMax against PPO of our own: time of an iteration without generation, and peak memory.

Both learn on the same model from the same prompts, with a function as the reward, completions of
one length, float32, and no reference (beta 0), so that what differs is the critic and the passes
over the rollouts. PPO runs with its 4 passes and with 1; ReMax generates a greedy completion beside
each one, which is part of generation. Steps of a contender's process alternate with the others'.

Counting a pass forward as 1 and backward as 2, an iteration costs::

    ReMax            3                                 one pass
    PPO, 1 pass      3 + 3 + 2 = 8                     policy, critic, and scoring both before
    PPO, 4 passes    4 (3 + 3) + 2 = 26

Bytes a parameter in float32: 16 of a trained model (weights, gradients, two moments), twice that
with a critic of the actor's size, and 4 of the engine's copy. Peak memory is also told above what
the process held when all was imported.

    python -m benchmarks.align.bench_remax [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.align.bench_trl import reward, rows
from benchmarks.common import arguments, draw_bars, ratio, save, summarize
from benchmarks.turns import Turn, resident_bytes, start, step

THREADS, PROMPTS, NEW, LR = 1, 16, 48, 1e-5
SIDES = {"ReMax": ("remax", 1), "PPO, 1 pass": ("ppo", 1), "PPO, 4 passes": ("ppo", 4)}
WANTED = {"time": 0.55, "memory": 0.6}
SIZES = {"hidden_size": 512, "num_layers": 8}


def contender(method: str, passes: int, model: str, data: str, iterations: int) -> None:
    import torch

    from sharpen.align.config import AlignConfig, RewardConfig
    from sharpen.align.engines import ServedEngine
    from sharpen.align.loop.rollouts import Rollouts, RolloutWork
    from sharpen.align.methods import find_method
    from sharpen.align.rewards import RewardPool
    from sharpen.align.rows import read_feedback, tokenize_rows
    from sharpen.models import load_tokenizer
    from sharpen.serve import SamplingParams
    from sharpen.train import StepReport, Trainer
    from sharpen.train.prepare import prepare_model

    torch.set_num_threads(THREADS)
    turn, base = Turn(), resident_bytes()

    class Wait:
        def __init__(self) -> None:
            self.seconds = 0.0
            self.generated = 0.0
            self.loss = 0.0

        def on_start(self, trainer: Trainer) -> None:
            turn.wait()

        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            self.seconds += report.seconds
            self.generated += report.metrics.get("generate_s", 0.0)
            self.loss += report.loss
            if trainer.work.at_boundary:
                learning = self.seconds - self.generated
                turn.report(learning, self.loss, base=base, generate=self.generated)
                self.__init__()  # type: ignore[misc]
                turn.wait()

    found = find_method(method)
    config = AlignConfig(
        method=method,  # type: ignore[arg-type]
        data=data,
        batch=PROMPTS,
        steps=iterations,
        epochs_per_batch=passes,
        options={"beta": 0.0},
        lr=LR,
        reward=RewardConfig(uses="number"),
    )
    training = config.training(iterations, 4)
    tokenizer = load_tokenizer(model)
    policy = prepare_model(model, training, seed=0)
    if found.add_heads is not None:
        found.add_heads(policy)
    tokens = tokenize_rows(read_feedback(data, kind="prompt").rows, tokenizer).rows
    rollouts = Rollouts(
        prompts=PROMPTS,
        generations=1,
        epochs=passes,
        sampling=SamplingParams(max_tokens=NEW, ignore_eos=True),
    )
    engine = ServedEngine(
        model,
        dtype=torch.float32,
        max_batch=2 * PROMPTS,
        max_context=max(map(len, tokens)) + NEW,
    )

    def scored(prompts: Any, completions: Any, meta: Any) -> list[float | None]:
        return list(reward(list(completions)))

    with RewardPool(scored, workers=0) as pool:
        work = RolloutWork(
            tokens, found, config.method_options(), rollouts, engine=engine, pool=pool
        )
        Trainer(policy, work, training, callbacks=[Wait()]).fit()


def main() -> int:
    args = arguments(__doc__, "align_remax")
    import dataclasses

    from sharpen.models import DecoderLM, load_spec, load_tokenizer, save_model

    rounds, warmup = (1, 1) if args.quick else (9, 1)
    sizes = {"hidden_size": 64, "num_layers": 2} if args.quick else SIZES
    module = "benchmarks.align.bench_remax"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        text = "".join(json.dumps(row) + "\n" for row in rows(64))
        (folder / "rows.jsonl").write_text(text)
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
        model.init_weights(0)
        save_model(model, folder / "model", tokenizer=load_tokenizer("tiny"))
        parameters = sum(p.numel() for p in model.parameters())
        env = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        total = str(rounds + warmup + 1)
        paths = str(folder / "model"), str(folder / "rows.jsonl")
        children = {
            name: start(module, method, str(passes), *paths, total, env=env)
            for name, (method, passes) in SIDES.items()
        }
        reports: dict[str, list[dict[str, float]]] = {name: [] for name in children}
        try:
            for number in range(warmup + rounds):
                for name, child in children.items():
                    reports[name].append(step(child))
                told = {name: round(own[-1]["seconds"], 2) for name, own in reports.items()}
                print(number, told, flush=True)
        finally:
            for child in children.values():
                child.kill()
                child.wait()
    seconds = {name: [one["seconds"] for one in own[warmup:]] for name, own in reports.items()}
    peaks = {name: own[-1]["peak_bytes"] for name, own in reports.items()}
    above = {name: own[-1]["peak_bytes"] - own[-1]["base"] for name, own in reports.items()}
    results = {
        "parameters": parameters,
        "learning_s": seconds,
        "summary_s": {name: summarize(own) for name, own in seconds.items()},
        "generate_s": {
            name: summarize([one["generate"] for one in own[warmup:]])
            for name, own in reports.items()
        },
        "peak_bytes": peaks,
        "peak_above_import_bytes": above,
        "time": {name: 1 / ratio(own, seconds["ReMax"]) for name, own in seconds.items()},
        "memory": {name: peaks["ReMax"] / one for name, one in peaks.items()},
        "memory_above_import": {name: above["ReMax"] / one for name, one in above.items()},
        "wanted": WANTED,
    }

    def plot(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        groups = [f"{parameters / 1e6:.0f} M parameters"]
        medians = {name: [summarize(own)["median"]] for name, own in seconds.items()}
        draw_bars(left, y_label="seconds of learning", groups=groups, series=medians)
        sizes_gib = {name: [one / 2**30] for name, one in above.items()}
        draw_bars(right, y_label="peak above import, GiB", groups=groups, series=sizes_gib)

    config = {"threads": THREADS, "prompts": PROMPTS, "new_tokens": NEW, "rounds": rounds, **sizes}
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    if "--side" in sys.argv:
        at = sys.argv.index("--side")
        name, passes, model, data, iterations = sys.argv[at + 1 : at + 6]
        contender(name, int(passes), model, data, int(iterations))
        sys.exit(0)
    sys.exit(main())
