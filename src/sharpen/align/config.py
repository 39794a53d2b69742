"""The ``align`` stage's config: which method, from what data and rewards, how long, how."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sharpen.align.options.methods import DESCRIPTIONS, describe
from sharpen.align.places import file_of, placed
from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError
from sharpen.optim.schedules import ScheduleKind
from sharpen.plan.parallel import ParallelConfig
from sharpen.train.config import ActConfig, CheckpointConfig, FTConfig, MetricsConfig, TrainConfig

__all__ = [
    "MAY_CHANGE",
    "AlignConfig",
    "BranchConfig",
    "FailureConfig",
    "RewardConfig",
    "SamplingConfig",
]

MAY_CHANGE = (
    *("checkpoint", "metrics", "act", "micro_batch", "samples", "device"),
    *("nproc", "parallel", "ft"),
)
"""Keys that may differ between a checkpoint and the training that goes on from it."""

MethodName = Literal[
    "sft",
    "rm",
    "dpo",
    "ipo",
    "kto",
    "orpo",
    "rrhf",
    "rft",
    "ppo",
    "remax",
    "rloo",
    "grpo",
    "bcoder",
]
_PATH_OPTIONS = {"score_model": ("path",)}
"""Options of built-in rewards that are paths."""
_ADAPTED_LR = 10.0  # times that of whole models
_STEPWISE = ("dpo", "ipo", "orpo")
"""Methods that learn, in a world, from pairs of steps that they find there."""
_ROLLOUTS = 4  # of each branch


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How completions are generated."""

    max_tokens: int = 128
    """Longest completion."""

    temperature: float = 1.0
    """Logits are divided by it, when sampling and when learning."""

    top_p: float = 1.0
    """Below 1 completions are not drawn from the policy whose log-probabilities are taken, and
    ratios are biased."""

    top_k: int = 0
    """As ``top_p``; 0 for all tokens."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_tokens < 1 or not 0 < self.temperature <= 2:
            raise ConfigError(
                f"max_tokens={self.max_tokens} must be at least 1 and temperature="
                f"{self.temperature} above 0 and at most 2 (sampling)."
            )
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ConfigError(
                f"top_p={self.top_p} must be above 0 and at most 1, top_k={self.top_k} at least 0 "
                "(sampling)."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardConfig:
    """How rewards are computed."""

    uses: str
    """A reward's name, ``path.py:function`` or ``module:function``."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a reward that has some."""

    workers: int = 2
    """Processes; 0 computes in this one, without a deadline."""

    deadline_s: float = 30.0
    """Seconds that a sample may take; a later one gets no reward and teaches nothing."""

    chunk: int = 1
    """Samples a call."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.uses:
            raise ConfigError("reward.uses is empty: name a reward.")
        if self.workers < 0 or not self.deadline_s > 0 or self.chunk < 1:
            raise ConfigError(
                f"workers={self.workers} must be at least 0, deadline_s={self.deadline_s} above 0 "
                f"and chunk={self.chunk} at least 1 (reward)."
            )

    def placed(self, resolve: Callable[[str], Path]) -> tuple[str, dict[str, Any]]:
        """Name or place, and options, with their paths as ``resolve`` finds them.

        Args:
            resolve: a path as the recipe has it to one that exists.

        Raises:
            MissingFileError: ``resolve`` does not find a path.
        """
        options = dict(self.options)
        for name in _PATH_OPTIONS.get(self.uses, ()):
            if isinstance(options.get(name), str) and options[name]:
                options[name] = str(resolve(options[name]))
        return placed(self.uses, resolve), options

    def files(self, resolve: Callable[[str], Path]) -> list[Path]:
        """Files and folders that the reward is made of.

        Args:
            resolve: see :meth:`placed`.

        Raises:
            MissingFileError: ``resolve`` does not find a path.
        """
        place, options = self.placed(resolve)
        file = file_of(place)
        given = (options.get(name) for name in _PATH_OPTIONS.get(self.uses, ()))
        folders = [Path(path) for path in given if path]
        return folders if file is None else [file, *folders]


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureConfig(FTConfig):
    """As for training, but for the time that a batch may take: it is generated and rewarded too."""

    hang_timeout_s: float = 1800.0
    """Seconds without a step after which the job counts as hung."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchConfig:
    """Pairs of steps: what else is tried at each step of an episode, and which pairs count."""

    width: int = 2
    """Other actions at a step, where the agent draws so many different ones."""

    points: int | None = 4
    """Steps of an episode at which others are tried, drawn by chance; null takes all."""

    margin: float = 0.3
    """Least difference of the mean rewards after the two actions of a pair."""

    min_visits: int = 3
    """Episodes that must have taken an action for it to count."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.points is not None and self.points < 1:
            raise ConfigError(f"points={self.points} must be at least 1, or null (branches).")
        if self.width < 1 or self.min_visits < 1 or not 0 < self.margin < math.inf:
            raise ConfigError(
                f"width={self.width} and min_visits={self.min_visits} must be at least 1 and "
                f"margin={self.margin} above 0 (branches)."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignConfig:
    """Learning from feedback.

    An example is a row, a pair, a query with its answers, or a prompt.
    """

    method: MethodName
    """The method; its own settings are ``options``."""

    data: str = ""
    """A file, folder or pattern of rows in TRL's formats."""

    world: str = ""
    """Instead of data: a world that an agent acts in, turn by turn, and that rewards it: ``rooms``,
    ``calculator``, ``retrieval``, ``path.py:Class`` or ``module:Class``."""

    tasks: int = 512
    """Different tasks of the world."""

    instructions: str = ""
    """In a world: what the agent is told before its goal: a text, or ``@path`` of a file, such as
    the one that ``sharpen align instruct`` writes."""

    branches: BranchConfig = field(default_factory=BranchConfig)
    """In a world, of dpo, ipo and orpo: how pairs of steps are found. Each of ``batch`` tasks is
    played once, and from some of its steps other actions ``generations`` times to the end."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """The method's settings, such as ``{beta: 0.05}``."""

    reward: RewardConfig | None = None
    """Where completions are generated: what they earn."""

    reference: str = "start"
    """The frozen policy that methods stay near: the start, or another model."""

    steps: int | None = None
    """Steps: optimizer steps of methods that learn from rows; batches of completions of methods
    that generate. Default 100 unless ``epochs`` is given."""

    epochs: float | None = None
    """Passes over the data, instead of ``steps``."""

    batch: int = 8
    """Examples of a step, on all processes."""

    micro_batch: int | None = None
    """Examples (completions, where they are generated) of a forward pass; default as many as make
    about 8,192 tokens at most."""

    generations: int | None = None
    """Completions of each prompt; default the method's. Of pairs of steps: episodes of each branch,
    default 4."""

    epochs_per_batch: int | None = None
    """Passes over each batch of completions; default the method's: 4 for ppo, else 1."""

    minibatches: int = 1
    """Optimizer steps of such a pass."""

    staleness: int = 0
    """Batches of completions that are generated and rewarded ahead of the one that is learnt from,
    so that a slow reward stops nothing; completions then are of the weights so many batches
    earlier, and ratios are taken to those."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How completions are generated."""

    engine: str = "auto"
    """What generates: ``serve``, the serving engine with a copy of the weights (``auto`` is the
    same); ``model``, the trained model itself; or the address of a server that takes trained
    adapters over, such as ``http://127.0.0.1:8000/v1``."""

    engine_dtype: Literal["same", "float32", "bfloat16"] = "same"
    """Type of the engine's copy; ``same`` is that of training."""

    max_length: int | None = None
    """Tokens of a sequence, at most; default the model's context."""

    on_long: Literal["refuse", "drop", "cut"] = "refuse"
    """What happens to longer rows: an error, left out and counted, or their end cut off."""

    skip_bad: bool = False
    """Leave rows with missing or wrong fields out, and count them, instead of stopping."""

    episodes: Literal["successful", "all"] = "successful"
    """Of data that are trajectories, as ``sharpen align play --save`` writes them: which are learnt
    by heart (sft)."""

    chat: bool = False
    """Put plain prompts and completions into the turns of the model's chat template."""

    tune: Literal["full", "lora", "dora", "qlora"] = "full"
    """Train all weights, or adapters on frozen ones."""

    rank: int = 16
    """Adapters: their rank."""

    alpha: float | None = None
    """Adapters: numerator of their scale; default twice the rank."""

    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Adapters: names of the layers."""

    merge: bool = False
    """Adapters: fold them into the weights and write a whole model."""

    optimizer: str = "adamw"
    """A name of ``sharpen.optim.available()``."""

    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    """More options of the optimizer."""

    lr: float | None = None
    """Peak learning rate; default the method's, ten times it for adapters."""

    weight_decay: float = 0.0
    """Decoupled decay of matrices."""

    schedule: ScheduleKind = "cosine"
    """Shape of the learning rate after warm-up."""

    warmup: float = 0.0
    """Warm-up: steps when 1 or more, else a share of all steps."""

    min_ratio: float = 0.1
    """The schedule's floor, as a share of ``lr``."""

    max_norm: float = 1.0
    """Clip the global gradient norm to this."""

    max_bad_steps: int = 10
    """Give up after so many steps in a row with NaN or infinite loss or gradient."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type. What trains is kept in float32."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it learns and generates; ``auto`` is the first CUDA device, or else the CPU."""

    deterministic: bool = False
    """On CUDA take kernels that give the same bits each time; they are slower."""

    samples: int = 2
    """Completions of each step that are kept to be read."""

    nproc: int | None = None
    """Processes to start on this machine; default as many as ``parallel`` asks for. Each learns
    from its share of the batch, and generates it with an engine of its own."""

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """What the processes share: ``zero_stage``, at most 1 for methods that generate."""

    act: ActConfig = field(default_factory=ActConfig)
    """Activation memory."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""

    ft: FailureConfig = field(default_factory=FailureConfig)
    """What happens when a process fails."""

    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    """Logging."""

    def __post_init__(self) -> None:
        """Check every range and combination before any work."""
        method = describe(self.method)
        self.method_options()
        if bool(self.data) == bool(self.world):
            raise ConfigError("give data, or a world: one of them.")
        if self.world and not method.online and not self.finds_pairs:
            able = [name for name, one in DESCRIPTIONS.items() if one.online] + [*_STEPWISE]
            raise ConfigError(
                f"{self.method} learns from rows; in a world, take {', '.join(able)}. Rows of what "
                "was done there come from sharpen align play --pairs."
            )
        if self.instructions and not self.world:
            raise ConfigError(
                "instructions are for an agent in a world: give world, or leave them out."
            )
        if self.world and self.reward is not None:
            raise ConfigError("a world tells rewards itself: leave reward out.")
        if method.online and self.reward is None and not self.world:
            raise ConfigError(
                f"{self.method} generates completions, which need a reward. Give reward: "
                "{uses: NAME}, or --reward NAME."
            )
        if not method.online and self.reward is not None:
            raise ConfigError(f"{self.method} learns from the rows as they are: leave reward out.")
        if self.staleness < 0:
            raise ConfigError(f"staleness={self.staleness} must be at least 0.")
        if self.staleness and self.reward is None:
            raise ConfigError(
                f"staleness={self.staleness} is for completions whose rewards take time; "
                f"{'a world rewards at once' if self.world else f'{self.method} has none'}. "
                "Leave it at 0."
            )
        for name in ("batch", "minibatches", "samples", "tasks"):
            if getattr(self, name) < (0 if name == "samples" else 1):
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("micro_batch", "generations", "epochs_per_batch", "max_length", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1, or null.")
        if self.steps is not None and self.epochs is not None:
            raise ConfigError("give steps or epochs, not both.")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise ConfigError(f"epochs={self.epochs} must be above 0 and finite.")
        if self.method == "kto" and self.batch < 2:
            raise ConfigError(
                f"batch={self.batch}: kto compares each completion with another prompt's, so that "
                "batch must be at least 2."
            )
        if self.finds_pairs and self.draws < self.branches.min_visits:
            raise ConfigError(
                f"generations={self.draws} episodes of each branch are fewer than "
                f"branches.min_visits={self.branches.min_visits}, so that no pair would count. "
                "Raise generations, or lower branches.min_visits."
            )
        generations = self.draws
        if self.method in ("rloo", "grpo") and generations < 2:
            raise ConfigError(
                f"{self.method} compares completions of one prompt: generations={generations} must "
                "be at least 2."
            )
        if self.engine not in ("auto", "serve", "model") and "://" not in self.engine:
            raise ConfigError(
                f"engine={self.engine!r} must be auto, serve, model, or a server's address."
            )
        if "://" in self.engine and self.tune not in ("lora", "qlora"):
            raise ConfigError(
                f"engine={self.engine} takes trained adapters over: give tune=lora, not "
                f"{self.tune!r}."
            )
        if self.minibatches > self.completions:
            raise ConfigError(
                f"minibatches={self.minibatches} cut a batch of {self.completions} completions."
            )
        self._check_ranks()
        self.training(1, self.micro_batch or 1)

    def _check_ranks(self) -> None:
        if self.nproc is not None and self.nproc < 1:
            raise ConfigError(f"nproc={self.nproc} must be at least 1.")
        parallel, ranks = self.parallel, self.data_ranks
        if parallel.sequence_ranks > 1:
            raise ConfigError(
                f"parallel.sp={parallel.sp} and parallel.ring={parallel.ring}: alignment shares no "
                "sequence over processes. Leave both at 1."
            )
        if self.generates and parallel.zero_stage > 1:
            raise ConfigError(
                f"parallel.zero_stage={parallel.zero_stage}: {self.method} generates, and needs "
                "whole weights in every process. Take 0 or 1."
            )
        if self.batch % ranks:
            raise ConfigError(
                f"batch={self.batch} cannot be shared by {ranks} processes. Take "
                f"{self.batch // ranks * ranks or ranks}, or another multiple."
            )
        if "://" in self.engine and ranks > 1:
            raise ConfigError(
                f"engine={self.engine} takes the weights of one process: leave nproc and parallel "
                "out, or take engine=serve."
            )

    def method_options(self) -> Any:
        """The method's settings as its own dataclass.

        Raises:
            ConfigError: an option is unknown or out of range.
        """
        method = describe(self.method)
        fixed = method.fixed or {}
        taken = sorted(fixed.keys() & self.options.keys())
        if taken:
            raise ConfigError(f"{taken[0]!r} is what {self.method} decides: leave it out.")
        try:
            return from_dict(method.options, {**self.options, **fixed}, path="options")
        except ConfigError as error:
            raise ConfigError(f"options of {self.method}: {error}") from error

    @property
    def adapts(self) -> bool:
        """Whether adapters are trained, on frozen weights."""
        return self.tune != "full"

    @property
    def finds_pairs(self) -> bool:
        """Whether pairs of steps are found in a world, and learnt from."""
        return bool(self.world) and self.method in _STEPWISE

    @property
    def generates(self) -> bool:
        """Whether completions are generated while it learns."""
        return describe(self.method).online or self.finds_pairs

    @property
    def draws(self) -> int:
        """Completions of each prompt; episodes of each branch, where pairs of steps are found."""
        return self.generations or (
            _ROLLOUTS if self.finds_pairs else describe(self.method).generations
        )

    @property
    def completions(self) -> int:
        """Completions of a step, on all processes; examples, where none are generated."""
        return self.batch * self.draws if self.generates else self.batch

    @property
    def data_ranks(self) -> int:
        """Processes that have a share of a batch each."""
        return self.parallel.layout(self.parallel.processes(self.nproc)).data_ranks

    @property
    def updates(self) -> int:
        """Optimizer steps of a step."""
        if not self.generates:
            return 1
        return (self.epochs_per_batch or describe(self.method).epochs) * self.minibatches

    def row_limit(self, positions: int) -> int:
        """Tokens that a row may have: of a prompt, where completions are generated after it.

        Args:
            positions: of the model.

        Raises:
            ConfigError: no room is left for a prompt.
        """
        limit = self.max_length or positions
        if not describe(self.method).online:
            return limit
        room = self.sampling.max_tokens
        if limit - room < 2:
            raise ConfigError(
                f"sampling.max_tokens={room} leaves no room for a prompt: it and its completion "
                f"have {limit} tokens together (max_length, or the model's context of "
                f"{positions}). Lower sampling.max_tokens."
            )
        return limit - room

    def num_steps(self, examples: int) -> int:
        """Steps over a data set of ``examples``."""
        if self.epochs is not None:
            return max(1, round(self.epochs * examples / self.batch))
        return self.steps if self.steps is not None else 100

    def training(self, steps: int, micro_batch: int = 1) -> TrainConfig:
        """As the trainer is told.

        Args:
            steps: as of :meth:`num_steps`.
            micro_batch: examples of a forward pass.
        """
        lr = self.lr
        if lr is None:
            lr = describe(self.method).lr * (_ADAPTED_LR if self.adapts else 1.0)
        return TrainConfig(
            steps=steps * self.updates,
            micro_batch=micro_batch,
            global_batch=self.completions,
            method=self.tune,
            rank=self.rank,
            alpha=self.alpha,
            targets=self.targets,
            merge=self.merge,
            optimizer=self.optimizer,
            optimizer_options=self.optimizer_options,
            lr=lr,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup=self.warmup,
            min_ratio=self.min_ratio,
            max_norm=self.max_norm,
            max_bad_steps=self.max_bad_steps,
            dtype=self.dtype,
            device=self.device,
            deterministic=self.deterministic,
            act=self.act,
            checkpoint=self.checkpoint,
            nproc=self.nproc,
            parallel=self.parallel,
            ft=self.ft,
            metrics=self.metrics,
        )
