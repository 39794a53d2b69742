"""Tuning a recipe: its settings are the space, a value of its summary is the objective.

::

    <output>/
        study.db        the study
        trials/<n>/     a run folder a trial
        .store/         finished stage outputs, shared by all trials

Stages whose settings do not change are carried out once. Of models and adapters only those of the
best trial stay.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.core.config import json_copy, parse_yaml
from sharpen.core.errors import ConfigError, DataError, SharpenError, did_you_mean
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Optimizer
from sharpen.core.parameters import Categorical, Float, Int, Parameter
from sharpen.core.problem import Constraint, TrialContext, as_constraints, as_objectives
from sharpen.core.recipe import Recipe, load_recipe
from sharpen.core.run import run
from sharpen.core.space import Space
from sharpen.core.study import Budget, Study

__all__ = ["RecipeProblem", "parse_over", "tune"]

_WEIGHTS = ("model", "adapter")
_RANGE = re.compile(r"^((?:(?:log|int):)*)([^:,]+):([^:,]+)$")


def tune(
    recipe: str | Path | Mapping[str, Any],
    over: Mapping[str, Parameter] | Space,
    *,
    minimize: str | Sequence[str] | None = None,
    maximize: str | Sequence[str] | None = None,
    constraints: Sequence[str | Constraint] = (),
    budget: Budget | None = None,
    optimizer: str | Optimizer | Callable[..., Optimizer] = "auto",
    overrides: Iterable[str] | Mapping[str, Any] = (),
    output: str | Path | None = None,
    workers: int | None = None,
    seed: int = 0,
    callbacks: Sequence[Callable[[Study, Trial], None]] = (),
) -> Study:
    """Search over a recipe's settings; the same call resumes a study that was stopped.

    Args:
        recipe: a YAML file, or the same as plain data.
        over: parameters by dotted path: ``{"train.lr": Float(1e-5, 1e-2, log=True)}``.
        minimize: dotted paths in the run's summary to make small, such as ``"eval.loss_after"``.
        maximize: the same, to make large.
        constraints: on values of the summary, such as ``"compress.int4.bytes <= 1e8"``.
        budget: when to stop; default 20 trials.
        optimizer: see :class:`~sharpen.core.study.Study`.
        overrides: settings held for all trials: ``["train.steps=10"]``.
        output: the study's folder; default ``runs/<name>-tune``.
        workers: trials at once; None is one, in this process.
        seed: of the optimizer; the recipe's own seed is not touched.
        callbacks: called as ``callback(study, trial)`` after each trial.

    Returns:
        The finished study; ``.best.config``, ``.best.feedback.info["run"]``.

    Raises:
        ConfigError: the recipe is wrong, or a path in ``over`` is none of its settings.
    """
    space = over if isinstance(over, Space) else Space(over)
    problem = RecipeProblem(
        recipe,
        space,
        minimize=minimize,
        maximize=maximize,
        constraints=constraints,
        overrides=overrides,
        output=output,
    )
    one_at_a_time = workers in (None, 1)

    def after(study: Study, trial: Trial) -> None:
        if one_at_a_time:  # with more, another trial may be about to take an output up
            problem.drop_weights(study)

    study = Study(
        problem,
        optimizer=optimizer,
        store=problem.output / "study.db",
        budget=budget or Budget(trials=20),
        workers=workers,
        seed=seed,
        callbacks=(after, *callbacks),
    )
    study.run()
    problem.drop_weights(study)
    return study


class RecipeProblem:
    """A recipe as a problem; see :func:`tune` for the arguments.

    Raises:
        ConfigError: the recipe is wrong, or a path of the space is none of its settings.
    """

    def __init__(
        self,
        recipe: str | Path | Mapping[str, Any],
        space: Space,
        *,
        minimize: str | Sequence[str] | None = None,
        maximize: str | Sequence[str] | None = None,
        constraints: Sequence[str | Constraint] = (),
        overrides: Iterable[str] | Mapping[str, Any] = (),
        output: str | Path | None = None,
    ) -> None:
        self.recipe: Any = json_copy(recipe) if isinstance(recipe, Mapping) else Path(recipe)
        self.overrides = self._as_mapping(overrides)
        self.space = space
        self.objectives = as_objectives(minimize, maximize)
        self.constraints = as_constraints(constraints)
        if not self.objectives:
            raise ConfigError("tune needs minimize or maximize, such as 'eval.loss_after'.")
        loaded = self._load(space.default())
        self._check_paths(loaded)
        self.name = loaded.name
        self.output = Path(output or Path("runs") / f"{loaded.name}-tune").absolute()

    @staticmethod
    def _as_mapping(overrides: Iterable[str] | Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(overrides, Mapping):
            return dict(overrides)
        found: dict[str, Any] = {}
        for text in overrides:
            key, equals, value = text.partition("=")
            if not equals or not key.strip():
                raise ConfigError(f"override {text!r} is not of the form KEY=VALUE.")
            found[key.strip()] = parse_yaml(value, file=f"override {text!r}").data
        return found

    def _load(self, config: Mapping[str, Any]) -> Recipe:
        return load_recipe(self.recipe, {**self.overrides, **config})

    def _check_paths(self, recipe: Recipe) -> None:
        """Objectives and parameters must begin with a stage (or ``seed``)."""
        stages = [spec.name for spec in recipe.stages]
        for what, names, allowed in (
            ("over", list(self.space), [*stages, "seed", "model"]),
            ("minimize or maximize", [o.name for o in self.objectives], stages),
            ("constraints", [c.name for c in self.constraints], stages),
        ):
            for name in names:
                first = name.split(".")[0]
                if first not in allowed:
                    raise ConfigError(
                        f"{name!r} ({what}) begins with no stage of the recipe."
                        f"{did_you_mean(first, allowed)} Stages: {', '.join(stages)}."
                    )

    def folder(self, number: int) -> Path:
        """Run folder of a trial."""
        return self.output / "trials" / str(number)

    def evaluate(self, config: dict[str, Any], trial: TrialContext) -> dict[str, Any]:
        """Carry the recipe out; see :meth:`Problem.evaluate`.

        Raises:
            DataError: the summary lacks a value that was asked for.
            SharpenError: the run failed.
        """
        done = run(
            self._load(config), output=self.folder(trial.number), store=self.output / ".store"
        )
        flat = done.summary.flat()
        found: dict[str, Any] = {"run": f"trials/{trial.number}"}
        for name in [*(o.name for o in self.objectives), *(c.name for c in self.constraints)]:
            if name not in flat:
                numbers = [k for k, v in flat.items() if isinstance(v, (int, float))]
                raise DataError(
                    f"the run's summary has no '{name}'.{did_you_mean(name, numbers)} "
                    f"It has: {', '.join(numbers)}."
                )
            found[name] = flat[name]
        return found

    def drop_weights(self, study: Study) -> None:
        """Delete models and adapters that neither a best trial nor a running one uses."""
        trials = study.trials()
        best = {trial.number for trial in study.pareto()}
        if len(self.objectives) == 1 and best:
            best = {study.best.number}
        kept: set[str] = set()
        losers: list[Path] = []
        for trial in trials:
            folder = self.folder(trial.number)
            if trial.feedback is None or trial.number in best:
                kept |= {link.resolve().name for link in _links(folder)}
            else:
                losers.append(folder)
        for folder in losers:
            for link in _links(folder):
                output = link.resolve()
                if output.name not in kept and _kind(output) in (*_WEIGHTS, ""):
                    shutil.rmtree(output, ignore_errors=True)
                    link.unlink(missing_ok=True)


def _links(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_symlink()] if folder.exists() else []


def _kind(output: Path) -> str:
    """Kind of a stored output; empty when it is gone."""
    try:
        return str(json.loads((output / "stage.json").read_text(encoding="utf-8"))["kind"])
    except FileNotFoundError:
        return ""


def parse_over(text: str) -> tuple[str, Parameter]:
    """Read ``KEY=[log:][int:]LOW:HIGH`` or ``KEY=a,b,c``, as ``sharpen tune --over`` takes it.

    Raises:
        ConfigError: not of either form.

    Examples:
        >>> parse_over("train.rank=log:int:2:64")[1].options()
        {'type': 'int', 'low': 2, 'high': 64, 'log': True}
        >>> parse_over("train.method=lora,dora")[1].options()
        {'type': 'categorical', 'choices': ['lora', 'dora']}
    """
    form = "Write KEY=[log:][int:]LOW:HIGH or KEY=a,b,c, for example train.lr=log:1e-5:1e-2."
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key or not value:
        raise ConfigError(f"--over {text!r} is not of the form KEY=VALUES. {form}")
    match = _RANGE.match(value)
    try:
        if match:
            return key, _range(match[1], match[2].strip(), match[3].strip())
        if "," in value:
            items = [
                parse_yaml(item.strip(), file=f"--over {key}").data for item in value.split(",")
            ]
            return key, Categorical(*items)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"--over {text!r}: {error} {form}") from None
    raise ConfigError(f"--over {text!r} has neither a range nor choices. {form}")


def _range(flags: str, low: str, high: str) -> Parameter:
    words = flags.split(":")[:-1]
    if len(set(words)) != len(words):
        raise ConfigError("log: and int: may stand once each.")
    log = "log" in words
    try:
        if "int" in words:
            return Int(int(low), int(high), log=log)
        return Float(float(low), float(high), log=log)
    except ValueError as error:
        if isinstance(error, SharpenError):
            raise
        kind = "integers" if "int" in words else "numbers"
        raise ConfigError(f"{low!r} and {high!r} must be {kind}.") from None
