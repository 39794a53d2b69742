"""Tuning a recipe: its settings are the space, a value of its summary is the objective.

::

    <output>/
        study.db        the study
        trials/<n>/     a run folder a trial
        .store/         finished stage outputs, shared by all trials

Stages whose settings do not change are carried out once. Of models and adapters only those of the
best trial stay. The first trial has the recipe's own settings. A trial whose training falls behind
the others is stopped (``pruner.py``): the running mean of the curve's last ten values is compared.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.core.config import json_copy, parse_yaml, to_dict
from sharpen.core.errors import ConfigError, DataError, SharpenError, did_you_mean
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.optimizer import Optimizer
from sharpen.core.parameters import Categorical, Float, Int, Parameter
from sharpen.core.problem import Constraint, TrialContext, as_constraints, as_objectives
from sharpen.core.pruner import Pruner
from sharpen.core.recipe import Recipe, load_recipe
from sharpen.core.run import run
from sharpen.core.space import Space
from sharpen.core.study import Budget, Study

__all__ = ["RecipeProblem", "parse_over", "tune"]

_WEIGHTS = ("model", "adapter")
_SMOOTHED = 10  # values of a curve in the mean that is reported
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
    pruner: str | Mapping[str, Any] | Pruner | None = "median",
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
        minimize: dotted paths in the run's summary to make small, such as ``"eval.loss_after"``;
            default, without ``maximize``, what the recipe's last stage that measures quality says.
        maximize: the same, to make large.
        constraints: on values of the summary, such as ``"compress.int4.bytes <= 1e8"``.
        budget: when to stop; default 20 trials.
        optimizer: see :class:`~sharpen.core.study.Study`.
        pruner: stops trials whose training falls behind, as in
            :class:`~sharpen.core.study.Study`; None lets all run to their end. With several
            objectives nothing is stopped.
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
        pruner=pruner if len(problem.objectives) == 1 else None,
        seed=seed,
        callbacks=(after, *callbacks),
    )
    if problem.own is not None and not study.trials():
        study.enqueue(problem.own)
    study.run()
    problem.drop_weights(study)
    return study


class _Stopped(Exception):
    """A trial is not worth going on."""


class _Curve:
    """Observes a run and reports the curve of its training to the trial."""

    def __init__(self, trial: TrialContext, curves: Mapping[str, str], sign: float) -> None:
        self._trial, self._curves, self._sign = trial, curves, sign
        self._values: deque[float] = deque(maxlen=_SMOOTHED)
        self._before = 0  # steps of the stages that are done
        self._last = 0

    def stage_started(self, name: str, number: int, total: int) -> None:
        """See :class:`~sharpen.core.run.RunObserver`."""

    def stage_finished(self, name: str, result: Mapping[str, Any], reused: bool) -> None:
        """See :class:`~sharpen.core.run.RunObserver`."""
        self._before += self._last
        self._last = 0
        self._values.clear()

    def event(self, name: str, event: Mapping[str, Any]) -> None:
        """See :class:`~sharpen.core.run.RunObserver`."""
        if event["event"] != "metric" or self._curves.get(name) != event["name"]:
            return
        step = event["step"]
        if step is None or step <= self._last:
            return
        self._last = step
        self._values.append(event["value"])
        mean = self._sign * sum(self._values) / len(self._values)
        if self._trial.report(self._before + step, mean) == "stop":
            raise _Stopped


class RecipeProblem:
    """A recipe as a problem; see :func:`tune` for the arguments.

    Attributes:
        own: the recipe's own settings, where they are a configuration of the space.

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
        self.constraints = as_constraints(constraints)
        loaded = self._load(space.default())
        if not minimize and not maximize:
            minimize = _quality(loaded)
        self.objectives = as_objectives(minimize, maximize)
        self._check_paths(loaded)
        self._curves = {s.name: s.type.curve for s in loaded.stages if s.type.curve is not None}
        self.own = self._own()
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

    def _own(self) -> dict[str, Any] | None:
        """Values of the space's parameters as the recipe has them."""
        loaded = self._load({})
        tree: dict[str, Any] = {s.name: to_dict(s.config) for s in loaded.stages}
        tree |= {"seed": loaded.seed, "model": loaded.model}
        found: dict[str, Any] = {}
        for path in self.space:
            node: Any = tree
            for part in path.split("."):
                if isinstance(node, Mapping):
                    node = node.get(part)
                elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
                    node = node[int(part)]
                else:
                    node = None
            found[path] = node
        active = self.space.active(found)
        try:
            return self.space.validate({k: v for k, v in found.items() if k in active})
        except (ConfigError, TypeError):
            return None  # what the recipe says is not in the space

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

    def evaluate(self, config: dict[str, Any], trial: TrialContext) -> dict[str, Any] | Feedback:
        """Carry the recipe out; see :meth:`Problem.evaluate`.

        Raises:
            DataError: the summary lacks a value that was asked for.
            SharpenError: the run failed.
        """
        sign = -1.0 if self.objectives[0].direction == "max" else 1.0
        try:
            done = run(
                self._load(config),
                output=self.folder(trial.number),
                store=self.output / ".store",
                observer=_Curve(trial, self._curves, sign),
            )
        except _Stopped:
            info = {"run": f"trials/{trial.number}"}
            return Feedback(status="pruned", info=info)
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
            shutil.rmtree(folder / ".work", ignore_errors=True)  # checkpoints of one that stopped
            for link in _links(folder):
                output = link.resolve()
                if output.name not in kept and _kind(output) in (*_WEIGHTS, ""):
                    shutil.rmtree(output, ignore_errors=True)
                    link.unlink(missing_ok=True)


def _quality(recipe: Recipe) -> str:
    """What the recipe's last stage that measures quality says of it, to be made small."""
    found = [f"{s.name}.{s.type.minimizes}" for s in recipe.stages if s.type.minimizes is not None]
    if not found:
        raise ConfigError(
            "no stage of the recipe measures quality, so tune needs minimize or maximize: a dotted "
            "path of the run's summary. Or add an eval stage."
        )
    return found[-1]


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
