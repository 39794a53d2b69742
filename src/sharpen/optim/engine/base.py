"""The optimizer engine: everything that is the same for every update rule.

A step, parameter by parameter:

1. The gradient in at least float32, negated by ``maximize``, scaled by clipping (the gradient
   itself is never written to). Entries that are not finite: a rule that works element by element
   leaves those elements and their states as they were, and one that mixes elements leaves the whole
   parameter; ``stats()`` counts them.
2. States kept in few bits are read in full precision.
3. The rule's step d; ``cautious`` keeps where it agrees with the gradient in sign (Liang et al.,
   Cautious Optimizers, 2024, arXiv 2411.16085), ``update_rms_clip`` limits its root mean square
   (in units of the learning rate).
4. w <- (1 - lr weight_decay) w - d; bfloat16 weights are rounded at random unless there are
   ``master_weights``.

The same step by native code for many parameters at once (``impl="fused"``), by torch's lists of
tensors (``foreach``) or one by one (``eager``, the reference).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.checkpoint import load_state_dict
from sharpen.optim.engine.loop import is_listable, step_many, step_one
from sharpen.optim.engine.options import COMMON, Common, check_group, check_names
from sharpen.optim.engine.quant import BlockQuantTensor
from sharpen.optim.engine.rule import Entry, Group, Rule, Stored, is_packed
from sharpen.optim.engine.sharded import (
    is_sharded,
    local,
    local_rank,
    owner_of,
    shard_like,
    step_whole,
)
from sharpen.optim.engine.slots import SlotSpec, slot_bytes, stored_kind

__all__ = ["Common", "Optimizer", "Params"]

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]


class Optimizer(torch.optim.Optimizer):
    """Base of Sharpen's optimizers; a torch optimizer in every respect.

    Args:
        params: tensors, (name, tensor) pairs as of ``named_parameters()``, or groups; a group's
            ``rule`` chooses among :attr:`rules`.
        defaults: options of the method, for groups that do not say otherwise.
        common: those of every optimizer, see :class:`~sharpen.optim.engine.options.Common`.

    Raises:
        ConfigError: an option is unknown or out of its range, or no parameter is given.
    """

    rules: ClassVar[dict[str, Rule]]
    """By name; the first is the default."""

    fallback: ClassVar[str] = ""
    """The rule of what the first one does not serve; empty when it serves everything."""

    preset: ClassVar[dict[str, Any]] = {}
    """Options that differ from the general ones."""

    def __init__(self, params: Params, defaults: dict[str, Any], common: Mapping[str, Any]) -> None:
        check_names(type(self).__name__, common, defaults)
        self._count = 0
        self._nonfinite = 0
        self._indices: dict[Tensor, int] = {}
        self._names: dict[Tensor, str] = {}
        self._kept: dict[Tensor, tuple[int, list[tuple[str, Tensor]], dict[str, Stored]]] = {}
        self.owners: dict[Tensor, int] = {}
        groups: list[Any] = [params] if isinstance(params, Tensor) else list(params)
        if not groups:
            raise ConfigError(f"{type(self).__name__} got no parameters.")
        rule = {"rule": next(iter(self.rules))}
        super().__init__(groups, {**rule, **COMMON, **defaults, **self.preset, **common})

    # Torch's own forms of the next two load its compiler, a second at every start.

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with options of its own.

        Raises:
            ConfigError: an option is out of range, or a parameter is there already.
        """
        group = dict(param_group)
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        pairs = [p if isinstance(p, tuple) else (None, p) for p in params]
        for name, p in pairs:
            if not isinstance(p, Tensor) or not p.is_leaf:
                raise ConfigError(
                    f"parameter {name or len(self._indices)} is a {type(p).__name__}; an optimizer "
                    "takes tensors that no operation made."
                )
            if p.is_complex():
                raise ConfigError(
                    f"parameter {name or len(self._indices)} is {p.dtype}; complex parameters are "
                    "not supported. Give torch.view_as_real of it."
                )
            if p in self._indices:
                raise ConfigError(f"parameter {name or self._names[p]} is given twice.")
            self._count += 1
            self._indices[p] = self._count
            self._names[p] = name or f"param {self._count - 1}"
        if "indices" in group:
            self._indices.update(zip((p for _, p in pairs), group["indices"], strict=True))
        group["params"] = [p for _, p in pairs]
        group["indices"] = [self._indices[p] for p in group["params"]]
        if all(name is not None for name, _ in pairs):
            group["param_names"] = [name for name, _ in pairs]
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        if any(is_sharded(p) for p in group["params"]):
            group["layout"] = "row"
        check_group(type(self).__name__, self.rules, group)
        self.check(group)
        self.owners.clear()
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to 0."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    if set_to_none:
                        p.grad = None
                    else:
                        p.grad.detach_().zero_()

    def stats(self) -> dict[str, int]:
        """What happened so far: ``nonfinite``, gradient entries that were NaN or infinite."""
        return {"nonfinite": self._nonfinite}

    def name_of(self, p: Tensor) -> str:
        """A parameter's name, for messages."""
        return self._names[p]

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, max_norm: float | None = None
    ) -> Any:
        """Take one step.

        Args:
            closure: computes the loss and its gradients; called first.
            max_norm: clip the global norm of the gradients to this; they stay as they are.

        Returns:
            The closure's loss.

        Raises:
            ConfigError: a gradient is sparse, or ``impl="fused"`` cannot be.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.begin_step()
        entries = [
            (p, group)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and self.takes_part(p, group)
        ]
        scale = 1.0 if max_norm is None else self._clip_scale(entries, max_norm)
        fused: dict[str, list[Entry]] = {}
        lists: dict[Any, list[tuple[Tensor, Entry]]] = {}
        for p, group in entries:
            rule = self.rules[group["rule"]]
            if is_sharded(p) and rule.mixes:
                continue
            assert p.grad is not None
            entry = self._entry(p, group, local(p), local(p.grad))
            if not entry.parameter.numel():
                continue
            impl = group["impl"]
            if impl in ("auto", "fused") and self._fuses(rule, entry):
                fused.setdefault(group["rule"], []).append(entry)
            elif impl == "fused":
                raise ConfigError(
                    f"impl='fused' cannot update {self.name_of(p)} ({p.dtype} on {p.device}, rule "
                    f"{rule.name!r}): no native kernel serves it here. Use impl='auto'."
                )
            elif (impl == "foreach" or (impl == "auto" and p.is_cuda)) and is_listable(entry):
                key = (id(group), p.device, p.dtype, entry.t)
                lists.setdefault(key, []).append((p, entry))
            else:
                self._step_one(p, entry, rule, scale)
        for name, some in fused.items():
            self._nonfinite += self.rules[name].step_fused(some, scale)
        for many in lists.values():
            some = [entry for _, entry in many]
            rule = self.rules[some[0].group["rule"]]
            if not step_many(some, rule, scale):
                for p, entry in many:
                    self._step_one(p, entry, rule, scale)
        step_whole(self, [(p, g) for p, g in entries if self._is_whole(p, g)], scale)
        return loss

    def check(self, group: dict[str, Any]) -> None:
        """Check a method's own options of a group that is added; may settle those left open.

        Raises:
            ConfigError: one is out of its range.
        """

    def begin_step(self) -> None:
        """Called first in each step; a method may choose here what takes part."""

    def takes_part(self, p: Tensor, group: Group) -> bool:
        """Whether a parameter with a gradient is updated in this step."""
        return True

    def needs_whole(self, p: Tensor) -> bool:
        """Whether the rule of a parameter cannot do with a part of its rows."""
        return self.rules[self._group_of(p)["rule"]].mixes

    def has_states(self, p: Tensor) -> bool:
        """Whether this rank keeps states of a parameter's: of its rows, or as its owner."""
        return not self._is_whole(p, self._group_of(p)) or local_rank(p) == owner_of(self, p)

    def _group_of(self, p: Tensor) -> Group:
        return next(g for g in self.param_groups if any(q is p for q in g["params"]))

    def _is_whole(self, p: Tensor, group: Group) -> bool:
        return is_sharded(p) and self.rules[group["rule"]].mixes

    def _fuses(self, rule: Rule, entry: Entry) -> bool:
        return "master" not in entry.state and rule.can_fuse(entry)

    def step_parameter(
        self, p: Tensor, group: Group, weights: Tensor, grad: Tensor, scale: float = 1.0
    ) -> None:
        """Take the step of one parameter.

        Args:
            p: the parameter.
            group: its group.
            weights: its values here, written to: its rows, or the whole of a sharded one.
            grad: of the same shape.
            scale: factor of the gradient.
        """
        rule = self.rules[group["rule"]]
        entry = self._entry(p, group, weights, grad)
        if group["impl"] in ("auto", "fused") and self._fuses(rule, entry):
            self._nonfinite += rule.step_fused([entry], scale)
        else:
            self._step_one(p, entry, rule, scale)

    def _step_one(self, p: Tensor, entry: Entry, rule: Rule, scale: float) -> None:
        bad, done = step_one(entry, rule, scale)
        self._nonfinite += bad
        if not done:
            self.state[p]["step"].fill_(entry.t - 1)

    def _entry(self, p: Tensor, group: Group, weights: Tensor, grad: Tensor) -> Entry:
        """A parameter's values here, with its states; counts the step."""
        if grad.layout != torch.strided:
            raise ConfigError(
                f"the gradient of {self.name_of(p)} is sparse, which {type(self).__name__} does "
                "not support. Use torch.optim.SparseAdam, or an embedding with sparse=False."
            )
        state = self.state[p]
        if "step" not in state:
            self.init_state(p, group, weights)
        t = int(state["step"]) + 1
        state["step"].fill_(t)
        stored = self.stored(p, group, tuple(weights.shape))
        return Entry(weights, grad, stored, group, t, self._indices[p], state["step"])

    def specs(self, p: Tensor, group: Group, shape: tuple[int, ...]) -> dict[str, SlotSpec]:
        """Slots of a parameter's rows: the rule's, and float32 copies of half-precision weights."""
        slots = self.rules[group["rule"]].slots(shape, group)
        half = p.dtype in (torch.bfloat16, torch.float16) and not is_packed(p)
        if group["master_weights"] and half:
            slots = {"master": SlotSpec(shape, init="weights"), **slots}
        return slots

    def init_state(self, p: Tensor, group: Group, weights: Tensor) -> None:
        """Make the states of a parameter whose values here are ``weights``."""
        self.state[p]["step"] = torch.zeros((), dtype=torch.float32)
        self.add_slots(p, group, weights, self.specs(p, group, tuple(weights.shape)))

    def add_slots(
        self, p: Tensor, group: Group, weights: Tensor, specs: Mapping[str, SlotSpec]
    ) -> None:
        """Make some states of a parameter."""
        state = self.state[p]
        work = torch.promote_types(p.dtype, torch.float32)
        shards = is_sharded(p) and not self.rules[group["rule"]].mixes
        for name, spec in specs.items():
            kind = stored_kind(spec, group)
            dtype = torch.bfloat16 if kind == "bf16" else torch.int32 if spec.integer else work
            if isinstance(spec.init, str):
                read = weights.dequantize() if is_packed(weights) else weights
                value = read.to(dtype, copy=True).contiguous()
            else:
                value = torch.full(spec.shape, spec.init, dtype=dtype, device=weights.device)
            parts = {name: value}
            if kind in ("q8", "q4"):
                packed = BlockQuantTensor.quantize(value, **_packing(spec, kind, group))
                parts = {f"{name}_codes": packed.codes, f"{name}_absmax": packed.absmax}
            for key, part in parts.items():
                state[key] = shard_like(part, p) if shards and part.ndim else part

    def stored(self, p: Tensor, group: Group, shape: tuple[int, ...]) -> dict[str, Stored]:
        """The slots, as they are kept, of a parameter of which values of ``shape`` are here."""
        state = self.state[p]
        known = self._kept.get(p)
        if (
            known is not None
            and known[0] == len(state)
            and all(state.get(name) is value for name, value in known[1])
        ):
            return known[2]
        found: dict[str, Stored] = {}
        for name, spec in self.specs(p, group, shape).items():
            kind = stored_kind(spec, group)
            if kind in ("q8", "q4"):
                found[name] = BlockQuantTensor(
                    local(state[f"{name}_codes"]),
                    local(state[f"{name}_absmax"]),
                    spec.shape,
                    **_packing(spec, kind, group),
                )
            else:
                found[name] = local(state[name])
        tensors = [(name, value) for name, value in state.items() if name != "step"]
        self._kept[p] = len(state), tensors, found
        return found

    def _clip_scale(self, entries: Sequence[tuple[Tensor, Group]], max_norm: float) -> float:
        norms = [torch.linalg.vector_norm(local(p.grad)) for p, _ in entries]  # type: ignore[arg-type]
        if not norms:
            return 1.0
        square = torch.stack([n.double().square() for n in norms]).sum()
        sharded = next((p for p, _ in entries if is_sharded(p)), None)
        if sharded is not None:
            torch.distributed.all_reduce(square, group=sharded.device_mesh.get_group())  # type: ignore[attr-defined]
        norm = float(square.sqrt())
        return max_norm / (norm + 1e-6) if norm > max_norm else 1.0

    def state_bytes(
        self, *, per_param: bool = False, include_projection: bool = True, predicted: bool = False
    ) -> Any:
        """Bytes of the states on this rank, numbers left out.

        Args:
            per_param: by parameter name.
            include_projection: count bases that could be made again.
            predicted: from shapes alone, also before the first step and on meta tensors; what is
                asked of an optimizer that took no step is this.
        """
        out = {}
        for group in self.param_groups:
            for p in group["params"]:
                shape = self._shape_here(p, group)
                if predicted or p not in self.state:
                    full = torch.promote_types(p.dtype, torch.float32).itemsize
                    out[self.name_of(p)] = sum(
                        slot_bytes(spec, group, full)
                        for spec in self.specs(p, group, shape).values()
                        if include_projection or not spec.projection
                    )
                else:
                    specs = self.specs(p, group, shape)
                    skip = {n for n, s in specs.items() if s.projection and not include_projection}
                    out[self.name_of(p)] = sum(
                        local(value).nbytes
                        for name, value in self.state[p].items()
                        if value.ndim and name not in skip
                    )
        return out if per_param else sum(out.values())

    def _shape_here(self, p: Tensor, group: Group) -> tuple[int, ...]:
        """Of the values whose states are on this rank."""
        if not self._is_whole(p, group):
            return tuple(local(p).shape)
        here = local_rank(p) == owner_of(self, p)
        return tuple(p.shape) if here else (0, *p.shape[1:])

    def state_dict(self) -> dict[str, Any]:
        """As torch's: tensors, numbers and strings only, so that ``weights_only`` loads it."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        order = [p for group in self.param_groups for p in group["params"]]
        numbers = {p: i for i, p in enumerate(order)}
        groups = [
            {
                **{k: v for k, v in group.items() if k != "params"},
                "optimizer": type(self).__name__,
                "params": [numbers[p] for p in group["params"]],
                "shapes": [list(p.shape) for p in group["params"]],
            }
            for group in self.param_groups
        ]
        state = {numbers[p]: dict(slots) for p, slots in self.state.items() if p in numbers}
        out: dict[str, Any] = {"state": state, "param_groups": groups}
        for change in self._optimizer_state_dict_post_hooks.values():
            out = change(self, out) or out
        return out

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of an optimizer of the same kind over the same parameters.

        Raises:
            ConfigError: it is of another optimizer, or of other parameters or shapes; names the
                first that differs.
        """
        found = dict(state_dict)
        for change in self._optimizer_load_state_dict_pre_hooks.values():
            found = change(self, found) or found
        load_state_dict(self, found)
        for told in self._optimizer_load_state_dict_post_hooks.values():
            told(self)

    def __getstate__(self) -> dict[str, Any]:
        """All but the hooks and what is made of the rest, for copies and pickles."""
        state = {name: v for name, v in self.__dict__.items() if not name.endswith("_hooks")}
        return {**state, "_kept": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As torch's, for copies and pickles."""
        self.__dict__.update(state)
        for name in ("step_pre", "step_post", "state_dict_pre", "state_dict_post"):
            self.__dict__.setdefault(f"_optimizer_{name}_hooks", OrderedDict())
        for name in ("load_state_dict_pre", "load_state_dict_post"):
            self.__dict__.setdefault(f"_optimizer_{name}_hooks", OrderedDict())
        self._patch_step_function()


def _packing(spec: SlotSpec, kind: str, group: Group) -> dict[str, Any]:
    return {
        "signed": spec.code == "signed",
        "bits": 8 if kind == "q8" else 4,
        "block_size": group["block_size"],
        "layout": group["layout"],
    }
