"""Which reranker and which settings of the tree search suit a question, predicted from its vector.

*CORAG: A Cost-Constrained Retrieval Optimization System for Retrieval-Augmented Generation*, 2024
(arXiv 2411.00744), the configuration agent: question vectors go through layers of 512, 256 and 128
to two heads, the classes of rerankers and the three numbers ``(c, iterations, lam)``. It is trained
on pairs of questions (a Siamese network)::

    loss = (1 - y) d^2 + y max(0, 1 - d)^2                    y = 0 where both have the same best
         + mean of both cross-entropies + mean of both squared errors

with ``d`` the distance of the two states of 128 (the authors' code takes the logits instead).
Numbers are learned as standard scores of their logarithms (``lam``: of itself), so that none of
them outweighs the others.

Differs from the paper: a fifth of the questions is kept to check the predictions on. Where they are
no better there than the one setting that is best on the others, that one is predicted for all.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.embedding import Embedder
from sharpen.core.errors import ConfigError, DataError, DependencyNotInstalled, FileFormatError
from sharpen.core.files import atomic_write_bytes
from sharpen.text.rag.chunks import Chunk
from sharpen.text.rag.embedding_index import embed
from sharpen.text.rag.pool import Selection
from sharpen.text.rag.rerankers import Reranker
from sharpen.text.rag.search import ChunkSearch

__all__ = ["ConfigAgent", "Settings", "measure"]

Floats = npt.NDArray[np.float64]

_WIDTHS = (512, 256, 128)
_MARGIN = 1.0
_FORMAT = 1
_EPOCHS, _BATCH, _RATE = 60, 32, 1e-3
_KEPT = 5  # of so many questions one is kept to check on


@dataclass(frozen=True, slots=True)
class Settings:
    """One way to search."""

    reranker: str
    """The name of a reranker."""

    c: float = 1.0
    iterations: int = 200
    lam: float = 0.1


def measure(
    questions: Sequence[str],
    candidates: Sequence[Sequence[Chunk]],
    rerankers: Mapping[str, Reranker],
    settings: Sequence[Settings],
    budget: int,
    judge: Callable[[int, Selection], float],
    **prompt: Any,
) -> Floats:
    """What the agent learns from: how good each of some settings is for each question.

    Args:
        questions: to choose chunks for.
        candidates: [questions] chunks that were retrieved for each.
        rerankers: by name.
        settings: those that are compared.
        budget: most tokens of a prompt.
        judge: how good a choice is for the question of this position; higher is better.
        prompt: ``template``, ``separator`` and ``tokenizer`` of :func:`sharpen.text.rag.select`.

    Returns:
        [questions, settings] judgements.
    """
    found = np.empty((len(questions), len(settings)))
    for i, (question, chunks) in enumerate(zip(questions, candidates, strict=True)):
        for j, one in enumerate(settings):
            search = ChunkSearch(
                rerankers[one.reranker], budget, c=one.c, iterations=one.iterations, lam=one.lam
            )
            found[i, j] = judge(i, search.select(question, chunks, **prompt))
    return found


class ConfigAgent:
    """Predicts settings of the search for a question.

    Args:
        embedder: makes the vectors of questions.
        seed: of the first weights, the order of pairs, and the questions that are kept.

    Attributes:
        single: the settings for all questions, where predictions are no better than they; else
            None.
        gain: mean worth of predictions less that of the best single settings, on the questions
            that were kept.
    """

    def __init__(self, embedder: Embedder, *, seed: int = 0) -> None:
        self._embedder, self.seed = embedder, seed
        self.rerankers: list[str] = []
        self.single: Settings | None = None
        self.gain = 0.0
        self._weights: list[Floats] = []
        self._mean = self._scale = np.zeros(3)
        self._bounds = np.zeros((2, 3))

    def fit(
        self,
        questions: Sequence[str],
        settings: Sequence[Settings],
        judged: npt.ArrayLike,
        *,
        epochs: int = _EPOCHS,
    ) -> list[float]:
        """Learn from what :func:`measure` gave.

        Of settings that are equally good the earliest is the best one: give the cheap ones first.

        Returns:
            The mean loss of each epoch.

        Raises:
            ConfigError: shapes do not fit, or there are fewer than two questions.
            DataError: a judgement is not finite.
            DependencyNotInstalled: torch is missing.
        """
        table = np.asarray(judged, np.float64)
        if table.shape != (len(questions), len(settings)) or len(questions) < 2 or not settings:
            raise ConfigError(
                f"judged must be [{len(questions)} questions, {len(settings)} settings] of at least"
                f" two questions, got {list(table.shape)} (ConfigAgent)."
            )
        if not np.isfinite(table).all():
            raise DataError("a judgement is not finite (ConfigAgent).")
        order = np.random.default_rng(self.seed).permutation(len(table))
        kept, learned = order[: len(table) // _KEPT], np.sort(order[len(table) // _KEPT :])
        vectors = embed(self._embedder, list(questions))
        losses = self._learn(vectors[learned], settings, table[learned], epochs)
        best = int(table[learned].mean(axis=0).argmax())
        if len(kept):
            every = np.array([_numbers(one) for one in settings])
            chosen = [_nearest(self._predict(vectors[i]), settings, every) for i in kept]
            self.gain = float((table[kept, chosen] - table[kept, best]).mean())
        self.single = None if self.gain > 0 else settings[best]
        return losses

    def _learn(
        self,
        vectors: npt.NDArray[np.float32],
        settings: Sequence[Settings],
        table: Floats,
        epochs: int,
    ) -> list[float]:
        best = table.argmax(axis=1)
        self.rerankers = list(dict.fromkeys(one.reranker for one in settings))
        classes = np.array([self.rerankers.index(settings[i].reranker) for i in best])
        numbers = np.array([_numbers(settings[i]) for i in best])
        every = np.array([_numbers(one) for one in settings])
        self._bounds = np.stack([every.min(axis=0), every.max(axis=0)])
        self._mean, spread = numbers.mean(axis=0), numbers.std(axis=0)
        self._scale = np.where(spread > 0, spread, 1.0)
        targets = (numbers - self._mean) / self._scale
        self._weights, losses = _train(
            vectors, classes, targets, len(self.rerankers), epochs, self.seed
        )
        return losses

    def predict(self, question: str) -> Settings:
        """The settings for a question, within the range of those it learned from.

        Raises:
            ConfigError: it was not fitted.
        """
        if not self._weights:
            raise ConfigError("fit the agent first, or load one that was (ConfigAgent).")
        if self.single is not None:
            return self.single
        return self._predict(embed(self._embedder, [question])[0])

    def _predict(self, vector: npt.NDArray[np.float32]) -> Settings:
        state: Floats = vector.astype(np.float64)
        *hidden, logits, numbers = _pairs(self._weights)
        for weight, bias in hidden:
            if weight.shape[1] != len(state):
                raise DataError(
                    f"the question's vector has {len(state)} numbers, not {weight.shape[1]}: use"
                    " the embedder that the agent was fitted with."
                )
            state = np.maximum(weight @ state + bias, 0.0)
        choice = int((logits[0] @ state + logits[1]).argmax())
        raw = (numbers[0] @ state + numbers[1]) * self._scale + self._mean
        log_c, log_iterations, lam = np.clip(raw, *self._bounds)
        return Settings(
            self.rerankers[choice],
            float(np.exp(log_c)),
            max(1, round(float(np.exp(log_iterations)))),
            float(lam),
        )

    def save(self, path: str | Path) -> None:
        """Write it to a file (NumPy's npz); whole, or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        buffer = io.BytesIO()
        arrays = {f"weight_{i}": weight for i, weight in enumerate(self._weights)}
        numbers = {
            "mean": self._mean,
            "scale": self._scale,
            "bounds": self._bounds,
            "gain": np.array(self.gain),
        }
        texts = {
            "names": np.array(self.rerankers, dtype=np.str_),
            "single": np.array(json.dumps(self.single and asdict(self.single))),
        }
        np.savez(buffer, allow_pickle=False, format=np.array(_FORMAT), **texts, **numbers, **arrays)
        atomic_write_bytes(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path, embedder: Embedder) -> ConfigAgent:
        """Read what :meth:`save` wrote.

        Raises:
            FileFormatError: it is missing, damaged, or no agent.
        """
        agent = cls(embedder)
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
                if int(file["format"]) != _FORMAT:
                    raise ValueError(f"its format is {file['format']}, not {_FORMAT}")
                agent.rerankers = [str(name) for name in file["names"]]
                agent._mean, agent._scale = file["mean"], file["scale"]
                agent._bounds, agent.gain = file["bounds"], float(file["gain"])
                single = json.loads(str(file["single"]))
                agent.single = single and Settings(**single)
                count = 2 * (len(_WIDTHS) + 2)
                agent._weights = [file[f"weight_{i}"] for i in range(count)]
        except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise FileFormatError(f"{path} is no configuration agent: {error}.") from None
        return agent

    def __repr__(self) -> str:
        return f"ConfigAgent({', '.join(self.rerankers) or 'not fitted'})"


def _numbers(settings: Settings) -> list[float]:
    plain = asdict(settings)
    if not plain["c"] > 0 or plain["iterations"] < 1:
        raise ConfigError(f"c must be above 0 and iterations at least 1 in {settings}.")
    return [float(np.log(plain["c"])), float(np.log(plain["iterations"])), float(plain["lam"])]


def _nearest(wanted: Settings, settings: Sequence[Settings], every: Floats) -> int:
    """The position of the settings of the same reranker whose numbers are nearest."""
    spread = np.maximum(np.ptp(every, axis=0), 1e-12)
    away = (np.abs(every - _numbers(wanted)) / spread).sum(axis=1)
    same = np.array([one.reranker == wanted.reranker for one in settings])
    return int(np.where(same, away, np.inf).argmin())


def _pairs(weights: Sequence[Floats]) -> list[tuple[Floats, Floats]]:
    return list(zip(weights[::2], weights[1::2], strict=True))


def _train(
    vectors: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
    targets: Floats,
    rerankers: int,
    epochs: int,
    seed: int,
) -> tuple[list[Floats], list[float]]:
    """Weights and biases of the layers and of both heads, and the loss of each epoch."""
    try:
        import torch
        from torch.nn import functional
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("ConfigAgent.fit", "models") from None
    generator = torch.Generator().manual_seed(seed)
    sizes = [vectors.shape[1], *_WIDTHS]
    shapes = [*zip(sizes[1:], sizes[:-1], strict=True), (rerankers, sizes[-1]), (3, sizes[-1])]
    weights: list[torch.Tensor] = []
    for out, width in shapes:
        scale = (2 / width) ** 0.5
        weights.append((torch.randn(out, width, generator=generator) * scale).requires_grad_())
        weights.append(torch.zeros(out, requires_grad=True))
    optimizer = torch.optim.Adam(weights, lr=_RATE)
    x = torch.from_numpy(vectors)
    label = torch.from_numpy(classes)
    wanted = torch.from_numpy(targets).float()
    layers = len(_WIDTHS)

    def forward(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        state = x[rows]
        for k in range(layers):
            state = functional.relu(functional.linear(state, weights[2 * k], weights[2 * k + 1]))
        logits = functional.linear(state, weights[2 * layers], weights[2 * layers + 1])
        return state, logits, functional.linear(state, *weights[2 * layers + 2 :])

    losses = []
    for _ in range(epochs):
        left = torch.randperm(len(x), generator=generator)
        right = torch.randperm(len(x), generator=generator)
        total = 0.0
        for start in range(0, len(x), _BATCH):
            a, b = left[start : start + _BATCH], right[start : start + _BATCH]
            (state_a, logits_a, numbers_a), (state_b, logits_b, numbers_b) = forward(a), forward(b)
            distance = functional.pairwise_distance(state_a, state_b)
            other = (label[a] != label[b]).float()
            apart = functional.relu(_MARGIN - distance)
            loss = ((1 - other) * distance**2 + other * apart**2).mean()
            both = functional.cross_entropy(logits_a, label[a])
            both = both + functional.cross_entropy(logits_b, label[b])
            both = both + functional.mse_loss(numbers_a, wanted[a])
            both = both + functional.mse_loss(numbers_b, wanted[b])
            loss = loss + both / 2
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total += float(loss.detach()) * len(a)
        losses.append(total / len(x))
    return [weight.detach().double().numpy() for weight in weights], losses
