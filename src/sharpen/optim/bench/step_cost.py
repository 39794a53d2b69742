"""What a step of each optimizer costs: nanoseconds and bytes of state a parameter, beside peers.

Optimizers that work element by element step one flat tensor; those with rules for matrices step the
matrices, embedding and head of a Llama-shaped set. All contenders take turns in one process, on one
thread, and the figure is the least CPU time of many turns: other work on the machine slows a turn,
nothing makes one faster. A turn is a step, or the mean of ten where every tenth makes new bases.
The limit is the memory traffic of the rule over the measured bandwidth.
"""

from __future__ import annotations

import importlib.util
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psutil
import torch
from torch import nn

from sharpen.native.info import variant
from sharpen.optim.names import available, find

__all__ = ["Contender", "StepCost", "contenders", "measure_costs", "parameter_set"]

SetName = Literal["flat", "llama"]
_FLAT = 7_000_000
_MOST_BYTES = 3 << 29
_HIDDEN, _MLP, _LAYERS, _VOCAB = 256, 688, 6, 4096
# Methods whose rules are for matrices, with what the comparison sets.
_MATRIX: dict[str, dict[str, Any]] = {
    "apollo": {"rank": 128},
    "apollo_mini": {},
    "q_apollo": {"rank": 128},
    "galore": {"rank": 128},
    "galore_8bit": {"rank": 128},
    "fira": {"rank": 128},
    "frugal": {"density": 0.25},
    "badam": {},
    "muon": {},
    "soap": {},
    "cosmos": {},
    "adafactor": {},
    "lamb": {},
    "lamb_8bit": {},
}
_CYCLES = {"soap": 10, "pytorch-optimizer SOAP": 10}  # steps of which one makes new bases
_PEERS = {  # what a row's ratio is to
    "adamw": "torch AdamW fused",
    "adamw_8bit": "bitsandbytes AdamW8bit",
    "lion": "lion-pytorch",
    "lion_8bit": "bitsandbytes Lion8bit",
    "sgd": "torch SGD fused",
    "adafactor": "torch Adafactor",
    "muon": "torch Muon",
    "galore": "galore-torch",
    "schedule_free_adamw": "schedulefree AdamW",
    **{
        name: f"pytorch-optimizer {title}"
        for name, title in (
            ("ademamix", "AdEMAMix"),
            ("lamb", "LAMB"),
            ("apollo", "APOLLO"),
            ("apollo_mini", "APOLLO-Mini"),
            ("fira", "Fira"),
            ("soap", "SOAP"),
        )
    },
}
_BYTES = {  # read and written a parameter and step, by the rule, in float32
    "sgd": 12,
    "lion": 20,
    "adamw": 28,
    "adamw_8bit": 16.1,
    "lion_8bit": 14.0,
    "apollo_mini": 16,
    "frugal": 16,
}


@dataclass(frozen=True, slots=True)
class StepCost:
    """A row of the table."""

    name: str
    """Of the method, or of the peer."""

    parameters: SetName
    """The set that was stepped."""

    ns_per_param: float
    """Least CPU nanoseconds a parameter."""

    median_ns_per_param: float
    """Median of the same."""

    first_ns_per_param: float
    """Those of the first step, which makes states and bases."""

    state_bytes_per_param: float
    """Bytes of state a parameter."""

    ratio: float | None = None
    """The peer's time over this one's; for a peer, and where there is none, None."""

    peer: str | None = None
    """The peer of the ratio."""

    limit_ns_per_param: float | None = None
    """What moving the rule's bytes takes at the least."""


@dataclass(slots=True)
class Contender:
    """An optimizer over its own parameters."""

    name: str
    parameters: SetName
    make: Callable[[list[nn.Parameter]], Any]
    ours: bool


def parameter_set(name: SetName) -> list[nn.Parameter]:
    """Float32 parameters with gradients: one flat tensor, or the matrices of a small Llama."""
    generator = torch.Generator().manual_seed(0)
    shapes: list[tuple[int, ...]]
    if name == "flat":
        shapes = [(_FLAT,)]
    else:
        layer = [*[(_HIDDEN, _HIDDEN)] * 4, *[(_MLP, _HIDDEN)] * 2, (_HIDDEN, _MLP)]
        shapes = [(_VOCAB, _HIDDEN), *layer * _LAYERS, (_VOCAB, _HIDDEN)]
    parameters = []
    for shape in shapes:
        p = nn.Parameter(torch.randn(shape, generator=generator) * 0.02)
        p.grad = torch.randn(shape, generator=generator) * 0.01
        parameters.append(p)
    return parameters


def contenders(names: list[str] | None = None, *, peers: bool = True) -> list[Contender]:
    """The methods, and the peers that are installed.

    Args:
        names: of methods; None for all.
        peers: also their peers.
    """
    chosen = available() if names is None else names
    out = [_ours(name) for name in chosen]
    wanted = {_PEERS[name] for name in chosen if name in _PEERS} | {"torch AdamW fused"}
    if peers:
        out += [c for c in _peers() if c.name in wanted]
    return out


def _ours(name: str) -> Contender:
    kind, options = find(name), _MATRIX.get(name, {})

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if name not in _MATRIX or not kind.fallback:
            return kind(parameters, **options)
        rest = [parameters[0], parameters[-1]]
        groups: list[dict[str, Any]] = [
            {"params": parameters[1:-1]},
            {"params": rest, "rule": kind.fallback},
        ]
        return kind(groups, **options)

    return Contender(name, "llama" if name in _MATRIX else "flat", make, True)


def _peers() -> Iterator[Contender]:
    flat: SetName = "flat"
    yield Contender("torch AdamW fused", flat, lambda p: torch.optim.AdamW(p, fused=True), False)
    yield Contender("torch SGD fused", flat, lambda p: torch.optim.SGD(p, fused=True), False)
    yield Contender("torch Adafactor", "llama", torch.optim.Adafactor, False)
    if hasattr(torch.optim, "Muon"):
        yield Contender("torch Muon", "llama", lambda p: _Pair(torch.optim.Muon, p), False)
    if _has("lion_pytorch"):
        from lion_pytorch import Lion

        yield Contender("lion-pytorch", flat, Lion, False)
    if _has("schedulefree"):
        from schedulefree import AdamWScheduleFree

        def schedule_free(parameters: list[nn.Parameter]) -> Any:
            made = AdamWScheduleFree(parameters)
            made.train()
            return made

        yield Contender("schedulefree AdamW", flat, schedule_free, False)
    if _has("bitsandbytes"):
        from bitsandbytes.optim.adamw import AdamW8bit
        from bitsandbytes.optim.lion import Lion8bit

        yield Contender("bitsandbytes AdamW8bit", flat, AdamW8bit, False)
        yield Contender("bitsandbytes Lion8bit", flat, Lion8bit, False)
    if _has("galore_torch") and _has("transformers"):
        from galore_torch import GaLoreAdamW

        options = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
        yield Contender("galore-torch", "llama", lambda p: GaLoreAdamW(_low(p, options)), False)
    if _has("pytorch_optimizer"):
        yield from _of_pytorch_optimizer()


def _of_pytorch_optimizer() -> Iterator[Contender]:
    from pytorch_optimizer import APOLLO, SOAP, AdEMAMix, Fira, Lamb

    low = {"rank": 128, "update_proj_gap": 200, "scale": 1.0, "projection_type": "std"}
    mini = {**low, "rank": 1, "scale": 128.0}
    rows: tuple[tuple[str, SetName, Callable[..., Any]], ...] = (
        ("AdEMAMix", "flat", AdEMAMix),
        ("LAMB", "llama", Lamb),
        ("APOLLO", "llama", lambda p: APOLLO(_low(p, low), scale_type="channel")),
        ("APOLLO-Mini", "llama", lambda p: APOLLO(_low(p, mini), scale_type="tensor")),
        ("Fira", "llama", lambda p: Fira(_low(p, low))),
        ("SOAP", "llama", lambda p: _Pair(SOAP, p)),
    )
    for title, parameters, make in rows:
        yield Contender(f"pytorch-optimizer {title}", parameters, make, False)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _low(parameters: list[nn.Parameter], options: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"params": [parameters[0], parameters[-1]]},
        {"params": parameters[1:-1], **options},
    ]


class _Pair:
    """A method on matrices and torch's AdamW on the rest, as users pair them."""

    def __init__(self, kind: Callable[..., Any], parameters: list[nn.Parameter]) -> None:
        rest = [parameters[0], parameters[-1]]
        self._parts = kind(parameters[1:-1]), torch.optim.AdamW(rest, fused=True)

    @property
    def state(self) -> dict[Any, Any]:
        """Of both."""
        return {p: state for part in self._parts for p, state in part.state.items()}

    def step(self) -> None:
        """Step both."""
        for part in self._parts:
            part.step()


@contextmanager
def _quiet_peers() -> Iterator[None]:
    """Leave out what other packages say about themselves."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure_costs(
    names: list[str] | None = None,
    *,
    seconds: float = 4.0,
    peers: bool = True,
    tell: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Step all contenders in turn.

    Args:
        names: methods; None for all.
        seconds: about how long each contender steps; five turns at least.
        peers: also what users would take instead.
        tell: is told of each contender as it takes its first step.

    Returns:
        ``rows`` of :class:`StepCost`, ours first, and what they depend on: ``isa``, ``threads``,
        ``bandwidth_gb_s``.
    """
    with _one_thread(), _quiet_peers():
        bandwidth = _bandwidth()
        given = {c.name: (c, parameter_set(c.parameters)) for c in contenders(names, peers=peers)}
        made = {name: c.make(parameters) for name, (c, parameters) in given.items()}
        times: dict[str, list[float]] = {name: [] for name in made}
        firsts = {}
        for name, optimizer in made.items():
            tell(name)
            firsts[name] = _step(optimizer, 1)
        left = list(made)
        while left:
            for name in left:
                times[name].append(_step(made[name], _CYCLES.get(name, 1)))
            spent = {n: sum(times[n]) * _CYCLES.get(n, 1) for n in left}
            left = [n for n in left if len(times[n]) < 5 or spent[n] < seconds]
    rows = []
    least = {name: min(values) for name, values in times.items()}
    for name, (contender, parameters) in given.items():
        count = sum(p.numel() for p in parameters)
        peer = _PEERS.get(name) if contender.ours else None
        if contender.ours and peer not in least:
            peer = "torch AdamW fused"
        ratio = None
        if peer in least:
            theirs = sum(p.numel() for p in given[peer][1])
            ratio = (least[peer] / theirs) / (least[name] / count)
        moved = _BYTES.get(name) if contender.ours else None
        rows.append(
            StepCost(
                name=name,
                parameters=contender.parameters,
                ns_per_param=least[name] / count * 1e9,
                median_ns_per_param=statistics.median(times[name]) / count * 1e9,
                first_ns_per_param=firsts[name] / count * 1e9,
                state_bytes_per_param=_state_bytes(made[name]) / count,
                ratio=ratio,
                peer=peer if ratio is not None else None,
                limit_ns_per_param=moved / bandwidth * 1e9 if moved else None,
            )
        )
    return {
        "rows": rows,
        "isa": variant() or "none",
        "threads": 1,
        "bandwidth_gb_s": bandwidth / 1e9,
    }


def _step(optimizer: Any, count: int) -> float:
    begin = time.thread_time()
    for _ in range(count):
        optimizer.step()
    return (time.thread_time() - begin) / count


def _bandwidth() -> float:
    """Bytes that one core moves a second to and from memory: data larger than the caches."""
    size = min(_MOST_BYTES, psutil.virtual_memory().available // 8)
    x, best = torch.ones(size // 4), 0.0
    for _ in range(8):
        begin = time.thread_time()
        x.mul_(1.0)
        best = max(best, 2 * x.nbytes / (time.thread_time() - begin))
    return best


def _state_bytes(optimizer: Any) -> int:
    """Of all tensors of one or more dimensions that an optimizer keeps."""
    total, seen = 0, set()

    def count(value: Any) -> None:
        nonlocal total
        if isinstance(value, torch.Tensor):
            if value.ndim and value.data_ptr() not in seen:
                seen.add(value.data_ptr())
                total += value.nbytes
        elif isinstance(value, dict):
            for inner in value.values():
                count(inner)
        elif isinstance(value, list):
            for inner in value:
                count(inner)
        elif hasattr(value, "ortho_matrix"):  # galore-torch's projector
            count(value.ortho_matrix)

    for state in optimizer.state.values():
        count(state)
    return total
