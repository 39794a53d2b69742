"""MeZO: fine-tuning by two forward passes, without gradients or states.

Malladi, Gao, Nichani, Damian, Lee, Chen & Arora, Fine-Tuning Language Models with Just Forward
Passes, NeurIPS 2023 (arXiv 2305.17333), after Spall's SPSA (1992)::

    z ~ N(0, I) from a seed
    l+ = L(W + eps z)     l- = L(W - eps z)     g = (l+ - l-) / (2 eps)
    W <- (1 - lr wd) W - lr g z,   of n such seeds the mean of g z

in three sweeps over the weights: + eps z, - 2 eps z, and + eps z with the step. The noise is made
again each time, a piece at a time.

Differs from the paper: an entry's noise is a function of (seed, parameter, step, place) and not the
next number of a stream, so that it is the same in any order, and on every device but for rounding
(``philox.py``; native code where there is some, 15 times as fast).
Decay is scaled by the learning rate and does not see the gradient. Memory: none beside the weights.

It takes a closure that returns a loss, and no gradients, so it is not among the names of
:func:`sharpen.optim.available`, whose optimizers all follow gradients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.files import atomic_write_text
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.lowrank_native import normal_rows
from sharpen.optim.engine.philox import normal, philox, splitmix64
from sharpen.optim.engine.rule import Group, Rule
from sharpen.optim.engine.sharded import is_sharded
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["MeZO", "MeZORule", "ZOStep", "read_log", "write_log"]

_ROW, _PIECE = 1 << 12, 1 << 18  # entries a row of noise, and whose noise is there at a time
Noise = Literal["gaussian", "rademacher"]


@dataclass(frozen=True, slots=True)
class ZOStep:
    """A step: all that is needed to take it again."""

    number: int
    """From 1."""

    projected: tuple[float, ...]
    """(l+ - l-) / (2 eps) for each seed; 0 where that is not finite."""

    rates: tuple[float, ...]
    """Learning rates of the groups."""

    loss: float
    """Mean of all losses."""


class MeZORule(Rule):
    """No states; the step is the optimizer's own."""

    name = "mezo"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """None."""
        return {}


class MeZO(Optimizer):
    """Two forward passes a step.

    Dropout and the like must be the same in all calls of a step: put the model in its ``eval``
    mode, as the authors do.

    Args:
        params: see :class:`Optimizer`; they need no gradient.
        lr: learning rate: 1e-7 to 1e-6 for all weights of a language model, 1e-4 to 1e-3 for LoRA.
        perturbation: eps, how far from the weights losses are taken.
        weight_decay: decoupled.
        samples: seeds whose steps are averaged; each takes two forward passes.
        noise: ``gaussian``, or ``rademacher``, signs.
        common: options of every optimizer; those of states and gradients have no effect.

    Raises:
        ConfigError: an option is out of its range, or a parameter is sharded.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(10))
        >>> optimizer = MeZO([w], lr=0.02)
        >>> first = optimizer.step(lambda: w.square().sum())
        >>> for _ in range(100):
        ...     last = optimizer.step(lambda: w.square().sum())
        >>> bool(last.loss < 0.1 * first.loss), optimizer.state_bytes()
        (True, 0)
    """

    rules: ClassVar[dict[str, Rule]] = {"mezo": MeZORule()}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-6,
        *,
        perturbation: float = 1e-3,
        weight_decay: float = 0.0,
        samples: int = 1,
        noise: Noise = "gaussian",
        **common: Unpack[Common],
    ) -> None:
        self.log: list[ZOStep] = []
        defaults = {
            "lr": lr,
            "perturbation": perturbation,
            "weight_decay": weight_decay,
            "samples": samples,
            "noise": noise,
            "taken": 0,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        if not 0 < group["perturbation"] < math.inf:
            raise ConfigError(f"perturbation={group['perturbation']} must be above 0.")
        if group["samples"] < 1:
            raise ConfigError(f"samples={group['samples']} must be at least 1.")
        if group["noise"] not in ("gaussian", "rademacher"):
            raise ConfigError(f"noise={group['noise']!r} must be 'gaussian' or 'rademacher'.")
        for p in group["params"]:
            if is_sharded(p):
                raise ConfigError(
                    f"{self.name_of(p)} is sharded, which MeZO does not support; it takes so "
                    "little memory that each rank can have the whole model."
                )
        for name in ("perturbation", "samples", "noise", "taken", "seed"):
            for other in self.param_groups[:1]:
                if name == "taken":
                    group[name] = other[name]
                elif group[name] != other[name]:
                    raise ConfigError(
                        f"{name}={group[name]} differs from another group's {other[name]}; all "
                        "weights are moved at once."
                    )

    def begin_step(self) -> None:
        """See :meth:`Optimizer.begin_step`; counts the step."""
        for group in self.param_groups:
            group["taken"] += 1

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float]) -> ZOStep:  # type: ignore[override]
        """Take one step.

        Args:
            closure: returns the loss with the weights as they are, always of the same batch.

        Returns:
            What happened; also in :attr:`log`.
        """
        self.begin_step()
        options = self.param_groups[0]
        pairs = self._losses(closure)
        slopes = [(plus - minus) / (2 * options["perturbation"]) for plus, minus in pairs]
        self._nonfinite += sum(not math.isfinite(slope) for slope in slopes)
        done = ZOStep(
            options["taken"],
            tuple(slope if math.isfinite(slope) else 0.0 for slope in slopes),
            tuple(float(group["lr"]) for group in self.param_groups),
            sum(plus + minus for plus, minus in pairs) / (2 * len(pairs)),
        )
        self._finish(done)
        return done

    @torch.no_grad()
    def replay(self, log: Iterable[ZOStep]) -> None:
        """Take steps of a log again, without a loss: on the first weights, to the same bits.

        Args:
            log: of an optimizer with the same options over the same parameters.

        Raises:
            ConfigError: a step is not the next one, or was taken with other options.
        """
        for done in log:
            options = self.param_groups[0]
            counts = len(done.projected), len(done.rates)
            if done.number != options["taken"] + 1:
                raise ConfigError(
                    f"step {done.number} of the log cannot follow step {options['taken']} of this "
                    "optimizer. Start from the first weights, with a new one."
                )
            if counts != (options["samples"], len(self.param_groups)):
                raise ConfigError(
                    f"step {done.number} of the log has {counts[0]} samples, {counts[1]} groups, "
                    f"and this optimizer {options['samples']} and {len(self.param_groups)}."
                )
            self.begin_step()
            self._losses(lambda: 0.0)  # the same sweeps, whose rounding counts
            self._finish(done)

    def _losses(self, closure: Callable[[], Tensor | float]) -> list[tuple[float, float]]:
        """l+ and l- of each sample; leaves the weights at the last place."""
        options = self.param_groups[0]
        number, eps = options["taken"], options["perturbation"]
        pairs = []
        for sample in range(options["samples"]):
            if sample:
                self._move(number, sample - 1, eps)
            self._move(number, sample, eps)
            plus = float(closure())
            self._move(number, sample, -2 * eps)
            pairs.append((plus, float(closure())))
        return pairs

    def _move(self, number: int, sample: int, distance: float) -> None:
        for p, _ in self._weights():
            for piece, noise in self._pieces(p, number, (sample,)):
                _add(piece, noise[0], distance)

    def _finish(self, done: ZOStep) -> None:
        """Back from the last sample's place, the step, and its record."""
        samples = tuple(range(len(done.projected)))
        sign = -1.0 if self.param_groups[0]["maximize"] else 1.0
        for p, place in self._weights():
            group, rate = self.param_groups[place], done.rates[place]
            decay = 1 - rate * float(group["weight_decay"])
            for piece, noise in self._pieces(p, done.number, samples):
                _add(piece, noise[-1], group["perturbation"])
                if decay != 1:
                    piece.mul_(decay)
                for z, slope in zip(noise, done.projected, strict=True):
                    if slope:
                        _add(piece, z, -sign * rate * slope / len(samples))
        self.log.append(done)

    def _weights(self) -> Iterator[tuple[Tensor, int]]:
        """Parameters, and the places of their groups."""
        for place, group in enumerate(self.param_groups):
            for p in group["params"]:
                yield p, place

    def _pieces(
        self, p: Tensor, number: int, samples: Sequence[int]
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Pieces of a parameter, to be changed in place, with their noise in float32."""
        options = self.param_groups[0]
        whole = p.detach().contiguous()
        flat = whole.view(-1)
        for place, piece in enumerate(flat.split(_PIECE)):  # type: ignore[no-untyped-call]
            noise = []
            for sample in samples:
                words = self._indices[p], place, number, sample
                noise.append(_noise(len(piece), options["seed"], words, options["noise"], p.device))
            yield piece, noise
        if whole.data_ptr() != p.data_ptr():
            p.copy_(whole)


def _noise(
    count: int, seed: int, words: tuple[int, ...], kind: Noise, device: torch.device
) -> Tensor:
    """Float32 [count], a function of the seed, the words and the place alone."""
    for word in words:
        seed = splitmix64(seed) + word & 0xFFFFFFFFFFFFFFFF
    seed = splitmix64(seed)
    key = seed & 0xFFFFFFFF, seed >> 32
    rows = max(1, -(-count // _ROW))
    width = _ROW if rows > 1 else count
    if kind == "gaussian" and device.type == "cpu":
        made = normal_rows(rows, width, key, 1.0)
        if made is not None:
            return made.view(-1)[:count]
    each = torch.arange(rows, device=device).unsqueeze(1)
    random = philox(key, (each, torch.arange(-(-width // 4), device=device), 0, 0))
    values = normal(random) if kind == "gaussian" else _signs(random)
    return values.reshape(-1)[:count]


def _signs(words: tuple[Tensor, ...]) -> Tensor:
    return 1.0 - 2.0 * (torch.stack(words, -1) >> 31).to(torch.float32)


def _add(x: Tensor, z: Tensor, factor: float) -> None:
    """X <- x + factor z in at least float32, rounded once."""
    if x.dtype in (torch.float32, torch.float64):
        x.add_(z.to(x.dtype), alpha=factor)
    else:
        x.copy_(x.to(torch.float32).add_(z, alpha=factor))


def write_log(path: str | Path, log: Iterable[ZOStep]) -> None:
    """Save a log as lines of JSON, some 100 bytes a step, in which numbers keep their bits."""
    text = "".join(json.dumps(asdict(done)) + "\n" for done in log)
    atomic_write_text(Path(path), text)


def read_log(path: str | Path) -> list[ZOStep]:
    """The steps that :func:`write_log` saved.

    Raises:
        DataError: a line is no step.
    """
    steps = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            steps.append(
                ZOStep(
                    int(row["number"]),
                    tuple(float(x) for x in row["projected"]),
                    tuple(float(x) for x in row["rates"]),
                    float(row["loss"]),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: no step of a MeZO log: {error}.") from error
    return steps
