"""Training of Locret's retaining heads on texts with answers; the model stays frozen.

Huang et al., 2024, arXiv 2410.01805, section 3.2. For an example of prompt and answer, in each
layer and key/value head, with queries and keys as attention uses them::

    y_t  = max over answer tokens i and query heads of the group of    q_i . k_t / sqrt(D)
    loss = mean over t, heads, layers of SmoothL1(s_t, y_t)
           + 0.0025 sum over layers of mean (s_t - s_(t+1))^2

t runs over the prompt. The text is read once by full attention; each layer's labels, loss and
gradients are made while that layer is at hand, so only one layer's projections are held. AdamW,
gradients clipped by value, the rate rises linearly for two thirds of the steps, then falls.

Differs from the paper: float32 instead of bfloat16 autocast; a prompt that is too long loses its
middle, not its end.

Time: a forward pass and the heads a step. Memory: the model, the heads three more times, keys and
values of one text; of logits only the rows of 16 answer tokens at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from sharpen.compress.kv.locret import RetainingHeads, save_heads
from sharpen.core.config import read_json, to_dict
from sharpen.core.errors import ConfigError, DataError
from sharpen.core.files import FileLock, atomic_dir, atomic_write_json
from sharpen.models.decode import InferenceLM
from sharpen.models.hf import save_tensors
from sharpen.models.paged import PagedPart, Seen

__all__ = [
    "AnsweredText",
    "HeadsStep",
    "LocretConfig",
    "answer_labels",
    "make_heads",
    "overlap",
    "train_heads",
]

_ROWS = 16
_TOP = 0.1


@dataclass(frozen=True, slots=True)
class AnsweredText:
    """A prompt and its answer."""

    prompt: Sequence[int]
    """Tokens that may be dropped."""

    answer: Sequence[int]
    """Tokens that look back at them, at least one."""

    def fitted(self, most: int) -> AnsweredText:
        """The same within so many tokens: the prompt loses its middle."""
        answer = list(self.answer[: most // 2])
        room = most - len(answer)
        if len(self.prompt) <= room:
            return AnsweredText(self.prompt, answer)
        prompt = list(self.prompt)
        return AnsweredText(prompt[: room // 2] + prompt[room // 2 - room :], answer)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocretConfig:
    """Training of the heads; defaults are the paper's."""

    hidden: int = 1024
    """Width of a head."""

    steps: int = 3000
    """One text each; they repeat when there are fewer."""

    learning_rate: float = 5e-4
    """Highest rate of AdamW."""

    warmup: float = 2 / 3
    """Share of the steps in which the rate rises."""

    smoothness: float = 0.0025
    """Weight of the difference between neighbours."""

    clip: float = 0.5
    """Largest value of a gradient."""

    weight_decay: float = 0.01
    """Of AdamW."""

    max_tokens: int = 10240
    """Of a text."""

    seed: int = 42
    """Of the weights and the order of the texts."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, least in (
            ("hidden", self.hidden, 1),
            ("steps", self.steps, 1),
            ("max_tokens", self.max_tokens, 4),
        ):
            if value < least:
                raise ConfigError(f"{name}={value} must be at least {least}.")
        for name, number in (("learning_rate", self.learning_rate), ("clip", self.clip)):
            if not number > 0:
                raise ConfigError(f"{name}={number} must be above 0.")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup={self.warmup} must be at least 0 and below 1.")
        if self.smoothness < 0 or self.weight_decay < 0:
            raise ConfigError(
                f"smoothness={self.smoothness} and weight_decay={self.weight_decay} must be at "
                "least 0."
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = self.warmup * self.steps
        if step < rising:
            return self.learning_rate * step / rising
        return self.learning_rate * (self.steps - step) / (self.steps - rising)


@dataclass(frozen=True, slots=True)
class HeadsStep:
    """What a step tells."""

    step: int
    """Counted from 1."""

    loss: float
    """With the term of smoothness."""

    overlap: float
    """Share of the tenth of units with the highest labels that also have the highest scores."""


def answer_labels(seen: Seen, prompt: int) -> Tensor:
    """Labels of one layer of a text read in one part.

    Args:
        seen: all of the text, from position 0.
        prompt: tokens before the answer.

    Returns:
        [K, prompt] float32.
    """
    keys = seen.keys()[:, :prompt].float()
    kv_heads, _, size = keys.shape
    answers = seen.q[prompt:].float().view(seen.q.shape[0] - prompt, kv_heads, -1, size)
    labels = keys.new_full(keys.shape[:2], -torch.inf)
    for start in range(0, answers.shape[0], _ROWS):
        rows = answers[start : start + _ROWS].transpose(0, 1).flatten(1, 2)
        logits = rows @ keys.transpose(1, 2) / size**0.5
        labels = torch.maximum(labels, logits.amax(1))
    return labels


def overlap(scores: Tensor, labels: Tensor, share: float = _TOP) -> Tensor:
    """Of the highest labels [K, P], the share that also has the highest scores, mean over heads."""
    count = max(1, int(share * labels.shape[1]))
    found = torch.zeros_like(labels, dtype=torch.bool)
    found.scatter_(1, labels.topk(count, 1).indices, True)
    return found.gather(1, scores.topk(count, 1).indices).float().mean()


class _Lesson:
    """Watches one text: losses of all layers, and gradients where asked for."""

    def __init__(
        self, heads: RetainingHeads, prompt: int, smoothness: float, *, learns: bool
    ) -> None:
        self._heads, self._prompt, self._learns = heads, prompt, learns
        self._smoothness = smoothness
        self._loss: list[Tensor] = []
        self._overlap: list[Tensor] = []

    @property
    def loss(self) -> float:
        """Of all layers; read once, for it waits for the device."""
        return float(torch.stack(self._loss).sum())

    @property
    def overlap(self) -> float:
        """Mean over layers; see :func:`overlap`."""
        return float(torch.stack(self._overlap).mean())

    def __call__(self, seen: Seen) -> None:
        layers = len(self._heads.layers)
        labels, qkv = answer_labels(seen, self._prompt), seen.qkv[: self._prompt]
        with torch.inference_mode(False), torch.set_grad_enabled(self._learns):
            labels = labels.clone()
            scores = self._heads.layers[seen.layer](qkv.clone())
            loss = F.smooth_l1_loss(scores, labels) / layers
            if scores.shape[1] > 1:
                loss = loss + self._smoothness * F.mse_loss(scores[:, :-1], scores[:, 1:])
            if self._learns:
                loss.backward()  # type: ignore[no-untyped-call]
        self._loss.append(loss.detach())
        self._overlap.append(overlap(scores.detach(), labels))


def read_lesson(
    model: InferenceLM,
    heads: RetainingHeads,
    text: AnsweredText,
    smoothness: float,
    *,
    learns: bool,
) -> _Lesson:
    """Read a text once; with ``learns``, gradients are added to those of the heads."""
    ids = [*text.prompt, *text.answer]
    lesson = _Lesson(heads, len(text.prompt), smoothness, learns=learns)
    cache = model.new_paged_cache(1, len(ids))
    model.paged([PagedPart(ids, 0, [0], wanted=0, watcher=lesson)], cache)
    return lesson


def train_heads(
    model: InferenceLM,
    texts: Sequence[AnsweredText],
    config: LocretConfig | None = None,
    *,
    fingerprint: str = "",
    work: Path | None = None,
    save_every: int = 50,
    on_step: Callable[[HeadsStep], None] | None = None,
) -> RetainingHeads:
    """Train retaining heads.

    Args:
        model: prepared for inference; not changed.
        texts: with prompts of at least two tokens and an answer.
        config: how.
        fingerprint: of the model, kept with the heads.
        work: folder for what a resumed training needs; the same call goes on there.
        save_every: steps between two writes of it.
        on_step: is told of every step, not of those that an earlier call has done.

    Raises:
        ConfigError: the folder ``work`` belongs to another training.
        DataError: no texts, or one without prompt or answer.
    """
    config = config or LocretConfig()
    _check(texts)
    heads = RetainingHeads(model.spec, config.hidden, fingerprint=fingerprint)
    heads.init_weights(config.seed)
    heads.to(model.device)
    optimizer = torch.optim.AdamW(
        heads.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=config.weight_decay
    )
    progress = _Progress(
        work, {"config": to_dict(config), "texts": len(texts), "model": fingerprint}
    )
    for step in range(progress.restore(heads, optimizer), config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step)
        text = texts[_order(step, len(texts), config.seed)].fitted(config.max_tokens)
        optimizer.zero_grad()
        lesson = read_lesson(model, heads, text, config.smoothness, learns=True)
        torch.nn.utils.clip_grad_value_(heads.parameters(), config.clip)
        optimizer.step()
        if (step + 1) % save_every == 0:
            progress.save(heads, optimizer, step + 1)
        if on_step is not None:
            on_step(HeadsStep(step + 1, lesson.loss, lesson.overlap))
    optimizer.zero_grad()
    return heads.eval()


def make_heads(
    model: InferenceLM,
    texts: Sequence[AnsweredText],
    folder: str | Path,
    config: LocretConfig | None = None,
    *,
    fingerprint: str = "",
    on_step: Callable[[HeadsStep], None] | None = None,
) -> RetainingHeads:
    """Train heads into a folder, which appears whole; interrupted, the same call goes on.

    Arguments and errors are those of :func:`train_heads`; what it needs to go on lies in a hidden
    folder beside.

    Args:
        model: prepared for inference.
        texts: prompts with answers.
        folder: replaced if it exists.
        config: how.
        fingerprint: of the model.
        on_step: is told of every step.

    Raises:
        BusyError: another process makes the same folder.
    """
    folder, config = Path(folder), config or LocretConfig()
    partial = folder.parent / f".{folder.name}.partial"
    with FileLock(partial / "lock", f"the training of {folder.name}"):
        heads = train_heads(
            model,
            texts,
            config,
            fingerprint=fingerprint,
            work=partial / "progress",
            on_step=on_step,
        )
        save_heads(heads, folder, training=to_dict(config), texts=len(texts))
    shutil.rmtree(partial, ignore_errors=True)
    return heads


def _check(texts: Iterable[AnsweredText]) -> None:
    count = 0
    for number, text in enumerate(texts, start=1):
        count += 1
        if len(text.prompt) < 2 or not text.answer:
            raise DataError(
                f"text {number} has {len(text.prompt)} prompt and {len(text.answer)} answer "
                "tokens; at least 2 and 1 are needed."
            )
    if not count:
        raise DataError("there are no texts to train the heads on.")


def _order(step: int, count: int, seed: int) -> int:
    """Which text a step reads: every round over them is shuffled on its own."""
    generator = torch.Generator().manual_seed(seed + step // count)
    return int(torch.randperm(count, generator=generator)[step % count])


class _Progress:
    """Heads and the optimizer's states on disk, or nowhere."""

    def __init__(self, folder: Path | None, key: dict[str, object]) -> None:
        self._folder = folder
        self._key = key

    def restore(self, heads: RetainingHeads, optimizer: torch.optim.Optimizer) -> int:
        """Steps that are done."""
        if self._folder is None or not (self._folder / "progress.json").is_file():
            return 0
        known = read_json(self._folder / "progress.json", "progress of the training")
        if known["key"] != self._key:
            raise ConfigError(
                f"{self._folder} holds the training of heads with other settings, texts or model. "
                f"Remove {self._folder.parent}, or give the settings it was begun with."
            )
        stored = load_file(self._folder / "progress.safetensors")
        with torch.no_grad():
            for name, parameter in heads.named_parameters():
                parameter.copy_(stored[name])
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(known["step"])),
                    "exp_avg": stored[f"{name}.first"].to(parameter.device),
                    "exp_avg_sq": stored[f"{name}.second"].to(parameter.device),
                }
        return int(known["step"])

    def save(self, heads: RetainingHeads, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Write them; the folder appears whole."""
        if self._folder is None:
            return
        tensors = {}
        for name, parameter in heads.named_parameters():
            state = optimizer.state[parameter]
            tensors[name] = parameter.detach().cpu().contiguous()
            tensors[f"{name}.first"] = state["exp_avg"].cpu().contiguous()
            tensors[f"{name}.second"] = state["exp_avg_sq"].cpu().contiguous()
        with atomic_dir(self._folder) as temporary:
            save_tensors(tensors, temporary / "progress.safetensors")
            atomic_write_json(temporary / "progress.json", {"step": step, "key": self._key})
