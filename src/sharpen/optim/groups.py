"""Parameter groups by the role of a parameter in the model, decided by module type, not by name.

========== ====================================================================
embedding  weight of an ``nn.Embedding``, and any weight tied to it
head       the last linear layer with as many outputs as there are embeddings
matrix     two-dimensional weight of a linear layer; with ``conv_as_matrix`` a
           convolution's, too
vector     one-dimensional: gains of norms, biases
other      the rest
========== ====================================================================

An optimizer with a rule for matrices uses it on those that are large enough, and AdamW elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from sharpen.core.errors import ConfigError

if TYPE_CHECKING:
    from sharpen.optim.engine.base import Optimizer

__all__ = ["Role", "describe", "param_groups", "regroup", "roles"]

Role = Literal["embedding", "head", "matrix", "vector", "other"]
Override = tuple[str | type[nn.Module], dict[str, Any]]


def roles(model: nn.Module, *, conv_as_matrix: bool = False) -> dict[str, Role]:
    """The role of every parameter, by name; tied ones appear once.

    Examples:
        >>> model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 8), nn.Linear(8, 10))
        >>> list(roles(model).values())
        ['embedding', 'matrix', 'vector', 'head', 'vector']
    """
    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    embedded = {id(m.weight) for m in embeddings}
    sizes = {m.num_embeddings for m in embeddings}
    heads = [m for m in model.modules() if _is_linear(m) and m.out_features in sizes]
    head = id(heads[-1].weight) if heads else None
    out: dict[str, Role] = {}
    names = {id(p): name for name, p in model.named_parameters()}
    for module in model.modules():
        for p in module._parameters.values():
            if p is None or names[id(p)] in out:
                continue
            role: Role = "other"
            if id(p) in embedded:
                role = "embedding"
            elif id(p) == head:
                role = "head"
            elif p.ndim <= 1:
                role = "vector"
            elif (p.ndim == 2 and _is_linear(module)) or (conv_as_matrix and _is_conv(module)):
                role = "matrix"
            out[names[id(p)]] = role
    return {name: out[name] for name in names.values()}


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)


def _is_linear(module: nn.Module) -> Any:
    """A linear layer, or a layer that stands for one."""
    return hasattr(module, "in_features") and hasattr(module, "out_features")


def param_groups(
    model: nn.Module,
    optimizer: str | type[Optimizer] = "adamw",
    *,
    no_decay: Sequence[Role] = ("vector",),
    overrides: Sequence[Override] = (),
    min_lowrank_dim: int = 128,
    conv_as_matrix: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """Groups for an optimizer of Sharpen's.

    Args:
        model: its trainable parameters.
        optimizer: a name of :func:`sharpen.optim.available`, or the class.
        no_decay: roles without weight decay.
        overrides: (regular expression of names, or module class) and options for what it finds;
            a later one wins.
        min_lowrank_dim: matrices with a smaller side are no case for low-rank rules.
        conv_as_matrix: treat convolutions' weights as matrices [out, the rest].
        options: of all groups, such as ``rank``.

    Returns:
        Groups of (name, parameter) pairs; ``role`` tells what is in them.

    Raises:
        ConfigError: nothing is trainable, or an override matches nothing.
    """
    from sharpen.optim.names import find

    kind = find(optimizer) if isinstance(optimizer, str) else optimizer
    matrix_rule = next(iter(kind.rules))
    rest = kind.fallback or matrix_rule
    defaults = {**kind.preset, **options}
    quantized = defaults.get("state_dtype", "fp32") in ("q8", "q4")
    owners = {id(p): m for m in model.modules() for p in m._parameters.values() if p is not None}
    groups: dict[str, dict[str, Any]] = {}
    used = set()
    numbers = {name: i for i, (name, _) in enumerate(model.named_parameters(), 1)}
    for name, role in roles(model, conv_as_matrix=conv_as_matrix).items():
        p = model.get_parameter(name)
        if not p.requires_grad:
            continue
        group: dict[str, Any] = {**options, "role": role}
        serves = role == "matrix" and kind.rules[matrix_rule].serves(
            tuple(p.shape), {**defaults, "min_lowrank_dim": min_lowrank_dim}
        )
        group["rule"] = matrix_rule if serves or matrix_rule == rest else rest
        if role in no_decay:
            group["weight_decay"] = 0.0
        if quantized:  # decided here for the whole tensor, however its rows are cut later
            small = p.numel() < defaults.get("min_quant_size", 4096)
            if small or role in ("embedding", "vector"):
                group["state_dtype"] = "fp32"
            group["min_quant_size"] = 0
        for number, (pattern, extra) in enumerate(overrides):
            matches = (
                re.search(pattern, name)
                if isinstance(pattern, str)
                else isinstance(owners[id(p)], pattern)
            )
            if matches:
                used.add(number)
                group |= extra
        key = repr(sorted(group.items()))
        into = groups.setdefault(key, {**group, "params": [], "indices": []})
        into["params"].append((name, p))
        into["indices"].append(numbers[name])
    if not groups:
        raise ConfigError("no parameter is trainable: every one is frozen.")
    for number, (pattern, _) in enumerate(overrides):
        if number not in used:
            raise ConfigError(f"the override {pattern!r} matches no trainable parameter.")
    return list(groups.values())


def regroup(
    groups: Sequence[dict[str, Any]], named: Iterable[tuple[str, Tensor]]
) -> list[dict[str, Any]]:
    """The same groups over other tensors of the same names, such as the rows on one rank.

    Args:
        groups: of :func:`param_groups`.
        named: some of their names, with the tensors to take instead.

    Returns:
        Groups that are not empty; ``members`` are the names, indices and elements of all that the
        given group has, for methods that choose among them.
    """
    tensors = dict(named)
    out = []
    for group in groups:
        members = [
            (name, index, p.numel())
            for (name, p), index in zip(group["params"], group["indices"], strict=True)
        ]
        kept = [
            (name, index)
            for (name, _), index in zip(group["params"], group["indices"], strict=True)
            if name in tensors
        ]
        if kept:
            pairs = [(name, tensors[name]) for name, _ in kept]
            rows = {"params": pairs, "indices": [index for _, index in kept]}
            out.append({**group, **rows, "members": members})
    return out


def describe(groups: Sequence[dict[str, Any]]) -> str:
    """A table of groups: role, rule, parameters, weight decay, state type.

    Args:
        groups: of :func:`param_groups`, or an optimizer's.
    """
    rows = [("role", "rule", "tensors", "parameters", "weight decay", "states")]
    for group in groups:
        tensors = [p[1] if isinstance(p, tuple) else p for p in group["params"]]
        rows.append(
            (
                group.get("role", "-"),
                group["rule"],
                str(len(tensors)),
                f"{sum(t.numel() for t in tensors):,}",
                str(group.get("weight_decay", "default")),
                group.get("state_dtype", "default"),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
