"""A decoder prepared for inference: the same function as ``DecoderLM`` in fewer, faster operations.

A decoding step reads every weight once and does little else, so it is bound by memory bandwidth
and, for small models, by the number of operations. For each block, with R = B T rows::

    x, y <- x + d, norm(x + d)           add_norm; d is what the block before leaves to be added
    q, k, v = [Wq; Wk; Wv] y             one product, weights laid end to end
    d = Wo attend(q, k, v)
    x, y <- x + d, norm(x + d)
    d = Wd gate([Wg; Wu] y)              one product, then one operation

A parallel block has one norm, and one product for all that reads it::

    x, y <- x + d, norm(x + d)
    q, k, v, g, u = [Wq; Wk; Wv; Wg; Wu] y
    d = Wo attend(q, k, v) + Wd gate(g, u)

The products are those of ``models/products.py``, the rest is ``models/step.py``. Weights move here
and are not copied, except as said there and for a bfloat16 head tied to the embedding (V H e
bytes). An embedding that can read the weights of a tied head's product has a method ``share``.

Legend: B batch, T tokens, R rows, S keys, H hidden, I intermediate, N query heads, K key heads,
G = N / K, D head size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.core.huge_pages import laying_out
from sharpen.core.model_spec import ModelSpec
from sharpen.models.adapters import Adapter, AdapterRows, Site
from sharpen.models.attention import attention_mask
from sharpen.models.decode_graphs import DecodeGraphs
from sharpen.models.decoder import Attention, Block, DecoderLM
from sharpen.models.kv_cache import KVCache
from sharpen.models.native_layers import DenseLayer, NativeLayers
from sharpen.models.native_step import fused_step
from sharpen.models.paged import PagedCache, PagedContext, PagedPart
from sharpen.models.products import Dense, product, refill
from sharpen.models.rope import Rope
from sharpen.models.step import Rows, StepContext, TorchStep
from sharpen.models.thread_choice import ThreadChoice

__all__ = ["InferenceLM", "prepare_for_inference"]


class _Block:
    """One layer; takes the weights out of ``block``."""

    def __init__(self, spec: ModelSpec, fused: TorchStep, block: Block, layer: int) -> None:
        attention: Attention = block.self_attn
        mlp = block.mlp
        self._fused = fused
        self._layer = layer
        self._window = attention.window
        self._input_norm = block.input_layernorm.weight.detach()
        self._head_norms = None
        if attention.q_norm is not None and attention.k_norm is not None:
            self._head_norms = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
        qkv = attention.q_proj, attention.k_proj, attention.v_proj
        gate_up = mlp.gate_proj, mlp.up_proj
        self._mlp_norm = None
        if block.post_attention_layernorm is not None:
            self._mlp_norm = block.post_attention_layernorm.weight.detach()
            self._qkv, self._gate_up = product(*qkv), product(*gate_up)
        else:
            self._qkv_gate_up = product(*qkv, *gate_up)
            self._qkv_size = spec.query_size + 2 * spec.kv_size
        self._o = product(attention.o_proj)
        self._down = product(mlp.down_proj)
        del block.self_attn, block.mlp

    def copy_weights(self, block: Block) -> None:
        """Take over the weights of ``block``, in place."""
        attention, mlp = block.self_attn, block.mlp
        norms = [(self._input_norm, block.input_layernorm.weight)]
        if self._head_norms is not None:
            theirs = attention.q_norm, attention.k_norm
            norms += [(own, one.weight) for own, one in zip(self._head_norms, theirs, strict=True)]  # type: ignore[union-attr]
        if self._mlp_norm is not None:
            norms.append((self._mlp_norm, block.post_attention_layernorm.weight))  # type: ignore[union-attr]
        for own, weight in norms:
            own.copy_(weight)
        qkv = attention.q_proj, attention.k_proj, attention.v_proj
        gate_up = mlp.gate_proj, mlp.up_proj
        if self._mlp_norm is not None:
            refill(self._qkv, *qkv)
            refill(self._gate_up, *gate_up)
        else:
            refill(self._qkv_gate_up, *qkv, *gate_up)
        refill(self._o, attention.o_proj)
        refill(self._down, mlp.down_proj)

    @property
    def is_plain(self) -> bool:
        """Whether all products are of plain weights on a CUDA device."""
        parallel = self._mlp_norm is None
        first = (self._qkv_gate_up,) if parallel else (self._qkv, self._gate_up)
        return all(isinstance(one, Dense) for one in (*first, self._o, self._down))

    def dense(self) -> DenseLayer | None:
        """What it is made of; None for a parallel block."""
        if self._mlp_norm is None:
            return None
        return DenseLayer(
            self._input_norm,
            self._head_norms,
            self._mlp_norm,
            self._window,
            self._qkv,
            self._o,
            self._gate_up,
            self._down,
        )

    def __call__(
        self,
        x: Tensor,
        delta: Tensor | None,
        step: StepContext | PagedContext,
        adapted: Sequence[AdapterRows] = (),
    ) -> tuple[Tensor, Tensor]:
        """[R, H] and what is to be added to it -> the same for the next block."""
        fused = self._fused
        x, normed = fused.add_norm(x, delta, self._input_norm)
        if self._mlp_norm is None:
            both = self._qkv_gate_up(normed)
            qkv, gate_up = both[:, : self._qkv_size], both[:, self._qkv_size :]
            self._adapt("qkv", normed, qkv, adapted)
            self._adapt("gate_up", normed, gate_up, adapted)
            attended = step.attend(
                fused, qkv.contiguous(), self._head_norms, self._layer, self._window
            )
            gated = fused.gate(gate_up.contiguous())
            out = self._adapt("o", attended, self._o(attended), adapted)
            return x, out + self._adapt("down", gated, self._down(gated), adapted)
        qkv = self._adapt("qkv", normed, self._qkv(normed), adapted)
        attended = step.attend(fused, qkv, self._head_norms, self._layer, self._window)
        out = self._adapt("o", attended, self._o(attended), adapted)
        x, normed = fused.add_norm(x, out, self._mlp_norm)
        gated = self._gated(normed, adapted)
        return x, self._adapt("down", gated, self._down(gated), adapted)

    def _gated(self, normed: Tensor, adapted: Sequence[AdapterRows]) -> Tensor:
        """[R, I] of [R, H]."""
        wide = self._gate_up
        one = wide.gated(normed) if isinstance(wide, Dense) and not adapted else None
        if one is not None:
            return one
        return self._fused.gate(self._adapt("gate_up", normed, wide(normed), adapted))

    def _adapt(self, site: Site, x: Tensor, y: Tensor, adapted: Sequence[AdapterRows]) -> Tensor:
        """``y`` [R, out], made from ``x`` [R, in], with what adapters add to their rows."""
        for one in adapted:
            one.add(self._layer, site, x, y)
        return y


class InferenceLM:
    """A causal language model for decoding; made by :func:`prepare_for_inference`.

    Attributes:
        spec: its shape.
    """

    def __init__(self, model: DecoderLM) -> None:
        self.spec = model.spec
        self._embedding = model.model.embed_tokens
        self._norm = model.model.norm
        self._head = product(model.lm_head)
        share = getattr(self._embedding, "share", None)
        if share is not None:
            share(model.lm_head, self._head)
        blocks = [block for block in model.model.layers if isinstance(block, Block)]
        weight = self._norm.weight
        self._dtype = weight.dtype
        self._fused = fused_step(model.spec, weight.dtype, weight.device)
        self._blocks = [_Block(model.spec, self._fused, block, i) for i, block in enumerate(blocks)]
        dense = [layer for block in self._blocks if (layer := block.dense()) is not None]
        self._native = None
        if len(dense) == len(self._blocks):
            self._native = NativeLayers.of(model.spec, self._fused, dense, weight.detach())
        self._threads = ThreadChoice(torch.get_num_threads())
        self._rope = Rope(model.spec)
        self._graphs: DecodeGraphs | None = None

    def __call__(
        self,
        input_ids: Tensor,
        *,
        cache: KVCache | None = None,
        logits_to_keep: int | None = None,
    ) -> Tensor:
        """Logits of the next token; arguments as for :meth:`DecoderLM.forward`.

        Returns:
            [B, T', V] in the weights' type; no gradients flow.
        """
        batch, num_tokens = input_ids.shape
        with torch.inference_mode(), self._on_device():
            if cache is None:
                cache = self.new_cache(batch, capacity=num_tokens)
            step = self._step(input_ids, cache)
            x = self._embedding(input_ids).view(batch * num_tokens, -1)
            native, rows = self._native, step.rows
            if native is not None and rows is not None and batch <= native.most_rows:
                at = step.cos, step.sin, rows, rows.sequences.long()
                x = native(x, *at, cache, torch.get_num_threads())
                cache.advance(num_tokens)
            else:
                delta = None
                for block in self._blocks:
                    x, delta = block(x, delta, step)
                cache.advance(num_tokens)
                _, x = self._fused.add_norm(x, delta, self._norm.weight.detach())
            x = x.view(batch, num_tokens, -1)
            if logits_to_keep is not None:
                x = x[:, -logits_to_keep:]
            kept = x.shape[1]
            return self._head(x.reshape(batch * kept, -1)).view(batch, kept, -1)

    def paged(self, parts: Sequence[PagedPart], cache: PagedCache) -> Tensor:
        """Logits of parts of any sequences, whose keys and values go into their blocks.

        Args:
            parts: at least one.
            cache: from :meth:`new_paged_cache`.

        Returns:
            [M, V]: what the parts want, in their order; no gradients flow.
        """
        return self.logits(self.states(parts, cache))

    def logits(self, states: Tensor) -> Tensor:
        """[M, V] of states [M, H]."""
        if not states.shape[0]:
            return states.new_empty((0, self.spec.vocab_size))
        most = torch.get_num_threads()
        with torch.inference_mode(), self._on_device():
            if self._native is None:
                return self._head(states)
            few = states.shape[0] <= self._native.most_rows
            try:
                torch.set_num_threads(self._threads.now if few else most)
                logits: Tensor = self._head(states)
            finally:
                torch.set_num_threads(most)
            return logits

    def states(self, parts: Sequence[PagedPart], cache: PagedCache) -> Tensor:
        """[M, H] after the final norm, where :meth:`paged` gives logits."""
        with torch.inference_mode(), self._on_device():
            graphs = self._graphs
            if graphs is not None and graphs.cache is cache and graphs.fits(parts):
                return graphs(parts)
            context = PagedContext.of(parts, cache, self._rope)
            native = self._native
            if (
                native is not None
                and context.ids.shape[0] <= native.most_rows
                and context.is_plain(self._fused)
            ):
                x: Tensor = self._embedding(context.ids)
                at = context.cos, context.sin, context.rows, context.wanted
                if self._threads.most != torch.get_num_threads():
                    self._threads = ThreadChoice(torch.get_num_threads())
                threads = self._threads.next(x.shape[0])
                begin = time.perf_counter()
                x = native(x, *at, cache, threads)
                self._threads.took(time.perf_counter() - begin)
                return x
            x, delta = self._through(context)
            if not context.wanted.numel():
                return x.new_empty((0, self.spec.hidden_size))
            kept = x[context.wanted], delta[context.wanted]
            return self._fused.add_norm(*kept, self._norm.weight.detach())[1]

    def _through(self, context: PagedContext) -> tuple[Tensor, Tensor]:
        """[T, H] after all blocks, and what is to be added to it."""
        x: Tensor = self._embedding(context.ids)
        delta = None
        for block in self._blocks:
            x, delta = block(x, delta, context, context.adapted)
        assert delta is not None
        return x, delta

    def record(self, cache: PagedCache, rows: int) -> None:
        """Record steps of up to so many sequences as CUDA graphs; nothing on other devices.

        Steps that are recorded: one token of each sequence, without adapters and watchers. Models
        with compressed layers, or angles that depend on the length (``dynamic``), are not recorded.

        Args:
            cache: the one that they will use.
            rows: sequences of the largest step.
        """
        scaling = self.spec.rope_scaling
        changes = scaling is not None and scaling.kind == "dynamic"
        plain = self._fused.is_recordable and all(block.is_plain for block in self._blocks)
        if cache.device.type != "cuda" or changes or not plain:
            return

        def states(context: PagedContext) -> Tensor:
            return self._fused.add_norm(*self._through(context), self._norm.weight.detach())[1]

        longest = self.spec.max_positions
        with torch.inference_mode(), self._on_device():
            angles = self._rope.tables(longest, cache.device)
            self._graphs = DecodeGraphs(states, angles, cache, most=rows, longest=longest)

    @torch.no_grad()
    def copy_weights(self, model: DecoderLM) -> None:
        """Take over the weights that a model has now, in place; adapters are folded in.

        Caches filled before hold keys and values of the old ones.

        Args:
            model: of the same shape, in any float type; it stays as it is.

        Raises:
            ConfigError: the model is of another shape, or the weights here are compressed.
        """
        if dataclasses.replace(model.spec, max_positions=self.spec.max_positions) != self.spec:
            raise ConfigError(
                "the weights are of a model of another shape: "
                f"{model.spec.num_layers} layers of {model.spec.hidden_size} there, "
                f"{self.spec.num_layers} of {self.spec.hidden_size} here."
            )
        refill(self._head, model.lm_head)
        if not isinstance(self._embedding, nn.Embedding):
            raise ConfigError("the embedding of this model is compressed: load it uncompressed.")
        self._embedding.weight.copy_(model.model.embed_tokens.weight)
        self._norm.weight.copy_(model.model.norm.weight)
        for mine, block in zip(self._blocks, model.model.layers, strict=True):
            assert isinstance(block, Block)
            mine.copy_weights(block)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._norm.weight.device

    def _on_device(self) -> AbstractContextManager[None]:
        """Kernels of our own start on the thread's device, not on that of their tensors."""
        on_cuda = self.device.type == "cuda"
        return torch.cuda.device(self.device) if on_cuda else nullcontext()

    def load_adapter(self, folder: str | Path) -> Adapter:
        """A LoRA adapter for parts of :meth:`paged`; raises as :class:`Adapter` does."""
        weight = self._norm.weight
        return Adapter(folder, self.spec, weight.dtype, weight.device)

    def new_paged_cache(self, num_blocks: int, block_size: int) -> PagedCache:
        """An empty cache of blocks, in the type and on the device of the model."""
        weight = self._norm.weight
        return PagedCache(
            self.spec, num_blocks, block_size, dtype=weight.dtype, device=weight.device
        )

    def new_cache(self, batch: int, *, capacity: int, starts: Tensor | None = None) -> KVCache:
        """An empty cache; as :meth:`DecoderLM.new_cache`."""
        weight = self._norm.weight
        return KVCache(
            self.spec,
            batch,
            capacity=capacity,
            dtype=weight.dtype,
            device=weight.device,
            starts=starts.to(weight.device) if starts is not None else None,
        )

    def _step(self, input_ids: Tensor, cache: KVCache) -> StepContext:
        batch, num_tokens = input_ids.shape
        device, past, starts = input_ids.device, cache.length, cache.starts
        total = past + num_tokens
        positions = torch.arange(past, total, device=device)[None]
        if starts is not None:
            positions = (positions - starts[:, None]).clamp_(min=0)
        cos, sin = self._rope(positions, total, torch.float32)
        cache.reserve(num_tokens)
        mask = window_mask = None
        if starts is not None or (past > 0 and num_tokens > 1):
            mask = self._added(attention_mask(past, num_tokens, starts, None, device))
        window = self.spec.sliding_window
        window_mask = mask
        if window is not None and total > window:
            window_mask = self._added(attention_mask(past, num_tokens, starts, window, device))
        return StepContext(
            batch=batch,
            num_tokens=num_tokens,
            cos=cos,
            sin=sin,
            mask=mask,
            window_mask=window_mask,
            is_causal=num_tokens > 1,
            cache=cache,
            rows=Rows.of(cache) if num_tokens == 1 and device.type == "cpu" else None,
        )

    def _added(self, seen: Tensor) -> Tensor:
        """A mask to add to scores: 0 where ``seen``, else minus infinity."""
        added = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device)
        return added.masked_fill_(~seen, float("-inf"))


def prepare_for_inference(model: DecoderLM) -> InferenceLM:
    """Make a model ready for decoding.

    Args:
        model: used up: its layers' weights move into the result, so memory does not double.

    Returns:
        A model with equal logits, up to rounding.
    """
    with laying_out():
        return InferenceLM(model.eval())
