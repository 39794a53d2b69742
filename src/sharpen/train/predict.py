"""The ``train`` stage's prediction: a plan's training job from the stage's config."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.errors import SharpenError
from sharpen.core.model_spec import ModelSpec
from sharpen.core.stage import Prediction, RecipeContext
from sharpen.data.config import DataConfig
from sharpen.data.stages import sample_texts
from sharpen.models.tile_sizes import logits_tile, mlp_tile
from sharpen.models.tokenizer import load_tokenizer
from sharpen.plan.device import DeviceProfile, load_profile
from sharpen.plan.memory import parameter_shapes
from sharpen.plan.training import TrainingJob, step_flops, training_memory, training_step_s
from sharpen.train.config import TrainConfig
from sharpen.train.half import choose_half

__all__ = ["predict_train", "training_job"]

_SEQ_LEN = 512
_SAMPLE_TEXTS = 200
_SAMPLE_CHARACTERS = 100_000  # that are encoded to learn how many make a token
_ONE_TEXT = 0.9  # rows whose texts fill so much of them hold one
_ROUNDS = 20  # of half fine-tuning that are looked at: they differ little
# Measured on functions with docstrings: 30 % of the tokens are the answer, 145 tokens an example.
_LABELLED_SHARE = 0.3
_EXAMPLE_TOKENS = 145


def training_job(
    config: TrainConfig,
    spec: ModelSpec,
    data: Any = None,
    *,
    seed: int = 0,
    text_tokens: int | None = None,
) -> TrainingJob:
    """The job that ``config`` describes.

    Args:
        config: the ``train`` stage's.
        spec: the model's shape.
        data: config of the ``data`` stage before it, or None for 512 tokens, all of them labelled.
        seed: the stage's; which half of the weights trains goes by it.
        text_tokens: tokens of the text that a token is in, on average, where rows hold several.
    """
    seq_len = getattr(data, "max_tokens", _SEQ_LEN)
    turns = getattr(data, "format", "text") != "text"
    tile = config.act.tiled_loss
    parallel = config.parallel
    layout = parallel.layout(config.world_size)
    documents = _EXAMPLE_TOKENS if turns and getattr(data, "packing", False) else text_tokens
    tokens = -(-seq_len // parallel.sequence_ranks) * config.micro_batch
    frozen, trains_head = _frozen_half(config, spec, seed) if config.method == "half" else (0, True)
    return TrainingJob(
        spec=spec,
        adapters=config.adapters,
        frozen_parameters=frozen,
        trains_head=trains_head,
        world_size=layout.world_size,
        sequence_ranks=parallel.sequence_ranks,
        state_ranks=layout.state_ranks,
        zero_stage=parallel.zero_stage,
        seq_len=seq_len,
        micro_batch=config.micro_batch,
        grad_accum=config.grad_accum(layout.data_ranks),
        nf4=config.method == "qlora",
        dtype=config.dtype,
        checkpointing=config.act.mode,
        checkpoint_every=config.act.every,
        offload=config.act.offload == "nvme",
        mlp_tile=mlp_tile(config.act.tiled_mlp, spec.hidden_size, tokens),
        attention_chunk=config.act.attention_chunk,
        attention_stored=config.act.attention_store == "nvme",
        tile=logits_tile(spec.vocab_size) if tile == "auto" else tile,
        document_tokens=documents,
        labelled=_LABELLED_SHARE if turns and getattr(data, "mask_prompt", False) else 1.0,
        state_ratio=config.state_ratio(spec),
        saves_midway=config.steps is None or config.steps > config.checkpoint.every,
    )


def _frozen_half(config: TrainConfig, spec: ModelSpec, seed: int) -> tuple[int, bool]:
    """Weights that get no gradient, and whether the head does, in the round that trains most."""
    sizes = {name: rows * width for name, (rows, width) in parameter_shapes(spec).items()}
    rounds = 1
    if config.half_every is not None:
        rounds = -(-config.num_steps(0) // config.half_every) if config.epochs is None else _ROUNDS
    head = "model.embed_tokens.weight" if spec.tie_word_embeddings else "lm_head.weight"
    chosen = max(
        (choose_half(sizes, seed=seed, round=i) for i in range(min(rounds, _ROUNDS))),
        key=lambda names: sum(sizes[name] for name in names),
    )
    return sum(size for name, size in sizes.items() if name not in chosen), head in chosen


def _text_tokens(data: DataConfig, context: RecipeContext, model: Path) -> int | None:
    """Tokens of the text that a token is in, on average, by the source's first texts.

    None when rows hold one text each, or when source or tokenizer cannot be read yet.
    """
    if data.format != "text" or not data.packing:
        return None
    try:
        texts = sample_texts(data, context, _SAMPLE_TEXTS)
        encode = load_tokenizer(model).encode
    except SharpenError:
        return None
    sample = "".join(texts)[:_SAMPLE_CHARACTERS]
    if not sample:
        return None
    a_character = len(encode(sample)) / len(sample)
    pieces: list[float] = []
    for text in texts:
        whole, rest = divmod(len(text) * a_character, data.max_tokens)
        pieces += [data.max_tokens] * int(whole) + [rest]
    mean = sum(n * n for n in pieces) / sum(pieces)
    return round(mean) if mean < _ONE_TEXT * data.max_tokens else None


def predict_train(config: TrainConfig, context: RecipeContext) -> Prediction:
    """Memory and step time of the stage on ``context.device``, or on this machine."""
    assert context.model is not None
    path = asset_path(context.model) if context.model in ASSETS else context.resolve(context.model)
    spec = ModelSpec.from_ref(path)
    data = next((c for c in context.stages.values() if hasattr(c, "max_tokens")), None)
    device: DeviceProfile = context.device or load_profile()
    text_tokens = _text_tokens(data, context, path) if isinstance(data, DataConfig) else None
    make = functools.partial(training_job, spec=spec, seed=context.seed, text_tokens=text_tokens)
    job = make(config, data=data)
    parts = training_memory(job, device.base_bytes)
    times = training_step_s(job, device)
    step_s = sum(times.values())
    # Epochs count rows of a data set that is not made yet; then only the step is foreseen.
    steps = config.steps if config.epochs is None else None
    if steps is None and config.epochs is None:
        steps = config.num_steps(0)
    flops = step_flops(job)
    return Prediction(
        peak_bytes=sum(parts.values()),
        parts=parts,
        step_s=step_s,
        steps=steps,
        time_s=step_s * steps if steps is not None else None,
        details={
            "step_s_by": {k: round(v, 6) for k, v in times.items()},
            "model_flops_a_step": flops,
            "mfu": flops / step_s / (device.matmul[config.dtype].peak * 1e9),
            "tokens_per_s": job.step_tokens / step_s,
            "trained_parameters": job.trained_parameters,
        },
        remedies=_remedies(config, make, data, device, sum(parts.values())),
    )


def _remedies(
    config: TrainConfig,
    make: Callable[..., TrainingJob],
    data: Any,
    device: DeviceProfile,
    peak: int,
) -> tuple[str, ...]:
    """Overrides that lower the memory, those that save most first."""
    act = dataclasses.replace(config.act, mode="full")
    lora = dataclasses.replace(
        config, method="lora", half_every=None, merge=config.merge or config.context is not None
    )
    tries: dict[str, TrainConfig] = {
        "train.micro_batch=1": dataclasses.replace(config, micro_batch=1),
        "train.act.mode=full": dataclasses.replace(config, act=act),
        "train.act.tiled_mlp=auto": dataclasses.replace(
            config, act=dataclasses.replace(config.act, tiled_mlp="auto")
        ),
        "train.method=lora": lora,
        "train.method=qlora": dataclasses.replace(lora, method="qlora"),
        "train.dtype=bfloat16": dataclasses.replace(config, dtype="bfloat16"),
    }
    savings: list[tuple[int, str]] = []
    for override, changed in tries.items():
        if changed != config:
            job = make(changed, data=data)
            after = sum(training_memory(job, device.base_bytes).values())
            savings.append((peak - after, override))
    if data is not None and data.max_tokens > 256:
        shorter = dataclasses.replace(data, max_tokens=data.max_tokens // 2)
        after = sum(training_memory(make(config, data=shorter), device.base_bytes).values())
        savings.append((peak - after, f"data.max_tokens={shorter.max_tokens}"))
    return tuple(
        f"{override} saves {saved / 2**30:.2f} GiB"
        for saved, override in sorted(savings, reverse=True)
        if saved > 0.01 * peak
    )
