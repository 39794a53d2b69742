"""What an alignment will need: the policy's training, and all models and caches beside it.

Memory is that of one process, where there are several.

::

    policy      as of the ``train`` stage: weights, gradients, optimizer states, activations
    critic      the same again without its head (PPO); under adapters: adapters alone
    reference   frozen weights, where completions are met (whole models only)
    engine      a copy of the weights, and the blocks of its keys and values

Tokens of a pass are those of :mod:`sharpen.align.passes`; all rows are taken to be as long as the
longest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sharpen.align.agents.worlds import find_world
from sharpen.align.config import AlignConfig, RewardConfig
from sharpen.align.options.methods import Description, describe
from sharpen.align.passes import Lengths, default_micro_batch, pass_tokens
from sharpen.align.places import instructions_of, placed
from sharpen.align.rewards import RewardFunction, find_reward
from sharpen.align.rewards.keys import check_key
from sharpen.align.rows import read_feedback, tokenize_rows
from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError, MissingFileError, SharpenError
from sharpen.core.model_spec import ModelSpec
from sharpen.core.stage import Prediction, RecipeContext
from sharpen.models.tile_sizes import logits_tile
from sharpen.models.tokenizer import load_tokenizer
from sharpen.plan.device import DeviceProfile, load_profile
from sharpen.plan.training import TrainingJob, training_memory, training_step_s

__all__ = ["predict_align"]

_SAMPLED_ROWS = 500
_BLOCK = 16
_EPISODE = 640  # tokens of an episode and its last turn, about
_CHARS = 4  # of a token, about
_ENGINE_BATCH = 64
_MOST_CACHE = 4 << 30
_BYTES = {"float32": 4, "bfloat16": 2}
_LOOPS = 3.0  # a pass without gradients is a third of one with them


def predict_align(config: AlignConfig, context: RecipeContext) -> Prediction:
    """Memory, and seconds of a step without generating and rewards."""
    assert context.model is not None
    path = asset_path(context.model) if context.model in ASSETS else context.resolve(context.model)
    spec = ModelSpec.from_ref(path)
    method = describe(config.method)
    reward = None
    if config.reward is not None:  # what is not there is said before anything is loaded
        reward = _find_reward(config.reward, context)
    if config.reference != "start" and config.reference not in ASSETS:
        _known_model(context.resolve(config.reference), "the reference")
    if config.world:
        find_world(placed(config.world, context.resolve))
    device: DeviceProfile = context.device or load_profile()
    lengths = _longest(config, method, context, spec, reward)
    job = _job(config, method, spec, lengths)
    parts = training_memory(job, device.base_bytes)
    parts |= _beside(config, method, spec, lengths.whole, parts)
    steps = config.num_steps(0) if config.epochs is None else None
    step_s = sum(training_step_s(job, device).values())
    if config.generates:
        passes = (1 + method.has_critic) * config.updates / config.minibatches
        passes_without = method.reference(config.method_options()) + method.has_critic
        scored = config.updates > 1 or passes_without > 0
        step_s *= passes + (passes_without + scored) / _LOOPS
    return Prediction(
        peak_bytes=sum(parts.values()),
        parts=parts,
        step_s=step_s if not config.generates else None,
        steps=steps * config.updates if steps is not None else None,
        time_s=step_s * steps if steps is not None and not config.generates else None,
        details={
            "longest_sequence": lengths.whole,
            "tokens_a_pass": job.step_tokens,
            "trained_parameters": job.trained_parameters,
            "learning_s_a_batch": step_s,
        },
        remedies=_remedies(config, method),
    )


def _known_model(folder: Path, what: str) -> None:
    try:
        ModelSpec.from_ref(folder)
    except SharpenError as error:
        raise ConfigError(f"{what}: {error}") from error


def _find_reward(config: RewardConfig, context: RecipeContext) -> RewardFunction:
    try:
        place, options = config.placed(context.resolve)
    except MissingFileError:
        makes_one = (
            isinstance(one, AlignConfig) and one.method == "rm" for one in context.stages.values()
        )
        if not any(makes_one):
            raise
        place, options = config.uses, dict(config.options)  # an earlier stage will have made it
    found = find_reward(place, options)
    if config.uses == "score_model" and (folder := Path(options["path"])).exists():
        _known_model(folder, "the reward score_model")
        made = read_json(folder / "config.json", "model config").get("architectures")
        if "SequenceClassification" not in str(made):
            raise ConfigError(
                f"{folder} is a language model ({made}), no reward model. Make one with sharpen "
                "align rm."
            )
    return found


def _longest(
    config: AlignConfig,
    method: Description,
    context: RecipeContext,
    spec: ModelSpec,
    reward: RewardFunction | None,
) -> Lengths:
    """Of the longest of the first rows."""
    if config.world:
        told = len(instructions_of(config.instructions, context.resolve)) // _CHARS
        return Lengths(0, min(config.max_length or spec.max_positions, _EPISODE + told))
    limit = config.row_limit(spec.max_positions)
    room = config.sampling.max_tokens if method.online else 0
    assert context.model is not None
    model = context.model if context.model in ASSETS else context.resolve(context.model)
    kind = None if method.name == "sft" else method.kind
    rows = read_feedback(
        context.resolve(config.data),
        kind=kind,
        skip_bad=config.skip_bad,
        episodes=config.episodes,
        limit=_SAMPLED_ROWS,
    )
    if reward is not None:
        check_key(reward, rows)
    found = tokenize_rows(
        rows.rows,
        load_tokenizer(model),
        max_length=limit,
        on_long="drop" if config.on_long == "refuse" else config.on_long,
        use_template=config.chat,
    )
    if not found.rows:
        return Lengths(0, limit + room)
    return Lengths.longest(found.rows, room)


def _job(
    config: AlignConfig, method: Description, spec: ModelSpec, lengths: Lengths
) -> TrainingJob:
    size = config.micro_batch or default_micro_batch(config, method, lengths)
    share = config.completions // config.data_ranks
    size = min(size, share)
    tokens = pass_tokens(config, method, lengths, size)
    completed = tokens - pass_tokens(config, method, replace(lengths, completion=0), size)
    training = config.training(1)
    layout = config.parallel.layout(training.world_size)
    tile = config.act.tiled_loss
    return TrainingJob(
        spec=spec,
        adapters=training.adapters,
        seq_len=tokens,
        grad_accum=-(-share // size),
        world_size=layout.world_size,
        state_ranks=layout.state_ranks,
        zero_stage=config.parallel.zero_stage,
        nf4=config.tune == "qlora",
        dtype=config.dtype,
        checkpointing=config.act.mode,
        checkpoint_every=config.act.every,
        tile=logits_tile(spec.vocab_size) if tile == "auto" else tile,
        state_ratio=training.state_ratio(spec),
        document_tokens=lengths.whole,
        labelled=completed / tokens,
    )


def _beside(
    config: AlignConfig, method: Description, spec: ModelSpec, longest: int, policy: dict[str, int]
) -> dict[str, int]:
    """Models and caches beside the policy, in bytes."""
    found: dict[str, int] = {}
    weights = 4 * spec.num_parameters
    if method.has_critic:
        kept = ("gradients", "optimizer", "activations", "checkpoint")
        found["critic"] = sum(policy[name] for name in kept)
        if not config.adapts:
            found["critic"] += policy["weights"]
    meets_new = config.generates or method.kind == "label"
    if meets_new and not config.adapts and method.reference(config.method_options()):
        found["reference"] = weights
    if config.generates and config.engine in ("auto", "serve"):
        dtype = config.dtype if config.engine_dtype == "same" else config.engine_dtype
        found["engine"] = _BYTES[dtype] * spec.num_parameters
        sequences = min(_ENGINE_BATCH, 2 * config.completions // config.data_ranks)
        tokens = sequences * -(-longest // _BLOCK) * _BLOCK
        cache = 2 * spec.num_layers * spec.kv_size * tokens * _BYTES[dtype]
        found["keys and values"] = min(cache, _MOST_CACHE)
    return found


def _remedies(config: AlignConfig, method: Description) -> tuple[str, ...]:
    """What to change if it does not fit, best first."""
    found = []
    if not config.adapts:
        found.append("tune=lora trains adapters: no optimizer states, no copy for the reference")
    if method.has_critic:
        found.append("method=remax needs no critic")
    if config.generates and config.engine in ("auto", "serve"):
        found.append("engine=model generates with the trained weights themselves")
    if config.micro_batch != 1:
        found.append("micro_batch=1 keeps fewer activations")
    if config.act.mode == "none":
        found.append("act.mode=full computes activations again")
    return tuple(found)
