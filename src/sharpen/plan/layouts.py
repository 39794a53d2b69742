"""What one layout of a training job needs on a rank: memory by part, and bytes it sends.

Axes from outer to inner, so that the chattiest stay inside a machine::

    pp, dp_replicate, dp_shard, ring, sp, tp

The trainer runs the four in the middle (:class:`~sharpen.plan.parallel.ParallelConfig`); tensor
(``tp``) and pipeline (``pp``) parallelism are planned for comparison with other frameworks only.
With N = dp_shard ring sp ranks that share states, T = b s / (ring sp) tokens a rank and e bytes an
element, a rank holds::

    parameters, gradients, optimizer                memory.share_states
    gathered       e x (two blocks and the rest), stage 3; e Psi, stage 2; copies, stage 0
    buckets        gradients about to be reduced, and the owners' float32 ones of stage 1
    activations    layers x block(T), or layers x e h T + block(T) when recomputed
    loss           a tile of logits, and the head's float32 gradient
    exchange       2 e T max(h_q, h_kv) / chunks Ulysses; 4 x keys and values + float32 sums, ring
    reserved       context, collectives, what the allocator wastes

and sends, a step of m micro-batches, the bytes of :mod:`sharpen.plan.communication`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sharpen.core.config import to_dict
from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import ModelSpec
from sharpen.plan.communication import (
    megatron_bytes,
    ring_bytes,
    split_heads,
    ulysses_bytes,
    zero_step_bytes,
)
from sharpen.plan.hardware import Assumptions
from sharpen.plan.job import (
    Checkpointing,
    Chunks,
    Job,
    chunk_kind,
    job_states,
    kept_activations,
)
from sharpen.plan.parallel import ParallelConfig

__all__ = ["Candidate", "ClusterJob", "Traffic", "layout_memory", "layout_problems"]

_LOGITS_BYTES = 64 << 20  # the trainer's tile of logits holds about so many
_LEAST_TILE = 1024  # tokens of a tiled MLP's tile, or as many as the model is wide


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterJob(Job):
    """What decides a job's cost on many devices."""

    global_batch: int
    """Sequences an optimizer step, over all devices."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Compute type; masters and optimizer states stay float32."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.seq_len < 1 or self.global_batch < 1:
            raise ConfigError(
                f"seq_len={self.seq_len} and global_batch={self.global_batch} must be at least 1."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to lay a job out. The product of the degrees is the number of devices."""

    dp_replicate: int = 1
    """Copies of the sharded model."""

    dp_shard: int = 1
    """Data-parallel ranks that share the states."""

    ring: int = 1
    """Ring degree."""

    sp: int = 1
    """Ulysses degree."""

    tp: int = 1
    """Tensor-parallel degree, with the sequence sharded outside the products. Planned only."""

    pp: int = 1
    """Pipeline stages. Planned only."""

    chunks: int = 1
    """Groups of layers a pipeline stage holds (interleaving)."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    """What the ranks share of the states."""

    micro_batch: int = 1
    """Sequences a forward pass."""

    recompute: Checkpointing = "none"
    """``full`` keeps only each block's input, ``selective`` also what attention needs
    (``train.act.mode``)."""

    recompute_every: int = 1
    """Every n-th block is computed again (``train.act.every``)."""

    offload: bool = False
    """What such blocks keep waits in host memory (``train.act.offload``)."""

    tiled_mlp: bool = False
    """The MLP runs over tiles of tokens and is computed again in the backward pass."""

    attention_chunk: int = 0
    """Tokens of a rank's sequence that are projected and attend at a time; 0 for all
    (``train.act.attention_chunk``)."""

    attention_stored: bool = False
    """What these chunks leave waits in host memory (``train.act.attention_store``)."""

    @property
    def world_size(self) -> int:
        """Devices."""
        return self.data_ranks * self.ring * self.sp * self.tp * self.pp

    @property
    def data_ranks(self) -> int:
        """Ranks that read different sequences."""
        return self.dp_replicate * self.dp_shard

    @property
    def state_ranks(self) -> int:
        """N, ranks that share the states of one part of the model."""
        return self.dp_shard * self.ring * self.sp

    @property
    def runs(self) -> bool:
        """Whether the trainer runs it: it has no tensor or pipeline parallelism."""
        return self.tp == 1 and self.pp == 1

    def micro_batches(self, job: ClusterJob) -> int:
        """m, forward passes a rank makes a step."""
        return job.global_batch // (self.micro_batch * self.data_ranks)

    def tokens(self, job: ClusterJob) -> int:
        """T, tokens of a rank in a forward pass; sequences are padded to divide."""
        return self.micro_batch * -(-job.seq_len // (self.ring * self.sp))

    @property
    def attention_chunks(self) -> Chunks:
        """Of attention."""
        return chunk_kind(self.attention_chunk, self.attention_stored)

    def num_attention_chunks(self, job: ClusterJob) -> int:
        """u, chunks of attention of a rank's sequence."""
        tokens = self.tokens(job) // self.micro_batch
        return -(-tokens // self.attention_chunk) if self.attention_chunk else 1

    def recomputed(self, layers: int) -> int:
        """Of so many blocks, those that are computed again."""
        return 0 if self.recompute == "none" else -(-layers // self.recompute_every)

    def parallel(self) -> ParallelConfig:
        """The same as the trainer's config.

        Raises:
            ConfigError: it has tensor or pipeline parallelism, which the trainer does not run.
        """
        if not self.runs:
            raise ConfigError(f"tp={self.tp} and pp={self.pp} are planned only; the trainer has 1.")
        return ParallelConfig(
            dp_replicate=self.dp_replicate,
            dp_shard=self.dp_shard,
            ring=self.ring,
            sp=self.sp,
            zero_stage=self.zero_stage,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**to_dict(self), "runs": self.runs}

    def label(self) -> str:
        """The degrees above 1, the stage and the micro-batch, short."""
        degrees = ("pp", "dp_replicate", "dp_shard", "ring", "sp", "tp")
        words = [f"{n} {getattr(self, n)}" for n in degrees if getattr(self, n) > 1]
        words += [f"chunks {self.chunks}"] if self.chunks > 1 else []
        words += [f"stage {self.zero_stage}", f"micro_batch {self.micro_batch}"]
        words += {"none": [], "selective": ["selective recompute"], "full": ["recompute"]}[
            self.recompute
        ]
        words += [f"every {self.recompute_every} blocks"] if self.recompute_every > 1 else []
        words += ["offload"] if self.offload else []
        words += ["tiled MLP"] if self.tiled_mlp else []
        words += [f"attention chunks of {self.attention_chunk}"] if self.attention_chunk else []
        words += ["stored chunks"] if self.attention_stored else []
        return ", ".join(words)


def layout_problems(job: ClusterJob, layout: Candidate, devices: int) -> list[str]:
    """Why the job cannot run in this layout, each with the nearest legal values; empty when it can.

    Args:
        job: what is trained.
        layout: how.
        devices: that there are.
    """
    s, found = job.spec, []
    if layout.world_size != devices:
        axes = ("pp", "dp_replicate", "dp_shard", "ring", "sp", "tp")
        written = " x ".join(f"{a} {getattr(layout, a)}" for a in axes if getattr(layout, a) > 1)
        found.append(
            f"{written or 'dp_shard 1'} is {layout.world_size} devices, not {devices}; plan for "
            f"{layout.world_size} devices, or choose degrees that multiply to {devices}."
        )
    each = layout.micro_batch * layout.data_ranks
    if job.global_batch % each:
        below, above = job.global_batch // each * each, -(-job.global_batch // each) * each
        near = " or ".join(str(n) for n in (below, above) if n)
        found.append(
            f"global_batch={job.global_batch} is not a multiple of micro_batch {layout.micro_batch}"
            f" x {layout.data_ranks} data-parallel ranks = {each}; choose {near}."
        )
    if layout.sp > s.num_heads:
        found.append(f"sp={layout.sp} is above the model's {s.num_heads} heads; use ring as well.")
    if layout.ring * layout.sp > job.seq_len:
        found.append(
            f"ring {layout.ring} x sp {layout.sp} is above the sequence's {job.seq_len} tokens."
        )
    if layout.attention_chunk and layout.ring > 1:
        found.append(
            f"attention_chunk={layout.attention_chunk} needs ring=1, not {layout.ring}; use sp, or "
            "attention_chunk=0."
        )
    if s.num_heads % layout.tp or s.intermediate_size % layout.tp:
        found.append(
            f"tp={layout.tp} must divide num_heads={s.num_heads} and intermediate_size="
            f"{s.intermediate_size}."
        )
    if layout.sp > 1 and layout.tp > 1:
        found.append("sp and tp are not planned together; use ring with tp.")
    if s.num_layers % (layout.pp * layout.chunks) or (layout.chunks > 1 and layout.pp == 1):
        found.append(
            f"pp {layout.pp} x chunks {layout.chunks} must divide num_layers={s.num_layers}, and "
            "chunks need pp above 1."
        )
    elif layout.chunks > 1 and not found and layout.micro_batches(job) % layout.pp:
        found.append(
            f"with chunks, the {layout.micro_batches(job)} micro-batches must be a multiple of "
            f"pp={layout.pp}."
        )
    return found


@functools.lru_cache(maxsize=4096)
def local_parameters(spec: ModelSpec, tp: int, pp: int) -> tuple[int, int]:
    """Parameters of the fullest rank, all and those in products, under tensor and pipeline axes."""
    layers = spec.num_layers // pp
    heads = 2 if pp == 1 and not spec.tie_word_embeddings else 1
    norms = spec.layer_parameters - spec.layer_matmul_parameters
    matmul = layers * spec.layer_matmul_parameters // tp + spec.embedding_parameters // tp
    extra = (heads - 1) * (spec.embedding_parameters // tp)
    return matmul + extra + layers * norms + spec.hidden_size, matmul


def _states(job: ClusterJob, layout: Candidate) -> dict[str, int]:
    """Bytes of parameters, gradients, optimizer states and what is gathered of them."""
    s, e, n, stage = job.spec, job.element_bytes, layout.state_ranks, layout.zero_stage
    count, matmul = local_parameters(s, layout.tp, layout.pp)
    split = layout.tp * layout.pp
    found = job_states(job, stage=stage, ranks=n, split=split, count=count, matmul=matmul)
    block = s.layer_parameters // layout.tp
    rest = count - block * (s.num_layers // layout.pp)  # embedding, head, last norm: one unit
    shared = n > 1 and stage >= 2
    # Two blocks and the rest at a time in stage 3, everything in stage 2.
    live = e * (rest + 2 * block) if shared and stage == 3 else 0
    buckets = 0
    if job.adapters is None:
        # Stages 2, 3: a block's gradients about to be reduced, and those of the rest, which are
        # there from the first to the last moment of a backward pass.
        buckets = 4 * block + e * rest if shared else 0
    if stage == 1 and e == 2:  # the owners' gradients in float32
        trained = count if job.adapters is None else -(-job.adapter_parameters // split)
        buckets = 4 * -(-trained // n)
    return {
        "parameters": found.parameters,
        "gradients": found.gradients,
        "optimizer": found.optimizer,
        "gathered": found.copies + live,
        "buckets": buckets,
    }


@functools.lru_cache(maxsize=4096)
def kept_bytes(job: Job, tiled: bool, chunks: Chunks) -> int:
    """:meth:`Job.kept_bytes`, kept for a search."""
    return job.kept_bytes(tiled=tiled, chunks=chunks)


def layout_memory(
    job: ClusterJob, layout: Candidate, assume: Assumptions | None = None
) -> dict[str, int]:
    """Bytes of the fullest rank at its peak, by what takes them; every state at its exact size.

    Args:
        job: what is trained.
        layout: how, legal.
        assume: what is reserved and wasted.
    """
    assume = assume or Assumptions()
    s, e, tokens, tp = job.spec, job.element_bytes, layout.tokens(job), layout.tp
    m, pp, v = layout.micro_batches(job), layout.pp, layout.chunks
    parts = _states(job, layout)
    # Passes under way at once on the first pipeline stage, each of layers / (pp chunks) layers.
    under_way = min(m * v, pp if v == 1 else 2 * (pp - 1) + (v - 1) * pp + 1)
    layers = under_way * (s.num_layers // (pp * v))
    activations = kept_activations(
        layers,
        layout.recomputed(layers),
        block=tokens * kept_bytes(job, layout.tiled_mlp, layout.attention_chunks) // tp,
        checkpoint=tokens * job.checkpoint_bytes(layout.recompute, layout.attention_chunks) // tp,
        offload=layout.offload,
    )
    activations += tokens * e * (2 * s.hidden_size + 2 * s.head_dim) // tp
    wide = 4 * e * s.intermediate_size * tokens // tp  # gradients of the MLP's four tensors
    if layout.tiled_mlp:
        wide //= max(1, -(-tokens // max(s.hidden_size, _LEAST_TILE)))
    if layout.attention_chunk:  # the gradient of all queries in float32
        wide = max(wide, 4 * s.query_size * tokens // tp)
    rows = min(tokens, max(1, _LOGITS_BYTES // (4 * s.vocab_size)))
    loss = rows * (s.vocab_size // tp) * (e + 8) + 2 * tokens * e * s.hidden_size // tp
    if job.adapters is None and job.trains_head:
        loss += 4 * s.embedding_parameters // tp
    exchange = 0
    if layout.sp > 1:
        at_once = 2 * e * tokens * max(s.query_size, s.kv_size)
        exchange += at_once // layout.num_attention_chunks(job)
    if layout.ring > 1:
        exchange += 4 * e * tokens * 2 * s.kv_size
        exchange += 4 * tokens * (s.query_size + s.num_heads) + 2 * 2 * 4 * tokens * s.kv_size
    parts |= {
        "activations": activations,
        "scratch": wide,
        "loss": loss,
        "exchange": exchange,
    }
    reserved = assume.reserved_gb * 1e9 + assume.slack * sum(parts.values())
    return {**parts, "reserved": round(reserved)}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one rank sends a step for one purpose."""

    purpose: str
    """``states``, ``replicas``, ``ulysses``, ``ring``, ``tensor`` or ``pipeline``."""

    bytes: int
    """Sent a step by the rank that sends most."""

    ranks: int
    """Ranks of the group."""

    stride: int
    """Distance between its ranks: the product of the axes inside it."""


@functools.lru_cache(maxsize=1024)
def _most_sent(spec: ModelSpec, sp: int) -> tuple[int, int]:
    """Bytes of the rank that sends most in a Ulysses layer, forward and backward, e T = 1."""
    sent = ulysses_bytes(
        spec.num_heads, spec.num_kv_heads, spec.head_dim, ranks=sp, tokens=1, element_bytes=1
    )
    return max(x.forward for x in sent), max(x.backward for x in sent)


@functools.lru_cache(maxsize=1024)
def most_heads(spec: ModelSpec, sp: int) -> tuple[int, int]:
    """Query and key/value heads of the rank that has most under Ulysses."""
    shares = split_heads(spec.num_heads, spec.num_kv_heads, sp)
    return max(c for c, _ in shares), max(g for _, g in shares)


def layer_exchanges(job: ClusterJob, layout: Candidate) -> dict[str, tuple[int, int]]:
    """Bytes a rank sends for one layer and micro-batch inside it, forward and backward."""
    s, e, tokens = job.spec, job.element_bytes, layout.tokens(job)
    found: dict[str, tuple[int, int]] = {}
    if layout.sp > 1:
        forward, backward = _most_sent(s, layout.sp)
        found["ulysses"] = e * tokens * forward, e * tokens * backward
    if layout.ring > 1:
        kv = most_heads(s, layout.sp)[1] * s.head_dim // layout.tp
        ring = ring_bytes(kv, ranks=layout.ring, tokens=tokens * layout.sp, element_bytes=e)
        found["ring"] = ring.forward, ring.backward
    if layout.tp > 1:
        tensor = megatron_bytes(s.hidden_size, ranks=layout.tp, tokens=tokens, element_bytes=e)
        found["tensor"] = tensor.forward, tensor.backward
    return found


def stored_bytes(job: ClusterJob, layout: Candidate) -> tuple[int, int]:
    """Bytes of a layer and micro-batch that chunks of attention move, forward and backward.

    Of each of u chunks queries, keys, values and output are kept; in the backward pass also the
    gradients of all four. To attend, chunk i reads the keys and values of chunks 1 to i; in the
    backward pass those of chunk i meet the queries, outputs and gradients of chunks i to u. So
    these are read (u + 1) / 2 times.
    """
    if not layout.attention_stored:
        return 0, 0
    q, kv, often = job.spec.query_size, job.spec.kv_size, (layout.num_attention_chunks(job) + 1) / 2
    unit = job.element_bytes * layout.tokens(job)
    forward = 2 * (q + kv) + q + often * 2 * kv
    backward = q + 2 * kv + often * 3 * q + 2 * (q + 2 * kv)
    return round(unit * forward), round(unit * backward)


class StatesBytes(NamedTuple):
    """Bytes a rank sends for states."""

    gathers: int = 0
    """Parameters, both passes of every micro-batch."""

    first: int = 0
    """Parameters, once before the first pass."""

    scatters: int = 0
    """Gradients, every micro-batch."""

    reduction: int = 0
    """Gradients, after the last micro-batch."""

    replicas: int = 0
    """Gradients, to the other replicas, as often as they are reduced."""

    update: int = 0
    """Parameters, after the update."""


def states_bytes(job: ClusterJob, layout: Candidate) -> StatesBytes:
    """What a rank sends for states: stage 1 in the compute type, gradients of others in float32."""
    e, n, stage = job.element_bytes, layout.state_ranks, layout.zero_stage
    split = layout.tp * layout.pp
    count = local_parameters(job.spec, layout.tp, layout.pp)[0]
    trained = count if job.adapters is None else -(-job.adapter_parameters // split)

    def once(parameters: int, size: int) -> int:
        """One gather or reduction within the group that shares."""
        return zero_step_bytes(parameters, stage=1, ranks=n, gradient_bytes=size, parameter_bytes=0)

    if stage == 0:
        ranks = n * layout.dp_replicate
        return StatesBytes(
            reduction=zero_step_bytes(trained, stage=0, ranks=ranks, gradient_bytes=4)
        )
    between = zero_step_bytes(
        -(-trained // n), stage=0, ranks=layout.dp_replicate, gradient_bytes=4
    )
    if stage == 1:
        moved = once(trained, e)
        return StatesBytes(reduction=moved, replicas=between, update=moved)
    gathered, reduction = once(count, e), once(trained, 4)
    if stage == 2:
        return StatesBytes(first=gathered, scatters=reduction, replicas=between)
    return StatesBytes(gathers=2 * gathered, scatters=reduction, replicas=between)


def layout_traffic(job: ClusterJob, layout: Candidate) -> list[Traffic]:
    """Bytes the busiest rank sends a step, by purpose; only axes above 1."""
    s, e, m = job.spec, job.element_bytes, layout.micro_batches(job)
    strides = {"tensor": 1, "ulysses": layout.tp, "ring": layout.tp * layout.sp}
    degrees = {"tensor": layout.tp, "ulysses": layout.sp, "ring": layout.ring}
    found = []
    states = states_bytes(job, layout)
    everyone = layout.zero_stage == 0
    group = layout.state_ranks * (layout.dp_replicate if everyone else 1)
    if group > 1:
        often = m * (states.gathers + states.scatters)
        sent = often + states.first + states.reduction + states.update
        found.append(Traffic("states", sent, group, layout.tp))
    if layout.dp_replicate > 1 and not everyone:
        stride = layout.tp * layout.state_ranks
        times = m if layout.zero_stage >= 2 else 1
        found.append(Traffic("replicas", times * states.replicas, layout.dp_replicate, stride))
    again = 1 + (layout.recompute == "full")
    layers = s.num_layers // layout.pp
    for purpose, (forward, backward) in layer_exchanges(job, layout).items():
        sent = m * layers * (again * forward + backward)
        found.append(Traffic(purpose, sent, degrees[purpose], strides[purpose]))
    if layout.pp > 1:
        sent = 2 * m * layout.chunks * e * layout.tokens(job) * s.hidden_size // layout.tp
        stride = layout.tp * layout.state_ranks * layout.dp_replicate
        found.append(Traffic("pipeline", sent, layout.pp, stride))
    return found


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return low + [number // d for d in reversed(low) if d * d != number]
