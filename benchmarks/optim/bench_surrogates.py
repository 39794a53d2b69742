"""Expensive gradients until a loss is reached: target-based surrogates beside SGD, Adam and SLS.

Logistic regression in float64 on two of scikit-learn's data sets, features standardized, batches of
125: breast cancer (569 x 30), and digits up to four against the others (1797 x 64). A gradient with
respect to the outputs counts one call; steps on the surrogate are free, as in the claim. Everybody
runs until the loss over all data is within 0.01 of that of the regularized optimum (L-BFGS), at the
best of six learning rates by calls; three seeds of the batches.

    pip install scikit-learn
    python -m benchmarks.optim.bench_surrogates [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.common import OURS, PEER, arguments, save
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn

from sharpen.optim import SLS, TargetOptimizer

BATCH, CALLS, RATES = 125, 500, (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
bce = nn.functional.binary_cross_entropy_with_logits


def data_sets() -> dict[str, tuple[Tensor, Tensor]]:
    cancer, digits = load_breast_cancer(), load_digits()
    raw = {
        "breast cancer": (cancer.data, cancer.target),
        "digits": (digits.data, digits.target < 5),
    }
    out = {}
    for name, (x, y) in raw.items():
        features = torch.tensor(x, dtype=torch.float64)
        features = (features - features.mean(0)) / features.std(0).clamp(min=1e-9)
        out[name] = features, torch.tensor(y, dtype=torch.float64)
    return out


def optimum(x: Tensor, y: Tensor) -> float:
    """Loss without the regularization at the optimum with it."""
    w = nn.Parameter(torch.zeros(x.shape[1], dtype=torch.float64))
    solver = torch.optim.LBFGS(
        [w], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = bce(x @ w, y) + 1e-3 * w.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return float(bce(x @ w.detach(), y))


def until(
    wanted: float, x: Tensor, y: Tensor, w: Tensor, step: Callable[[Tensor, Tensor], int], seed: int
) -> float:
    """Gradient calls until the loss over all data is at most ``wanted``."""
    generator = torch.Generator().manual_seed(seed)
    calls = 0
    while calls < CALLS:
        order = torch.randperm(len(y), generator=generator)
        for batch in order[: len(y) // BATCH * BATCH].view(-1, BATCH):
            calls += step(x[batch], y[batch])
            loss = float(bce(x @ w.detach(), y))
            if loss <= wanted:
                return calls
            if not math.isfinite(loss) or calls >= CALLS:
                return math.inf
    return math.inf


def plain(kind: str) -> Callable[[nn.Parameter, float], Callable[[Tensor, Tensor], int]]:
    def make(w: nn.Parameter, lr: float) -> Callable[[Tensor, Tensor], int]:
        optimizer = (torch.optim.SGD if kind == "SGD" else torch.optim.Adam)([w], lr=lr)

        def step(x: Tensor, y: Tensor) -> int:
            optimizer.zero_grad()
            bce(x @ w, y).backward()
            optimizer.step()
            return 1

        return step

    return make


def searched(w: nn.Parameter, lr: float) -> Callable[[Tensor, Tensor], int]:
    """A line search: every trial of a step asks for the loss, so every trial counts."""
    optimizer = SLS([w])

    def step(x: Tensor, y: Tensor) -> int:
        asked = 0

        def closure() -> Tensor:
            nonlocal asked
            asked += 1
            return bce(x @ w, y)

        optimizer.step(closure)
        return asked

    return step


def surrogate(inner: int) -> Callable[[nn.Parameter, float], Callable[[Tensor, Tensor], int]]:
    def make(w: nn.Parameter, lr: float) -> Callable[[Tensor, Tensor], int]:
        # The learning rate scales eta around 4, an inverse of the logistic loss' smoothness.
        optimizer = TargetOptimizer(
            lambda v: v @ w, bce, params=[w], eta=4.0 * lr, inner_steps=inner
        )

        def step(x: Tensor, y: Tensor) -> int:
            before = optimizer.outer_calls
            optimizer.step(x, y)
            return optimizer.outer_calls - before

        return step

    return make


def main() -> int:
    options = arguments(__doc__, "optim_surrogates")
    seeds = 1 if options.quick else 3
    methods: dict[str, tuple[Any, tuple[float, ...]]] = {
        "SGD": (plain("SGD"), RATES),
        "Adam": (plain("Adam"), RATES),
        "SLS": (searched, (1.0,)),
        **{f"surrogate, {m} inner": (surrogate(m), RATES) for m in (1, 5, 20)},
    }
    results: dict[str, Any] = {}
    for name, (x, y) in data_sets().items():
        wanted = optimum(x, y) + 1e-2
        rows: dict[str, Any] = {}
        for method, (make, rates) in methods.items():
            counts = {}
            for lr in rates:
                found = []
                for seed in range(seeds):
                    w = nn.Parameter(torch.zeros(x.shape[1], dtype=torch.float64))
                    found.append(until(wanted, x, y, w, make(w, lr), seed))
                counts[lr] = statistics.median(found)
            best = min(counts, key=lambda lr: counts[lr])
            calls = counts[best]
            rows[method] = {"rate": best, "calls": None if math.isinf(calls) else calls}
            print(f"{name:14} {method:20} {rows[method]}", flush=True)
        results[name] = {"wanted": wanted, "rows": rows}
        sgd, ours = rows["SGD"]["calls"], rows["surrogate, 20 inner"]["calls"]
        results[name]["ratio"] = sgd / ours if sgd and ours else None
    save(
        options,
        results,
        config={"batch": BATCH, "limit": CALLS, "rates": RATES, "seeds": seeds},
        plot=lambda figure: draw(figure, results),
    )
    return 0


def draw(figure: Any, results: dict[str, Any]) -> None:
    for axes, (name, found) in zip(
        figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
    ):
        names = list(found["rows"])
        colours = [OURS if "surrogate" in n else PEER for n in names]
        axes.barh(names, [found["rows"][n]["calls"] or 0 for n in names], color=colours)
        axes.set_xscale("log")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("gradient calls")


if __name__ == "__main__":
    sys.exit(main())
