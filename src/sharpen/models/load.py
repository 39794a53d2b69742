"""Loading a model by reference: an asset's name, a Hugging Face folder, or a ``.gguf`` file."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, did_you_mean
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM
from sharpen.models.gguf import load_gguf
from sharpen.models.hf import load_folder
from sharpen.models.lora import load_adapter, merge_lora

__all__ = ["load_model", "load_spec", "resolve_model"]

_BACKENDS = "sharpen.backends"


def resolve_model(ref: str | Path) -> Path:
    """The folder or file a model reference names.

    Raises:
        AssetNotInstalled: it names an asset that is not installed.
        MissingFileError: it names nothing.
    """
    if str(ref) in ASSETS:
        if ASSETS[str(ref)].kind != "model":
            raise ConfigError(f"the asset {str(ref)!r} is a {ASSETS[str(ref)].kind}, not a model.")
        return asset_path(str(ref))
    path = Path(ref)
    if not path.exists():
        models = [a.name for a in ASSETS.values() if a.kind == "model"]
        raise MissingFileError(
            f"model {str(ref)!r} is neither an asset nor an existing path."
            f"{did_you_mean(str(ref), models)} Assets: {', '.join(models)}."
        )
    return path


def load_spec(ref: str | Path) -> ModelSpec:
    """A model's shape; no weights are read."""
    return ModelSpec.from_ref(resolve_model(ref))


def load_model(
    ref: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    adapter: str | Path | None = None,
) -> DecoderLM:
    """Load a model for inference (``eval`` mode).

    Args:
        ref: an asset's name, a folder in Hugging Face layout, or a ``.gguf`` file.
        dtype: of the weights.
        device: where they go.
        adapter: folder of a LoRA adapter to fold into the weights.

    Raises:
        AssetNotInstalled: the asset is not installed.
        MissingFileError: no such model.
        FileFormatError: the files are damaged or of an unsupported kind.
    """
    path = resolve_model(ref)
    if path.is_dir():
        model = _load_dir(path, dtype, device)
    elif path.suffix == ".gguf":
        model = load_gguf(path, dtype=dtype, device=device)
    else:
        raise FileFormatError(f"{path} is neither a model folder nor a .gguf file.")
    if adapter is not None:
        load_adapter(model, adapter)
        merge_lora(model)
    return model


def _load_dir(path: Path, dtype: torch.dtype, device: torch.device | str) -> DecoderLM:
    config = read_json(path / "config.json", "model config")
    quantization = config.get("quantization_config") if isinstance(config, dict) else None
    if quantization is None:
        return load_folder(path, dtype=dtype, device=device)
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    for point in metadata.entry_points(group=_BACKENDS):
        if point.name == method:
            loaded: Any = point.load()(path, dtype=dtype, device=device)
            assert isinstance(loaded, DecoderLM)
            return loaded
    known = ", ".join(sorted(p.name for p in metadata.entry_points(group=_BACKENDS))) or "none"
    raise FileFormatError(
        f"{path}: the quantization {method!r} is not supported; supported: {known}."
    )
