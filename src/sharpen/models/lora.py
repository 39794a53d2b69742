"""LoRA: low-rank adapters on frozen weights (Hu et al., 2021, arXiv 2106.09685).

::

    y = W x + (alpha / r) B A x        A [r, in] kaiming-uniform(sqrt 5), B [out, r] zero

rsLoRA (Kalajdzievski, 2023) scales by alpha / sqrt(r). Files are PEFT's: ``adapter_config.json``
and ``adapter_model.safetensors``. Memory: r (in + out) parameters a layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError, FileFormatError, did_you_mean
from sharpen.core.files import atomic_dir, atomic_write_json
from sharpen.models.decoder import DecoderLM
from sharpen.models.functional import lora_linear
from sharpen.models.hf import TensorFile, read_safetensors_header, save_tensors

__all__ = [
    "LoraConfig",
    "LoraLinear",
    "add_lora",
    "load_adapter",
    "merge_lora",
    "save_adapter",
    "unmerge_lora",
    "write_adapter",
]

_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PREFIX = "base_model.model."
_UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "alora_invocation_tokens",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Which layers get adapters, and of what shape."""

    rank: int = 16
    """r, at least 1."""

    alpha: float | None = None
    """Numerator of the scale; default twice the rank."""

    dropout: float = 0.0
    """Dropout on the adapter's input while training."""

    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Layer names: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."""

    rslora: bool = False
    """Scale by alpha / sqrt(r)."""

    def __post_init__(self) -> None:
        """Check the ranges and names."""
        if self.rank < 1:
            raise ConfigError(f"rank={self.rank} must be at least 1.")
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha={self.alpha} must be above 0 and finite.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout} must be at least 0 and below 1.")
        if self.targets != "all-linear":
            if not self.targets:
                raise ConfigError("targets is empty; name layers or use 'all-linear'.")
            for name in self.targets:
                if name not in _LINEAR:
                    raise ConfigError(
                        f"targets names {name!r}.{did_you_mean(name, _LINEAR)} "
                        f"Allowed: {', '.join(_LINEAR)}."
                    )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapted layers."""
        return _LINEAR if self.targets == "all-linear" else self.targets

    @property
    def scale(self) -> float:
        """Factor of B A x."""
        alpha = self.alpha if self.alpha is not None else 2.0 * self.rank
        return alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable low-rank addition.

    Args:
        base: the layer; its weight keeps its type.
        config: rank and scale.
    """

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.weight = base.weight
        self.bias = base.bias
        self.scale = config.scale
        self.dropout = config.dropout
        self.merged = False
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(config.rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if self.merged:
            return F.linear(x, self.weight, self.bias)
        if self.dropout and self.training:
            dropped = F.linear(F.dropout(x, self.dropout), self.lora_A * self.scale)
            return F.linear(x, self.weight, self.bias) + F.linear(dropped, self.lora_B)
        return lora_linear(x, self.weight, self.bias, self.lora_A, self.lora_B, self.scale)

    def delta(self) -> Tensor:
        """Scale * B A, [out, in] float32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())


def _lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLinear)}


def _targets(model: nn.Module, config: LoraConfig) -> dict[str, nn.Linear]:
    """Linear layers that get adapters, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in config.names
    }


def add_lora(model: DecoderLM, config: LoraConfig, *, seed: int = 0) -> None:
    """Freeze ``model`` and give its layers adapters; only A and B are trainable afterwards.

    Args:
        model: changed in place.
        config: which layers, which shape.
        seed: of A; B is zero, so the outputs do not change.

    Raises:
        ConfigError: it already has adapters, or none of the layers is a plain linear one.
    """
    if _lora_layers(model):
        raise ConfigError("the model already has adapters; merge or remove them first.")
    targets = _targets(model, config)
    if not targets:
        raise ConfigError(
            f"the model has no plain linear layer called {', '.join(config.names)} to adapt. "
            "Load the model it was quantized from."
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, module in targets.items():
        layer = LoraLinear(module, config)
        bound = 1.0 / math.sqrt(module.in_features)  # kaiming-uniform with a = sqrt(5)
        with torch.no_grad():
            values = torch.empty(layer.lora_A.shape).uniform_(-bound, bound, generator=generator)
            layer.lora_A.copy_(values)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)


def merge_lora(model: DecoderLM) -> None:
    """Fold the adapters into the weights and remove them; layers become plain again."""
    for name, layer in _lora_layers(model).items():
        if not layer.merged:
            _shift(layer, 1.0)
        parent, _, leaf = name.rpartition(".")
        plain = nn.Linear(1, 1, bias=layer.bias is not None, device="meta")
        plain.out_features, plain.in_features = layer.weight.shape
        plain.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
        if layer.bias is not None:
            plain.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
        setattr(model.get_submodule(parent), leaf, plain)


def unmerge_lora(model: DecoderLM, *, merged: bool = False) -> None:
    """Take folded adapters out of the weights again, or (``merged``) fold them in, keeping them.

    Folding and taking out in float32 restores the weights to rounding.
    """
    for layer in _lora_layers(model).values():
        if layer.merged != merged:
            _shift(layer, 1.0 if merged else -1.0)
            layer.merged = merged


def _shift(layer: LoraLinear, sign: float) -> None:
    with torch.no_grad():
        weight = layer.weight
        weight.copy_((weight.float() + sign * layer.delta()).to(weight.dtype))


def save_adapter(
    model: DecoderLM, folder: str | Path, config: LoraConfig, *, base: str = ""
) -> None:
    """Write the adapters in PEFT's format; the folder appears whole.

    Args:
        model: with adapters.
        folder: replaced if it exists.
        config: as given to :func:`add_lora`.
        base: name of the base model, for the reader's information.
    """
    with atomic_dir(Path(folder)) as temporary:
        write_adapter(model, temporary, config, base=base)


def write_adapter(model: DecoderLM, folder: Path, config: LoraConfig, *, base: str = "") -> None:
    """Write the adapters into an existing folder."""
    tensors: dict[str, Tensor] = {}
    for name, layer in _lora_layers(model).items():
        for part in ("lora_A", "lora_B"):
            value = getattr(layer, part).detach().to("cpu", torch.float32).contiguous()
            tensors[f"{_PREFIX}{name}.{part}.weight"] = value
    if not tensors:
        raise ConfigError("the model has no adapters to save.")
    save_tensors(tensors, folder / "adapter_model.safetensors")
    alpha = config.alpha if config.alpha is not None else 2.0 * config.rank
    atomic_write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": config.rank,
            "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
            "lora_dropout": config.dropout,
            "target_modules": sorted(config.names),
            "use_rslora": config.rslora,
            "use_dora": False,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "modules_to_save": None,
        },
    )


def load_adapter(model: DecoderLM, folder: str | Path) -> LoraConfig:
    """Put a PEFT-format adapter on ``model`` (frozen; A and B trainable).

    Returns:
        Its config.

    Raises:
        MissingFileError: a file is missing.
        FileFormatError: damaged, not LoRA, or not of this model, which then stays as it was.
        ConfigError: the model already has adapters.
    """
    folder = Path(folder)
    where = folder / "adapter_config.json"
    data = read_json(where, "adapter config")
    config = _read_config(data, where)
    files = read_safetensors_header(folder / "adapter_model.safetensors")
    values = _read_adapter(folder, files, _targets(model, config), config)
    add_lora(model, config)
    with torch.no_grad():
        for name, layer in _lora_layers(model).items():
            layer.lora_A.copy_(values[f"{_PREFIX}{name}.lora_A.weight"])
            layer.lora_B.copy_(values[f"{_PREFIX}{name}.lora_B.weight"])
    return config


def _read_adapter(
    folder: Path,
    files: dict[str, TensorFile],
    targets: dict[str, nn.Linear],
    config: LoraConfig,
) -> dict[str, Tensor]:
    """A and B of every target, each checked by name and shape before anything is allocated."""
    wanted: dict[str, tuple[int, ...]] = {}
    for name, layer in targets.items():
        wanted[f"{_PREFIX}{name}.lora_A.weight"] = (config.rank, layer.in_features)
        wanted[f"{_PREFIX}{name}.lora_B.weight"] = (layer.out_features, config.rank)
    odd = sorted(set(wanted) ^ set(files))
    if odd:
        raise FileFormatError(
            f"{folder} is not an adapter of this model: {len(odd)} tensors are missing or "
            f"unexpected, such as {odd[0]!r}."
        )
    values = {}
    for name, shape in wanted.items():
        if files[name].shape != shape or not files[name].dtype.is_floating_point:
            raise FileFormatError(
                f"{folder}: tensor {name!r} has shape {list(files[name].shape)} and type "
                f"{files[name].dtype}; this model needs floats of shape {list(shape)}."
            )
        values[name] = files[name].read()
        if not bool(torch.isfinite(values[name]).all()):
            raise FileFormatError(f"{folder}: tensor {name!r} holds NaN or infinity.")
    return values


def _read_config(data: Any, where: Path) -> LoraConfig:
    if not isinstance(data, dict) or data.get("peft_type") != "LORA":
        raise FileFormatError(f"{where} is not the config of a LoRA adapter.")
    for key in _UNSUPPORTED:
        if data.get(key):
            raise FileFormatError(
                f"{where}: '{key}' is set to {data[key]!r}, which is not supported. Merge the "
                "adapter into its base with peft first."
            )
    if data.get("bias", "none") != "none":
        raise FileFormatError(f"{where}: 'bias' is {data['bias']!r}; only 'none' is supported.")
    targets = data.get("target_modules")
    if isinstance(targets, str):
        if targets != "all-linear":
            raise FileFormatError(f"{where}: target_modules as a pattern is not supported.")
        names: Any = "all-linear"
    else:
        given = targets if isinstance(targets, list) else []
        names = tuple(n for n in _LINEAR if n in given)
        if not names or any(n not in _LINEAR for n in given):
            raise FileFormatError(
                f"{where}: target_modules is {targets!r:.120}; it must be a list of "
                f"{', '.join(_LINEAR)}."
            )
    try:
        return LoraConfig(
            rank=int(data["r"]),
            alpha=float(data.get("lora_alpha", 8)),
            dropout=float(data.get("lora_dropout", 0.0)),
            targets=names,
            rslora=bool(data.get("use_rslora", False)),
        )
    except KeyError as error:
        raise FileFormatError(f"{where} lacks the key {error}.") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise FileFormatError(f"{where} is damaged: {error}") from None
