"""LoRA fine-tuning beside ``transformers`` Trainer with ``peft``: same model, rows, type, threads.

Each side lives in a process of its own and waits; the parent lets them take one optimizer step in
turn, so that whatever else the machine does strikes both. Both get the same packed rows of 512
tokens, bf16 base weights, bf16 autocast, float32 adapters of rank 16 on all linear layers, fused
AdamW, two sequences a step. Documents do not see each other on either side, and the losses of
the first step must agree to 2 % (the peer shifts labels itself and so loses the one after a row's
last token). Peak memory is each process's own high-water mark. Ours is started as ``sharpen run``
starts a stage, with the allocator asking for huge pages; the peer as its user starts it, and once
more with our settings, to show what they alone are worth.

    python -m benchmarks.train.bench_lora [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, draw_bars, ratio, save, summarize
from benchmarks.turns import Turn, start, step

from sharpen.core.huge_pages import worker_environment

MODEL = "smollm2-135m-instruct"
LENGTH, RANK, LR, BATCH = 512, 16, 2e-4, 2
WANTED_SPEED, WANTED_MEMORY = 1.15, 0.9


def run_ours(data: str, steps: int) -> None:
    from sharpen.train import StepReport, TrainConfig, Trainer
    from sharpen.train.prepare import prepare_model

    turn = Turn()

    class Wait:
        def on_start(self, trainer: Trainer) -> None:
            turn.wait()

        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            turn.report(report.seconds, report.loss)
            turn.wait()

    config = TrainConfig(
        method="lora", rank=RANK, lr=LR, steps=steps, global_batch=BATCH, dtype="bfloat16"
    )
    model = prepare_model(MODEL, config, seed=0)
    Trainer(model, data, config, callbacks=[Wait()]).fit()


def run_peer(data: str, folder: str, steps: int) -> None:
    import time

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from sharpen.data import TokenDataset, TokenLoader

    turn = Turn()
    loader = TokenLoader(TokenDataset(data), 1, seed=0)

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            for batch in loader:
                labels = torch.full((LENGTH,), -100)
                labels[1:] = torch.from_numpy(batch.labels[0][:-1])  # the model shifts them itself
                yield {
                    "input_ids": torch.from_numpy(batch.input_ids[0]),
                    "position_ids": torch.from_numpy(batch.position_ids[0]),
                    "labels": labels,
                }

    class Wait(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            turn.wait()
            self.begin = time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **k: Any) -> None:
            if logs and "loss" in logs:
                turn.report(self.seconds, float(logs["loss"]))

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seconds = time.perf_counter() - self.begin

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    model.config.use_cache = False
    adapters = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    settings = TrainingArguments(
        output_dir=folder + "-out",
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=BATCH,
        learning_rate=LR,
        lr_scheduler_type="cosine",
        optim="adamw_torch_fused",
        weight_decay=0.1,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=0,
    )
    Trainer(
        get_peft_model(model, adapters), settings, train_dataset=Rows(), callbacks=[Wait()]
    ).train()


def started(side: str, *args: str, tuned: bool) -> subprocess.Popen[str]:
    env = worker_environment() if tuned else None
    return start("benchmarks.train.bench_lora", side, *args, env=env)


def main() -> int:
    args = arguments(__doc__, "train_lora")
    import torch

    import sharpen as sh
    from sharpen.models import load_model, load_tokenizer, save_model

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rounds, warmup = (2, 1) if args.quick else (9, 2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = {
            "sharpen": 1,
            "name": "rows",
            "model": MODEL,
            "data": {
                "source": {"asset": "python-stdlib", "view": "docstrings"},
                "format": "prompt_completion",
                "max_tokens": LENGTH,
                "split": {"valid": 0.1, "by": "module"},
                "limit": 2000,
            },
        }
        data = str(sh.run(recipe, output=folder / "run").artifact("data").resolve())
        save_model(
            load_model(MODEL, dtype=torch.bfloat16),
            folder / "model",
            tokenizer=load_tokenizer(MODEL),
        )
        steps, model = str(rounds + warmup + 1), str(folder / "model")
        children = {
            "sharpen": started("sharpen", data, steps, tuned=True),
            "transformers + peft": started("peer", data, model, steps, tuned=False),
            "the same, huge pages": started("peer", data, model, steps, tuned=True),
        }
        reports: dict[str, list[dict[str, float]]] = {name: [] for name in children}
        for number in range(warmup + rounds):
            for name, child in children.items():
                reports[name].append(step(child))
            print(number, {k: round(v[-1]["seconds"], 2) for k, v in reports.items()}, flush=True)
        for child in children.values():
            child.kill()
            child.wait()
    seconds = {k: [r["seconds"] for r in v[warmup:]] for k, v in reports.items()}
    peaks = {k: v[-1]["peak_bytes"] for k, v in reports.items()}
    first = [v[0]["loss"] for v in reports.values()]
    if not math.isclose(min(first), max(first), rel_tol=0.02):
        print(f"the losses of the first step differ: {first}")
        return 1
    names = list(children)
    speed = ratio(seconds[names[1]], seconds[names[0]])
    memory = peaks[names[0]] / peaks[names[1]]
    tokens = BATCH * LENGTH
    results = {
        "seconds": seconds,
        "summary_s": {k: summarize(v) for k, v in seconds.items()},
        "tokens_per_s": {k: tokens / summarize(v)["median"] for k, v in seconds.items()},
        "peak_bytes": peaks,
        "losses": {k: [r["loss"] for r in v] for k, v in reports.items()},
        "speed_ratio": speed,
        "speed_ratio_tuned_peer": ratio(seconds[names[2]], seconds[names[0]]),
        "memory_ratio": memory,
        "wanted": {"speed_ratio": WANTED_SPEED, "memory_ratio": WANTED_MEMORY},
    }
    print(f"speed {speed:.2f} x, memory {memory:.2f} x of transformers + peft")

    def plot(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        draw_bars(
            left,
            y_label="tokens/s",
            groups=["LoRA, bf16, 512"],
            series={k: [v] for k, v in results["tokens_per_s"].items()},  # type: ignore[attr-defined]
        )
        left.set_title(f"{speed:.2f} x")
        draw_bars(
            right,
            y_label="peak memory, GiB",
            groups=["LoRA, bf16, 512"],
            series={k: [v / 2**30] for k, v in peaks.items()},
        )
        right.set_title(f"{memory:.2f} x")

    config = {"model": MODEL, "length": LENGTH, "rank": RANK, "batch": BATCH, "lr": LR}
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    if "--side" in sys.argv:
        at = sys.argv.index("--side")
        side, rest = sys.argv[at + 1], sys.argv[at + 2 :]
        if side == "sharpen":
            run_ours(rest[0], int(rest[1]))
        else:
            run_peer(rest[0], rest[1], int(rest[2]))
        sys.exit(0)
    sys.exit(main())
