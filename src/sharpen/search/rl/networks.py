"""Small networks for policies and critics: several alike at once, as products of stacked matrices.

::

    h_0 = x,   h_{l+1} = tanh(h_l W_l + b_l) or relu,   y = h W + b

Weights begin orthogonal with gain sqrt(2), those of the last layer with a gain of their own: a
policy whose numbers begin near zero begins near uniform (Andrew Saxe, James McClelland and Surya
Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
ICLR 2014; the gains as in John Schulman's implementation of PPO).

Time O(G B sum of products of widths) for G networks and B inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = [
    "Activation",
    "Networks",
    "descend",
    "minibatches",
    "one_thread",
    "orthogonal",
    "run_layers",
]

Activation = Literal["tanh", "relu"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on one thread: for small networks others cost more than they bring."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of ``optimizer`` down the gradient of ``loss``."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def minibatches(rng: np.random.Generator, count: int, size: int) -> Iterator[Tensor]:
    """All of ``count`` rows once in random order, at most ``size`` at a time."""
    order = torch.from_numpy(rng.permutation(count))
    for start in range(0, count, size):
        yield order[start : start + size]


def orthogonal(rng: np.random.Generator, rows: int, columns: int) -> npt.NDArray[np.float64]:
    """[rows, columns] with orthonormal rows or columns, whichever are fewer."""
    tall = rng.normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T


class Networks(torch.nn.Module):
    """``count`` networks of one shape that share no weights.

    Args:
        count: G.
        inputs: numbers each reads.
        outputs: numbers each puts out.
        hidden: widths of the layers between.
        rng: what the first weights are drawn from.
        last_gain: of the last layer's weights.
        activation: between the layers.
        dtype: of all numbers.
    """

    def __init__(
        self,
        count: int,
        inputs: int,
        outputs: int,
        hidden: Sequence[int],
        rng: np.random.Generator,
        *,
        last_gain: float = 1.0,
        activation: Activation = "tanh",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        widths = [inputs, *hidden, outputs]
        self.activation = activation
        self.weights, self.biases = torch.nn.ParameterList(), torch.nn.ParameterList()
        for k in range(len(widths) - 1):
            gain = last_gain if k == len(widths) - 2 else math.sqrt(2)
            w = [gain * orthogonal(rng, widths[k], widths[k + 1]) for _ in range(count)]
            self.weights.append(torch.tensor(np.array(w), dtype=dtype))
            self.biases.append(torch.zeros(count, 1, widths[k + 1], dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """[G, B, outputs] of [G, B, inputs]."""
        last = len(self.weights) - 1
        for k, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(b, x, w)
            if k < last:
                x = torch.tanh(x) if self.activation == "tanh" else torch.relu(x)
        return x

    def arrays(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Weights [inputs, outputs] and bias [outputs] of each layer of the first network.

        They share memory with the parameters: what an optimizer changes in place is seen.
        """
        return [
            (w.detach().numpy()[0], b.detach().numpy()[0, 0])
            for w, b in zip(self.weights, self.biases, strict=True)
        ]


def run_layers(
    layers: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    x: npt.NDArray[Any],
    activation: Activation,
) -> npt.NDArray[Any]:
    """[B, outputs] of [B, inputs], by NumPy: for a few rows quicker than torch.

    Args:
        layers: see :meth:`Networks.arrays`.
        x: [B, inputs] of the layers' dtype.
        activation: between the layers.
    """
    for k, (w, b) in enumerate(layers):
        x = x @ w + b
        if k < len(layers) - 1:
            x = np.tanh(x) if activation == "tanh" else np.maximum(x, 0)
    return x
