"""A reward model's score as the reward of a completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from sharpen.align.rewards.registry import Meta
from sharpen.align.rows.batches import row_batch
from sharpen.align.rows.parse import Row, Text
from sharpen.align.rows.tokens import TokenRow, prompt_ids, tokenize_rows
from sharpen.align.score_model import load_score_model
from sharpen.align.scoring import states_of
from sharpen.core.errors import ConfigError
from sharpen.models.decoder import DecoderLM
from sharpen.models.tokenizer import Tokenizer, load_tokenizer

__all__ = ["ScoreModel"]


@dataclass(frozen=True, kw_only=True)
class ScoreModel:
    """The score of prompt and completion by a reward model (``sharpen align rm``).

    Texts are made tokens as they were for the reward model: each is read to its end token. Those of
    a call are laid end to end, without padding. The model is loaded at the first call, once in each
    process; give ``reward.chunk`` more than 1 sample a call.
    """

    path: str
    """Folder of the reward model."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of its weights."""

    batch: int = 32
    """Samples of a forward pass."""

    chat: bool = False
    """Put plain texts into the turns of its chat template, as when it was made."""

    _loaded: list[tuple[DecoderLM, Tokenizer]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.path or self.batch < 1:
            raise ConfigError(
                f"path={self.path!r} of the reward 'score_model' must be a folder and batch="
                f"{self.batch} at least 1."
            )

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Meta]
    ) -> list[float | None]:
        """The reward of each completion; None where it is too long for the model."""
        model, tokenizer = self._model()
        tokens = [
            self._tokens(prompt, text, tokenizer, model.spec.max_positions)
            for prompt, text in zip(prompts, completions, strict=True)
        ]
        fits = [i for i, row in enumerate(tokens) if row is not None]
        found: list[float | None] = [None] * len(tokens)
        for first in range(0, len(fits), self.batch):
            part = fits[first : first + self.batch]
            scores = _scores(model, [row for i in part if (row := tokens[i]) is not None])
            for i, score in zip(part, scores, strict=True):
                found[i] = score
        return found

    def _model(self) -> tuple[DecoderLM, Tokenizer]:
        if not self._loaded:
            dtype = torch.bfloat16 if self.dtype == "bfloat16" else torch.float32
            model = load_score_model(self.path, dtype=dtype)
            self._loaded.append((model, load_tokenizer(self.path)))
        return self._loaded[0]

    def _tokens(self, prompt: Text, text: str, tokenizer: Tokenizer, limit: int) -> TokenRow | None:
        """The sample as a row of training; None where it is too long."""
        plain = isinstance(prompt, str)
        answer: Text = text if plain else ({"role": "assistant", "content": text},)
        row = Row(where="a sample", kind="completion", prompt=prompt, completions=(answer,))
        if plain and not self.chat and not tokenizer.encode(text):  # it ended at once
            ids = prompt_ids(prompt, tokenizer)
            end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
            none = not ids + end or len(ids) + len(end) > limit
            tokens = TokenRow(row=row, prompt=ids, completions=[end], masks=[[True] * len(end)])
            return None if none else tokens
        found = tokenize_rows(
            [row], tokenizer, max_length=limit, on_long="drop", use_template=self.chat
        )
        return found.rows[0] if found.rows else None


@torch.no_grad()
def _scores(model: DecoderLM, rows: Sequence[TokenRow]) -> list[float]:
    batch = row_batch(rows)
    score = model.get_submodule("score")
    last = states_of(model, batch).last(batch)
    found: list[float] = score(last.to(model.lm_head.weight.dtype)).float().squeeze(-1).tolist()
    return found
