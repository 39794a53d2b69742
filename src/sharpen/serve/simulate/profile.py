"""Times of an engine's rounds on this machine, for simulating more of it.

Three runs: prompts alone of growing length, batches of growing size at their next tokens, and one
such batch at a longer context, whose difference is the cost of a token of context. Each time is the
median of several rounds; the engine must be idle, and nothing else should run.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence

from sharpen.core.errors import ConfigError
from sharpen.plan.serving.perf_model import MeasuredPerfModel
from sharpen.serve.engine import Engine
from sharpen.serve.sampling import SamplingParams

__all__ = ["profile_engine"]


def profile_engine(
    engine: Engine,
    *,
    prompts: Sequence[int] | None = None,
    batches: Sequence[int] | None = None,
    context: int = 32,
    repeats: int = 5,
    pause_s: float = 0.0,
    seed: int = 0,
) -> MeasuredPerfModel:
    """Measure an engine that nobody else drives.

    Args:
        engine: idle.
        prompts: tokens of prompts; default powers of two up to a round's budget.
        batches: sequences at their next token; default powers of two up to ``max_batch``.
        context: tokens of those sequences; the longer one is four times as much.
        repeats: rounds behind each time.
        pause_s: rest before each prompt, as between the requests that are to be simulated: some
            machines, virtual ones above all, are slower at first after it.
        seed: of the tokens.

    Raises:
        ConfigError: the engine is at work, or its context is too short.
    """
    if engine.num_running or engine.num_waiting:
        raise ConfigError("the engine is at work. Profile it when nothing runs.")
    longest = min(engine.scheduler.config.max_batched_tokens, engine.max_context - 1)
    long = 4 * context
    rng = random.Random(seed)
    prompt_sizes = prompts or [*_doubling(16, longest), longest]
    batch_sizes = batches or [*_doubling(1, engine.max_batch), engine.max_batch]
    if long + _new_tokens(engine, max(batch_sizes), long, repeats) > engine.max_context:
        raise ConfigError(
            f"the engine's context of {engine.max_context} tokens is too short for 4 x "
            f"context={context} and repeats={repeats}. Lower them."
        )
    _prompt_s(engine, prompt_sizes[0], 2, rng)  # nothing is counted before it is warm
    prompt = [(n, _prompt_s(engine, n, repeats, rng, pause_s)) for n in sorted(set(prompt_sizes))]
    token = [(n, _token_s(engine, n, context, repeats, rng)) for n in sorted(set(batch_sizes))]
    most = token[-1][0]
    far = _token_s(engine, most, long, repeats, rng)
    slope = max((far - token[-1][1]) / (most * (long - context)), 0.0)
    return MeasuredPerfModel(prompt, token, context=context, context_s=slope)


def _doubling(first: int, last: int) -> list[int]:
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return sizes


def _submit(engine: Engine, tokens: int, new: int, rng: random.Random) -> None:
    ids = [rng.randrange(engine.model.spec.vocab_size) for _ in range(tokens)]
    params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True)
    engine.submit(ids, params, lambda piece: None)


def _prompt_s(
    engine: Engine, tokens: int, repeats: int, rng: random.Random, pause_s: float = 0.0
) -> float:
    times: list[float] = []
    for _ in range(repeats):
        time.sleep(pause_s)
        _submit(engine, tokens, 1, rng)
        begin = time.perf_counter()
        engine.run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _new_tokens(engine: Engine, sequences: int, context: int, repeats: int) -> int:
    """So many that the first one still runs when the last one's prompt is done."""
    room = max(engine.scheduler.config.max_batched_tokens - sequences, 1)
    return repeats + 2 + -(-sequences * context // room)


def _token_s(
    engine: Engine, sequences: int, context: int, repeats: int, rng: random.Random
) -> float:
    for _ in range(sequences):
        _submit(engine, context, _new_tokens(engine, sequences, context, repeats), rng)
    while engine.num_waiting or any(one.missing > 1 for one in engine.scheduler.running):
        engine.step()
    times: list[float] = []
    while engine.num_running == sequences and len(times) < repeats:
        begin = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - begin)
    engine.run()
    if not times:
        raise ConfigError(
            f"{sequences} sequences of {context} tokens do not run at the same time. Give the "
            "cache more memory, or profile smaller batches."
        )
    return statistics.median(times)
