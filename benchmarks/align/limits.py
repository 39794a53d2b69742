"""What a step of GRPO multiplies, and how fast this processor multiplies float32 matrices.

Whoever computes the step in float32 has nearly the same products to do: those of the layers and of
the head for each token, forward when it is generated, forward and backward when it is learnt from.
At the highest rate that any library reaches here, on products of these shapes, they take the least
time that a step can take, and a peer's time over that is the most that anybody can be faster than
it.

Torch's counter counts what torch starts; attention of tokens that are decoded is native code and
is added by its formula, 4 D multiplications and additions a head, layer and key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Self

import torch
from torch.utils.flop_counter import FlopCounterMode

from sharpen.core.model_spec import ModelSpec
from sharpen.models.products import Blocked
from sharpen.train import StepReport, Trainer

__all__ = ["StepCounter", "best_rate"]

Shape = Sequence[int]


class StepCounter:
    """A callback that counts floating-point operations of a trainer's steps, by part.

    ``steps`` has those of each: ``generate`` (and putting weights in), ``score``, ``learn``.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, int]] = []
        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        self._counter = FlopCounterMode(
            display=False,
            custom_mapping={
                torch.ops.mkldnn._linear_pointwise: _linear,
                attention: lambda q, k, *_, **__: 4 * _seen(q, k),
                backward: lambda grad, q, k, *_, **__: 10 * _seen(q, k),
            },
        )
        self._parts = {"generate": 0, "score": 0}
        self._begin = self._native = 0

    def __enter__(self) -> Self:
        self._counter.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._counter.__exit__(*error)

    def on_start(self, trainer: Trainer) -> None:
        """Count what the engine does, and scoring, apart."""
        work: Any = trainer.work
        engine, spec = work._engine, work._trainer.model.spec
        generate = self._counted("generate", engine.generate)

        def generated(prompts: Sequence[Sequence[int]], params: Any) -> Any:
            found = generate(prompts, params)
            for prompt, one in zip(prompts, found, strict=True):
                keys = sum(len(prompt) + k for k in range(1, len(one.token_ids)))
                self._native += 4 * spec.query_size * spec.num_layers * keys
            return found

        engine.generate = generated
        engine.update_weights = self._counted("generate", engine.update_weights)
        work._scored = self._counted("score", work._scored)
        self._begin = self._counter.get_total_flops()

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """Keep what the step took."""
        end = self._counter.get_total_flops()
        learn = end - self._begin - sum(self._parts.values())
        self._parts["generate"] += self._native
        self.steps.append({**self._parts, "learn": learn})
        self._parts, self._begin, self._native = dict.fromkeys(self._parts, 0), end, 0

    def _counted(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            before = self._counter.get_total_flops()
            found = function(*args, **kwargs)
            self._parts[part] += self._counter.get_total_flops() - before
            return found

        return run


def _linear(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(x) * weight[0]


def _seen(q: Shape, k: Shape) -> int:
    """Pairs of queries [B, N, T, D] and keys up to their own, times D; queries come last."""
    batch, heads, queries, size = q
    return batch * heads * size * (queries * k[2] - queries * (queries - 1) // 2)


def best_rate(spec: ModelSpec, rows: Sequence[int], *, repeats: int = 20) -> dict[str, float]:
    """Operations a second of float32 products of a model's layers: the best of each library.

    Args:
        spec: the model's shape.
        rows: of the products.
        repeats: of each product.
    """
    hidden, width = spec.hidden_size, spec.intermediate_size
    shapes = {
        (spec.query_size, hidden),
        (width, hidden),
        (hidden, width),
        (spec.vocab_size, hidden),
    }
    found = {"torch": 0.0, "oneDNN": 0.0, "oneDNN, laid out": 0.0}
    for outputs, inputs in sorted(shapes):
        weight = torch.randn(outputs, inputs)
        laid = Blocked(weight, None)
        for count in rows:
            x = torch.randn(count, inputs)
            products = {
                "torch": lambda x=x, w=weight: torch.mm(x, w.T),
                "oneDNN": lambda x=x, w=weight: torch.ops.mkldnn._linear_pointwise(
                    x, w, None, "none", [], ""
                ),
                "oneDNN, laid out": lambda x=x, laid=laid: laid(x),
            }
            for name, multiply in products.items():
                best = min(_seconds(multiply) for _ in range(repeats))
                found[name] = max(found[name], 2 * count * inputs * outputs / best)
    return found


def _seconds(multiply: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    multiply()
    return time.perf_counter() - begin
