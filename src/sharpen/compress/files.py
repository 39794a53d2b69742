"""Quantized model folders in the ``pack-quantized`` format of the ``compressed-tensors`` package.

Weights of linear layers are integers in int32 words; embedding, head, norms and biases stay floats.
``config.json`` says so under ``quantization_config``, so that other engines load the folder too.
With ``head="int8"`` the embedding (and with it a tied head) is stored as 8-bit rows as well; such
folders are read by Sharpen only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.compress.grid import Grid, Head
from sharpen.compress.groupwise import QuantizedWeight, quantize
from sharpen.compress.linear import Kernel, QuantizedEmbedding, QuantizedLinear
from sharpen.compress.mixed import MixedLinear
from sharpen.compress.packing import pack_weight, unpack_weight
from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError, FileFormatError
from sharpen.core.files import atomic_dir, atomic_write_json
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import TensorFile, empty_model, open_tensors, write_tensors
from sharpen.models.tokenizer import Tokenizer

__all__ = [
    "fill_rest",
    "load_packed",
    "load_quantized",
    "outer_tensors",
    "refuse_quantized",
    "save_quantized",
    "write_model_config",
    "write_quantized",
]

_HEAD_GRID = Grid(bits=8)
_EMBEDDING = "model.embed_tokens"
_PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point")


def save_quantized(
    model: DecoderLM,
    folder: str | Path,
    grid: Grid,
    *,
    head: Head = "keep",
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> int:
    """Quantize a model's linear layers into a folder, which appears whole.

    Args:
        model: full-precision weights, adapters merged; not changed.
        folder: replaced if it exists.
        grid: of the linear layers in the blocks.
        head: ``int8`` also stores embedding and head as 8-bit rows.
        tokenizer: written beside the weights.
        dtype: of what is not quantized.

    Returns:
        Bytes of the folder's files.

    Raises:
        ConfigError: the group size does not divide a layer's inputs, or the model is quantized.
        DataError: NaN or infinity in a weight.
        StorageError: the folder cannot be written.

    Examples:
        >>> save_quantized(model, "out/int4", Grid(bits=4, group=32))  # doctest: +SKIP
        116343210
    """
    with atomic_dir(Path(folder)) as temporary:
        write_quantized(model, temporary, grid, head=head, dtype=dtype)
        if tokenizer is not None:
            tokenizer.save(temporary)
        return sum(file.stat().st_size for file in temporary.iterdir())


def write_quantized(
    model: DecoderLM,
    folder: Path,
    grid: Grid,
    *,
    head: Head = "keep",
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write config and weights into an existing folder; see :func:`save_quantized`."""
    refuse_quantized(model)
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        layer, _, leaf = name.rpartition(".")
        if not name.startswith("model.layers."):
            tensors |= outer_tensors(name, parameter, head, dtype)
        elif leaf == "weight" and isinstance(model.get_submodule(layer), nn.Linear):
            tensors |= _packed(name, parameter, grid)
        else:
            tensors[name] = parameter.detach().to("cpu", dtype).contiguous()
    write_model_config(model.spec, folder, dtype, _quantization_config(grid, head, model.spec))
    write_tensors(tensors, folder)


def refuse_quantized(model: DecoderLM) -> None:
    """Raise :class:`ConfigError` when the model's weights are integers already."""
    kinds = QuantizedLinear, QuantizedEmbedding, MixedLinear
    if any(isinstance(module, kinds) for module in model.modules()):
        raise ConfigError("the model is quantized already; start from its full-precision weights.")


def write_model_config(
    spec: ModelSpec, folder: Path, dtype: torch.dtype, quantization: dict[str, Any]
) -> None:
    """Write ``config.json`` and ``generation_config.json`` of a quantized folder."""
    config = spec.to_config(dtype=str(dtype).removeprefix("torch."))
    config["quantization_config"] = quantization
    atomic_write_json(folder / "config.json", config)
    generation = {
        key: config[key]
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        if config[key] is not None
    }
    atomic_write_json(folder / "generation_config.json", generation)


def outer_tensors(
    name: str, parameter: Tensor, head: Head, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What a file stores for a parameter outside the blocks: embedding, final norm or head."""
    if head == "int8" and name in (f"{_EMBEDDING}.weight", "lm_head.weight"):
        return _packed(name, parameter, _HEAD_GRID)
    return {name: parameter.detach().to("cpu", dtype).contiguous()}


def _packed(name: str, parameter: Tensor, grid: Grid) -> dict[str, Tensor]:
    quantized = quantize(parameter.detach().cpu(), grid, where=name)
    layer = name.removesuffix(".weight")
    return {f"{layer}.{part}": tensor for part, tensor in pack_weight(quantized).items()}


def _quantization_config(grid: Grid, head: Head, spec: ModelSpec) -> dict[str, Any]:
    groups = {"group_0": _group(grid, ["Linear"])}
    if head == "int8":
        targets = [_EMBEDDING] if spec.tie_word_embeddings else [_EMBEDDING, "lm_head"]
        groups["group_1"] = _group(_HEAD_GRID, targets)
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ["lm_head"] if head == "keep" or spec.tie_word_embeddings else [],
        "kv_cache_scheme": None,
    }


def _group(grid: Grid, targets: list[str]) -> dict[str, Any]:
    by_group = grid.group_size != -1
    return {
        "targets": targets,
        "weights": {
            "num_bits": grid.bits,
            "type": "int",
            "symmetric": grid.symmetric,
            "strategy": "group" if by_group else "channel",
            "group_size": grid.group_size if by_group else None,
            "dynamic": False,
        },
        "input_activations": None,
        "output_activations": None,
    }


def load_quantized(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    kernel: Kernel = "auto",
) -> DecoderLM:
    """Load a folder in the ``pack-quantized`` format; the weights stay integers.

    Args:
        folder: as :func:`save_quantized` or ``compressed-tensors`` wrote it, 4 or 8 bits.
        dtype: of what is not quantized, and of activations between layers.
        device: where the weights go; the fast kernels are the CPU's.
        kernel: ``reference`` dequantizes in every product instead, exact to ``dtype``.

    Raises:
        MissingFileError: a file is missing.
        FileFormatError: damaged, or a kind of quantization that is not supported.
    """
    folder = Path(folder)
    spec = ModelSpec.from_ref(folder)
    groups = _read_groups(folder / "config.json")
    files = open_tensors(folder)
    model = empty_model(spec)
    used = load_packed(model, folder, files, groups, dtype=dtype, device=device, kernel=kernel)
    fill_rest(model, folder, files, used, dtype, device)
    return model.eval()


def load_packed(
    model: DecoderLM,
    folder: Path,
    files: Mapping[str, TensorFile],
    groups: list[tuple[list[str], int]],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    kernel: Kernel = "auto",
) -> set[str]:
    """Put packed layers in the place of those of ``model`` that the files have packed.

    Args:
        model: with empty weights.
        folder: for messages.
        files: its tensors.
        groups: (targets, bits) of each kind of layer.
        dtype: of embeddings' outputs.
        device: where the weights go.
        kernel: of the linear layers.

    Returns:
        Names of the tensors that were used.

    Raises:
        FileFormatError: damaged, or a layer that no group targets.
    """
    used: set[str] = set()
    for name, module in list(model.named_modules()):
        if not isinstance(module, (nn.Linear, nn.Embedding)):
            continue
        if f"{name}.weight_packed" not in files:
            continue
        quantized = _read_weight(folder, files, name, module, groups)
        used |= {f"{name}.{part}" for part in _PARTS}
        moved = QuantizedWeight(
            quantized.values.to(device),
            quantized.scale.to(device),
            None if quantized.zero is None else quantized.zero.to(device),
            quantized.bits,
        )
        _replace(model, name, module, moved, dtype, kernel)
    return used


def _read_weight(
    folder: Path,
    files: Mapping[str, TensorFile],
    name: str,
    module: nn.Linear | nn.Embedding,
    groups: list[tuple[list[str], int]],
) -> QuantizedWeight:
    kind = type(module).__name__
    bits = next((bits for targets, bits in groups if _targeted(name, kind, targets)), None)
    if bits is None:
        raise FileFormatError(
            f"{folder}: the layer {name} is packed, and no group of quantization_config targets it."
        )
    parts = {p: files[f"{name}.{p}"].read() for p in _PARTS if f"{name}.{p}" in files}
    rows, columns = module.weight.shape
    quantized = unpack_weight(parts, bits, (rows, columns), f"{folder}: {name}")
    plain = quantized.scale.shape[1] == 1 and quantized.zero is None and bits == 8
    if isinstance(module, nn.Embedding) and not plain:
        raise FileFormatError(
            f"{folder}: {name} must have 8 bits, no zero points and one scale a row."
        )
    return quantized


def _replace(
    model: DecoderLM,
    name: str,
    module: nn.Linear | nn.Embedding,
    quantized: QuantizedWeight,
    dtype: torch.dtype,
    kernel: Kernel,
) -> None:
    parent, _, leaf = name.rpartition(".")
    if isinstance(module, nn.Embedding):
        setattr(model.model, leaf, QuantizedEmbedding(quantized, dtype=dtype))
        if model.spec.tie_word_embeddings:
            model.lm_head = QuantizedLinear(quantized, kernel=kernel)  # type: ignore[assignment]
        return
    layer = QuantizedLinear(quantized, module.bias, kernel=kernel)
    setattr(model.get_submodule(parent), leaf, layer)


def fill_rest(
    model: DecoderLM,
    folder: Path,
    files: Mapping[str, TensorFile],
    used: set[str],
    dtype: torch.dtype,
    device: torch.device | str,
) -> None:
    """Load what is not quantized; every tensor must have its place, every place its tensor.

    Args:
        model: its quantized layers are in place, its parameters are empty.
        folder: for messages.
        files: its tensors.
        used: those that have been read.
        dtype: of the parameters.
        device: where they go.

    Raises:
        FileFormatError: a tensor is missing, unexpected, of another shape, or holds NaN.
    """
    left = {name for name in files if not name.endswith("rotary_emb.inv_freq")} - used
    wanted = dict(model.named_parameters())
    allowed = {"lm_head.weight"} if model.spec.tie_word_embeddings else set()
    missing, unexpected = sorted(set(wanted) - left), sorted(left - set(wanted) - allowed)
    if missing or unexpected:
        what = "lacks" if missing else "has the unexpected tensor"
        raise FileFormatError(
            f"{folder} does not hold this model: it {what} {(missing or unexpected)[0]!r}."
        )
    for name, parameter in wanted.items():
        file = files[name]
        if file.shape != tuple(parameter.shape) or not file.dtype.is_floating_point:
            raise FileFormatError(
                f"{folder}: tensor {name!r} is {file.dtype} of shape {list(file.shape)}; its "
                f"config.json asks for floats of shape {list(parameter.shape)}."
            )
        value = file.read().to(device=device, dtype=dtype)
        if not bool(torch.isfinite(value).all()):
            raise FileFormatError(f"{folder}: tensor {name!r} holds NaN or infinity.")
        owner, _, leaf = name.rpartition(".")
        filled = nn.Parameter(value, requires_grad=False)
        setattr(model.get_submodule(owner), leaf, filled)
    if model.spec.tie_word_embeddings and isinstance(model.lm_head, nn.Linear):
        model.lm_head.weight = model.model.embed_tokens.weight


def _targeted(name: str, kind: str, targets: list[str]) -> bool:
    """Whether a layer is meant: by class, by name, or by ``re:`` and a pattern."""
    return any(
        t in (kind, name) or (t.startswith("re:") and re.match(t[3:], name) is not None)
        for t in targets
    )


def _read_groups(path: Path) -> list[tuple[list[str], int]]:
    """(targets, bits) of each group, names before classes; all else must be as we run it."""
    config = read_json(path, "model config")["quantization_config"]
    if config.get("format") != "pack-quantized":
        raise FileFormatError(
            f"{path}: the format {config.get('format')!r} of compressed-tensors is not supported; "
            "supported: 'pack-quantized'."
        )
    if config.get("kv_cache_scheme"):
        raise FileFormatError(f"{path}: a quantized key/value cache is not supported.")
    found = []
    try:
        for group in config["config_groups"].values():
            weights = group["weights"]
            if group.get("input_activations") or group.get("output_activations"):
                raise FileFormatError(f"{path}: quantized activations are not supported.")
            for key, allowed in (
                ("num_bits", (4, 8)),
                ("type", ("int",)),
                ("strategy", ("group", "channel")),
                ("actorder", (None, "weight", "static")),
            ):
                if weights.get(key) not in allowed:
                    raise FileFormatError(
                        f"{path}: {key}={weights.get(key)!r} is not supported; supported: "
                        f"{', '.join(map(repr, allowed))}."
                    )
            found.append(([str(t) for t in group["targets"]], int(weights["num_bits"])))
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path}: quantization_config is damaged: {error!r}.") from None
    return sorted(found, key=lambda group: group[0] == ["Linear"])
