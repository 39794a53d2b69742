"""Alignment as a function: a recipe of one stage, carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.core.recipe import Recipe, load_recipe
from sharpen.core.run import RunObserver, run
from sharpen.core.run_folder import Run

__all__ = ["Aligned", "align", "alignment_recipe"]


@dataclass(frozen=True, slots=True)
class Aligned:
    """What came of an alignment."""

    model: Path
    """Folder of the model or adapter."""

    summary: Mapping[str, Any]
    """Results and measurements."""

    history: Mapping[str, list[tuple[int, float]]]
    """Metrics by name: optimizer steps and values."""

    run: Run
    """The run, with report and folder."""


def align(
    method: str,
    model: str | Path,
    data: str | Path = "",
    *,
    reward: str | None = None,
    world: str | None = None,
    settings: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    observer: RunObserver | None = None,
) -> Aligned:
    """Let a model learn from feedback; a run that was stopped goes on.

    Args:
        method: ``sft``, ``dpo``, ``grpo`` ...: a name of :data:`sharpen.align.METHODS`.
        model: an asset's name, or a model folder.
        data: rows in TRL's formats: a file, folder or pattern.
        reward: a name, ``path.py:function`` or ``module:function``; for methods that generate.
        world: instead of data: what an agent acts in.
        settings: anything else of :class:`~sharpen.align.config.AlignConfig`, by dotted key, such
            as ``{"steps": 200, "options.beta": 0.05}``.
        output: the run folder; default ``runs/<method>``.
        seed: of order, completions and adapters.
        observer: is told of progress.

    Raises:
        ConfigError: a setting is wrong.
        DataError: a row is bad; the message names file, line and key.
        SharpenError: what else went wrong.

    Example::

        done = align("grpo", "tiny", "prompts.jsonl", reward="number", settings={"steps": 20})
        done.history["reward"]
    """
    recipe = alignment_recipe(
        method,
        model,
        {"data": str(data), "world": world, "reward": reward and {"uses": reward}},
        settings or {},
        seed=seed,
    )
    folder = output if output is not None else Path("runs") / method
    done = run(recipe, output=folder, observer=observer)
    history: dict[str, list[tuple[int, float]]] = {}
    for row in done.metrics:
        if row["step"] is not None and row["value"] is not None:
            history.setdefault(row["name"], []).append((row["step"], row["value"]))
    return Aligned(done.artifact("align"), done.summary["align"], history, done)


def alignment_recipe(
    method: str,
    model: str | Path,
    given: Mapping[str, Any],
    settings: Mapping[str, Any] | Iterable[str],
    *,
    seed: int = 0,
) -> Recipe:
    """The recipe of one alignment, and of its report.

    Args:
        method: its name.
        model: an asset's name, or a folder.
        given: keys of the stage; those that are None are left out.
        settings: further ones by dotted key: a mapping, or ``["key=value", ...]``.
        seed: of the recipe.

    Raises:
        ConfigError: a setting is wrong.
    """
    stage = {key: value for key, value in given.items() if value is not None}
    source = {
        "sharpen": 1,
        "name": method,
        "seed": seed,
        "model": str(model),
        "align": {"method": method, **stage},
        "report": {},
    }
    if isinstance(settings, Mapping):
        return load_recipe(source, {f"align.{key}": value for key, value in settings.items()})
    return load_recipe(source, [f"align.{one}" for one in settings])
