"""DPO and GRPO beside TRL: same model, prompts, token counts, type and threads, in turn.

Each side lives in a process of its own and takes one optimizer step when the parent says so. The
models are our tiny one (3.1 M parameters, all trained) and SmolLM2-135M with adapters of rank 16 on
all linear layers; float32 throughout, AdamW. All sides have huge pages, which our commands ask for
by themselves.

**DPO**: 8 pairs of prompts and texts of the standard library a step; TRL once as it comes, where
the reference runs in every step, and once with ``precompute_ref_log_probs``, as ours always does;
what is done once before the first step is told apart. **GRPO**: 4 prompts, 8 completions of each,
all of exactly 48 new tokens (the end of the text is ignored, or forbidden), the share of the letter
e as the reward, ``dapo``, no reference; TRL generates with ``transformers``. Once with prompts of
about ten tokens and once with two docstrings before each, where what completions of one prompt
share is most of the work. Peak memory is each
process's high-water mark, and the same above what it held when everything was imported.

Checked: the losses of the first two steps of DPO agree to 1e-3, which needs the same pairs and the
same update.

**Limit**: operations of our step are counted, and the highest rate that float32 products of its
shapes reach on this core is measured: TRL's time over operations / rate is the most that anybody
could be faster. ``--only limit`` puts that into a result that is there, in a minute.

    python -m benchmarks.align.bench_trl [--json OUT] [--plot OUT] [--quick] [--only limit]
"""

from __future__ import annotations

import ast
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, draw_bars, ratio, save, summarize
from benchmarks.turns import Turn, resident_bytes, start, step

from sharpen.core.huge_pages import worker_environment

PAIRS, PROMPTS, GENERATIONS, NEW, LR = 8, 4, 8, 48, 1e-5
THREADS = 1  # so that what else runs on the machine makes no side wait for its own threads
MODELS = {"tiny": "full", "smollm2-135m-instruct": "lora"}
ROUNDS = {"tiny": 11, "smollm2-135m-instruct": 3}
RUNS = (
    ("dpo", "dpo", False, ("tiny", "smollm2-135m-instruct")),
    ("grpo", "grpo", False, ("tiny", "smollm2-135m-instruct")),
    # With SmolLM2 TRL had taken 14 GiB when it was killed for lack of memory.
    ("grpo, long prompts", "grpo", True, ("tiny",)),
)
WANTED = {"dpo": 1.5, "grpo": 2.0, "memory": 0.7}


def rows(count: int, *, long: bool = False) -> list[dict[str, str]]:
    """Prompts, docstrings, and docstrings of other functions; long prompts have two before."""
    found: list[tuple[str, str]] = []
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(errors="replace"))):
            text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            if isinstance(node, ast.FunctionDef) and text and 80 <= len(text) <= 400:
                names = ", ".join(one.arg for one in node.args.args)
                found.append((f"Describe {node.name}({names}):", " " + " ".join(text.split())))
        if len(found) > 2 * count:
            break
    texts = [text for _, text in found]
    return [
        {
            "prompt": f"{texts[i - 1]}{texts[i - 2]} {p}" if long else p,
            "chosen": text,
            "rejected": texts[-1 - i],
        }
        for i, (p, text) in enumerate(found[:count])
    ]


def reward(completions: list[str], **_: Any) -> list[float]:
    """Share of the letter e."""
    return [text.count("e") / max(1, len(text)) for text in completions]


def ours(method: str, model: str, data: str, steps: int, callback: Any = None) -> None:
    """Steps of ours; with a callback nobody is waited for."""
    import torch

    from sharpen.align.config import AlignConfig, RewardConfig
    from sharpen.align.engines import ServedEngine
    from sharpen.align.loop.rollouts import Rollouts, RolloutWork
    from sharpen.align.loop.rows import RowWork
    from sharpen.align.methods import find_method
    from sharpen.align.rewards import RewardPool
    from sharpen.align.rows import read_feedback, tokenize_rows
    from sharpen.models import load_tokenizer
    from sharpen.serve import SamplingParams
    from sharpen.train import StepReport, Trainer
    from sharpen.train.prepare import prepare_model

    torch.set_num_threads(THREADS)
    turn = Turn()
    base, begin = resident_bytes(), 0.0

    class Wait:
        def on_start(self, trainer: Trainer) -> None:
            self.before = time.perf_counter() - begin
            turn.wait()

        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            spent = {name: own for name, own in report.metrics.items() if name.endswith("_s")}
            turn.report(report.seconds, report.loss, base=base, before=self.before, **spent)
            turn.wait()

    found = find_method(method)
    config = AlignConfig(
        method=method,  # type: ignore[arg-type]
        data=data,
        batch=PAIRS if method == "dpo" else PROMPTS,
        steps=steps,
        lr=LR,
        schedule="constant",
        tune=MODELS[model],  # type: ignore[arg-type]
        reward=RewardConfig(uses="number") if found.online else None,
    )
    training = config.training(steps, config.completions)
    tokenizer = load_tokenizer(model)
    policy = prepare_model(model, training, seed=0)
    tokens = tokenize_rows(read_feedback(data, kind=found.kind).rows, tokenizer).rows
    options = config.method_options()
    begin = time.perf_counter()
    if method == "dpo":
        work: Any = RowWork(tokens, found, options, shuffle=False)
        Trainer(policy, work, training, callbacks=[callback or Wait()]).fit()
        return
    sampling = SamplingParams(max_tokens=NEW, ignore_eos=True)
    rollouts = Rollouts(prompts=PROMPTS, generations=GENERATIONS, sampling=sampling)
    longest = max(map(len, tokens)) + NEW
    engine = ServedEngine(model, dtype=torch.float32, max_batch=32, max_context=longest)

    def scored(prompts: Any, completions: Any, meta: Any) -> list[float | None]:
        return list(reward(list(completions)))

    with RewardPool(scored, workers=0) as pool:
        work = RolloutWork(tokens, found, options, rollouts, engine=engine, pool=pool)
        Trainer(policy, work, training, callbacks=[callback or Wait()]).fit()


def trl(method: str, model: str, data: str, steps: int, precompute: bool) -> None:
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

    torch.set_num_threads(THREADS)
    turn = Turn()
    base, begin = resident_bytes(), time.perf_counter()

    class Wait(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.before = time.perf_counter() - begin
            turn.wait()
            self.begin = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seconds = time.perf_counter() - self.begin

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **k: Any) -> None:
            if logs and "loss" in logs:
                turn.report(self.seconds, float(logs["loss"]), base=base, before=self.before)
                turn.wait()
                self.begin = time.perf_counter()

    name = "tiny" if MODELS[name_of(model)] == "full" else "smol"
    adapters = None
    if name == "smol":
        adapters = LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    common: dict[str, Any] = {
        "output_dir": model + "-out",
        "max_steps": steps,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "adam_beta2": 0.95,
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "shuffle_dataset": False,
        "gradient_checkpointing": False,
        "model_init_kwargs": {"dtype": "float32"},
    }
    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    table = datasets.Dataset.from_list(
        [json.loads(line) for line in Path(data).read_text().splitlines()]
    )
    if method == "dpo":
        common.pop("shuffle_dataset")
        trainer: Any = DPOTrainer(
            model,
            args=DPOConfig(
                per_device_train_batch_size=PAIRS,
                precompute_ref_log_probs=precompute,
                max_length=None,
                data_seed=0,
                **common,
            ),
            train_dataset=table,
            processing_class=tokenizer,
            peft_config=adapters,
            callbacks=[Wait()],
        )
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(table)
    else:
        trainer = GRPOTrainer(
            model,
            reward_funcs=reward,
            args=GRPOConfig(
                per_device_train_batch_size=PROMPTS * GENERATIONS,
                num_generations=GENERATIONS,
                max_completion_length=NEW,
                generation_kwargs={"min_new_tokens": NEW},
                temperature=1.0,
                beta=0.0,
                loss_type="dapo",
                **common,
            ),
            train_dataset=table.select_columns(["prompt"]),
            processing_class=tokenizer,
            peft_config=adapters,
            callbacks=[Wait()],
        )
    trainer.train()


def name_of(folder: str) -> str:
    return Path(folder).name


def compare(
    method: str, model: str, folder: Path, rounds: int, warmup: int, *, long: bool = False
) -> dict[str, Any]:
    module = "benchmarks.align.bench_trl"
    data, total = str(folder / "rows.jsonl"), str(rounds + warmup + 1)
    count = PAIRS * (rounds + warmup + 1)
    text = "".join(json.dumps(row) + "\n" for row in rows(count, long=long))
    Path(data).write_text(text)
    peers = {"trl": False}
    if method == "dpo" and rounds > 1:
        peers["trl, precomputed"] = True
    env = {**worker_environment(), "OMP_NUM_THREADS": str(THREADS)}
    children = {"sharpen": start(module, "ours", method, model, data, total, env=env)}
    for name, precompute in peers.items():
        path = str(folder / model)
        children[name] = start(
            module, "trl", method, path, data, total, str(int(precompute)), env=env
        )
    reports: dict[str, list[dict[str, float]]] = {name: [] for name in children}
    try:
        for number in range(warmup + rounds):
            for name, child in children.items():
                reports[name].append(step(child))
            told = {name: round(own[-1]["seconds"], 2) for name, own in reports.items()}
            print(method, model, "long" if long else "", number, told, flush=True)
    finally:
        for child in children.values():
            child.kill()
            child.wait()
    if method == "dpo":
        for at in (0, 1):
            losses = [own[at]["loss"] for own in reports.values()]
            if not math.isclose(min(losses), max(losses), rel_tol=1e-3):
                raise SystemExit(f"the losses of step {at + 1} differ: {losses}")
    seconds = {name: [one["seconds"] for one in own[warmup:]] for name, own in reports.items()}
    best = min((name for name in seconds if name != "sharpen"), key=lambda n: min(seconds[n]))
    last = {name: own[-1] for name, own in reports.items()}
    peaks = {name: one["peak_bytes"] for name, one in last.items()}
    above = {name: one["peak_bytes"] - one["base"] for name, one in last.items()}
    return {
        "seconds": seconds,
        "summary_s": {name: summarize(own) for name, own in seconds.items()},
        "before_s": {name: one["before"] for name, one in last.items()},
        "losses": {name: [one["loss"] for one in own] for name, own in reports.items()},
        "peak_bytes": peaks,
        "peak_above_import_bytes": above,
        "best_peer": best,
        "speed": {name: ratio(own, seconds["sharpen"]) for name, own in seconds.items()},
        "memory": peaks["sharpen"] / peaks[best],
        "memory_above_import": above["sharpen"] / above[best],
        "parts_s": {
            name: [one[name] for one in reports["sharpen"][warmup:]]
            for name in ("generate_s", "score_s", "reward_wait_s")
            if name in reports["sharpen"][-1]
        },
    }


def limit(model: str, data: Path, *, long: bool, steps: int) -> dict[str, Any]:
    """Operations of a step of GRPO by part, and the highest rate of products of its shapes."""
    import torch
    from benchmarks.align.limits import StepCounter, best_rate

    from sharpen.core.assets import asset_path
    from sharpen.core.model_spec import ModelSpec

    data.write_text("".join(json.dumps(row) + "\n" for row in rows(PAIRS * steps, long=long)))
    with StepCounter() as counter:
        ours("grpo", model, str(data), steps, counter)
    operations = {
        part: sum(one[part] for one in counter.steps) / steps for part in counter.steps[0]
    }
    torch.set_num_threads(THREADS)
    sizes = PROMPTS * GENERATIONS, PROMPTS * GENERATIONS * NEW
    rates = best_rate(ModelSpec.from_ref(asset_path(model)), sizes)
    return {"operations": operations, "rates": rates}


def add_limits(results: dict[str, Any]) -> None:
    """What a step cannot be below, beside TRL's time."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, method, long, models in RUNS:
            for model in models if method == "grpo" else ():
                found = limit(model, Path(temporary) / "rows.jsonl", long=long, steps=2)
                one = results[f"{name}, {model}"]
                found["least_s"] = sum(found["operations"].values()) / max(found["rates"].values())
                found["speed"] = one["summary_s"]["trl"]["median"] / found["least_s"]
                one["limit"] = found
                print(name, model, found, flush=True)


def main() -> int:
    args = arguments(__doc__, "align_trl", only=("limit",))
    if args.only == "limit":
        document = json.loads(args.json.read_text())
        add_limits(document["results"])
        args.json.write_text(json.dumps(document, indent=1) + "\n")
        return 0
    from sharpen.models import load_model, load_tokenizer, save_model

    rounds = {"tiny": 1} if args.quick else ROUNDS
    warmup = 1
    results: dict[str, Any] = {"wanted": WANTED}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for model in rounds:
            save_model(load_model(model), folder / model, tokenizer=load_tokenizer(model))
            for name, method, long, models in RUNS:
                if model not in models:
                    continue
                results[f"{name}, {model}"] = compare(
                    method, model, folder, rounds[model], warmup, long=long
                )

    if not args.quick:
        add_limits(results)

    def plot(figure: Any) -> None:
        groups = [name for name in results if name != "wanted"]
        left, right = figure.subplots(1, 2)
        for axes, key, label in (
            (left, "summary_s", "seconds a step"),
            (right, "peak_bytes", "peak memory, GiB"),
        ):
            values: dict[str, list[float]] = {"sharpen": [], "trl": []}
            for name in groups:
                one = results[name]
                for side in values:
                    found = one[key]["sharpen" if side == "sharpen" else one["best_peer"]]
                    values[side].append(found["median"] if key == "summary_s" else found / 2**30)
            draw_bars(axes, y_label=label, groups=groups, series=values)

    config = {
        "threads": THREADS,
        "pairs": PAIRS,
        "prompts": PROMPTS,
        "generations": GENERATIONS,
        "new_tokens": NEW,
        "models": MODELS,
        "rounds": rounds,
    }
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    if "--side" in sys.argv:
        at = sys.argv.index("--side")
        side, rest = sys.argv[at + 1], sys.argv[at + 2 :]
        if side == "ours":
            ours(rest[0], rest[1], rest[2], int(rest[3]))
        else:
            trl(rest[0], rest[1], rest[2], int(rest[3]), rest[4] == "1")
        sys.exit(0)
    sys.exit(main())
