"""What a training job is, whatever it runs on, and what it keeps: the part that all plans share.

A block keeps for its backward pass, a token (e bytes an element)::

    everything        memory.activation_bytes, and of each adapted layer  e r, and  e out  (DoRA)
    full              e h                                      it is computed again from its input
    selective         e h + e (2 h_q + 2 h_kv) + 4 heads       that, and what attention needs

Chunks of attention leave e h_q more, the output twice; of q, k, v and one output that wait
elsewhere (``away``) nothing. The norm before them, e h + 4, is computed again. A block kept by its
input alone computes their attention again, too, unless they wait elsewhere.

Adapters have r (in + out) parameters a layer, DoRA (Liu et al., 2024, arXiv 2402.09353) a magnitude
for each output besides, and the norm of each frozen row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import ModelSpec
from sharpen.plan.flops import training_flops_per_token
from sharpen.plan.memory import (
    ModelStates,
    activation_bytes,
    parameter_shapes,
    row_share,
    share_states,
)
from sharpen.plan.optimizer_states import Shape

__all__ = [
    "Adapters",
    "Checkpointing",
    "Chunks",
    "Job",
    "chunk_kind",
    "job_states",
    "kept_activations",
    "trained_shapes",
]

Checkpointing = Literal["none", "selective", "full"]
"""What a block that is computed again keeps: all, its input and what attention needs, its input."""
Chunks = Literal["none", "here", "away"]
"""Whether attention runs over chunks of tokens, and where what these leave waits."""

_HELD = 3  # blocks whose kept tensors are here when offloaded: one in use, one on its way, the last
_BYTES = {"float32": 4, "bfloat16": 2}
_MLP = ("gate_proj", "up_proj", "down_proj")
_NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8  # a weight, with its shares of the scales


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapters:
    """Low-rank additions to frozen weights."""

    rank: int = 16
    """r."""

    targets: tuple[str, ...] = ()
    """Adapted layers of each block; empty is all seven."""

    dora: bool = False
    """Outputs have magnitudes."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.rank < 1:
            raise ConfigError(f"rank={self.rank} must be at least 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is trained."""

    spec: ModelSpec
    """The model's shape."""

    seq_len: int
    """Tokens of a sequence."""

    adapters: Adapters | None = None
    """What is trained on frozen weights; None trains the weights."""

    nf4: bool = False
    """The frozen weights of the blocks are stored in 4 bits and a scale for every 64."""

    frozen_parameters: int = 0
    """Without adapters: weights that get no gradient (half fine-tuning)."""

    trains_head: bool = True
    """Without adapters: whether the head's weights get one."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type; what trains is float32."""

    state_ratio: float = 1.0
    """The optimizer's states over those of AdamW, 8 bytes a trained parameter."""

    @property
    def method(self) -> str:
        """``full``, ``half``, ``lora``, ``dora`` or ``qlora``."""
        if self.adapters is None:
            return "half" if self.frozen_parameters else "full"
        return "qlora" if self.nf4 else "dora" if self.adapters.dora else "lora"

    @property
    def element_bytes(self) -> int:
        """e, bytes of an activation's element."""
        return _BYTES[self.dtype]

    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output size of a block's seven linear layers."""
        s = self.spec
        return {
            "q_proj": (s.hidden_size, s.query_size),
            "k_proj": (s.hidden_size, s.kv_size),
            "v_proj": (s.hidden_size, s.kv_size),
            "o_proj": (s.query_size, s.hidden_size),
            "gate_proj": (s.hidden_size, s.intermediate_size),
            "up_proj": (s.hidden_size, s.intermediate_size),
            "down_proj": (s.intermediate_size, s.hidden_size),
        }

    def adapted(self) -> dict[str, tuple[int, int]]:
        """The layers with adapters."""
        if self.adapters is None:
            return {}
        names = self.adapters.targets
        return {n: shape for n, shape in self.linears().items() if not names or n in names}

    @property
    def magnitudes(self) -> int:
        """DoRA's magnitudes in all blocks."""
        if self.adapters is None or not self.adapters.dora:
            return 0
        return self.spec.num_layers * sum(b for _, b in self.adapted().values())

    @property
    def adapter_parameters(self) -> int:
        """Parameters of all adapters."""
        if self.adapters is None:
            return 0
        pairs = sum(self.adapters.rank * (a + b) for a, b in self.adapted().values())
        return self.spec.num_layers * pairs + self.magnitudes

    @property
    def trained_parameters(self) -> int:
        """Parameters that get gradients and optimizer states."""
        if self.adapters is not None:
            return self.adapter_parameters
        return self.spec.num_parameters - self.frozen_parameters

    @property
    def trained_share(self) -> float:
        """Share of the model's own weights that get gradients."""
        if self.adapters is not None:
            return 0.0
        return self.trained_parameters / self.spec.num_parameters

    @property
    def frozen_bytes(self) -> int:
        """With adapters: bytes of the frozen weights and of what is known of their rows."""
        s, e = self.spec, self.element_bytes
        saved = (e - _NF4_BYTES) * s.num_layers * s.layer_matmul_parameters if self.nf4 else 0
        return e * s.num_parameters - round(saved) + 4 * self.magnitudes

    @property
    def update_bytes(self) -> float:
        """Bytes a trained parameter has read or written by an update.

        Parameter and gradient are read, the parameter written; the states both.
        """
        return 12 + 16 * self.state_ratio

    def model_flops_per_token(self, *, causal: bool = False) -> float:
        """FLOPs of a token's passes; what is computed again does not count.

        Args:
            causal: count only the positions that attention sees.
        """
        flops = training_flops_per_token(
            self.spec, self.seq_len, causal=causal, lora=self.adapters is not None
        )
        frozen = self.frozen_parameters / self.spec.num_parameters  # they get no gradient
        return flops - 2 * self.spec.matmul_parameters * frozen

    def repeats(
        self,
        again: float,
        mode: Checkpointing,
        *,
        tiled: bool = False,
        chunked: bool = False,
    ) -> dict[str, float]:
        """How often each product of a block is computed again in the backward pass.

        Computing a block again ends where all that it keeps is there: before its last product, and
        before an MLP in tiles, which computes gate and up again in its own backward pass. With
        adapters in the MLP neither is spared.

        Args:
            again: share of the blocks that are computed again.
            mode: what these keep.
            tiled: the MLP runs over tiles of tokens.
            chunked: attention runs over chunks, whose projections are computed again.
        """
        found = dict.fromkeys(self.linears(), again)
        adapted = self.adapted()
        if not any(name in adapted for name in _MLP):
            found |= dict.fromkeys(_MLP, 1.0 if tiled else again)
            found["down_proj"] = 0.0
        elif tiled:
            found |= dict.fromkeys(_MLP, again + 1)
        elif "down_proj" not in adapted:
            found["down_proj"] = 0.0
        if chunked:
            more = again if mode == "full" else 0.0
            found |= dict.fromkeys(("q_proj", "k_proj", "v_proj"), 1 + more)
        return found

    def kept_bytes(self, *, tiled: bool = False, chunks: Chunks = "none") -> int:
        """Bytes a token leaves in a block for its backward pass.

        Args:
            tiled: the MLP runs over tiles of tokens and keeps nothing of its own.
            chunks: of attention.
        """
        e = self.element_bytes
        kept = activation_bytes(
            self.spec, 1, element_bytes=e, norm="fused", fused_mlp=True, tiled_mlp=tiled
        )
        if self.adapters is not None:
            for name, (_, width) in self.adapted().items():
                if not (tiled and name in _MLP):
                    kept += e * (self.adapters.rank + (width if self.adapters.dora else 0))
        if chunks != "none":
            kept += self._chunk_bytes(chunks) - (e * self.spec.hidden_size + 4)
        return kept

    def checkpoint_bytes(self, mode: Checkpointing, chunks: Chunks = "none") -> int:
        """Bytes a token leaves in a block that is computed again; 0 when none is.

        Args:
            mode: what such a block keeps.
            chunks: of attention.
        """
        s, e = self.spec, self.element_bytes
        if mode == "none":
            return 0
        if mode == "full" and chunks != "away":
            return e * s.hidden_size
        attention = e * (2 * s.query_size + 2 * s.kv_size) + 4 * s.num_heads
        return e * s.hidden_size + attention + self._chunk_bytes(chunks)

    def _chunk_bytes(self, chunks: Chunks) -> int:
        """What a token's chunk of attention leaves beyond what attention at once does."""
        s = self.spec
        if chunks == "none":
            return 0
        stored = 2 * (s.query_size + s.kv_size) if chunks == "away" else 0
        return self.element_bytes * (s.query_size - stored)


def chunk_kind(tokens: int, stored: bool) -> Chunks:
    """The kind of chunks.

    Args:
        tokens: of a chunk; 0 for none.
        stored: what they leave waits elsewhere.
    """
    if not tokens:
        return "none"
    return "away" if stored else "here"


def kept_activations(
    layers: int, again: int, *, block: int, checkpoint: int, offload: bool = False
) -> int:
    """Bytes that blocks hold at once for the backward pass.

    Args:
        layers: blocks.
        again: of them, those that are computed again, one at a time.
        block: bytes of a block that is not, or is being so.
        checkpoint: bytes of one that is, until then.
        offload: these wait elsewhere, and only those of three blocks are here.
    """
    found = (layers - again) * block
    if again:
        found += (min(again, _HELD) if offload else again) * checkpoint + block
    return found


def job_states(
    job: Job,
    *,
    stage: int = 0,
    ranks: int = 1,
    split: int = 1,
    count: int | None = None,
    matmul: int | None = None,
) -> ModelStates:
    """Weights, gradients and AdamW states of the fullest device.

    Args:
        job: what is trained.
        stage: of ZeRO, 0 to 3.
        ranks: N, devices that share the states.
        split: devices that each hold a part of the model (tensor and pipeline parallelism).
        count: parameters of that part; default all.
        matmul: of them, those in products.
    """
    s, e = job.spec, job.element_bytes
    count = s.num_parameters if count is None else count
    share = row_share(s, ranks) if split == 1 and ranks > 1 else -(-count // ranks)
    if job.adapters is None:
        found = share_states(
            count,
            stage=stage,
            ranks=ranks,
            share=share,
            matmul=s.matmul_parameters if matmul is None else matmul,
            element_bytes=e,
        )
        trained, whole = job.trained_parameters, s.num_parameters
        return ModelStates(
            found.parameters,
            found.gradients * trained // whole,
            _states(job, found.optimizer * trained // whole, stage),
            found.copies,
        )
    adapters = -(-job.adapter_parameters // split)
    own = share_states(adapters, stage=stage, ranks=ranks, element_bytes=e)
    frozen = share if stage >= 2 else count
    gathered = e * count if stage == 2 and ranks > 1 else 0
    return ModelStates(
        job.frozen_bytes * frozen // s.num_parameters + own.parameters,
        own.gradients,
        _states(job, own.optimizer, stage),
        gathered + own.copies,
    )


def _states(job: Job, adamw: int, stage: int) -> int:
    """The optimizer's part of what AdamW and float32 masters would take."""
    moments = 2 / 3 if stage == 1 and job.element_bytes == 2 else 1.0
    return round(adamw * (1 + moments * (job.state_ratio - 1)))


def trained_shapes(spec: ModelSpec, adapters: Adapters | None) -> list[Shape]:
    """What trains: all parameters, or those of the adapters.

    Args:
        spec: the model's shape.
        adapters: on frozen weights, or None.
    """
    out = []
    if adapters is not None:
        for layer in range(spec.num_layers):
            for a, b in Job(spec=spec, seq_len=1, adapters=adapters).adapted().values():
                out += [Shape(adapters.rank, a, "matrix", layer)]
                out += [Shape(b, adapters.rank, "matrix", layer)]
                out += [Shape(b, 1, "vector", layer)] if adapters.dora else []
        return out
    for name, (rows, columns) in parameter_shapes(spec).items():
        role: Literal["embedding", "head", "matrix", "vector"] = "matrix"
        if name.endswith("embed_tokens.weight"):
            role = "embedding"
        elif name == "lm_head.weight":
            role = "head"
        elif columns == 1:
            role = "vector"
        layer = int(name.split(".")[2]) if ".layers." in name else -1
        out.append(Shape(rows, columns, role, layer))
    return out
