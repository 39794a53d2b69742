"""Learning on a GPU beside TRL: models of Qwen2.5's shapes of 0.5B and 1.5B, random weights.

Prompts of about 512 tokens, made of docstrings of the standard library. **DPO**: 16 pairs a step,
texts of about 256 tokens. **GRPO**: 16 prompts, 8 completions of each, all of exactly 256 new
tokens, ``dapo``, no reference, the share of the letter e as the reward; TRL generates with
``transformers``, 16 rows a forward pass. The smaller model is trained whole (weights in float32,
products in bfloat16), the larger with adapters of rank 16 on a bfloat16 base. Both sides know the
same tokens, each a process of its own, which take one optimizer step in turn. **ReMax and PPO**:
ours alone, of the smaller model.

Speed compares each side's fastest step: a pool of device memory grows during the first ones, in
TRL's DPO during four. Memory is what tensors took on the device at most. Passes that are needed:
three products of each weight for tokens that are learnt from (adapters: two), one for others; of
shared prompts once.

    python -m benchmarks.align.bench_cuda [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.align.bench_trl import reward, rows
from benchmarks.common import arguments, draw_bars, save, summarize
from benchmarks.turns import Turn, start, step

LR, GENERATIONS = 1e-5, 8
SHAPES: dict[str, dict[str, Any]] = {
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_layers": 24, "num_heads": 14},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_layers": 28, "num_heads": 12},
}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_layers": 2, "num_heads": 4}


@dataclass(frozen=True)
class Sizes:
    """Examples of a step, and tokens of each part."""

    examples: int = 16
    prompt: int = 512
    text: int = 256
    new: int = 256
    micro: int = 16


SIZES = {"0.5B": Sizes(), "1.5B": Sizes(), "quick": Sizes(2, 24, 12, 8, 4)}
TUNE = {"0.5B": "full", "1.5B": "lora", "quick": "full"}
RUNS = [("dpo", "0.5B"), ("grpo", "0.5B"), ("dpo", "1.5B"), ("grpo", "1.5B")]
RUNS += [("ppo", "0.5B"), ("remax", "0.5B")]
BESIDE = ("dpo", "grpo")
ROUNDS = {"dpo": 5, "grpo": 2, "remax": 2, "ppo": 2}


def make_model(name: str, folder: Path) -> Path:
    """Random weights of a shape, in Hugging Face layout."""
    import torch

    from sharpen.core.model_spec import ModelSpec
    from sharpen.models import load_tokenizer, save_model
    from sharpen.models.decoder import DecoderLM

    heads = SHAPES.get(name, SMALL)
    spec = ModelSpec(
        family="qwen2",
        vocab_size=8192 if name == "quick" else 151_936,
        num_kv_heads=2,
        head_dim=heads["hidden_size"] // heads["num_heads"],
        max_positions=4096,
        tie_word_embeddings=True,
        **heads,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = DecoderLM(spec)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.02)
    save_model(model.to("cpu", torch.bfloat16), folder / name, tokenizer=load_tokenizer("tiny"))
    return folder / name


def write_rows(path: Path, count: int, size: Sizes) -> None:
    """Pairs whose prompts and texts have about as many tokens as they should."""
    from sharpen.models import load_tokenizer

    tokenizer = load_tokenizer("tiny")
    source = rows(200)
    texts = [row["prompt"] + row["chosen"] for row in source]

    def text(at: int, tokens: int) -> str:
        ids: list[int] = []
        while len(ids) < tokens:
            ids += tokenizer.encode(texts[at % len(texts)])
            at += 7
        return tokenizer.decode(ids[:tokens])

    found = [
        {
            "prompt": text(3 * i, size.prompt),
            "chosen": " " + text(3 * i + 1, size.text),
            "rejected": " " + text(3 * i + 2, size.text),
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


def memory() -> dict[str, float]:
    import torch

    on_gpu = torch.cuda.is_available()
    return {"device_bytes": float(torch.cuda.max_memory_allocated()) if on_gpu else 0.0}


def ours(method: str, model: str, tune: str, data: str, steps: int) -> None:
    import torch

    from sharpen.align.config import AlignConfig, RewardConfig, SamplingConfig
    from sharpen.align.engines import ServedEngine
    from sharpen.align.loop.rollouts import Rollouts, RolloutWork
    from sharpen.align.loop.rows import RowWork
    from sharpen.align.methods import find_method
    from sharpen.align.passes import Lengths, default_micro_batch
    from sharpen.align.rewards import RewardPool
    from sharpen.align.rows import read_feedback, tokenize_rows
    from sharpen.models import load_tokenizer
    from sharpen.serve import SamplingParams
    from sharpen.train import StepReport, Trainer
    from sharpen.train.prepare import DTYPES, prepare_model

    turn, size = Turn(), SIZES[Path(model).name]

    class Wait:
        def on_start(self, trainer: Trainer) -> None:
            turn.wait()

        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds = getattr(self, "seconds", 0.0) + report.seconds
            spent = {name: own for name, own in report.metrics.items() if name.endswith("_s")}
            self.spent = {**getattr(self, "spent", {}), **spent}
            if report.step % config.updates:
                return
            turn.report(self.seconds, report.loss, **self.spent, **memory())
            self.seconds, self.spent = 0.0, {}
            turn.wait()

    found = find_method(method)
    config = AlignConfig(
        method=method,  # type: ignore[arg-type]
        data=data,
        batch=size.examples,
        generations=None if method != "grpo" else GENERATIONS,
        sampling=SamplingConfig(max_tokens=size.new),
        steps=steps,
        lr=LR,
        schedule="constant",
        tune=tune,  # type: ignore[arg-type]
        dtype="bfloat16",
        reward=RewardConfig(uses="number") if found.online else None,
    )
    tokenizer = load_tokenizer(model)
    tokens = tokenize_rows(read_feedback(data, kind=found.kind).rows, tokenizer)
    lengths = Lengths(size.prompt, size.new if found.online else size.text)
    training = config.training(steps, default_micro_batch(config, found, lengths))
    policy = prepare_model(model, training, seed=0)
    if found.add_heads is not None:
        found.add_heads(policy)
    options = config.method_options()
    dtype = DTYPES[config.dtype]
    if not found.online:
        work: Any = RowWork(tokens.rows, found, options, dtype=dtype, shuffle=False)
        Trainer(policy, work, training, callbacks=[Wait()]).fit()
        return
    rollouts = Rollouts(
        prompts=size.examples,
        generations=config.draws,
        epochs=found.epochs,
        sampling=SamplingParams(max_tokens=size.new, ignore_eos=True),
    )
    engine = ServedEngine(
        model,
        dtype=dtype,
        max_batch=min(256, size.examples * (config.draws + 1)),
        max_context=size.prompt + size.new + 32,
    )

    def scored(prompts: Any, completions: Any, meta: Any) -> list[float | None]:
        return list(reward(list(completions)))

    with RewardPool(scored, workers=0) as pool:
        work = RolloutWork(
            tokens.rows, found, options, rollouts, engine=engine, pool=pool, dtype=dtype
        )
        Trainer(policy, work, training, callbacks=[Wait()]).fit()


def trl(method: str, model: str, tune: str, data: str, steps: int) -> None:
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

    turn, size = Turn(), SIZES[Path(model).name]

    class Wait(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            turn.wait()
            self.begin = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.begin

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **k: Any) -> None:
            if logs and "loss" in logs:
                turn.report(self.seconds, float(logs["loss"]), **memory())
                turn.wait()
                self.begin = time.perf_counter()

    adapters = None
    if tune == "lora":
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
        "optim": "adamw_torch_fused",
        "adam_beta2": 0.95,
        "bf16": torch.cuda.is_available(),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "model_init_kwargs": {"dtype": "bfloat16" if tune == "lora" else "float32"},
    }
    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    table = datasets.Dataset.from_list(
        [json.loads(line) for line in Path(data).read_text().splitlines()]
    )
    if method == "dpo":
        trainer: Any = DPOTrainer(
            model,
            args=DPOConfig(
                per_device_train_batch_size=size.examples,
                precompute_ref_log_probs=True,
                max_length=None,
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
                per_device_train_batch_size=size.micro,
                gradient_accumulation_steps=size.examples * GENERATIONS // size.micro,
                num_generations=GENERATIONS,
                max_completion_length=size.new,
                generation_kwargs={"min_new_tokens": size.new},
                temperature=1.0,
                beta=0.0,
                loss_type="dapo",
                shuffle_dataset=False,
                **common,
            ),
            train_dataset=table.select_columns(["prompt"]),
            processing_class=tokenizer,
            peft_config=adapters,
            callbacks=[Wait()],
        )
    trainer.train()


def compare(method: str, name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Steps of each side in turn; the first is not counted."""
    data = folder / f"{method}.jsonl"
    total = rounds + 2
    write_rows(data, SIZES[name].examples * total, SIZES[name])
    sides = ["ours"]
    if method in BESIDE and importlib.util.find_spec("trl"):
        sides.append("trl")
    module = "benchmarks.align.bench_cuda"
    given = (method, str(folder / name), TUNE[name], str(data), str(total))
    children = {side: start(module, side, *given, env=dict(os.environ)) for side in sides}
    reports: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    failed: dict[str, str] = {}
    try:
        for _ in range(rounds + 1):
            for side in [one for one in sides if one not in failed]:
                try:
                    reports[side].append(step(children[side]))
                except RuntimeError as error:
                    failed[side] = str(error)
    finally:
        for child in children.values():
            child.kill()
            child.wait()
    seconds = {
        side: [one["seconds"] for one in own[1:]]
        for side, own in reports.items()
        if side not in failed
    }
    last = {side: own[-1] for side, own in reports.items() if own}
    found = {
        "seconds": seconds,
        "summary_s": {side: summarize(own) for side, own in seconds.items()},
        "losses": {side: [one["loss"] for one in own] for side, own in reports.items()},
        "device_bytes": {side: one.get("device_bytes", 0.0) for side, one in last.items()},
        "parts_s": {
            part: summarize([one[part] for one in reports["ours"][1:]])
            for part in ("generate_s", "score_s", "reward_wait_s")
            if part in last.get("ours", {})
        },
        "failed": failed,
    }
    if "trl" in seconds and "ours" in seconds:
        found["speed"] = min(seconds["trl"]) / min(seconds["ours"])
        found["memory"] = last["ours"]["device_bytes"] / max(1.0, last["trl"]["device_bytes"])
    print(method, name, json.dumps({k: found[k] for k in ("seconds", "device_bytes", "parts_s")}))
    print(failed, flush=True)
    return found


def main() -> int:
    args = arguments(__doc__, "align_cuda")
    import torch

    runs = [(method, "quick") for method in ("dpo", "grpo")] if args.quick else RUNS
    results: dict[str, Any] = {}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"

    def plot(figure: Any) -> None:
        groups = [name for name, one in results.items() if "speed" in one]
        left, right = figure.subplots(1, 2)
        for axes, label, value in (
            (left, "seconds, fastest step", lambda one, side: one["summary_s"][side]["min"]),
            (right, "peak on the device, GiB", lambda one, side: one["device_bytes"][side] / 2**30),
        ):
            series = {
                told: [value(results[name], side) for name in groups]
                for side, told in (("ours", "sharpen"), ("trl", "trl"))
            }
            draw_bars(axes, y_label=label, groups=groups, series=series)

    config = {
        "device": device,
        "generations": GENERATIONS,
        "sizes": {name: asdict(size) for name, size in SIZES.items()},
        "shapes": SHAPES,
        "tune": TUNE,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in sorted({name for _, name in runs}):
            make_model(name, folder)
        for method, name in runs:
            results[f"{method}, {name}"] = compare(
                method, name, folder, 1 if args.quick else ROUNDS[method]
            )
            save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    if "--side" in sys.argv:
        at = sys.argv.index("--side")
        side, *rest = sys.argv[at + 1 :]
        {"ours": ours, "trl": trl}[side](*rest[:4], int(rest[4]))
        sys.exit(0)
    sys.exit(main())
