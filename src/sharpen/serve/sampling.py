"""How the next token is chosen from logits: penalties, temperature, truncation, one draw.

For a row of logits l [V], prompt tokens P and generated tokens with counts c::

    1. repetition (Keskar et al., CTRL, 2019, arXiv 1909.05858), tokens of P and the output:
           l_i <- l_i / r  if l_i > 0 else  l_i * r
    2. frequency and presence, tokens of the output:   l_i <- l_i - f c_i - p [c_i > 0]
    3. bias:                                           l_i <- l_i + b_i
    4. temperature, top-k, top-p, min-p, and one draw with u ~ U[0, 1):  draw.py

One number u a token, a hash of the request's seed and the token's place, so a seeded request gives
the same text whatever else is in the batch. Temperature 0 takes the largest logit after step 3.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.serve.draw import Draw, draw
from sharpen.serve.grammar import Grammar

__all__ = ["Sampler", "SamplingParams", "penalize"]

_LARGEST = Draw()


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How one request is continued; the names and defaults are those of the OpenAI API."""

    temperature: float = 1.0
    """0 takes the most likely token; up to 2."""

    top_k: int = 0
    """Only the k most likely tokens; 0 for all."""

    top_p: float = 1.0
    """Only the fewest most likely tokens whose probability reaches this, in (0, 1]."""

    min_p: float = 0.0
    """Only tokens of at least this part of the largest probability, in [0, 1]."""

    seed: int | None = None
    """The same seed gives the same text; None draws one."""

    stop: str | tuple[str, ...] = ()
    """Texts that end the continuation; they are not part of it."""

    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the continuation, besides the model's own end of sequence."""

    max_tokens: int = 256
    """At most so many new tokens."""

    min_tokens: int = 0
    """No end of sequence or stop token before so many tokens."""

    logprobs: int | None = None
    """Give each token's log-probability and those of so many most likely ones, 0 to 20."""

    prompt_logprobs: int | None = None
    """The same for the prompt's tokens; their keys and values are then computed anew."""

    n: int = 1
    """Number of continuations, each from a generator of its own."""

    ignore_eos: bool = False
    """Go on past the end of sequence."""

    repetition_penalty: float = 1.0
    """Above 1 makes tokens of the prompt and the output less likely."""

    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens already generated, -2 to 2."""

    frequency_penalty: float = 0.0
    """Subtracted once for each time a token was generated, -2 to 2."""

    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these tokens, -100 to 100."""

    priority: float = 0.0
    """Requests of a smaller one go first."""

    cache_salt: str = ""
    """Only requests of the same one share what is known of a prompt."""

    adapter: str | None = None
    """Name of the LoRA adapter to continue with; None for the model as it is."""

    grammar: Grammar | None = None
    """What the text must be; its end comes before ``min_tokens`` where nothing else may follow."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check("temperature", self.temperature, 0, 2)
        _check("top_k", self.top_k, 0)
        _check("top_p", self.top_p, 0, 1)
        if self.top_p == 0:
            raise ConfigError("top_p=0 leaves no token. Use temperature=0 for the most likely one.")
        _check("min_p", self.min_p, 0, 1)
        _check("max_tokens", self.max_tokens, 1)
        _check("min_tokens", self.min_tokens, 0, self.max_tokens)
        _check("n", self.n, 1, 128)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 0, 20)
        if not 0 < self.repetition_penalty <= 10:
            raise ConfigError(
                f"repetition_penalty={self.repetition_penalty} must be above 0 and at most 10; "
                "1 is none."
            )
        _check("presence_penalty", self.presence_penalty, -2, 2)
        _check("frequency_penalty", self.frequency_penalty, -2, 2)
        for bias in self.logit_bias.values():
            _check("logit_bias", bias, -100, 100)
        _check("priority", self.priority, -1e9, 1e9)
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if not all(stop):
            raise ConfigError(f"stop={self.stop!r} must hold non-empty texts.")
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))

    @property
    def is_greedy(self) -> bool:
        """Whether the largest raw logit is taken."""
        return self.temperature == 0 and not self.changes_logits

    @property
    def changes_logits(self) -> bool:
        """Whether penalties or biases apply."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
            or bool(self.logit_bias)
        )


def _check(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value <= high:
        limits = f"at least {low}" if math.isinf(high) else f"from {low} to {high}"
        raise ConfigError(f"{name}={value} must be {limits} (SamplingParams).")


def penalize(
    logits: Tensor, prompt_ids: Sequence[int], counts: Mapping[int, int], params: SamplingParams
) -> Tensor:
    """Steps 1 to 3.

    Args:
        logits: [V] float.
        prompt_ids: the prompt's tokens.
        counts: how often each token was generated.
        params: the penalties and biases.

    Returns:
        [V] float32, a new tensor.
    """
    logits = logits.float().clone()
    if params.repetition_penalty != 1:
        seen = torch.tensor(sorted({*prompt_ids, *counts}), dtype=torch.int64)
        values, r = logits[seen], params.repetition_penalty
        logits[seen] = torch.where(values > 0, values / r, values * r)
    if counts and (params.presence_penalty or params.frequency_penalty):
        ids = torch.tensor(list(counts), dtype=torch.int64)
        times = torch.tensor(list(counts.values()), dtype=torch.float32)
        logits[ids] -= params.frequency_penalty * times + params.presence_penalty
    for token, bias in params.logit_bias.items():
        logits[token] += bias
    return logits


def _uniform(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, the same on every machine."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) / 2**64


class Sampler:
    """Chooses tokens for one continuation.

    Args:
        params: how.
        prompt_ids: the prompt's tokens.
        choice: which of ``params.n`` continuations this is; each has its own generator.
        blocked: tokens that may not come before ``params.min_tokens``.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: Sequence[int] = (),
        *,
        choice: int = 0,
        blocked: Sequence[int] = (),
    ) -> None:
        self.params = params
        self._prompt_ids = tuple(prompt_ids) if params.repetition_penalty != 1 else ()
        self._counts: Counter[int] = Counter()
        self._num = 0
        self._changes = params.changes_logits
        self._blocked = list(blocked)
        always_largest = params.temperature == 0 and not self._changes and not blocked
        self._always = _LARGEST if always_largest else None
        seed = params.seed if params.seed is not None else random.SystemRandom().getrandbits(63)
        self._seed = f"{seed}/{choice}/"

    def choose(self, logits: Tensor) -> int:
        """The next token from logits [V]; remembers it for the penalties."""
        params = self.params
        if self._changes:
            logits = penalize(logits, self._prompt_ids, self._counts, params)
        if self._blocked and self._num < params.min_tokens:
            logits = logits.clone()
            logits[self._blocked] = -math.inf
        token = draw(logits[None], [self._draw(0)])[0]
        assert token is not None
        self.note(token)
        return token

    def note(self, token: int) -> None:
        """Remember a token that was drawn elsewhere, with those of a whole batch."""
        self._num += 1
        if self._changes:
            self._counts[token] += 1

    def drawn(self, ahead: int = 0) -> Draw | None:
        """How :meth:`choose` draws from the model's own logits; None where it changes them first.

        Args:
            ahead: tokens that will have been chosen before.
        """
        if self._always is not None:
            return self._always
        early = self._blocked and self._num + ahead < self.params.min_tokens
        return None if self._changes or early else self._draw(ahead)

    def _draw(self, ahead: int) -> Draw:
        params = self.params
        if params.temperature == 0:
            return _LARGEST
        return Draw(
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            u=_uniform(f"{self._seed}{self._num + ahead}"),
        )
