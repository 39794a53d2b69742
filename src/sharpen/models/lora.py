"""LoRA: low-rank adapters on frozen weights (Hu et al., 2021, arXiv 2106.09685).

::

    y = W x + (alpha / r) B A x        A [r, in] kaiming-uniform(sqrt 5), B [out, r] zero

rsLoRA (Kalajdzievski, 2023) scales by alpha / sqrt(r). DoRA (:mod:`sharpen.models.dora`) also
learns a magnitude for each output. W may be stored in 4 bits (:mod:`sharpen.models.nf4`, QLoRA).
Files are PEFT's: ``adapter_config.json`` and ``adapter_model.safetensors``. Memory: r (in + out)
parameters a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from sharpen.models.dora import adapted_row_norms, row_squares
from sharpen.models.functional import lora_linear
from sharpen.models.hf import read_safetensors_header, save_tensors
from sharpen.models.linear import linear
from sharpen.models.nf4 import NF4Linear, dequantize_nf4

__all__ = [
    "LoraConfig",
    "LoraLinear",
    "add_lora",
    "load_adapter",
    "merge_lora",
    "read_adapter",
    "read_adapter_config",
    "save_adapter",
    "unmerge_lora",
    "without_adapters",
    "write_adapter",
]

_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PREFIX = "base_model.model."
_UNSUPPORTED = (
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

    dora: bool = False
    """Learn a magnitude for each output, and with A and B only the direction."""

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
        config: rank, scale, and whether outputs get magnitudes.
    """

    weight: Tensor
    lora_magnitude_vector: nn.Parameter | None
    squares: Tensor
    folded: Tensor

    def __init__(self, base: nn.Linear | NF4Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base = base if isinstance(base, NF4Linear) else None
        if isinstance(base, nn.Linear):
            self.weight = base.weight
        self.bias: nn.Parameter | None = base.bias
        self.in_features, self.out_features = base.in_features, base.out_features
        self.scale = config.scale
        self.dropout = config.dropout
        self.merged = False
        self.off = False
        weight = self.full_weight()
        device = weight.device
        self.lora_A = nn.Parameter(torch.empty(config.rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.rank, device=device))
        self.register_parameter("lora_magnitude_vector", None)
        if config.dora:
            self.register_buffer("squares", row_squares(weight.detach()), persistent=False)
            self.lora_magnitude_vector = nn.Parameter(self.squares.sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if self.merged:
            return linear(x, self.weight, self.bias)
        if self.off:
            return self.base(x) if self.base is not None else linear(x, self.weight, self.bias)
        if self.lora_magnitude_vector is None:
            return self._sum(x, self.bias)
        y = self._sum(x, None)
        y = y * self.factor().to(y.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def full_weight(self) -> Tensor:
        """The frozen weight, [out, in], in its own type."""
        if self.base is not None:
            return dequantize_nf4(self.base.quantized, self.base.dtype)
        return self.weight

    def delta(self) -> Tensor:
        """Scale * B A, [out, in] float32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())

    def adapted_weight(self) -> Tensor:
        """The weight that the layer acts with, [out, in], in the frozen weight's type."""
        weight = self.full_weight().detach()
        if self.merged:
            return weight
        with torch.no_grad():
            exact = (weight.float() + self.delta()) * self.factor()[:, None]
        return exact.to(weight.dtype)

    def factor(self) -> Tensor:
        """Of each output, m / ||W + scale * B A||: [out] float32; ones without magnitudes."""
        if self.lora_magnitude_vector is None:
            return torch.ones(self.out_features, device=self.lora_A.device)
        weight, a, b = self.full_weight(), self.lora_A, self.lora_B
        norms = adapted_row_norms(self.squares, weight, a, b, self.scale)
        return self.lora_magnitude_vector / norms

    def _sum(self, x: Tensor, bias: nn.Parameter | None) -> Tensor:
        """(W + scale * B A) x + bias."""
        drops = self.dropout > 0 and self.training
        if self.base is None and not drops:
            return lora_linear(x, self.weight, bias, self.lora_A, self.lora_B, self.scale)
        down = F.linear(F.dropout(x, self.dropout, drops), self.lora_A * self.scale)
        up = F.linear(down, self.lora_B)
        if self.base is None:
            return F.linear(x, self.weight, bias) + up
        y = self.base.product(x) + up
        return y if bias is None else y + bias.to(y.dtype)


def _lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLinear)}


def _targets(model: nn.Module, config: LoraConfig) -> dict[str, nn.Linear | NF4Linear]:
    """Linear layers that get adapters, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | NF4Linear) and name.rpartition(".")[2] in config.names
    }


def add_lora(model: DecoderLM, config: LoraConfig, *, seed: int = 0) -> None:
    """Freeze ``model`` and give its layers adapters; only they are trainable afterwards.

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
    """Fold the adapters into the weights and remove them; layers become plain again.

    A layer in NF4 becomes a plain one with its rounded weight and the adapter.
    """
    for name, layer in _lora_layers(model).items():
        weight = layer.full_weight().detach()
        if not layer.merged:
            weight = weight.copy_(layer.adapted_weight())
        parent, _, leaf = name.rpartition(".")
        plain = nn.Linear(1, 1, bias=layer.bias is not None, device="meta")
        plain.out_features, plain.in_features = weight.shape
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            plain.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
        setattr(model.get_submodule(parent), leaf, plain)


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The model acts as if it had no adapters while the block runs.

    Raises:
        ConfigError: adapters are folded into the weights.
    """
    layers = list(_lora_layers(model).values())
    if any(layer.merged for layer in layers):
        raise ConfigError("folded adapters cannot be left out; unmerge_lora(model) first.")
    for layer in layers:
        layer.off = True
    try:
        yield
    finally:
        for layer in layers:
            layer.off = False


def unmerge_lora(model: DecoderLM, *, merged: bool = False) -> None:
    """Take folded adapters out of the weights again, or (``merged``) fold them in, keeping them.

    Folding and taking out in float32 restores the weights to rounding.

    Raises:
        ConfigError: a layer is stored in 4 bits, which an adapter cannot be folded into.
    """
    layers = list(_lora_layers(model).values())
    if any(layer.base is not None for layer in layers):
        raise ConfigError(
            "adapters cannot be folded into weights in 4 bits and kept. merge_lora(model) folds "
            "them into plain weights for good."
        )
    for layer in layers:
        if layer.merged == merged:
            continue
        with torch.no_grad():
            if merged:
                layer.folded = layer.factor().detach()
                layer.weight.copy_(layer.adapted_weight())
            else:
                weight = layer.weight.float() / layer.folded[:, None] - layer.delta()
                layer.weight.copy_(weight.to(layer.weight.dtype))
        layer.merged = merged


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
        for part, value in _parts(layer).items():
            key = f"{_PREFIX}{name}.{part}"
            tensors[key] = value.detach().to("cpu", torch.float32).contiguous()
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
            "use_dora": config.dora,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "modules_to_save": None,
        },
    )


def load_adapter(model: DecoderLM, folder: str | Path) -> LoraConfig:
    """Put a PEFT-format adapter on ``model`` (frozen; the adapter trainable).

    Returns:
        Its config.

    Raises:
        MissingFileError: a file is missing.
        FileFormatError: damaged, not LoRA, or not of this model, which then stays as it was.
        ConfigError: the model already has adapters.
    """
    config = read_adapter_config(folder)
    shapes = {
        name: (layer.out_features, layer.in_features)
        for name, layer in _targets(model, config).items()
    }
    values = read_adapter(folder, config, shapes)
    add_lora(model, config)
    with torch.no_grad():
        for name, layer in _lora_layers(model).items():
            for part, parameter in _parts(layer).items():
                parameter.copy_(values[f"{_PREFIX}{name}.{part}"])
    return config


def _parts(layer: LoraLinear) -> dict[str, nn.Parameter]:
    """The parameters of an adapter by PEFT's names."""
    parts = {"lora_A.weight": layer.lora_A, "lora_B.weight": layer.lora_B}
    if layer.lora_magnitude_vector is not None:
        parts["lora_magnitude_vector"] = layer.lora_magnitude_vector
    return parts


def read_adapter_config(folder: str | Path) -> LoraConfig:
    """The config of a PEFT-format adapter.

    Raises:
        MissingFileError: there is none.
        FileFormatError: damaged, not LoRA, or with a setting that is not supported.
    """
    where = Path(folder) / "adapter_config.json"
    return _read_config(read_json(where, "adapter config"), where)


def read_adapter(
    folder: str | Path, config: LoraConfig, shapes: Mapping[str, tuple[int, int]]
) -> dict[str, Tensor]:
    """The tensors of a PEFT-format adapter, by their names in the file.

    Args:
        folder: of the adapter.
        config: from :func:`read_adapter_config`.
        shapes: outputs and inputs of every layer that it adapts, by the layer's name.

    Raises:
        MissingFileError: the file is missing.
        FileFormatError: damaged, or of other layers or shapes; nothing large is read then.
    """
    folder = Path(folder)
    files = read_safetensors_header(folder / "adapter_model.safetensors")
    wanted: dict[str, tuple[int, ...]] = {}
    for name, (out_features, in_features) in shapes.items():
        wanted[f"{_PREFIX}{name}.lora_A.weight"] = (config.rank, in_features)
        wanted[f"{_PREFIX}{name}.lora_B.weight"] = (out_features, config.rank)
        if config.dora:
            wanted[f"{_PREFIX}{name}.lora_magnitude_vector"] = (out_features,)
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
            dora=bool(data.get("use_dora", False)),
        )
    except KeyError as error:
        raise FileFormatError(f"{where} lacks the key {error}.") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise FileFormatError(f"{where} is damaged: {error}") from None
