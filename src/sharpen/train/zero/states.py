"""What a training step does with parameters, gradients and optimizer states, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.base import Optimizer
from sharpen.train.checkpoint import Checkpoint, Piece

__all__ = [
    "LocalStates",
    "MakeOptimizer",
    "States",
    "load_model",
    "load_optimizer",
    "optimizer_pieces",
]

MakeOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
"""An optimizer over named parameters; frozen ones are left out."""

Groups = dict[str, dict[str, Tensor | Piece]]


class States(Protocol):
    """Parameters, gradients and optimizer states of one rank."""

    optimizer: torch.optim.Optimizer

    def micro_batch(self, *, last: bool) -> Any:
        """A context for one forward and backward pass; after the last, gradients are summed."""

    def clip_grad_norm(self, max_norm: float) -> float:
        """Scale gradients so that their global norm is at most ``max_norm``; the norm before."""

    def step(self) -> None:
        """Update the parameters, everywhere."""

    def publish(self) -> None:
        """Send weights that changed without a step to all."""

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def groups(self) -> Groups:
        """What this rank writes into a checkpoint: ``model`` and ``optim``."""

    def load(self, found: Checkpoint) -> None:
        """Take up parameters and optimizer states, of whatever layout."""


class LocalStates:
    """All of them here: a job of one process.

    Args:
        model: parameters that do not require a gradient stay as they are.
        make_optimizer: makes the optimizer.
    """

    def __init__(self, model: nn.Module, make_optimizer: MakeOptimizer) -> None:
        self.optimizer = make_optimizer(model.named_parameters())
        self._named = {n: p for n, p in model.named_parameters() if p.requires_grad}

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        """Nothing to do: gradients add up in place."""
        yield

    def clip_grad_norm(self, max_norm: float) -> float:
        """As :meth:`States.clip_grad_norm`."""
        return float(nn.utils.clip_grad_norm_(list(self._named.values()), max_norm))

    def step(self) -> None:
        """Update the parameters."""
        self.optimizer.step()

    def publish(self) -> None:
        """Nothing to do: there is nobody else."""

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def groups(self) -> Groups:
        """Every parameter and state, whole."""
        pieces = {name: Piece(p.detach(), 0, tuple(p.shape)) for name, p in self._named.items()}
        optim = optimizer_pieces(self.optimizer, self._named, pieces)
        return {"model": dict(pieces), "optim": optim}

    def load(self, found: Checkpoint) -> None:
        """As :meth:`States.load`."""
        pieces = {name: Piece(p.detach(), 0, tuple(p.shape)) for name, p in self._named.items()}
        load_model(found, pieces)
        load_optimizer(found, self.optimizer, self._named, pieces)


def load_model(
    found: Checkpoint, pieces: Mapping[str, Piece], everything: Mapping[str, Piece] | None = None
) -> None:
    """Fill parameters' pieces, in place.

    Args:
        found: the checkpoint.
        pieces: what is here.
        everything: all trained parameters of the model, when only some are here.

    Raises:
        ConfigError: the checkpoint is of another model.
    """
    stored = {name: found.shape("model", name) for name in found.names("model")}
    wanted = {name: piece.shape for name, piece in (everything or pieces).items()}
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ConfigError(
                f"the checkpoint {found.path} is of another model: {name} has shape "
                f"{stored.get(name, 'none')} there and {wanted.get(name, 'none')} here."
            )
    with torch.no_grad():
        for name, piece in pieces.items():
            if piece.shape:
                stop = piece.start + piece.tensor.shape[0]
                piece.tensor.copy_(found.read("model", name, piece.start, stop))
            else:
                piece.tensor.copy_(found.read("model", name))


def optimizer_pieces(
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, nn.Parameter],
    pieces: Mapping[str, Piece],
) -> dict[str, Tensor | Piece]:
    """States as pieces like their parameters'; those of one number go with the first row.

    A rank that has a state has it whole where the optimizer's rule needs whole parameters.
    """
    out: dict[str, Tensor | Piece] = {}
    for name, parameter in named.items():
        piece = pieces[name]
        whole = _needs_whole(optimizer, parameter)
        for slot, value in optimizer.state.get(parameter, {}).items():
            local = local_rows(value)
            if whole:
                out[f"{name}.{slot}"] = Piece(local, 0, tuple(local.shape)) if value.ndim else local
            elif value.ndim == 0:
                if piece.start == 0:
                    out[f"{name}.{slot}"] = local
            elif local.numel():
                shape = (piece.shape[0], *local.shape[1:])
                out[f"{name}.{slot}"] = Piece(local, piece.start, shape)
    return out


def load_optimizer(
    found: Checkpoint,
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, nn.Parameter],
    pieces: Mapping[str, Piece],
    like: Callable[[Tensor, nn.Parameter], Tensor] = lambda rows, parameter: rows,
) -> None:
    """Read the states that belong to ``pieces``.

    Args:
        found: the checkpoint.
        optimizer: gets the states.
        named: its parameters.
        pieces: which rows of each are here.
        like: makes a state of its rows.
    """
    for key in found.names("optim"):
        name, _, slot = key.rpartition(".")
        parameter = named.get(name)
        if parameter is None or not _has_states(optimizer, parameter):
            continue
        piece = pieces[name]
        if not found.shape("optim", key) or _needs_whole(optimizer, parameter):
            value = found.read("optim", key)
            if slot != "step" or not isinstance(optimizer, Optimizer):
                # A count of steps lies on the CPU unless torch's fused CUDA kernel reads it.
                value = value.to(parameter.device if parameter.is_cuda else "cpu")
        else:
            stop = piece.start + piece.tensor.shape[0]
            rows = found.read("optim", key, piece.start, stop)
            value = like(rows.to(parameter.device), parameter)
        optimizer.state[parameter][slot] = value


def _needs_whole(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> bool:
    return isinstance(optimizer, Optimizer) and optimizer.needs_whole(parameter)


def _has_states(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> bool:
    return not isinstance(optimizer, Optimizer) or optimizer.has_states(parameter)


def local_rows(tensor: Tensor) -> Tensor:
    """The rows of a tensor that are here."""
    to_local = getattr(tensor, "to_local", None)
    return to_local() if to_local is not None else tensor
