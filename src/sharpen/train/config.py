"""The ``train`` stage's config: what to train, how long, with which optimizer and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import ModelSpec
from sharpen.optim.names import canonical
from sharpen.optim.schedules import Schedule, ScheduleKind
from sharpen.plan.job import Adapters, trained_shapes
from sharpen.plan.optimizer_states import state_bytes
from sharpen.plan.parallel import ParallelConfig

__all__ = [
    "MAY_CHANGE",
    "ActConfig",
    "CheckpointConfig",
    "FTConfig",
    "MetricsConfig",
    "ParallelConfig",
    "TrainConfig",
]

MAY_CHANGE = (
    *("checkpoint", "metrics", "gc_freq", "ft"),
    *("nproc", "parallel", "act", "micro_batch", "device"),
)
"""Keys that may differ between a checkpoint and the training that goes on from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When checkpoints are written and how many are kept."""

    every: int = 500
    """Steps between checkpoints."""

    every_s: float = 60.0
    """Seconds between checkpoints; whichever comes first."""

    keep: int = 3
    """How many of the latest to keep."""

    async_: bool = True
    """Write in the background; at most one is in flight."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.every < 1 or self.keep < 1 or self.every_s <= 0:
            raise ConfigError(
                f"every={self.every}, every_s={self.every_s} and keep={self.keep} must be above 0."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ActConfig:
    """Memory of activations against recomputation."""

    mode: Literal["none", "selective", "full"] = "none"
    """What a block keeps for the backward pass: everything; its input and what attention needs, so
    that attention is not computed again (``selective``); or its input alone (``full``)."""

    every: int = 1
    """Apply ``mode`` to every n-th block; the others keep everything."""

    offload: Literal["none", "cpu", "nvme"] = "none"
    """Where what ``mode`` keeps waits for the backward pass: host memory, for models on CUDA, or a
    file in the stage's work folder."""

    tiled_mlp: int | Literal["auto"] = 0
    """Tokens that the MLP takes at a time, forward and again backward; 0 takes all at once and
    keeps what it made. ``auto``: as many as the model is wide, 1024 at least."""

    tiled_loss: int | Literal["auto"] = "auto"
    """Rows of logits held at once; ``auto`` holds about 64 MiB of them."""

    attention_chunk: int = 0
    """Tokens of a rank that are projected to queries, keys and values, exchanged and attended at a
    time; 0 for all."""

    attention_store: Literal["none", "cpu", "nvme"] = "none"
    """Where chunks wait for the backward pass: where they are, or as for ``offload``. Attention is
    then not computed again, whatever ``mode`` says."""

    def __post_init__(self) -> None:
        """Check the ranges and combinations."""
        if self.tiled_loss != "auto" and self.tiled_loss < 1:
            raise ConfigError(f"tiled_loss={self.tiled_loss} must be 'auto' or at least 1.")
        if self.tiled_mlp != "auto" and self.tiled_mlp < 0:
            raise ConfigError(
                f"tiled_mlp={self.tiled_mlp} must be 'auto', 0 for none, or a number of tokens."
            )
        if self.attention_chunk < 0:
            raise ConfigError(
                f"attention_chunk={self.attention_chunk} must be 0 for none, or a number of tokens."
            )
        if self.attention_store != "none" and not self.attention_chunk:
            raise ConfigError(
                f"attention_store={self.attention_store!r} says where chunks wait, and "
                "attention_chunk is 0. Give it a number of tokens, such as 4096."
            )
        if self.every < 1:
            raise ConfigError(f"every={self.every} must be at least 1.")
        if self.mode == "none" and (self.every > 1 or self.offload != "none"):
            raise ConfigError(
                f"every={self.every} and offload={self.offload!r} say what becomes of what 'mode' "
                "keeps, and mode is 'none'. Set mode to 'full' or 'selective'."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class FTConfig:
    """Fault tolerance of a training on several processes."""

    heartbeat_s: float = 5.0
    """Seconds between two signs of life of a rank; three missing ones are a failure."""

    hang_timeout_s: float = 300.0
    """Seconds without a step after which the job counts as hung."""

    init_timeout_s: float = 300.0
    """Seconds in which all ranks must be ready."""

    max_restarts: int = 10
    """Restarts from the last checkpoint before giving up."""

    selfcheck: Literal["on_failure", "start", "never"] = "on_failure"
    """When each rank checks its memory, disk, arithmetic and connections: as it starts again after
    a failure, at every start, or never."""

    straggler_every: int = 50
    """Steps of a window over which the ranks compare their compute times."""

    slow_ratio: float = 1.15
    """A rank that computes more than so many times as long as the others' median in three windows
    running is named."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("heartbeat_s", "hang_timeout_s", "init_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0.")
        if self.straggler_every < 1:
            raise ConfigError(f"straggler_every={self.straggler_every} must be at least 1.")
        if not self.slow_ratio > 1:
            raise ConfigError(f"slow_ratio={self.slow_ratio} must be above 1.")
        if self.max_restarts < 0:
            raise ConfigError(f"max_restarts={self.max_restarts} must be at least 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsConfig:
    """What is logged."""

    log_every: int = 1
    """Steps between rows of ``metrics.jsonl``."""

    timeline: bool | tuple[int, int] = False
    """Write ``timeline-<stage>.json`` into the run folder, what every rank did when: true for all
    steps, or the first and the last step, such as ``[10, 20]``."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.log_every < 1:
            raise ConfigError(f"log_every={self.log_every} must be at least 1.")
        steps = self.timeline
        if not isinstance(steps, bool) and not 1 <= steps[0] <= steps[1]:
            raise ConfigError(
                f"timeline={list(steps)} must be true, false, or the first and the last step, "
                "from 1."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A training run. Batch sizes count sequences (rows of the data set)."""

    steps: int | None = None
    """Optimizer steps; default 1000 unless ``epochs`` is given."""

    epochs: float | None = None
    """Passes over the data, instead of ``steps``."""

    micro_batch: int = 1
    """Sequences a forward pass."""

    global_batch: int = 8
    """Sequences an optimizer step; the rest is gradient accumulation."""

    method: Literal["full", "half", "lora", "dora", "qlora"] = "full"
    """Train all weights, a half of them, or adapters on frozen weights: low-rank, with magnitudes,
    or on weights in 4 bits."""

    half_every: int | None = None
    """``half``: steps until another half is trained; null keeps one half throughout."""

    rank: int = 16
    """LoRA, DoRA, QLoRA: rank of the adapters."""

    alpha: float | None = None
    """LoRA: scale numerator; default twice the rank."""

    dropout: float = 0.0
    """LoRA: dropout on the adapters' input."""

    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """LoRA: names of the layers to adapt, such as ``[q_proj, v_proj]``."""

    rslora: bool = False
    """LoRA: scale by alpha / sqrt(rank) instead of alpha / rank."""

    merge: bool = False
    """LoRA: fold the adapter into the weights and write a whole model."""

    context: int | None = None
    """Stretch the model's context to so many tokens (YaRN) before training on them; the result is
    a whole model, so adapters need ``merge``."""

    optimizer: str = "adamw"
    """The gradient optimizer: a name of ``sharpen.optim.available()``."""

    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    """More options of the optimizer, such as ``{rank: 256}`` or ``{state_dtype: q8}``."""

    lr: float = 3e-4
    """Peak learning rate."""

    betas: tuple[float, float] | None = None
    """Decay rates of the moments; default (0.9, 0.95) for AdamW, else the optimizer's own."""

    eps: float | None = None
    """Added to the root of the second moment; default the optimizer's own."""

    weight_decay: float = 0.1
    """Decoupled decay of matrices."""

    schedule: ScheduleKind = "cosine"
    """Shape of the learning rate after warm-up."""

    warmup: float = 0.01
    """Warm-up: steps when 1 or more, else a share of all steps."""

    min_ratio: float = 0.1
    """The schedule's floor, as a share of ``lr``."""

    decay_frac: float = 0.2
    """``wsd``: share of the steps that decays."""

    max_norm: float = 1.0
    """Clip the global gradient norm to this."""

    max_bad_steps: int = 10
    """Give up after so many steps in a row with NaN or infinite loss or gradient."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type. What trains is kept in float32; frozen weights are stored in this type."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it trains; ``auto`` is CUDA where each process on this machine has a device of its own,
    else the CPU."""

    deterministic: bool = False
    """On CUDA take kernels that give the same bits each time, so that a run that goes on ends with
    the same weights; they are slower. On CPUs all are."""

    gc_freq: int = 50
    """Steps between garbage collections; automatic collection is off while training."""

    nproc: int | None = None
    """Processes to start on this machine; default as many as ``parallel`` asks for. Under torchrun
    its number counts."""

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """What the processes share."""

    act: ActConfig = field(default_factory=ActConfig)
    """Activation memory."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""

    ft: FTConfig = field(default_factory=FTConfig)
    """What happens when a process fails."""

    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    """Logging."""

    def __post_init__(self) -> None:
        """Check every range and combination before any work."""
        if self.steps is not None and self.epochs is not None:
            raise ConfigError("give steps or epochs, not both.")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps={self.steps} must be at least 1.")
        if self.epochs is not None and self.epochs <= 0:
            raise ConfigError(f"epochs={self.epochs} must be above 0.")
        if self.half_every is not None and (self.method != "half" or self.half_every < 1):
            raise ConfigError(
                f"half_every={self.half_every} must be at least 1 and needs method 'half', not "
                f"{self.method!r}."
            )
        for name in ("micro_batch", "global_batch", "rank", "max_bad_steps", "gc_freq"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.global_batch % self.micro_batch:
            legal = [n for n in range(1, self.global_batch + 1) if self.global_batch % n == 0]
            raise ConfigError(
                f"micro_batch={self.micro_batch} does not divide global_batch="
                f"{self.global_batch}. Choose one of {', '.join(map(str, legal))}."
            )
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"lr={self.lr} must be above 0 and finite.")
        canonical(self.optimizer)
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas={self.betas} must both be at least 0 and below 1.")
        if self.eps is not None and self.eps <= 0:
            raise ConfigError(f"eps={self.eps} must be above 0.")
        if self.weight_decay < 0 or not self.max_norm > 0:
            raise ConfigError(
                f"max_norm={self.max_norm} must be above 0 and weight_decay={self.weight_decay} "
                "at least 0."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout} must be at least 0 and below 1.")
        if self.alpha is not None and self.alpha <= 0:
            raise ConfigError(f"alpha={self.alpha} must be above 0.")
        if self.merge and not self.adapts:
            raise ConfigError(
                f"merge=true needs method 'lora', 'dora' or 'qlora'; with {self.method!r} a whole "
                "model is written anyway."
            )
        if self.context is not None and (self.context < 1 or (self.adapts and not self.merge)):
            raise ConfigError(
                f"context={self.context} must be at least 1, and a stretched model is written "
                "whole: use method 'full', or merge=true."
            )
        if self.steps is not None:
            self.make_schedule(self.steps)
        if self.nproc is not None and self.nproc < 1:
            raise ConfigError(f"nproc={self.nproc} must be at least 1.")
        if self.act.attention_chunk and self.parallel.ring > 1:
            raise ConfigError(
                f"act.attention_chunk={self.act.attention_chunk} needs parallel.ring=1, not "
                f"{self.parallel.ring}: share the sequence with parallel.sp, or leave chunks out."
            )
        if self.method == "half" and self.world_size > 1:
            raise ConfigError("method 'half' trains on one process: leave nproc and parallel out.")
        self.grad_accum(self.parallel.layout(self.world_size).data_ranks)

    @property
    def world_size(self) -> int:
        """Processes to start."""
        return self.parallel.processes(self.nproc)

    @property
    def adapts(self) -> bool:
        """Whether adapters are trained, on frozen weights."""
        return self.method in ("lora", "dora", "qlora")

    @property
    def adapters(self) -> Adapters | None:
        """What is trained on frozen weights, as plans count it."""
        if not self.adapts:
            return None
        targets = () if self.targets == "all-linear" else self.targets
        return Adapters(rank=self.rank, targets=targets, dora=self.method == "dora")

    @property
    def moments(self) -> dict[str, Any]:
        """``betas`` and ``eps`` of the optimizer, as far as they are not its own."""
        betas = self.betas
        if betas is None and canonical(self.optimizer).startswith("adamw"):
            betas = (0.9, 0.95)
        given = {"betas": betas, "eps": self.eps}
        return {name: value for name, value in given.items() if value is not None}

    def state_ratio(self, spec: ModelSpec) -> float:
        """The optimizer's states over those of AdamW, 8 bytes a parameter.

        Args:
            spec: the model's shape.
        """
        shapes = trained_shapes(spec, self.adapters)
        found = state_bytes(canonical(self.optimizer), shapes, self.optimizer_options)
        return found / (8 * sum(shape.numel for shape in shapes))

    def grad_accum(self, data_ranks: int = 1) -> int:
        """Forward passes an optimizer step and rank.

        Args:
            data_ranks: ranks that read different sequences.

        Raises:
            ConfigError: they cannot share ``global_batch`` evenly.
        """
        share = self.micro_batch * data_ranks
        if self.global_batch % share:
            low = self.global_batch // share * share
            near = f"{low} or {low + share}" if low else str(share)
            raise ConfigError(
                f"global_batch={self.global_batch} is no multiple of micro_batch="
                f"{self.micro_batch} times {data_ranks} data-parallel ranks. Choose {near}."
            )
        return self.global_batch // share

    def num_steps(self, num_sequences: int) -> int:
        """Optimizer steps over a data set of ``num_sequences`` rows."""
        if self.epochs is not None:
            return max(1, round(self.epochs * num_sequences / self.global_batch))
        return self.steps if self.steps is not None else 1000

    def make_schedule(self, steps: int) -> Schedule:
        """The learning-rate schedule over ``steps`` steps."""
        return Schedule(
            steps=steps,
            kind=self.schedule,
            warmup=self.warmup,
            min_ratio=self.min_ratio,
            decay_frac=self.decay_frac,
        )
