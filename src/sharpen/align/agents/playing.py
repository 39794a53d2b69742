"""A model's episodes in a world: how often it succeeds, and what it did, to learn from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sharpen.align.agents.collecting import collect
from sharpen.align.agents.evaluation import report_of
from sharpen.align.agents.pairs import pair_rows, step_pairs
from sharpen.align.agents.trajectory import write_trajectories
from sharpen.align.agents.worlds import find_world
from sharpen.align.engines import ServedEngine
from sharpen.align.loop.episodes import EnginePolicy
from sharpen.core.errors import ConfigError
from sharpen.core.files import atomic_write_text
from sharpen.serve.sampling import SamplingParams

__all__ = ["play_world"]

_BATCH = 64


def play_world(
    model: str | Path,
    world: str,
    *,
    tasks: Sequence[int],
    draws: int = 1,
    branch: bool = False,
    max_tokens: int = 32,
    temperature: float = 1.0,
    instructions: str = "",
    save: Path | None = None,
    pairs: Path | None = None,
    margin: float = 0.3,
) -> dict[str, Any]:
    """Play tasks of a world.

    Args:
        model: an asset's name, or a model folder.
        world: as of :func:`~sharpen.align.agents.worlds.find_world`.
        tasks: seeds.
        draws: episodes of each.
        branch: also try other actions at every step of one episode of each task, ``draws`` times.
        max_tokens: of a turn.
        temperature: of what is drawn; 0 takes the likeliest tokens.
        instructions: what the agent is told before its goal.
        save: where trajectories go, JSONL.
        pairs: where pairs of steps go, rows of preferences; needs ``branch`` or several draws.
        margin: least difference of the mean rewards of a pair.

    Returns:
        Success and reward with 95 % intervals, steps, cost, violations, counts of what was written.

    Raises:
        ConfigError: ``pairs`` without anything to compare, or there is no such world.
    """
    if pairs is not None and not branch and draws < 2:
        raise ConfigError("pairs compare what was done in one place: give --branch, or --draws 8.")
    make = find_world(world)
    engine = ServedEngine(model, max_batch=_BATCH)
    context = engine.llm.engine.max_context
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature)
    policy = EnginePolicy(engine, engine.llm.tokenizer, sampling, context)
    played = collect(
        make,
        policy,
        draws,
        tasks=tasks,
        explore="branch" if branch else "sample",
        instructions=instructions,
    )
    found: dict[str, Any] = {**_plain(report_of(played)), "trajectories": len(played)}
    if save is not None:
        write_trajectories(save, played)
    if pairs is not None:
        rows = pair_rows(step_pairs(played, margin=margin))
        atomic_write_text(pairs, "".join(json.dumps(row) + "\n" for row in rows))
        found["pairs"] = len(rows)
    return found


def _plain(report: Any) -> dict[str, Any]:
    told = asdict(report)
    for name in ("tasks", "wins"):
        told.pop(name)
    return told
