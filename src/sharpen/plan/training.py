"""Memory and step time of a training job on one device, without building the model.

Memory is what a process holds at its peak::

    process + weights + gradients + optimizer + activations + loss + scratch + checkpoint

Activations of a block, T tokens, e bytes an element::

    norms       2 x (2 e h + 4)                 input, output, scale
    attention   e (2 h_q + 2 h_kv) + 4 heads
    MLP         3 e f                           gate, up, product
    LoRA        7 e r
    full        2 (weights of the products)     bf16 copies that autocast keeps

A block that is checkpointed keeps e h, or (selective) also what attention needs, and one block at a
time has the above; offloaded, what three blocks keep is here at once. A tiled MLP keeps nothing of
its own. With chunks of attention the norm before it is computed again, and q, k, v and the output
may wait elsewhere. The loss holds one tile of logits: 4 V bytes a row in float32, 6 V in bfloat16.
A checkpoint copies what trains and its optimizer state, 12 bytes a parameter, while the training
goes on. What a training holds by its method, :mod:`sharpen.plan.job` counts. Time adds the products
and the element-wise operations at their measured rates, and the start of every operation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sharpen.plan.device import DeviceProfile
from sharpen.plan.flops import attention_flops_per_token
from sharpen.plan.job import (
    Checkpointing,
    Chunks,
    Job,
    chunk_kind,
    job_states,
    kept_activations,
)
from sharpen.plan.memory import live_bytes

__all__ = ["TrainingJob", "training_memory", "training_step_s"]

# Calibrated by benchmarks/plan/bench_plan.py on the shapes listed there.
_PASSES = 13.5  # element-wise operations a kept activation takes part in, forward and backward
_OPS_A_BLOCK = 110  # operations started a block, forward and backward
_NODE = 36  # bare operations that one with its autograd node costs
_ALLOCATOR = 0.2  # of what is allocated and freed all the time
_PROCESS = 20 << 20  # beside the imports: rooms, data set, buffers of the libraries
_VOCABULARY = 1500  # bytes a token of the vocabulary takes in the tokenizer
_SETTLED = 120 << 20  # of a bf16 heap after tens of steps with documents of varying length
_MOVED = 20 / 28  # of what an update reads and writes, at the rate of a copy
_SHORT = 512  # documents of up to so many tokens attend in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob(Job):
    """What decides a job's cost on one machine."""

    micro_batch: int = 1
    """Sequences a forward pass."""

    grad_accum: int = 1
    """Forward passes a step."""

    checkpointing: Checkpointing = "none"
    """What a block keeps: all, its input and what attention needs, or its input."""

    checkpoint_every: int = 1
    """Every n-th block is checkpointed."""

    offload: bool = False
    """What checkpointed blocks keep waits elsewhere."""

    mlp_tile: int = 0
    """Tokens an MLP takes at a time; 0 for all."""

    attention_chunk: int = 0
    """Tokens that are projected and attend at a time; 0 for all."""

    attention_stored: bool = False
    """What these chunks leave waits elsewhere; attention is then not computed again."""

    tile: int = 256
    """Rows of logits held at once."""

    document_tokens: int | None = None
    """Tokens of the document that a token is in, on average, when rows hold several; None when a
    row is one."""

    labelled: float = 1.0
    """Share of the tokens with a label."""

    saves_midway: bool = False
    """Checkpoints are written while the training goes on, not only at its end."""

    world_size: int = 1
    """Processes, all on this machine."""

    sequence_ranks: int = 1
    """Of them, those that share one sequence."""

    state_ranks: int = 1
    """Of them, those that share the states."""

    zero_stage: int = 0
    """What they share: optimizer states, gradients, weights."""

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass on one rank."""
        return -(-self.seq_len // self.sequence_ranks) * self.micro_batch

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimizer step on all ranks."""
        readers = self.world_size // self.sequence_ranks
        return self.seq_len * self.micro_batch * self.grad_accum * readers

    @property
    def attention_chunks(self) -> Chunks:
        """Of attention."""
        return chunk_kind(self.attention_chunk, self.attention_stored)

    @property
    def checkpointed_blocks(self) -> int:
        """Blocks that are computed again in the backward pass."""
        if self.checkpointing == "none":
            return 0
        return -(-self.spec.num_layers // self.checkpoint_every)


def block_activation_bytes(job: TrainingJob) -> int:
    """Bytes one block keeps for its backward pass, checkpointing aside."""
    tiled = job.mlp_tile > 0
    kept = job.tokens * job.kept_bytes(tiled=tiled, chunks=job.attention_chunks)
    if job.adapters is None and job.element_bytes == 2:  # copies of weights, kept by autocast
        copies = job.spec.layer_matmul_parameters
        if tiled:
            copies -= 3 * job.spec.hidden_size * job.spec.intermediate_size
        kept += 2 * copies
    return kept


def checkpointed_block_bytes(job: TrainingJob) -> int:
    """Bytes one checkpointed block keeps until it is computed again."""
    return job.tokens * job.checkpoint_bytes(job.checkpointing, job.attention_chunks)


def training_memory(job: TrainingJob, base_bytes: int) -> dict[str, int]:
    """Peak resident memory of a training process, by what takes it, in bytes.

    Args:
        job: what is trained.
        base_bytes: of a process that has only imported what it needs.
    """
    s, e, tokens = job.spec, job.element_bytes, job.tokens
    activations = kept_activations(
        s.num_layers,
        job.checkpointed_blocks,
        block=block_activation_bytes(job),
        checkpoint=checkpointed_block_bytes(job),
        offload=job.offload,
    )
    activations += tokens * e * (2 * s.hidden_size + 2 * s.head_dim)  # final norm, cos and sin
    labelled = max(1, round(job.labelled * tokens))
    tile = min(job.tile, labelled)
    loss = tile * s.vocab_size * (6 if e == 2 else 4) + 2 * labelled * e * s.hidden_size
    if job.adapters is None:
        if job.trains_head:  # its gradient, and the sum it goes into
            loss += 2 * 4 * s.embedding_parameters
        if e == 2:
            loss += 2 * s.embedding_parameters
    # The widest temporaries of a block's backward pass: gradients of the MLP's four tensors.
    scratch = min(tokens, job.mlp_tile or tokens) * e * 4 * s.intermediate_size
    if job.attention_chunk:  # the gradient of all queries in float32
        scratch = max(scratch, tokens * 4 * s.query_size)
    stage = job.zero_stage if job.world_size > 1 else 0
    states = job_states(job, stage=stage, ranks=job.state_ranks)
    weights, gradients, optimizer = states.parameters, states.gradients, states.optimizer
    if stage == 1 and e == 2:  # the owners' are summed in float32
        gradients += 4 * -(-job.trained_parameters // job.state_ranks)
    if stage == 2:
        weights += states.copies
    if stage == 3:
        weights += live_bytes(s, parameter_bytes=e)
    moving = activations + loss + scratch
    settled = _SETTLED if job.document_tokens is not None and e == 2 else 0
    parts = {
        "process": base_bytes + _PROCESS + _VOCABULARY * s.vocab_size + settled,
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer,
        "activations": activations,
        "loss": loss,
        "scratch": scratch + round(_ALLOCATOR * moving),
    }
    shares = job.state_ranks if stage > 1 else 1
    copy = 4 * job.trained_parameters // shares + optimizer
    if not job.saves_midway:  # the last copy is made when the step's own memory is free again
        copy = max(0, copy - gradients - moving)
    return {**parts, "checkpoint": copy}


def training_step_s(job: TrainingJob, device: DeviceProfile) -> dict[str, float]:
    """Seconds of one optimizer step, by what takes them.

    Args:
        job: what is trained.
        device: rates of the machine.
    """
    s, tokens = job.spec, job.tokens
    again = job.checkpointed_blocks / s.num_layers
    # Passes over each product: forward, input gradient, weight gradient, forward once more.
    repeats = job.repeats(
        again, job.checkpointing, tiled=job.mlp_tile > 0, chunked=job.attention_chunk > 0
    )
    passes = {name: 2 + job.trained_share + more for name, more in repeats.items()}
    linears = job.linears()
    linear = sum(
        passes[n] * device.seconds(job.dtype, tokens, a, b) for n, (a, b) in linears.items()
    )
    adapters = sum(
        device.seconds(job.dtype, tokens, a, job.adapters.rank)
        + device.seconds(job.dtype, tokens, job.adapters.rank, b)
        for a, b in job.adapted().values()
        if job.adapters is not None
    )
    if job.adapters is not None and job.adapters.dora:  # W A^T, for the norms of the rows
        adapters += sum(
            device.seconds(job.dtype, b, a, job.adapters.rank) for a, b in job.adapted().values()
        )
    products = s.num_layers * (linear + (3 + again) * adapters)
    short = job.document_tokens is not None and job.document_tokens <= _SHORT
    kind = "float32" if short else job.dtype
    span = min(job.document_tokens or job.seq_len, job.seq_len)
    pass_flops = tokens * attention_flops_per_token(s, span, causal=True)
    attention = 3 * pass_flops / (device.attention_gflops(kind, span, s.head_dim) * 1e9)
    if job.checkpointing == "full" and not job.attention_stored:
        rate = device.attention_gflops(kind, span, s.head_dim, forward=True) * 1e9
        attention += again * pass_flops / rate
    labelled = max(1.0, job.labelled * tokens)
    rows = min(job.tile, labelled)
    head_passes = 3 if job.adapters is None and job.trains_head else 2
    # Small tiles run the head at the rate of few rows, and move its weight once a tile and pass.
    head = (
        labelled / rows * head_passes * device.seconds(job.dtype, rows, s.hidden_size, s.vocab_size)
    )
    softmax = 6 * 4 * labelled * s.vocab_size / (device.copy_gbps * 1e9)
    made = replace(job, mlp_tile=0, attention_chunk=0)  # in tiles and chunks or not
    kept = s.num_layers * block_activation_bytes(made) / job.element_bytes
    passes_each = _PASSES * (1 + 0.4 * again)
    elementwise = kept * passes_each * device.elementwise[job.dtype]
    if job.nf4:  # each weight is unpacked for each product with it
        weights = sum(passes[n] * a * b for n, (a, b) in linears.items())
        elementwise += s.num_layers * weights * device.elementwise["float32"]
    documents = tokens / span
    ops = s.num_layers * (_OPS_A_BLOCK + documents + 20 * len(job.adapted()))
    starts = ops * (1 + again / 2) * device.op_s * _NODE
    shares = job.state_ranks if job.zero_stage else 1
    update = _MOVED * job.update_bytes * (job.trained_parameters // shares)
    update /= device.copy_gbps * 1e9
    micro = {
        "products": products,
        "attention": attention,
        "head": head + softmax,
        "elementwise": elementwise,
        "starts": starts,
    }
    # Processes of one machine share its cores and its memory.
    shared = job.world_size * job.grad_accum
    return {**{k: v * shared for k, v in micro.items()}, "optimizer": update * job.world_size}


def step_flops(job: TrainingJob) -> float:
    """Model FLOPs of one optimizer step, no causal discount, recomputation not counted."""
    return job.model_flops_per_token() * job.step_tokens
