"""Target-based surrogates: many steps of the model for each expensive gradient of its outputs.

Lavington, Vaswani, Babanezhad, Schmidt & Le Roux, Target-based Surrogates for Stochastic
Optimization, ICML 2023 (arXiv 2302.02607). The loss is l(z) of outputs z = f(theta; X)::

    z_t = f(theta_t),   g = dl / dz at z_t                       one expensive call
    q(theta) = <g, f(theta) - z_t> + D(f(theta), z_t) / (2 eta_t)
    theta_(t+1) = m steps on q from theta_t, by descent with backtracking or any other optimizer

    D = ||z - z_t||^2,  or 2 KL(softmax z_t || softmax z)
    eta_t = eta,  eta / sqrt(t),  eta T^(-t / T),  or by a line search in z (``armijo``)

If l is L-smooth in z and eta <= 1 / L, q majorizes l up to a constant.

Differs from the paper: ``eta`` is for losses that are sums over examples; with
``reduction="mean"`` it is multiplied by their number, so that a batch's size does not change it.
When backtracking accepts no step, theta stays. Random numbers of the model, such as dropout's, are
the same in all forward passes of a step. Memory: the outputs twice, and the inner optimizer's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError, TrainingError
from sharpen.optim.line_search import ArmijoGD

__all__ = ["TargetOptimizer", "TargetStep"]

EtaSchedule = Literal["constant", "sqrt", "exponential", "armijo"]
Divergence = Literal["l2", "kl"]
_GROW, _SHRINK, _DECREASE, _TRIALS = 1.8, 0.9, 0.5, 100
_STEP_RANGE = 1e-4, 1e4


@dataclass(frozen=True, slots=True)
class TargetStep:
    """What a step did."""

    loss: float
    """Before it."""

    eta: float
    """As it was used, number of examples included."""

    surrogate: float
    """q at the last point where it was evaluated; below 0 is progress."""

    inner_steps: int
    """Steps on the surrogate that moved theta."""


class TargetOptimizer:
    """Steps by target-based surrogates.

    Args:
        model: makes outputs [examples, ...] of inputs.
        target_loss: of (outputs, targets), a tensor of one number; its gradient with respect to the
            outputs is taken here.
        target_grad_fn: instead, of (outputs, targets): the loss as a number and its gradient, of
            the outputs' shape, by any means.
        params: what is trained; default all trainable parameters of a module.
        inner: makes the optimizer of the surrogate from them; default :class:`ArmijoGD`. It lives
            on from step to step; one with a ``reset`` is reset at each.
        inner_steps: m.
        eta: step size in the space of outputs; 1 over the smoothness of an example's loss, such as
            4 for logistic and 1 for squared losses (half the square).
        eta_schedule: see the module.
        total_steps: T of ``exponential``.
        divergence: see the module.
        reduction: whether the loss is a mean over examples, or a sum.

    Raises:
        ConfigError: an option is out of its range, or neither or both losses are given.

    Examples:
        >>> x, y = torch.eye(3), torch.tensor([[1.0], [2.0], [3.0]])
        >>> model = nn.Linear(3, 1, bias=False)
        >>> optimizer = TargetOptimizer(model, nn.functional.mse_loss, eta=0.5)
        >>> for _ in range(5):
        ...     done = optimizer.step(x, y)
        >>> bool(done.loss < 1e-3), optimizer.outer_calls
        (True, 5)
    """

    def __init__(
        self,
        model: Callable[[Any], Tensor],
        target_loss: Callable[[Tensor, Any], Tensor] | None = None,
        *,
        target_grad_fn: Callable[[Tensor, Any], tuple[float, Tensor]] | None = None,
        params: Iterable[Tensor] | None = None,
        inner: Callable[[Sequence[Tensor]], torch.optim.Optimizer] = ArmijoGD,
        inner_steps: int = 10,
        eta: float = 1.0,
        eta_schedule: EtaSchedule = "constant",
        total_steps: int | None = None,
        divergence: Divergence = "l2",
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        if (target_loss is None) == (target_grad_fn is None):
            raise ConfigError("give one of target_loss and target_grad_fn.")
        if inner_steps < 1:
            raise ConfigError(f"inner_steps={inner_steps} must be at least 1.")
        if not 0 < eta < math.inf:
            raise ConfigError(f"eta={eta} must be above 0, and finite.")
        for name, value, known in (
            ("eta_schedule", eta_schedule, get_args(EtaSchedule)),
            ("divergence", divergence, get_args(Divergence)),
            ("reduction", reduction, ("mean", "sum")),
        ):
            if value not in known:
                raise ConfigError(f"{name}={value!r} must be one of {', '.join(known)}.")
        if eta_schedule == "exponential" and (total_steps is None or total_steps < 1):
            raise ConfigError(
                f"total_steps={total_steps} must be at least 1 for eta_schedule='exponential'."
            )
        if params is None:
            if not isinstance(model, nn.Module):
                raise ConfigError("params must be given where the model is not an nn.Module.")
            params = model.parameters()
        self.params = [p for p in params if p.requires_grad]
        if not self.params:
            raise ConfigError("no parameter is trainable: every one is frozen.")
        self.model, self.target_loss, self.target_grad_fn = model, target_loss, target_grad_fn
        self.inner = inner(self.params)
        self.inner_steps, self.eta, self.eta_schedule = inner_steps, eta, eta_schedule
        self.total_steps, self.divergence, self.reduction = total_steps, divergence, reduction
        self.outer_calls = 0
        """Gradients of the target loss that were asked for."""
        self.loss_calls = 0
        """Losses alone that were asked for, by ``armijo``."""
        self.inner_evals = 0
        """Forward passes of the model."""
        self._steps = 0
        self._size: float | None = None
        self._warned = False

    def step(self, inputs: Any, targets: Any = None) -> TargetStep:
        """Take one step.

        Args:
            inputs: of the model.
            targets: handed to the loss.

        Raises:
            TrainingError: the loss or its gradient is not finite; theta is as it was.
        """
        self._warn()
        forward = _Replayed(self.model, inputs, self.params[0].device)
        with torch.no_grad():
            start = forward()
        loss, g = self._gradient(start, targets)
        self._steps += 1
        eta = self._eta(start, loss, g, targets)
        last = 0.0

        def surrogate() -> Tensor:
            nonlocal last
            z = forward()
            q = (g * (z - start)).sum() + self._distance(z, start) / (2 * eta)
            last = float(q.detach())
            return q

        if isinstance(self.inner, ArmijoGD):
            self.inner.reset()
        taken = 0
        while taken < self.inner_steps and self._inner_step(surrogate):
            taken += 1
        self.inner_evals += forward.calls
        forward.advance()
        return TargetStep(loss, eta, last, taken)

    def _inner_step(self, surrogate: Callable[[], Tensor]) -> bool:
        """One step on the surrogate; whether there is a point in another."""
        if isinstance(self.inner, ArmijoGD):
            self.inner.step(surrogate)
            return not self.inner.stalled

        def closure() -> Tensor:
            self.inner.zero_grad()
            q = surrogate()
            q.backward()  # type: ignore[no-untyped-call]
            return q

        self.inner.step(closure)  # type: ignore[arg-type]
        return True

    def _gradient(self, start: Tensor, targets: Any) -> tuple[float, Tensor]:
        self.outer_calls += 1
        if self.target_grad_fn is not None:
            loss, g = self.target_grad_fn(start, targets)
            loss, g = float(loss), torch.as_tensor(g, dtype=start.dtype, device=start.device)
            if g.shape != start.shape:
                raise ConfigError(
                    f"target_grad_fn gave a gradient of shape {tuple(g.shape)} for outputs of "
                    f"shape {tuple(start.shape)}; they must be equal."
                )
        else:
            assert self.target_loss is not None
            z = start.clone().requires_grad_()
            with torch.enable_grad():
                value = self.target_loss(z, targets)
            (g,) = torch.autograd.grad(value, z)
            loss = float(value.detach())
        if not math.isfinite(loss) or not bool(g.isfinite().all()):
            raise TrainingError(
                f"the target loss is {loss} at outer step {self._steps + 1}, or its gradient is "
                "not finite. Lower eta or inner_steps, or look at this batch."
            )
        return loss, g

    def _eta(self, start: Tensor, loss: float, g: Tensor, targets: Any) -> float:
        t, examples = self._steps, start.shape[0] if self.reduction == "mean" else 1
        if self.eta_schedule == "armijo":
            return self._line_search(start, loss, g, targets, examples)
        eta = self.eta * examples
        if self.eta_schedule == "sqrt":
            return eta / math.sqrt(t)
        if self.eta_schedule == "exponential":
            assert self.total_steps is not None
            return float(eta * self.total_steps ** (-t / self.total_steps))
        return eta

    def _line_search(
        self, start: Tensor, loss: float, g: Tensor, targets: Any, examples: int
    ) -> float:
        """Half the accepted step of descent in the space of outputs."""
        square = float(g.square().sum(dtype=torch.float64))
        size = _GROW * (2 * self.eta if self._size is None else self._size)
        for _ in range(_TRIALS):
            z = start - size * examples * g
            self.loss_calls += 1
            if self.target_grad_fn is not None:
                found = float(self.target_grad_fn(z, targets)[0])
            else:
                assert self.target_loss is not None
                with torch.no_grad():
                    found = float(self.target_loss(z, targets))
            if found <= loss - _DECREASE * size * examples * square:
                break
            size *= _SHRINK
        self._size = min(max(size, _STEP_RANGE[0]), _STEP_RANGE[1])
        return self._size * examples / 2

    def _distance(self, z: Tensor, start: Tensor) -> Tensor:
        if self.divergence == "l2":
            return (z - start).square().sum()
        old, new = start.log_softmax(-1), z.log_softmax(-1)
        return 2 * (old.exp() * (old - new)).sum()

    def _warn(self) -> None:
        norms = nn.modules.batchnorm._BatchNorm
        if self._warned or not isinstance(self.model, nn.Module):
            return
        if any(isinstance(m, norms) and m.training for m in self.model.modules()):
            self._warned = True
            warnings.warn(
                "a batch norm in training mode changes its running statistics at each of the "
                "inner steps; call eval() on it to keep them.",
                stacklevel=3,
            )

    def state_dict(self) -> dict[str, Any]:
        """Counters, the line search's step and the inner optimizer's state."""
        return {
            "steps": self._steps,
            "size": self._size,
            "outer_calls": self.outer_calls,
            "loss_calls": self.loss_calls,
            "inner_evals": self.inner_evals,
            "inner": self.inner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self._steps, self._size = state["steps"], state["size"]
        self.outer_calls, self.loss_calls = state["outer_calls"], state["loss_calls"]
        self.inner_evals = state["inner_evals"]
        self.inner.load_state_dict(state["inner"])


class _Replayed:
    """Forward passes that all see the same random numbers."""

    def __init__(self, model: Callable[[Any], Tensor], inputs: Any, device: torch.device) -> None:
        self._model, self._inputs = model, inputs
        self._cuda = device if device.type == "cuda" else None
        self._start = self._state()
        self._end = self._start
        self.calls = 0

    def _state(self) -> tuple[Tensor, ...]:
        cuda = () if self._cuda is None else (torch.cuda.get_rng_state(self._cuda),)
        return (torch.get_rng_state(), *cuda)

    def _restore(self, state: tuple[Tensor, ...]) -> None:
        torch.set_rng_state(state[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(state[1], self._cuda)

    def __call__(self) -> Tensor:
        self._restore(self._start)
        z = self._model(self._inputs)
        self._end = self._state()
        self.calls += 1
        return z

    def advance(self) -> None:
        """Leave the random numbers as one forward pass does."""
        self._restore(self._end)
