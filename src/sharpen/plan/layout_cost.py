"""Step time of a layout on a cluster, its utilization, and whether it fits.

Per micro-batch, with c computing and x exchanges of a layer, g gathering and r reducing its
states, and o the share of those that can hide (``Assumptions.overlap``)::

    layer     max(c + x + (1 - o) t, o t)          t = g forward, g + r backward
    passes    sum over layers + o (g + r)
    step      m micro-batches (1 + (pp - 1) / (chunks m)) + what is sent once a step + update

Stages 0 and 1 reduce gradients after the last micro-batch only: there r is 0.

The first two are what :mod:`sharpen.plan.schedule` simulates. A collective of n ranks takes its
bytes at the rate of its slowest hop, and a start for each hop. MFU is model FLOPs (nothing that is
computed again) over step time and the peak of all devices; HFU counts everything. Attention counts
every position unless ``causal`` is asked for (PaLM's convention: 6 Ψ + 12 L h_q s a token).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharpen.plan.flops import attention_flops_per_token
from sharpen.plan.hardware import Cluster
from sharpen.plan.layouts import (
    Candidate,
    ClusterJob,
    Traffic,
    kept_bytes,
    layer_exchanges,
    layout_memory,
    layout_traffic,
    most_heads,
    states_bytes,
    stored_bytes,
)

__all__ = ["LayoutCost", "layout_cost", "pass_seconds", "step_flops"]

# Times that unfused element-wise operations read or write what a block keeps, both passes together.
_PASSES = 8


@dataclass(frozen=True, slots=True)
class LayoutCost:
    """What a layout needs and how fast it is."""

    layout: Candidate
    """How the job is laid out."""

    memory: Mapping[str, int]
    """Bytes of the fullest rank, by part."""

    traffic: tuple[Traffic, ...]
    """What the busiest rank sends a step."""

    step_s_by: Mapping[str, float]
    """Seconds of a step, by what takes them; they sum to ``step_s``."""

    micro_batches: int
    """Forward passes a rank makes a step."""

    mfu: float
    """Model FLOPs a second, as a share of all devices' peak."""

    hfu: float
    """The same with what is computed again."""

    tokens_per_s: float
    """Of all devices."""

    memory_bytes: int
    """Memory of a device."""

    @property
    def peak_bytes(self) -> int:
        """Bytes of the fullest rank."""
        return sum(self.memory.values())

    @property
    def over_bytes(self) -> int:
        """By how much it is too large; 0 when it fits."""
        return max(0, self.peak_bytes - self.memory_bytes)

    @property
    def fits(self) -> bool:
        """Whether the fullest rank fits its device."""
        return self.over_bytes == 0

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return sum(self.step_s_by.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "layout": self.layout.to_dict(),
            "micro_batches": self.micro_batches,
            "fits": self.fits,
            "peak_bytes": self.peak_bytes,
            "over_bytes": self.over_bytes,
            "memory": dict(self.memory),
            "step_s": self.step_s,
            "step_s_by": dict(self.step_s_by),
            "mfu": self.mfu,
            "hfu": self.hfu,
            "tokens_per_s": self.tokens_per_s,
        }


def step_flops(job: ClusterJob, *, causal: bool = False, layout: Candidate | None = None) -> float:
    """FLOPs of one optimizer step over all devices.

    Args:
        job: what is trained.
        causal: count only the positions that attention sees.
        layout: count what it computes again, too: blocks (selectively, without attention), and of
            tiled MLPs gate and up, for chunks of attention the projections.
    """
    s = job.spec
    per_token = job.model_flops_per_token(causal=causal)
    if layout is not None:
        again = layout.recomputed(s.num_layers) / s.num_layers
        per_token += again * 2 * s.matmul_parameters
        if _attends_again(layout):
            per_token += again * attention_flops_per_token(s, job.seq_len, causal=causal)
        if layout.tiled_mlp:
            gate_up = 2 * 2 * s.hidden_size * s.intermediate_size * s.num_layers
            per_token += (1 - again) * gate_up
        if layout.attention_chunk:
            per_token += 2 * _projections(job) * s.num_layers
    return per_token * job.global_batch * job.seq_len


def _attends_again(layout: Candidate) -> bool:
    """Whether blocks that are computed again attend again."""
    return layout.recompute == "full" and layout.attention_chunks != "away"


def _projections(job: ClusterJob) -> int:
    """Weights of a layer that make queries, keys and values."""
    return job.spec.hidden_size * (job.spec.query_size + 2 * job.spec.kv_size)


def _compute(job: ClusterJob, layout: Candidate, cluster: Cluster) -> dict[str, float]:
    """Seconds a rank computes a micro-batch, by kind and pass, all its layers together."""
    s, tokens, device = job.spec, layout.tokens(job), cluster.device
    peak = device.peak_flops(job.dtype)
    layers, tp = s.num_layers // layout.pp, layout.tp
    products = 2 * tokens * layers * s.layer_matmul_parameters / tp / (peak * device.products)
    gate_up = 2 * s.hidden_size * s.intermediate_size / s.layer_matmul_parameters
    uneven = most_heads(s, layout.sp)[0] * layout.sp / s.num_heads
    seen = attention_flops_per_token(s, job.seq_len, causal=True) * tokens / layout.pp / tp
    attention = uneven * seen / (peak * device.attention)
    rate = device.memory_gb_s * 1e9 * cluster.assume.memory
    kept = tokens * layers * kept_bytes(job, False, "none") / tp
    elementwise = kept * _PASSES / 2 / rate
    again = layout.recomputed(s.num_layers) / s.num_layers
    weights = 1 + job.trained_share  # products of the backward pass for one of the forward
    tiled = gate_up * (1 - again) if layout.tiled_mlp else 0.0
    chunks = _projections(job) / s.layer_matmul_parameters if layout.attention_chunk else 0.0
    head = 2 * tokens * s.embedding_parameters / tp / (peak * device.products) / layout.pp
    return {
        "products": products,
        "products_backward": products * (weights + again + tiled + chunks),
        "attention": attention,
        "attention_backward": attention * (2 + again * _attends_again(layout)),
        "elementwise": elementwise,
        "elementwise_backward": elementwise * (1 + again),
        "head": head * (1 + weights),
    }


def pass_seconds(
    num_layers: int,
    *,
    forward_s: float,
    backward_s: float,
    gather_s: float = 0.0,
    reduce_s: float = 0.0,
    overlap: float = 1.0,
) -> float:
    """Both passes of a micro-batch, states gathered and reduced a layer at a time.

    The closed form of :func:`~sharpen.plan.schedule.sharded_schedule`, and at most one layer's
    gather and reduction above it.

    Args:
        num_layers: equal layers.
        forward_s: a layer's forward pass, exchanges inside it included.
        backward_s: its backward pass.
        gather_s: gathering its parameters, before either pass.
        reduce_s: reducing its gradients, after the backward pass.
        overlap: share of both that can run beside computing; the rest stops it.
    """
    there, back = gather_s, gather_s + reduce_s
    forward = max(forward_s + (1 - overlap) * there, overlap * there)
    backward = max(backward_s + (1 - overlap) * back, overlap * back)
    return num_layers * (forward + backward) + overlap * back


def layout_cost(
    job: ClusterJob, layout: Candidate, cluster: Cluster, *, causal: bool = False
) -> LayoutCost:
    """Memory, traffic and step time of a legal layout.

    Args:
        job: what is trained.
        layout: how; see :func:`~sharpen.plan.layouts.layout_problems`.
        cluster: on what.
        causal: MFU and HFU count only the positions that attention sees.

    Raises:
        ConfigError: the device has no peak for the job's type.
    """
    s, assume = job.spec, cluster.assume
    m, n, tp = layout.micro_batches(job), layout.state_ranks, layout.tp
    layers = s.num_layers // layout.pp
    overlap = assume.overlap
    compute = _compute(job, layout, cluster)
    forward = compute["products"] + compute["attention"] + compute["elementwise"]
    backward = sum(compute[f"{k}_backward"] for k in ("products", "attention", "elementwise"))

    # Exchanges inside a layer stop computing; a ring's hide behind its attention.
    exchange = {"forward": 0.0, "backward": 0.0}
    again = layout.recomputed(s.num_layers) / s.num_layers if _attends_again(layout) else 0.0
    for purpose, (there, back) in layer_exchanges(job, layout).items():
        if purpose == "ring":
            rate = cluster.neighbour_rate(layout.ring, tp * layout.sp)
            start = cluster.start_s(layout.ring, tp * layout.sp)
            ahead = compute["attention"] / layers
            first = max(0.0, there / rate + start - overlap * ahead)
            second = max(0.0, back / rate + start - 2 * overlap * ahead)
        elif purpose == "ulysses":
            rate = cluster.all_to_all_rate(layout.sp, tp)
            start = 2 * cluster.start_s(layout.sp, tp)
            first, second = there / rate + start, back / rate + start
        else:
            rate, start = cluster.ring_rate(tp, 1), cluster.start_s(tp, 1)
            first, second = there / rate + 4 * start, back / rate + 6 * start
        exchange["forward"] += layers * first
        exchange["backward"] += layers * (second + again * first)

    # States of stage 3 are gathered a layer at a time.
    sent = states_bytes(job, layout)
    everyone = n * (layout.dp_replicate if layout.zero_stage == 0 else 1)
    rate, start = cluster.ring_rate(everyone, tp), cluster.start_s(everyone, tp)
    gather = sent.gathers / 2 / rate + (layers * start if sent.gathers else 0.0)
    scatter = sent.scatters / rate + (layers * start if sent.scatters else 0.0)
    first_pass = forward + exchange["forward"]
    second_pass = backward + exchange["backward"]
    pass_s = compute["head"] + pass_seconds(
        layers,
        forward_s=first_pass / layers,
        backward_s=second_pass / layers,
        gather_s=gather / layers,
        reduce_s=scatter / layers,
        overlap=overlap,
    )
    plain = first_pass + second_pass + compute["head"]

    # Once a step: gathering hides behind the first forward pass, reducing behind the last backward
    # pass, as far as that leaves the network free; sending what was updated hides behind nothing.
    def exposed(nbytes: int, beside: float) -> float:
        seconds = nbytes / rate + (layers * start if nbytes else 0.0)
        return max(seconds - overlap * max(0.0, beside), (1 - overlap) * seconds)

    once = exposed(sent.first, first_pass) + exposed(sent.reduction, second_pass - gather)
    once += exposed(sent.update, 0.0)
    if sent.replicas:
        stride = tp * n
        often = m if layout.zero_stage >= 2 else 1
        once += often * sent.replicas / cluster.ring_rate(layout.dp_replicate, stride)
        once += often * layers * cluster.start_s(layout.dp_replicate, stride)

    # What blocks keep leaves in the forward pass and comes back in the backward pass, beside both.
    away = 0.0
    blocks = layout.recomputed(layers) * layout.tokens(job) if layout.offload else 0
    blocks *= job.checkpoint_bytes(layout.recompute, layout.attention_chunks)
    for chunks, beside in zip(stored_bytes(job, layout), (first_pass, second_pass), strict=True):
        moved = (blocks + layers * chunks) / tp
        seconds = moved / (cluster.device.host_gb_s * 1e9 * assume.links)
        away += max(seconds - overlap * beside, (1 - overlap) * seconds)

    bubble = pass_s * (layout.pp - 1) / layout.chunks
    if layout.pp > 1:
        hops = next(t for t in layout_traffic(job, layout) if t.purpose == "pipeline")
        hop = hops.bytes / cluster.neighbour_rate(layout.pp, hops.stride)
        bubble += (1 - overlap) * hop
    trained = job.trained_parameters / (tp * layout.pp)
    share = trained / (n if layout.zero_stage else 1)
    update = share * job.update_bytes / (cluster.device.memory_gb_s * 1e9 * assume.memory)
    times = {
        "products": m * (compute["products"] + compute["products_backward"] + compute["head"]),
        "attention": m * (compute["attention"] + compute["attention_backward"]),
        "elementwise": m * (compute["elementwise"] + compute["elementwise_backward"]),
        "exchange": m * (exchange["forward"] + exchange["backward"]),
        "states": m * (pass_s - plain) + once,
        "offload": m * away,
        "bubble": bubble,
        "update": update,
    }
    step_s = sum(times.values())
    peak = cluster.device.peak_flops(job.dtype) * cluster.count * step_s
    done = step_flops(job, causal=causal, layout=layout)
    return LayoutCost(
        layout=layout,
        memory=layout_memory(job, layout, assume),
        traffic=tuple(layout_traffic(job, layout)),
        step_s_by=times,
        micro_batches=m,
        mfu=step_flops(job, causal=causal) / peak,
        hfu=done / peak,
        tokens_per_s=job.global_batch * job.seq_len / step_s,
        memory_bytes=cluster.memory_bytes,
    )
