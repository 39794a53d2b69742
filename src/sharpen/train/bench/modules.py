"""Where the time of a training step goes, module by module, and how near the machine's roof.

Zhang et al., Dissecting the Runtime Performance of the Training, Fine-tuning, and Inference of
Large Language Models, 2023 (arXiv 2311.03687), section on modules; Williams et al., Roofline, 2009.

Whole steps and steps cut into parts alternate, so that whatever else the machine does strikes both;
medians count. With F floating-point operations, B bytes, the machine's rate P of matrix products
and its memory bandwidth W::

    roof    = max(F / P, B / W)                shortest time, bound by compute or by memory
    share   = roof / measured                  above 1: the bytes came from caches

FLOPs are model FLOPs: attention counts the positions that are seen, a backward pass two products
for each forward one (one where the weight is frozen). The tiled loss forms its gradients in the
forward pass, so all of its products count there.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.config import from_dict, to_dict
from sharpen.core.errors import ExecutionError
from sharpen.core.huge_pages import worker_environment
from sharpen.core.model_spec import ModelSpec
from sharpen.core.recipe import load_recipe
from sharpen.models.decoder import DecoderLM
from sharpen.models.tile_sizes import logits_tile
from sharpen.plan.device import DeviceProfile, load_profile
from sharpen.plan.training import TrainingJob
from sharpen.train.bench.module_times import ModuleBench, ModuleRow, ModuleTimes
from sharpen.train.bench.options import train_stage
from sharpen.train.bench.segments import PARTS, Cost, run_segments
from sharpen.train.loss import IGNORE, linear_cross_entropy
from sharpen.train.predict import training_job
from sharpen.train.prepare import prepare_model

__all__ = ["bench_modules", "measure_modules", "random_batch", "recipe_bench", "whole_step"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def bench_modules(
    model: str | Path,
    config: ModuleBench,
    *,
    seed: int = 0,
    profile: DeviceProfile | None = None,
) -> ModuleTimes:
    """Measure a model's parts in a process of its own, set up as a training's is.

    Args:
        model: an asset's name, a folder in Hugging Face layout, or a ``.gguf`` file.
        config: what to measure.
        seed: of the tokens and the adapters.
        profile: the machine's rates; default measured now.

    Raises:
        ExecutionError: the process failed; its last words are in the message.
    """
    profile = profile or load_profile()
    with tempfile.TemporaryDirectory(prefix="sharpen-bench-") as name:
        request, answer = Path(name) / "request.json", Path(name) / "answer.json"
        data = {
            "model": str(model),
            "config": to_dict(config),
            "seed": seed,
            "profile": to_dict(profile),
            "answer": str(answer),
        }
        request.write_text(json.dumps(data))
        done = subprocess.run(
            [sys.executable, "-m", "sharpen.train.bench.modules", str(request)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=worker_environment(),
        )
        if done.returncode:
            raise ExecutionError(
                f"measuring {model} failed (exit code {done.returncode}): "
                f"{done.stderr.strip()[-800:]}"
            )
        return from_dict(ModuleTimes, json.loads(answer.read_text()))


def recipe_bench(recipe: str | Path, overrides: Iterable[str] = ()) -> tuple[str, ModuleBench]:
    """The model of a recipe and what its last training stage does, as far as can be foreseen.

    Args:
        recipe: a YAML file.
        overrides: ``["train.dtype=bfloat16"]``.

    Raises:
        ConfigError: the recipe is wrong or has no training stage.
    """
    loaded = load_recipe(recipe, overrides)
    stage = train_stage(loaded)
    assert loaded.model is not None
    earlier = loaded.context(stage).stages.values()
    data = next((c for c in earlier if hasattr(c, "max_tokens")), None)
    path = asset_path(loaded.model) if loaded.model in ASSETS else Path(loaded.model)
    job = training_job(stage.config, ModelSpec.from_ref(path), data)
    config = ModuleBench(
        batch=job.micro_batch,
        seq_len=job.seq_len,
        document_tokens=job.document_tokens,
        labelled=job.labelled,
        train=stage.config,
    )
    return loaded.model, config


def measure_modules(
    model: DecoderLM,
    name: str,
    config: ModuleBench,
    profile: DeviceProfile,
    *,
    seed: int = 0,
) -> ModuleTimes:
    """Measure a model's parts in this process.

    Args:
        model: as :func:`sharpen.train.prepare.prepare_model` makes it, on the CPU.
        name: of the model, for the table.
        config: what to measure.
        profile: the machine's rates.
        seed: of the tokens.
    """
    load = Path("/proc/loadavg").read_text().split()[0]
    model.train()
    model.checkpointing, model.mlp_tile = "none", 0
    batch = random_batch(config, model.spec.vocab_size, seed)
    dtype = _DTYPES[config.train.dtype]
    tiled = config.train.act.tiled_loss
    tile = logits_tile(model.spec.vocab_size) if tiled == "auto" else tiled
    trained = [p for p in model.parameters() if p.requires_grad]

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        for parameter in trained:
            parameter.grad = None
        begin = time.perf_counter()
        result = work()
        return time.perf_counter() - begin, result

    whole: list[float] = []
    cut: list[tuple[float, dict[str, Cost]]] = []
    loss = loss_of_parts = 0.0
    for number in range(config.repeats + 1):
        seconds, one = timed(lambda: whole_step(model, batch, dtype, tile))
        _, (other, costs) = timed(lambda: run_segments(model, batch, dtype=dtype, tile=tile))
        loss, loss_of_parts = float(one), float(other)
        if number:
            whole.append(seconds)
            cut.append((sum(c.forward_s + c.backward_s for c in costs.values()), costs))
    step_s = statistics.median(whole)
    job = _job(config, model)
    frozen_head = not model.lm_head.weight.requires_grad
    rows = _rows([costs for _, costs in cut], part_flops(job, frozen_head), profile, config, step_s)
    return ModuleTimes(
        model=name,
        config=config,
        step_s=step_s,
        spread_s=max(whole) - min(whole),
        parts_s=statistics.median(seconds for seconds, _ in cut),
        rows=rows,
        loss=loss,
        loss_of_parts=loss_of_parts,
        threads=torch.get_num_threads(),
        load=float(load),
    )


def _rows(
    steps: list[dict[str, Cost]],
    flops: Mapping[str, float],
    profile: DeviceProfile,
    config: ModuleBench,
    step_s: float,
) -> tuple[ModuleRow, ...]:
    rate = profile.matmul[config.train.dtype].peak * 1e9
    rows = []
    for part in PARTS:
        costs = [costs[part] for costs in steps]
        forward = statistics.median(c.forward_s for c in costs)
        backward = statistics.median(c.backward_s for c in costs)
        size = costs[0].forward_bytes + costs[0].backward_bytes
        compute, memory = flops.get(part, 0.0) / rate, size / (profile.copy_gbps * 1e9)
        rows.append(
            ModuleRow(
                part=part,
                calls=costs[0].calls,
                forward_s=forward,
                backward_s=backward,
                share=(forward + backward) / step_s,
                flops=flops.get(part, 0.0),
                bytes=size,
                roof_s=max(compute, memory),
                bound="compute" if compute > memory else "memory",
            )
        )
    return tuple(rows)


def part_flops(job: TrainingJob, frozen_head: bool) -> dict[str, float]:
    """Model FLOPs of one micro-batch by part, forward and backward; element-wise work is left out.

    Args:
        job: sizes, method and documents.
        frozen_head: the head's weight gets no gradient.
    """
    s, tokens = job.spec, job.tokens
    passes = 3 if job.adapters is None else 2
    linear = {
        name: s.num_layers * passes * 2.0 * tokens * a * b for name, (a, b) in job.linears().items()
    }
    rank = job.adapters.rank if job.adapters is not None else 0
    for name, (a, b) in job.adapted().items():
        linear[name] += s.num_layers * 3 * 2.0 * tokens * rank * (a + b)
    per_document = min(job.document_tokens or job.seq_len, job.seq_len)
    whole, rest = divmod(job.seq_len, per_document)
    pairs = whole * per_document * (per_document + 1) / 2 + rest * (rest + 1) / 2
    seen = 0.0
    for layer in range(s.num_layers):
        if s.slides(layer) and s.sliding_window is not None:
            spans = [per_document] * whole + [rest]
            seen += sum(_windowed(span, s.sliding_window) for span in spans)
        else:
            seen += pairs
    labelled = round(job.labelled * job.seq_len) * job.micro_batch
    return {
        "qkv": linear["q_proj"] + linear["k_proj"] + linear["v_proj"],
        "attention": 3 * 4.0 * s.query_size * seen * job.micro_batch,
        "output": linear["o_proj"],
        "gate and up": linear["gate_proj"] + linear["up_proj"],
        "down": linear["down_proj"],
        "head and loss": (2 if frozen_head else 3) * 2.0 * labelled * s.hidden_size * s.vocab_size,
    }


def _windowed(tokens: int, window: int) -> float:
    """Pairs of positions that see each other in a document with a sliding window."""
    w = min(tokens, window)
    return w * (w + 1) / 2 + (tokens - w) * w


def _job(config: ModuleBench, model: DecoderLM) -> TrainingJob:
    """The plan's job, with this measurement's sizes."""
    job = training_job(config.train, model.spec)
    return dataclasses.replace(
        job,
        seq_len=config.seq_len,
        micro_batch=config.batch,
        document_tokens=config.document_tokens,
        labelled=config.labelled,
        world_size=1,
        sequence_ranks=1,
        state_ranks=1,
        zero_stage=0,
    )


def random_batch(config: ModuleBench, vocab_size: int, seed: int) -> dict[str, Tensor]:
    """Random tokens in documents of one length; the last of each are labelled."""
    generator = torch.Generator().manual_seed(seed)
    shape = (config.batch, config.seq_len)
    ids = torch.randint(vocab_size, shape, generator=generator)
    places = torch.arange(config.seq_len).expand(shape).contiguous()
    length = min(config.document_tokens or config.seq_len, config.seq_len)
    labels = torch.randint(vocab_size, shape, generator=generator)
    labels[:, : config.seq_len - round(config.labelled * config.seq_len)] = IGNORE
    return {
        "input_ids": ids,
        "position_ids": places % length,
        "document_ids": places // length,
        "shift_labels": labels,
    }


def whole_step(
    model: DecoderLM, batch: Mapping[str, Tensor], dtype: torch.dtype, tile: int
) -> Tensor:
    """As the trainer does it: forward under autocast, the tiled loss, backward."""
    scale = 1.0 / max(1, int((batch["shift_labels"] != IGNORE).sum()))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        hidden = model.hidden(
            batch["input_ids"],
            position_ids=batch["position_ids"],
            document_ids=batch["document_ids"],
        )
    loss = linear_cross_entropy(
        hidden.to(dtype), model.lm_head.weight, batch["shift_labels"], scale=scale, tile=tile
    )
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def main(path: str) -> int:
    """The measuring process."""
    request = json.loads(Path(path).read_text())
    config = from_dict(ModuleBench, request["config"])
    model = prepare_model(request["model"], config.train, seed=request["seed"])
    times = measure_modules(
        model,
        Path(request["model"]).name,
        config,
        from_dict(DeviceProfile, request["profile"]),
        seed=request["seed"],
    )
    Path(request["answer"]).write_text(json.dumps(to_dict(times)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
