"""The trainer: one loop for full and low-rank fine-tuning and for pre-training.

A step, in this order:

1. All micro-batches of the step are fetched; n = number of valid labels in them, on all ranks.
2. For each: loss = sum of cross entropies / n, backward; gradients add up, over ranks too. So a
   step's gradient is that of the mean over its labels, however they are spread.
3. The global gradient norm is clipped. NaN or infinite: the step is skipped and counted, and after
   ``max_bad_steps`` in a row training stops with an error.
4. Optimizer, learning rate (a pure function of the step), metrics.
5. Checkpoint at the step's boundary, manual garbage collection.

Resuming is bit-exact on CPU with the same versions and threads: parameters, optimizer state, random
states, data position and counters come back. With several processes a checkpoint resumes on any
number of them, in any layout: the same losses, up to rounding.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sharpen.core.config import digest, to_dict
from sharpen.core.errors import ConfigError, OutOfMemoryError, TrainingError
from sharpen.core.huge_pages import has_huge_allocator
from sharpen.core.metrics import peak_rss_bytes
from sharpen.data import TokenDataset
from sharpen.train.act import ActivationOffload, apply_act, make_store
from sharpen.train.checkpoint import Checkpoint, CheckpointManager
from sharpen.train.config import MAY_CHANGE, TrainConfig
from sharpen.train.ft.straggler import StragglerDetector
from sharpen.train.ft.timeline import Timeline
from sharpen.train.optimizer import OptimizerMaker
from sharpen.train.parallel import Parallel
from sharpen.train.sp import SPContext, shard_sequence
from sharpen.train.work import COMPUTE_TYPES, TokenWork, Work
from sharpen.train.zero import shard

__all__ = ["Callback", "StepReport", "TrainResult", "Trainer"]

_log = logging.getLogger(__name__)
_KEPT_TIMES = 200  # steps whose seconds a checkpoint keeps


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimizer step did."""

    step: int
    """Steps done, this one included."""

    loss: float
    """Mean cross entropy over the step's labels on all ranks, in nats."""

    grad_norm: float
    """Global gradient norm before clipping."""

    lr: float
    """Learning rate used."""

    tokens: int
    """Tokens in the step's sequences on all ranks, padding excluded."""

    labels: int
    """Valid labels in the step."""

    seconds: float
    """Wall time of the step."""

    skipped: bool
    """The step changed nothing: no labels, or a loss or gradient that is not finite."""

    metrics: dict[str, float] = field(default_factory=dict)
    """What else the work has measured, means over the step and all ranks."""


class Callback(Protocol):
    """Is told of a training's events."""

    def on_start(self, trainer: Trainer) -> None:
        """Training begins or resumes; ``trainer.step`` steps are done."""

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """A step is done."""


@dataclass(slots=True)
class TrainResult:
    """What a training did, resumed parts included."""

    steps: int
    skipped_steps: int
    tokens: int
    labels: int
    loss_first: float | None
    """Mean loss of the first step."""
    loss_last: float | None
    """Mean loss of the last steps (at most 5)."""
    step_s: float | None = None
    """Median seconds a step; the first of each process is left out, unless it is the last."""
    tokens_per_s: float | None = None
    """Tokens a step over its seconds, medians."""
    peak_bytes: int = 0
    """Highest resident memory of the processes that took part; on CUDA what tensors took there."""
    slow_ranks: dict[str, float] = field(default_factory=dict)
    """``rank_<r>`` that the others had to wait for: its compute time over theirs."""


@dataclass(slots=True)
class _State:
    """Counters that a checkpoint keeps."""

    step: int = 0
    tokens: int = 0
    labels: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0
    loss_first: float | None = None
    recent: list[float] = field(default_factory=list)


class Trainer:
    """Trains a model on token shards.

    In an initialized process group every rank makes one, with the same arguments; the model then
    lies on the ranks as ``config.parallel`` says.

    Args:
        model: a module with ``hidden(input_ids, position_ids=, document_ids=)`` and
            ``lm_head.weight``; parameters that do not require a gradient stay as they are.
        data: a token data set, the folder of one (its ``train`` split), or other work.
        config: what to do.
        output: folder for checkpoints; None trains without them.
        seed: of the data order and of dropout.
        callbacks: told of each step.
        timeline: records what this rank does; default as ``config.metrics.timeline`` says.

    Raises:
        ConfigError: the checkpoint in ``output`` belongs to another configuration; ``config.act``
            asks for what the model cannot do.
        BusyError: another job writes ``output``.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TokenDataset | Work | str | Path,
        config: TrainConfig,
        *,
        output: str | Path | None = None,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        timeline: Timeline | None = None,
    ) -> None:
        apply_act(model, config.act)
        self.model = model
        self.config = config
        self.seed = seed
        self.callbacks = list(callbacks)
        self.work = TokenWork(data) if isinstance(data, TokenDataset | str | Path) else data
        self.num_steps = config.num_steps(len(self.work))
        self.schedule = config.make_schedule(self.num_steps)
        self.output = Path(output) if output is not None else None
        self.device = next(model.parameters()).device
        self.parallel = Parallel.build(config.parallel, self.device)
        config.grad_accum(self.parallel.layout.data_ranks)  # the ranks can share a batch
        self._sequence: SPContext | None = None
        chunk, ranks = config.act.attention_chunk, self.parallel.sequence_ranks
        if ranks > 1 or chunk:
            self._sequence = SPContext(
                self.parallel.sequences,
                layout="zigzag" if config.parallel.zigzag else "contiguous",
                chunks=-(-self.work.max_tokens // (ranks * chunk)) if chunk else 1,
            )
        self.state = _State()
        self.work.prepare(self)
        self._loss = self.work.module(model)
        self._states = shard(
            self._loss,
            model,
            list(model.model.layers),  # type: ignore[union-attr,arg-type]
            OptimizerMaker(model, config),
            self.parallel,
            stage=config.parallel.zero_stage,
            param_dtype=COMPUTE_TYPES[config.dtype],
        )
        self.optimizer = self._states.optimizer
        self.timeline = timeline or Timeline(config.metrics.timeline)
        self.stragglers = StragglerDetector(config.ft.slow_ratio, tells=self.parallel.rank == 0)
        self._seconds: list[float] = []
        self._step_tokens: list[int] = []
        self._warm = False
        self._peak_bytes = 0
        self._saved_at = 0.0
        self._due = False

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    def fit(self) -> TrainResult:
        """Train until the last step, resuming from the newest whole checkpoint in ``output``.

        Raises:
            TrainingError: losses or gradients are not finite for ``max_bad_steps`` in a row.
            StorageError: a checkpoint cannot be written.
            OutOfMemoryError: a step does not fit the CUDA device.
        """
        _seed_everything(self.seed, self.parallel.rank)
        manager = self._open_checkpoints()
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            with self._prepared(), _deterministic(self.config.deterministic):
                self._loop(manager)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"step {self.step + 1} does not fit {self.device} with micro_batch="
                f"{self.config.micro_batch}: {str(error).splitlines()[0]} Lower micro_batch, set "
                "act.mode=full, or train adapters."
            ) from error
        finally:
            if manager is not None:
                manager.close()
        return self.result()

    def result(self) -> TrainResult:
        """What has been done so far."""
        seconds = self._seconds
        step_s = statistics.median(seconds) if seconds else None
        tokens = statistics.median(self._step_tokens) if self._step_tokens else 0
        recent = self.state.recent
        return TrainResult(
            steps=self.state.step,
            skipped_steps=self.state.skipped,
            tokens=self.state.tokens,
            labels=self.state.labels,
            loss_first=self.state.loss_first,
            loss_last=sum(recent) / len(recent) if recent else None,
            step_s=step_s,
            tokens_per_s=tokens / step_s if step_s else None,
            peak_bytes=max(self._peak_bytes, _peak_bytes(self.device)),
            slow_ranks={f"rank_{rank}": ratio for rank, ratio in self.stragglers.slow.items()},
        )

    def _open_checkpoints(self) -> CheckpointManager | None:
        if self.output is None:
            return None
        options = self.config.checkpoint
        manager = CheckpointManager(
            self.output,
            keep=options.keep,
            background=options.async_,
            rank=self.parallel.rank,
            world_size=self.parallel.world_size,
            job=self.parallel.job_name(),
        )
        try:
            newest = manager.load_latest() if self.parallel.rank == 0 else None
            name = self.parallel.broadcast(newest.path.name if newest else None)
            if name is not None:  # rank 0 has verified it
                self.load_state(newest or manager.load(self.output / name, verify=False))
                self._tell(
                    logging.INFO, "resumed from step %d of %d", self.state.step, self.num_steps
                )
        except BaseException:
            manager.close()
            raise
        return manager

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        """The model knows who shares a sequence and where what it keeps for backward goes."""
        act, sequence = self.config.act, self._sequence
        kinds = {"offload": act.offload, "attention_store": act.attention_store}
        stores = {k: make_store(v, self.device, self.output, key=k) for k, v in kinds.items()}
        try:
            if (store := stores["offload"]) is not None:
                self.model.offload = ActivationOffload(store)  # type: ignore[assignment]
            if sequence is not None:
                sequence.store = stores["attention_store"]
                self.model.sequence = sequence  # type: ignore[assignment]
            yield
        finally:
            if act.offload != "none":
                self.model.offload = None  # type: ignore[assignment]
            if sequence is not None:
                self.model.sequence = sequence.store = None  # type: ignore[assignment]
            for store in stores.values():
                if store is not None:
                    store.close()

    def _hold(self, *, training: bool) -> None:
        """Put the weights that are trained, or those to be used, into the model.

        They differ for optimizers that average.
        """
        swap = getattr(self.optimizer, "train" if training else "eval", None)
        if swap is not None:
            swap()
            self._states.publish()

    def _loop(self, manager: CheckpointManager | None) -> None:
        self.model.train()
        if self.state.step < self.num_steps:
            self._hold(training=True)
        self._saved_at = time.monotonic()
        self.timeline.synchronize(self.parallel)
        self.parallel.clock.take()
        with _manual_gc(), self.timeline:
            while self.state.step < self.num_steps:
                self.timeline.begin_step(self.state.step + 1)
                with self.timeline.span("step"):
                    report = self._train_step()
                for callback in self.callbacks:
                    callback.on_step(self, report)
                step = self.state.step
                if not has_huge_allocator():
                    _trim_heap()
                if step % self.config.gc_freq == 0:
                    gc.collect(1)
                if step == self.num_steps:
                    self._hold(training=False)
                self._due = self._due or step % self.config.checkpoint.every == 0
                due = self._due and self.work.at_boundary
                if manager is not None and (due or step == self.num_steps):
                    with self.parallel.clock.waiting(), self.timeline.span("checkpoint"):
                        manager.save(step, self._states.groups(), self._trainer_state(), _random())
                    self._saved_at = time.monotonic()
                    self._due = False
                if self.parallel.world_size > 1 and step % self.config.ft.straggler_every == 0:
                    self.stragglers.observe(self.parallel.gather(self.parallel.clock.take()))

    def _train_step(self) -> StepReport:
        start = time.perf_counter()
        config = self.config
        with self.timeline.span("data"):
            work = self.work.take()
        # Ranks of one sequence have read the same rows; only rank 0's clock counts.
        share = self.parallel.sequence_ranks
        mine = work.labels, work.tokens, *work.counts
        overdue = time.monotonic() - self._saved_at > config.checkpoint.every_s
        with self.timeline.span("wait"):
            totals = self.parallel.total(
                float(overdue and self.parallel.rank == 0), *(n / share for n in mine)
            )
        late, labels, tokens = (round(total) for total in totals[:3])
        self._due = self._due or late > 0
        lr = config.lr * self.schedule.factor(self.state.step)
        loss, norm = 0.0, 0.0
        if labels:
            loss = self._forward_backward(work.batches, self.work.scale(totals[1], totals[3:]))
            with self.timeline.span("optimizer"):
                norm = self._states.clip_grad_norm(config.max_norm)
        finite = math.isfinite(loss) and math.isfinite(norm)
        skipped = not labels or not finite
        if skipped:
            self._skip(finite, loss, norm)
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            with self.timeline.span("optimizer"):
                self._states.step()
            self.state.bad_in_a_row = 0
            self.state.recent = [*self.state.recent[-4:], loss]
            if self.state.loss_first is None:
                self.state.loss_first = loss
        self._states.zero_grad()
        self.state.step += 1
        self.state.tokens += tokens
        self.state.labels += labels
        seconds = time.perf_counter() - start
        if self._warm or self.state.step == self.num_steps:  # a process's first step is slower
            self._seconds.append(seconds)
            self._step_tokens.append(tokens)
        self._warm = True
        metrics = self._metrics()
        return StepReport(
            self.state.step, loss, norm, lr, tokens, labels, seconds, skipped, metrics
        )

    def _metrics(self) -> dict[str, float]:
        """Means over all ranks of what the work has measured."""
        mine = sorted(self.work.metrics().items())
        totals = self.parallel.total(*(part for _, parts in mine for part in parts)) if mine else []
        pairs = zip(totals[::2], totals[1::2], strict=True)
        return {name: a / b for (name, _), (a, b) in zip(mine, pairs, strict=True) if b}

    def _forward_backward(self, batches: Sequence[Any], scale: Any) -> float:
        """Sum of the micro-batches' scaled losses on all ranks; gradients are left behind."""
        total: Tensor | None = None
        for number, batch in enumerate(batches, 1):
            loss = self._micro_batch(batch, scale, number == len(batches))
            total = loss if total is None else total + loss
        return self.parallel.total(float(total) if total is not None else 0.0)[0]

    def _micro_batch(self, batch: Any, scale: Any, last: bool) -> Tensor:
        """The scaled loss of one forward and backward pass; the last one sums the gradients."""
        with ExitStack() as around:
            around.enter_context(self._states.micro_batch(last=last))
            with self._computing():
                with self.timeline.span("forward"):
                    if self._sequence is not None:
                        batch = shard_sequence(batch, self._sequence)
                    loss: Tensor = self._loss(batch, scale)
                with self.timeline.span("backward"):
                    loss.backward()  # type: ignore[no-untyped-call]
            with self.timeline.span("reduce"):
                around.close()
        return loss.detach()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Leave what a forward and backward pass wait for other ranks out of the compute time."""
        clock, sequence = self.parallel.clock, self._sequence
        if self.config.parallel.zero_stage > 1 and self.parallel.world_size > 1:
            with clock.processor():  # weights are gathered inside
                yield
            return
        axes = (sequence.sp, sequence.ring) if sequence is not None else ()
        before = sum(axis.seconds for axis in axes)
        yield
        clock.leave_out(sum(axis.seconds for axis in axes) - before)

    def _skip(self, finite: bool, loss: float, norm: float) -> None:
        self.state.skipped += 1
        if finite:
            return  # nothing was labelled: no error
        self.state.bad_in_a_row += 1
        step = self.state.step + 1
        self._tell(logging.WARNING, "step %d skipped: loss %g, gradient norm %g", step, loss, norm)
        if self.state.bad_in_a_row >= self.config.max_bad_steps:
            raise TrainingError(
                f"the loss or gradient was not finite in {self.state.bad_in_a_row} steps in a row "
                f"(last: step {step}, loss {loss}, gradient norm {norm}). Lower lr="
                f"{self.config.lr}, use dtype float32, or look for damaged data or weights."
            )

    def _tell(self, level: int, message: str, *values: object) -> None:
        """Log what all ranks know once."""
        if self.parallel.rank == 0:
            _log.log(level, message, *values)

    def _trainer_state(self) -> dict[str, Any]:
        """Plain data that resuming needs, alike on all ranks but for the measurements."""
        return {
            "state": to_dict(self.state),
            "loader": self.work.state_dict(),
            "config": self._identity(),
            "layout": to_dict(self.parallel.layout),
            "averaged": any(not g.get("train_mode", True) for g in self.optimizer.param_groups),
            "measured": {
                "seconds": self._seconds[-_KEPT_TIMES:],
                "tokens": self._step_tokens[-_KEPT_TIMES:],
                "peak_bytes": max(self._peak_bytes, _peak_bytes(self.device)),
            },
        }

    def load_state(self, found: Checkpoint) -> None:
        """Take up the state of a checkpoint, of whatever layout.

        Random states come back in the same layout; in another one they start from the seed, the
        step and the rank.

        Raises:
            ConfigError: it belongs to another configuration, model or data set.
        """
        if found.trainer["config"] != self._identity():
            raise ConfigError(
                f"the checkpoint in {self.output} belongs to another configuration or data set. "
                "Give another output folder, or remove that one to start afresh."
            )
        self._states.load(found)
        for group in self.optimizer.param_groups:
            if "train_mode" in group:
                group["train_mode"] = not found.trainer["averaged"]
        self.state = _State(**found.trainer["state"])
        self.work.load_state_dict(found.trainer["loader"])
        measured = found.trainer["measured"]
        self._seconds, self._step_tokens = list(measured["seconds"]), list(measured["tokens"])
        self._peak_bytes = measured["peak_bytes"]
        if found.trainer["layout"] == to_dict(self.parallel.layout):
            _restore_random(found.rank_state(self.parallel.rank))
        else:
            _seed_everything(self.seed, self.parallel.rank, self.state.step)

    def _identity(self) -> str:
        """Digest of all that determines the trajectory; where and when to save does not."""
        config = to_dict(self.config)
        for key in MAY_CHANGE:
            config.pop(key)
        return digest({"config": config, "seed": self.seed, "data": self.work.fingerprint})


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Kernels that give the same bits each time, where ``wanted``; those without one are named."""
    if not wanted:  # telling torch takes it seconds of imports
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it as it starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _peak_bytes(device: torch.device) -> int:
    """Most memory so far, of a CUDA device what tensors take and of a CPU what is resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_rss_bytes()


def _bytes_tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _seed_everything(seed: int, rank: int = 0, step: int = 0) -> None:
    """Ranks draw different numbers; the first of a fresh training draws those of one process."""
    if rank or step:
        seed = int(digest({"seed": seed, "rank": rank, "step": step})[:15], 16)
    random.seed(seed)
    torch.manual_seed(seed)


def _random() -> dict[str, Any]:
    """This process's random states, as plain data."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": [state.numpy().tobytes().hex() for state in cuda],
    }


def _restore_random(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(_bytes_tensor(state["torch"]))
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all([_bytes_tensor(text) for text in state["cuda"]])


def _trim_heap() -> None:
    """Give freed memory back to the system (glibc).

    Activations of ever new sizes leave holes between what stays, and a long training grows by
    them. With huge pages the heap settles by itself, and giving them back would cost more.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def _manual_gc() -> Iterator[None]:
    """Automatic collection off, so that steps take equal time; restored afterwards."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
