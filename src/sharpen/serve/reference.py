"""What a monitored model is expected to be asked: typical prompts, reduced to counts.

For each prompt a :class:`Reference` keeps its length in tokens, the count of its tokens in 128
buckets (64 for the most common tokens of all prompts, 64 for the others, by id modulo 64) and its
loss under the model. The prompts themselves are not kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.core.files import atomic_write_text

if TYPE_CHECKING:
    from sharpen.models.generation import CausalModel
    from sharpen.serve.llm import LLM

__all__ = [
    "Observation",
    "Prompt",
    "Reference",
    "bucket_counts",
    "encode_prompt",
    "held_out_prompts",
    "make_reference",
    "prompt_nats",
    "read_prompts",
]

COMMON = 64
Prompt = str | list[dict[str, Any]]
_FORMAT = 1
_OTHERS = 64
_LEAST = 40  # prompts of a reference
_SCORED_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Observation:
    """What is kept of a prompt."""

    length: int
    """In tokens."""

    buckets: Mapping[int, int]
    """Count of tokens by bucket."""

    nats: float | None = None
    """Mean loss a token under the model; None when it was not scored."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Typical prompts, reduced to what is compared; made by :meth:`of` or :meth:`load`."""

    tokenizer: str
    """Fingerprint of the tokenizer that the counts belong to."""

    common: tuple[int, ...]
    """Tokens with a bucket of their own, the most common first."""

    prompts: tuple[Observation, ...] = field(repr=False)
    """One for each prompt."""

    @classmethod
    def of(
        cls, prompts: Sequence[Sequence[int]], nats: Sequence[float | None], *, tokenizer: str
    ) -> Reference:
        """Reduce prompts in token ids.

        Args:
            prompts: at least 40, none empty; more make smaller shifts visible.
            nats: of each, from :func:`prompt_nats`, or None.
            tokenizer: fingerprint.

        Raises:
            DataError: too few prompts, or an empty one.
        """
        if len(prompts) < _LEAST or not all(len(ids) for ids in prompts):
            raise DataError(
                f"a monitoring reference needs at least {_LEAST} prompts, none of them empty; got "
                f"{len(prompts)}."
            )
        counts = Counter(token for ids in prompts for token in ids)
        common = tuple(sorted(counts, key=lambda token: (-counts[token], token))[:COMMON])
        ranks = _ranks(common)
        rows = [_reduce(ids, ranks, one) for ids, one in zip(prompts, nats, strict=True)]
        return cls(tokenizer, common, tuple(rows))

    def observe(self, ids: Sequence[int], nats: float | None = None) -> Observation:
        """Reduce a live prompt of token ids in the same way."""
        return _reduce(ids, _ranks(self.common), nats)

    def save(self, path: str | Path) -> None:
        """Write it as JSON; an existing file is replaced whole."""
        rows = [[o.length, o.nats, sorted(o.buckets.items())] for o in self.prompts]
        document = {
            "format_version": _FORMAT,
            "tokenizer": self.tokenizer,
            "common": list(self.common),
            "prompts": rows,
        }
        atomic_write_text(Path(path), json.dumps(document, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read what :meth:`save` wrote.

        Raises:
            MissingFileError: no such file.
            FileFormatError: damaged, or of another format.
        """
        data = read_json(Path(path), "monitoring reference")
        try:
            if data["format_version"] != _FORMAT:
                raise ValueError(f"format_version is {data['format_version']!r}, not {_FORMAT}")
            prompts = tuple(_parsed(*row) for row in data["prompts"])
            if len(prompts) < _LEAST:
                raise ValueError(f"it has {len(prompts)} prompts")
            return cls(str(data["tokenizer"]), tuple(int(t) for t in data["common"]), prompts)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FileFormatError(f"{path} is not a monitoring reference: {error}") from None

    def check(self, tokenizer: str) -> None:
        """Refuse a tokenizer whose ids mean something else.

        Raises:
            ConfigError: the fingerprints differ.
        """
        if tokenizer != self.tokenizer:
            raise ConfigError(
                "the monitoring reference was made with another tokenizer than the model's. Make "
                "it again with 'sharpen monitor reference'."
            )


def _ranks(common: Sequence[int]) -> dict[int, int]:
    return {token: rank for rank, token in enumerate(common)}


def _reduce(ids: Sequence[int], ranks: Mapping[int, int], nats: float | None) -> Observation:
    buckets = Counter(ranks.get(token, COMMON + token % _OTHERS) for token in ids)
    return Observation(len(ids), dict(buckets), nats)


def _parsed(length: Any, nats: Any, pairs: Any) -> Observation:
    buckets = {int(bucket): int(count) for bucket, count in pairs}
    if not all(0 <= b < COMMON + _OTHERS and c > 0 for b, c in buckets.items()):
        raise ValueError("a bucket or a count is out of range")
    if int(length) != sum(buckets.values()) or int(length) < 1:
        raise ValueError(f"a length of {length} is not the sum of its counts")
    return Observation(int(length), buckets, None if nats is None else float(nats))


def bucket_counts(prompts: Sequence[Observation]) -> NDArray[np.float64]:
    """Counts of tokens by bucket, [N, 128], one row a prompt."""
    counts = np.zeros((len(prompts), COMMON + _OTHERS))
    for row, prompt in zip(counts, prompts, strict=True):
        row[list(prompt.buckets)] = list(prompt.buckets.values())
    return counts


def prompt_nats(model: CausalModel, ids: Sequence[int]) -> float | None:
    """Mean nats of a prompt's tokens under ``model``, each predicted from those before it.

    Args:
        model: in evaluation mode.
        ids: the prompt; only its first 128 tokens count.

    Returns:
        The mean, or None for a single token.
    """
    import torch
    import torch.nn.functional as F

    ids = list(ids[:_SCORED_TOKENS])
    if len(ids) < 2:
        return None
    with torch.inference_mode():
        cache = model.new_cache(1, capacity=len(ids))
        tokens = torch.tensor([ids], device=cache.device)
        logits = model(tokens, cache=cache)[0, :-1].float()
        return float(F.cross_entropy(logits, tokens[0, 1:]))


def read_prompts(path: str | Path) -> list[Prompt]:
    """Prompts of a JSONL file: rows with ``messages`` (a conversation) or ``prompt`` (a text).

    Raises:
        MissingFileError: no such file.
        DataError: a row that is neither; the message names its line.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no such file of prompts: {path}")
    prompts: list[Prompt] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from None
        found = (row.get("messages") or row.get("prompt")) if isinstance(row, dict) else None
        if not isinstance(found, str | list):
            raise DataError(f"{path}:{number}: a row needs 'messages' (a list) or 'prompt' (text).")
        prompts.append(found)
    return prompts


def held_out_prompts(path: Path, limit: int, *, chat: bool) -> list[Prompt]:
    """Prompts of a data set's held-out examples, as clients would send them.

    Args:
        path: the data set's ``valid.jsonl``.
        limit: at most so many.
        chat: a prompt becomes a user's turn.
    """
    prompts: list[Prompt] = []
    for line in path.read_bytes().splitlines()[:limit]:
        row = json.loads(line.decode("utf-8"))
        if "messages" in row:
            turns = row["messages"]
            last = max(i for i, turn in enumerate(turns) if turn["role"] == "assistant")
            prompts.append(turns[:last])
        elif "prompt" in row and chat:
            prompts.append([{"role": "user", "content": row["prompt"]}])
        else:
            prompts.append(row.get("prompt") or row["text"])
    return prompts


def encode_prompt(llm: LLM, prompt: Prompt) -> list[int]:
    """Token ids of a text or a conversation, as the server encodes them."""
    return llm.encode(prompt) if isinstance(prompt, str) else llm.encode_chat(prompt)


def make_reference(llm: LLM, prompts: Sequence[Prompt]) -> Reference:
    """Reduce typical prompts to a reference for ``llm``.

    Args:
        llm: the model as it will be served.
        prompts: texts or conversations, at least 40.

    Raises:
        DataError: too few, an empty one, or messages that cannot be rendered.
    """
    encoded = [encode_prompt(llm, prompt) for prompt in prompts]
    nats = [prompt_nats(llm.model, ids) for ids in encoded]
    return Reference.of(encoded, nats, tokenizer=llm.tokenizer.fingerprint)
