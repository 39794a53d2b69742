"""What the loop asks of whatever generates completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sharpen.models.decoder import DecoderLM
from sharpen.serve.sampling import SamplingParams

__all__ = ["Engine", "Generated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One completion, as the engine sampled it."""

    token_ids: list[int]
    """Its tokens, the one that ended the text included; never encoded anew from the text."""

    text: str
    """Without the token that ended it."""

    finish_reason: str
    """``stop``: the end of the text was generated; ``length``: cut off."""

    logprobs: list[float] | None = None
    """Of each token, by the engine, where it was asked for and can tell; the ending one's is
    left out."""


class Engine(Protocol):
    """Generates completions with some version of the weights."""

    version: int
    """Of the weights; -1 before any were handed over."""

    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
    ) -> list[Generated]:
        """Continue prompts, each with parameters of its own; in their order."""

    def update_weights(self, model: DecoderLM, version: int) -> None:
        """Take over the weights that ``model`` has now."""

    def close(self) -> None:
        """Let go of what it holds."""
