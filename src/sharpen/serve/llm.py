"""A language model to call from Python: texts or messages in, texts out."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast, overload

import torch

from sharpen.compress.kv.named import named_policy
from sharpen.compress.kv.policy import KVPolicy
from sharpen.core.errors import ConfigError, DataError, ExecutionError
from sharpen.models.chat import Message, check_messages, render_chat
from sharpen.models.decode import prepare_for_inference
from sharpen.models.decoder import DecoderLM
from sharpen.models.devices import resolve_device
from sharpen.models.load import load_model, resolve_model
from sharpen.models.tokenizer import check_compatible, load_tokenizer
from sharpen.serve.embedding import Embedding, Pooling, finish_vector, pooling_of
from sharpen.serve.engine import Engine
from sharpen.serve.request import Continuation, FinishReason, Piece, TokenLogprob
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.speculation import Speculation

__all__ = [
    "LLM",
    "Completion",
    "EmbeddingOutput",
    "RequestOutput",
    "parse_bytes",
    "resolve_dtype",
]

Prompt = str | Sequence[int]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One continuation of a prompt."""

    text: str
    """Its text, without the stop text or token."""

    ids: list[int]
    """Its tokens, without the end of sequence."""

    finish_reason: FinishReason
    """``stop``, ``length`` or ``cancelled``."""

    index: int = 0
    """Which of ``SamplingParams.n``."""

    logprobs: list[TokenLogprob] | None = None
    """One for each of ``ids``, where asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutput:
    """A prompt and its continuations."""

    prompt: str
    """The prompt's text, as the model saw it."""

    prompt_ids: list[int]
    """The prompt's tokens."""

    outputs: list[Completion]
    """``SamplingParams.n`` continuations."""

    prompt_logprobs: list[TokenLogprob] | None = None
    """One for each of ``prompt_ids``, where asked for; that of the first is NaN."""

    @property
    def text(self) -> str:
        """Text of the first continuation."""
        return self.outputs[0].text


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOutput:
    """A text and its vector."""

    prompt_ids: list[int]
    """The text's tokens."""

    embedding: list[float]
    """The vector."""


def resolve_dtype(dtype: str | torch.dtype, device: torch.device | str = "cpu") -> torch.dtype:
    """The type named by ``dtype``.

    Args:
        dtype: ``float32``, ``bfloat16``, a torch type, or ``auto``: bfloat16 where the device
            multiplies it natively (AVX512-BF16, AMX, CUDA), else float32.
        device: where the model runs.

    Raises:
        ConfigError: another name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        native = torch.device(device).type != "cpu" or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype={dtype!r} must be auto, {' or '.join(_DTYPES)}.")
    return _DTYPES[dtype]


def parse_bytes(size: int | str) -> int:
    """Bytes of a size such as ``2GiB``, ``512MiB`` or ``1.5 GiB``; a bare number is bytes.

    Raises:
        ConfigError: anything else.

    Examples:
        >>> parse_bytes("1.5GiB") >> 20
        1536
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]iB)?\s*", str(size))
    if found is None:
        raise ConfigError(f"{size!r} is no size. Write for example 2GiB, 512MiB, or bytes.")
    return int(float(found[1]) * _UNITS[found[2] or ""])


class LLM:
    """A model with its tokenizer and an engine that batches requests.

    Calls may come from several threads; whoever waits for text moves the batch on for all.

    Args:
        model: an asset's name, a folder in Hugging Face layout (quantized or not), or a ``.gguf``
            file.
        dtype: of weights and activations, see :func:`resolve_dtype`; ``auto`` is bfloat16 where the
            device is fast at it.
        device: where it runs: ``cpu``, ``cuda``, ``cuda:1`` or a torch device; ``auto`` is the
            first CUDA device, if there is one.
        adapter: folder of a LoRA adapter to fold into the weights.
        loras: LoRA adapters that ``SamplingParams.adapter`` may name: folders by name.
        max_loras: adapters that may be loaded at the same time.
        max_batch: continuations that run at the same time.
        max_context: prompt and new tokens together, at most; default the model's context.
        max_batched_tokens: tokens of one round of the engine; longer prompts come in parts.
            Default 512 on the CPU, 8,192 elsewhere.
        kv_cache_memory: for keys and values, in bytes or such as ``"2GiB"``; default 40 % of the
            free memory, at most 4 GiB; on a CUDA device what 90 % of it has left.
        block_size: tokens of a block of keys and values.
        prefix_caching: reuse what is known of a prompt.
        aging: priority that a second of waiting is worth.
        speculate: guess tokens from the text itself, such as ``"ngram:k=4,n=3"``; None does not.
        kv_policy: what long prompts keep of their keys and values: ``full``, ``window``,
            ``sinks``, ``h2o``, ``snapkv``, ``knorm``, ``locret``, or an object.
        kv_budget: tokens whose keys and values each head keeps; with a policy's name.
        locret_heads: folder of trained heads, with ``locret``.

    Raises:
        AssetNotInstalled: the asset is not installed.
        MissingFileError: no such model, or it has no tokenizer.
        FileFormatError: the files are damaged or of an unsupported kind.
        ConfigError: a setting is out of range, or there is no such device.
        OutOfMemoryError: the model, or a round of it, does not fit the device.

    Example::

        llm = LLM("smollm2-135m-instruct")
        llm.chat([{"role": "user", "content": "Hi!"}], SamplingParams(max_tokens=16)).text
    """

    _engine_type: ClassVar[type[Engine]] = Engine

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str | torch.dtype = "auto",
        device: torch.device | str = "auto",
        adapter: str | Path | None = None,
        loras: Mapping[str, str | Path] | None = None,
        max_loras: int = 8,
        max_batch: int = 16,
        max_context: int | None = None,
        max_batched_tokens: int | None = None,
        kv_cache_memory: int | str | None = None,
        block_size: int = 16,
        prefix_caching: bool = True,
        aging: float = 0.0,
        speculate: str | Speculation | None = None,
        kv_policy: str | KVPolicy = "full",
        kv_budget: int | None = None,
        locret_heads: str | Path | None = None,
    ) -> None:
        if isinstance(speculate, str):
            speculate = Speculation.parse(speculate)
        cache_bytes = parse_bytes(kv_cache_memory) if kv_cache_memory is not None else None
        self.name = str(model) if not Path(model).exists() else Path(model).resolve().name
        self.tokenizer = load_tokenizer(model)
        self.pooling = pooling_of(resolve_model(model))
        device = resolve_device(device)
        loaded = load_model(
            model, dtype=resolve_dtype(dtype, device), device=device, adapter=adapter
        )
        self.spec = loaded.spec
        check_compatible(self.tokenizer, self.spec, str(model))
        eos_ids = set(self.spec.eos_token_ids)
        if self.tokenizer.eos_id is not None:
            eos_ids.add(self.tokenizer.eos_id)
        policy: KVPolicy | None
        if isinstance(kv_policy, KVPolicy):
            if kv_budget is not None or locret_heads is not None:
                raise ConfigError(
                    "kv_policy is an object, which has its own budget and heads: leave kv_budget "
                    "and locret_heads out."
                )
            policy = kv_policy
        else:
            policy = named_policy(kv_policy, loaded, budget=kv_budget, locret_heads=locret_heads)
        self.model = prepare_for_inference(loaded)
        self.engine = self._engine_type(
            self.model,
            self.tokenizer,
            eos_ids=frozenset(eos_ids),
            max_batch=max_batch,
            max_context=max_context,
            max_batched_tokens=max_batched_tokens,
            block_size=block_size,
            cache_bytes=cache_bytes,
            prefix_caching=prefix_caching,
            aging=aging,
            speculation=speculate,
            max_loras=max_loras,
            kv_policy=policy,
        )
        for name, folder in (loras or {}).items():
            self.engine.adapters.load(name, folder)
        self._lock = threading.RLock()

    @overload
    def generate(  # type: ignore[overload-overlap]
        self, prompts: str, params: SamplingParams | None = None
    ) -> RequestOutput: ...
    @overload
    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]: ...
    def generate(
        self,
        prompts: str | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> RequestOutput | list[RequestOutput]:
        """Continue prompts.

        Args:
            prompts: one text, or a list whose entries are texts or lists of token ids.
            params: how to continue, for all or one for each; default ``SamplingParams()``.

        Returns:
            One output for one text, a list for a list.

        Raises:
            DataError: a prompt is empty or does not fit the context.
            ConfigError: as many ``params`` as prompts are needed.
        """
        if isinstance(prompts, str):
            if params is not None and not isinstance(params, SamplingParams):
                raise ConfigError("one prompt takes one SamplingParams, not a list.")
            return self._complete([self.encode(prompts)], [params or SamplingParams()])[0]
        encoded = [self.encode(prompt) for prompt in prompts]
        return self._complete(encoded, _one_each(params, len(encoded), "prompts"))

    @overload
    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None
    ) -> RequestOutput: ...
    @overload
    def chat(
        self,
        messages: Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]: ...
    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> RequestOutput | list[RequestOutput]:
        """Answer a conversation, or several.

        Args:
            messages: ``{"role": ..., "content": ...}`` each, or a list of such lists.
            params: how to answer, for all or one for each.

        Returns:
            One output for one conversation, a list for several.

        Raises:
            DataError: the messages cannot be rendered, or the model has no chat template.
        """
        if not messages or isinstance(messages[0], Mapping):
            prompt = self.encode_chat(cast(Sequence[Message], messages))
            if params is not None and not isinstance(params, SamplingParams):
                raise ConfigError("one conversation takes one SamplingParams, not a list.")
            return self._complete([prompt], [params or SamplingParams()])[0]
        several = cast(Sequence[Sequence[Message]], messages)
        encoded = [self.encode_chat(conversation) for conversation in several]
        return self._complete(encoded, _one_each(params, len(encoded), "conversations"))

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Piece]:
        """Continue one prompt, giving pieces of text as they come; closing it stops the work."""
        return self._stream(self.encode(prompt), params or SamplingParams())

    def stream_chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None
    ) -> Iterator[Piece]:
        """Answer one conversation, giving pieces of text as they come."""
        return self._stream(self.encode_chat(messages), params or SamplingParams())

    @overload
    def embed(  # type: ignore[overload-overlap]
        self,
        texts: str,
        *,
        pooling: Pooling | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        adapter: str | None = None,
    ) -> EmbeddingOutput: ...
    @overload
    def embed(
        self,
        texts: Sequence[Prompt],
        *,
        pooling: Pooling | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        adapter: str | None = None,
    ) -> list[EmbeddingOutput]: ...
    def embed(
        self,
        texts: str | Sequence[Prompt],
        *,
        pooling: Pooling | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        adapter: str | None = None,
    ) -> EmbeddingOutput | list[EmbeddingOutput]:
        """Vectors of texts.

        Args:
            texts: one text, or a list whose entries are texts or lists of token ids.
            pooling: ``last`` or ``mean``; default what the model's folder says, else ``last``.
            dimensions: only so many of the first numbers.
            normalize: make them of length 1.
            adapter: name of a LoRA adapter.

        Returns:
            One output for one text, a list for a list.

        Raises:
            DataError: a text is empty or does not fit the context.
            ConfigError: ``dimensions`` is out of range, or there is no such adapter.
        """
        if dimensions is not None and not 1 <= dimensions <= self.spec.hidden_size:
            raise ConfigError(f"dimensions={dimensions} must be from 1 to {self.spec.hidden_size}.")
        is_one = isinstance(texts, str)
        prompts = [self.encode(text) for text in ([texts] if isinstance(texts, str) else texts)]
        jobs: list[Embedding] = []
        try:
            for prompt in prompts:
                jobs.append(
                    self.engine.embed(
                        prompt,
                        lambda job: None,
                        pooling=pooling or self.pooling,
                        adapter=adapter,
                    )
                )
            while not all(job.finished for job in jobs):
                self._move()
        except BaseException:
            self.engine.cancel(jobs)
            raise
        outputs = []
        for job in jobs:
            if job.vector is None:
                raise ExecutionError(f"embedding failed: {job.error}")
            vector = finish_vector(job.vector, dimensions, normalize=normalize)
            outputs.append(EmbeddingOutput(prompt_ids=job.prompt_ids, embedding=vector.tolist()))
        return outputs[0] if is_one else outputs

    def update_weights(self, model: DecoderLM) -> None:
        """Take over the weights that a model has now, in place, such as those of a training.

        Args:
            model: of the same shape, in any float type; adapters are folded in. It stays as it is.

        Raises:
            ExecutionError: requests are under way.
            ConfigError: the model is of another shape, or the weights here are compressed.
        """
        with self._lock:
            self.engine.forget_prefixes()
            self.model.copy_weights(model)

    def encode(self, prompt: Prompt, *, add_special: bool = True) -> list[int]:
        """Token ids of a prompt.

        Args:
            prompt: a text, or token ids, which stay as they are.
            add_special: also add what the tokenizer puts around a text.

        Raises:
            DataError: the text holds half a character.
        """
        if not isinstance(prompt, str):
            return [int(token) for token in prompt]
        return self.tokenizer.encode(_whole(prompt), add_special=add_special)

    def encode_chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Token ids of a conversation, ending where the assistant's turn begins.

        Args:
            messages: ``{"role": ..., "content": ...}`` each.
            tools: functions for the chat template, in OpenAI's form.
        """
        checked = check_messages(messages)
        text = render_chat(self.tokenizer, checked, add_generation_prompt=True, tools=tools)
        return self.tokenizer.encode(_whole(text))

    def _complete(
        self, prompts: list[list[int]], params: list[SamplingParams]
    ) -> list[RequestOutput]:
        for prompt, one in zip(prompts, params, strict=True):
            self.engine.check(prompt, one)
        pieces: list[deque[Piece]] = [deque() for _ in prompts]
        submitted = [
            self.engine.submit(prompt, one, box.append)
            for prompt, one, box in zip(prompts, params, pieces, strict=True)
        ]
        flat = [sequence for sequences in submitted for sequence in sequences]
        try:
            while not all(sequence.finished for sequence in flat):
                self._move()
        except BaseException:
            self.engine.cancel(flat)
            raise
        return [
            RequestOutput(
                prompt=self.tokenizer.decode(prompt, skip_special=False),
                prompt_ids=prompt,
                outputs=_collect(box, one),
                prompt_logprobs=(
                    [scored for piece in box for scored in piece.prompt_logprobs][: len(prompt)]
                    if one.prompt_logprobs is not None
                    else None
                ),
            )
            for prompt, box, one in zip(prompts, pieces, params, strict=True)
        ]

    def _stream(self, prompt: list[int], params: SamplingParams) -> Iterator[Piece]:
        pieces: deque[Piece] = deque()
        sequences = self.engine.submit(prompt, params, pieces.append)

        def iterate() -> Iterator[Piece]:
            try:
                while pieces or not all(sequence.finished for sequence in sequences):
                    if not pieces:
                        self._move()
                        continue
                    piece = pieces.popleft()
                    if piece.finish_reason == "error":
                        raise ExecutionError(f"generation failed: {piece.error}")
                    yield piece
            finally:
                self._cancel(sequences)

        return iterate()

    def _move(self) -> None:
        with self._lock:
            self.engine.step()

    def _cancel(self, sequences: list[Continuation]) -> None:
        if not all(sequence.finished for sequence in sequences):
            self.engine.cancel(sequences)


def _whole(text: str) -> str:
    """``text``, unless it holds half a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text has the lone surrogate \\u{ord(text[error.start]):04x}, which is half a "
            "character."
        ) from None
    return text


def _one_each(
    params: SamplingParams | Sequence[SamplingParams] | None, count: int, what: str
) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if len(params) != count:
        raise ConfigError(f"{len(params)} SamplingParams for {count} {what}: give one, or as many.")
    return list(params)


def _collect(pieces: Sequence[Piece], params: SamplingParams) -> list[Completion]:
    """Put the pieces of each continuation together."""
    found = []
    for index in range(params.n):
        own = [piece for piece in pieces if piece.index == index]
        reason = own[-1].finish_reason
        assert reason is not None
        if reason == "error":
            raise ExecutionError(f"generation failed: {own[-1].error}")
        logprobs = [logprob for piece in own for logprob in piece.logprobs]
        found.append(
            Completion(
                text="".join(piece.text for piece in own),
                ids=[token for piece in own for token in piece.ids],
                finish_reason=reason,
                index=index,
                logprobs=logprobs if params.logprobs is not None else None,
            )
        )
    return found
