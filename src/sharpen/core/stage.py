"""Stages: typed steps of a recipe, each a frozen config and a function that makes an artifact.

A stage type is found by name: first among those registered in this process (:func:`register`),
then among the entry points of the group ``sharpen.stages``. Types from entry points run in a
process of their own, so that their memory and time are measured alone.

What a stage writes must be a function of its config, seed and inputs: no times, process ids or
absolute paths. What it measures goes to :attr:`StageResult.measured`, never into files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from sharpen.core.errors import (
    ConfigError,
    DependencyNotInstalled,
    MissingFileError,
    did_you_mean,
)
from sharpen.core.report import Section
from sharpen.core.signals import Curve, Panel, Remark

__all__ = [
    "Artifact",
    "Prediction",
    "Progress",
    "RecipeContext",
    "RunView",
    "StageContext",
    "StageResult",
    "StageType",
    "find_stage_type",
    "register",
    "stage_type_names",
]

KINDS = ("dataset", "model", "adapter", "report")
_GROUP = "sharpen.stages"
_registered: dict[str, StageType] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A finished output of a stage."""

    kind: str
    """``dataset``, ``model``, ``adapter`` or ``report``."""

    path: Path
    """Its folder."""

    stage: str
    """Name of the stage that made it."""

    key: str
    """Its address: the digest of all that determines its bytes."""

    results: dict[str, Any] = field(default_factory=dict)
    """The results its stage returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What a stage function returns."""

    results: dict[str, Any] = field(default_factory=dict)
    """Plain, deterministic values; stored with the artifact and shown in the summary."""

    measured: dict[str, Any] = field(default_factory=dict)
    """Seconds, bytes, tokens/s: shown in the summary, never stored with the artifact.
    ``peak_bytes`` and ``step_s`` are compared with the stage's prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a stage will need, foreseen without doing it."""

    stage: str = ""
    """Name of the stage."""

    peak_bytes: int
    """Highest resident memory of the stage's process, in bytes."""

    parts: dict[str, int] = field(default_factory=dict)
    """What takes the memory, in bytes; they sum to ``peak_bytes``."""

    step_s: float | None = None
    """Seconds a step, where the stage has steps."""

    steps: int | None = None
    """Number of steps."""

    time_s: float | None = None
    """Seconds in all."""

    details: dict[str, Any] = field(default_factory=dict)
    """Further numbers for the table: FLOPs, tokens/s, bytes moved."""

    remedies: tuple[str, ...] = ()
    """What to change if it does not fit, best first, as overrides with their effect."""


class Progress(Protocol):
    """A running progress display."""

    def advance(self, n: float = 1, **fields: Any) -> None:
        """Move on by ``n``; ``fields`` (loss, tokens/s) are shown beside the bar."""


class _Silent:
    def advance(self, n: float = 1, **fields: Any) -> None:
        """Nothing is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeContext:
    """What a stage's ``predict`` and ``fingerprint`` hooks may know of the recipe around it."""

    model: str | None
    """The recipe's model reference: an asset's name or an existing path."""

    seed: int
    """The stage's seed."""

    stages: Mapping[str, Any] = field(default_factory=dict)
    """Configs of the stages before this one, by stage name, in order."""

    folder: Path | None = None
    """Folder of the recipe's file."""

    device: Any = None
    """A device profile of the room ``plan``; None is this machine."""

    def resolve(self, path: str | Path) -> Path:
        """A path of the recipe: relative to the working folder or, failing that, to the recipe.

        Raises:
            MissingFileError: it exists in neither place.
        """
        return resolve_path(path, self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run so far, as a stage that is not addressed sees it."""

    name: str
    """The run's name."""

    summary: Mapping[str, Any]
    """Results and measurements by stage, nested."""

    predictions: Mapping[str, Prediction]
    """What was foreseen, by stage."""

    stage_types: Mapping[str, StageType]
    """Type of each stage, in the recipe's order."""

    metrics: Sequence[Mapping[str, Any]]
    """Rows of ``metrics.jsonl``."""


@dataclass(slots=True, kw_only=True)
class StageContext:
    """What a stage function gets beside its config."""

    stage: str
    """The stage's name in the recipe."""

    seed: int
    """The stage's seed."""

    model: str | None
    """The recipe's model reference: an asset's name or an existing path."""

    inputs: Mapping[str, Artifact]
    """Artifacts it takes, by kind."""

    output: Path
    """A fresh folder; what is in it when the function returns becomes the artifact."""

    work: Path
    """A folder that survives a kill, for checkpoints; removed when the stage is done."""

    folder: Path | None = None
    """Folder of the recipe's file."""

    run_folder: Path | None = None
    """The run's folder, for measurements too large for its metrics; never part of the output."""

    run: RunView | None = None
    """The run so far; only for stages that are not addressed."""

    on_metric: Callable[[str, float, int | None], None] | None = None
    on_rewind: Callable[[int], None] | None = None
    on_progress: Callable[[str, float | None], Any] | None = None

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Add one row to the run's ``metrics.jsonl``."""
        if self.on_metric is not None:
            self.on_metric(name, float(value), step)

    def rewind(self, step: int) -> None:
        """Drop this stage's metric rows past ``step``: called when resuming from a checkpoint."""
        if self.on_rewind is not None:
            self.on_rewind(step)

    @contextmanager
    def progress(self, description: str, total: float | None = None) -> Iterator[Progress]:
        """Show progress while the block runs; call ``.advance()`` on the value."""
        if self.on_progress is None:
            yield _Silent()
        else:
            with self.on_progress(description, total) as bar:
                yield bar

    def resolve(self, path: str | Path) -> Path:
        """A path of the recipe; see :meth:`RecipeContext.resolve`."""
        return resolve_path(path, self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageType:
    """A kind of stage: what it is configured by, needs, makes and does."""

    name: str
    """The name recipes use, as a key or in ``uses:``."""

    version: int
    """Raised whenever the same config would give other bytes."""

    config: type
    """A frozen dataclass."""

    run: Callable[[Any, StageContext], StageResult]
    """The work."""

    makes: str | Callable[[Any], str]
    """Kind of the artifact, or a function from the config to it."""

    loads: tuple[str, ...] = ()
    """Modules that the work imports and that take a while: loaded once for all stages of a run,
    which are forked from the process that has. They may start no threads and touch no GPU."""

    needs: tuple[str, ...] = ()
    """Kinds of artifacts it cannot do without."""

    optional: tuple[str, ...] = ()
    """Kinds of artifacts it takes when an earlier stage made one."""

    addressed: bool = True
    """False: it makes no artifact, runs every time in the run's own process with the run folder as
    its output, and sees the run so far in :attr:`StageContext.run`."""

    needs_model: bool = False
    """Whether the recipe's ``model`` must be given (it is part of the address then)."""

    may_change: tuple[str, ...] = ()
    """Keys of the config that a stage under way may be given anew and still go on from its work;
    they say how, not what. A finished output is of its whole config all the same."""

    fingerprint: Callable[[Any, RecipeContext], Any] | None = None
    """Plain data that belongs in the address too, such as hashes of the files it reads."""

    predict: Callable[[Any, RecipeContext], Prediction] | None = None
    """Memory and time, foreseen."""

    report: Callable[[dict[str, Any]], list[Section]] | None = None
    """Sections of the run's report, from the stage's part of the summary."""

    panels: tuple[Panel, ...] = ()
    """What is looked at together of the numbers that it logs step by step."""

    check: Callable[[Mapping[str, Curve]], list[Remark]] | None = None
    """Tells which of these numbers are not as they should be, and what to do."""

    minimizes: str | None = None
    """The result that tuning a recipe makes small where nothing else is asked for."""

    curve: str | None = None
    """The metric that tells step by step how a run goes; less is better."""

    def kind(self, config: Any) -> str:
        """Kind of the artifact made under ``config``."""
        return self.makes if isinstance(self.makes, str) else self.makes(config)


def register(stage_type: StageType) -> StageType:
    """Make a stage type known in this process, under its name; a later one replaces it."""
    _registered[stage_type.name] = stage_type
    return stage_type


def stage_type_names() -> list[str]:
    """Names of every stage type that recipes may use, sorted."""
    installed = {point.name for point in metadata.entry_points(group=_GROUP)}
    return sorted(installed | set(_registered))


def is_registered_here(name: str) -> bool:
    """Whether the type comes from :func:`register` and so cannot run in another process."""
    return name in _registered


def find_stage_type(name: str, *, where: str = "") -> StageType:
    """The stage type called ``name``.

    Raises:
        ConfigError: no such type.
        DependencyNotInstalled: its room needs packages that are not installed.
    """
    if name in _registered:
        return _registered[name]
    for point in metadata.entry_points(group=_GROUP):
        if point.name == name:
            try:
                found = point.load()
            except ModuleNotFoundError as error:
                room = point.value.split(".")[1]
                raise DependencyNotInstalled(
                    f"the stage '{name}' needs the package '{error.name}'. "
                    f"Install it: pip install 'sharpen[{room}]'"
                ) from error
            assert isinstance(found, StageType)
            return found
    names = stage_type_names()
    raise ConfigError(
        f"{where + ': ' if where else ''}there is no stage type '{name}'."
        f"{did_you_mean(name, names)} Known: {', '.join(names)}."
    )


def resolve_path(path: str | Path, folder: Path | None) -> Path:
    """``path`` as it stands, relative to the working folder, or relative to ``folder``."""
    given = Path(path).expanduser()
    tried = [given.absolute()]
    if folder is not None and not given.is_absolute():
        tried.append((folder / given).absolute())
    for candidate in tried:
        if candidate.exists():
            return candidate
    raise MissingFileError(
        f"no such file or folder: {' and '.join(map(str, dict.fromkeys(tried)))}"
    )
