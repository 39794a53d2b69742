"""Weights out of GGUF files: dequantized, renamed, un-permuted, cached as safetensors.

GGUF files of the Llama architecture store query and key rows so that rotary embedding turns
adjacent pairs; Hugging Face's layout turns halves. Rows are viewed as (heads, D/2, 2) and swapped.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sharpen.core.errors import FileFormatError, SharpenError
from sharpen.core.files import FileLock, cache_home, sha256_file
from sharpen.core.gguf_header import GgufHeader, GgufTensor, read_gguf_header
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import fill, load_folder, save_model

__all__ = ["cache_folder", "load_gguf"]

_log = logging.getLogger(__name__)
_SUPPORTED = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
_CACHE_FORMAT = 1
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


def cache_folder() -> Path:
    """Where converted models are kept: ``$XDG_CACHE_HOME/sharpen/models``."""
    return cache_home() / "models"


def load_gguf(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    use_cache: bool = True,
) -> DecoderLM:
    """Load a GGUF file; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K tensors are read.

    Args:
        path: the file.
        dtype: of the weights in memory; the dequantized values are rounded to it.
        device: where they go.
        use_cache: keep the dequantized weights as safetensors in :func:`cache_folder`, by the
            file's sha256, and read them from there next time.

    Raises:
        MissingFileError: no such file.
        FileFormatError: damaged, truncated, or of an unsupported architecture or type.
    """
    path = Path(path)
    header = read_gguf_header(path)
    for tensor in header.tensors.values():
        if tensor.type not in _SUPPORTED:
            raise FileFormatError(
                f"{path}: tensor {tensor.name!r} has the type {tensor.type}, which is not read; "
                f"supported: {', '.join(_SUPPORTED)}."
            )
    if use_cache:
        try:
            return _through_cache(path, header, dtype, device)
        except OSError as error:
            _log.warning("the model cache cannot be used (%s); converting in memory", error)
    return _convert(header, dtype, device)


def _through_cache(
    path: Path, header: GgufHeader, dtype: torch.dtype, device: torch.device | str
) -> DecoderLM:
    name = str(dtype).removeprefix("torch.")
    folder = cache_folder() / f"{sha256_file(path)}-v{_CACHE_FORMAT}-{name}"
    if folder.exists():
        try:
            return load_folder(folder, dtype=dtype, device=device)
        except SharpenError as error:
            _log.warning("the cached model is damaged (%s); converting again", error)
            shutil.rmtree(folder, ignore_errors=True)
    lock = FileLock(folder.with_suffix(".lock"), f"the model cache {folder}")
    lock.acquire(timeout_s=600)
    try:
        if folder.exists():  # another process converted it while we waited
            return load_folder(folder, dtype=dtype, device=device)
        model = _convert(header, dtype, "cpu")
        save_model(model, folder)
    finally:
        lock.release()
    return model.to(device)


def _convert(header: GgufHeader, dtype: torch.dtype, device: torch.device | str) -> DecoderLM:
    spec = ModelSpec.from_gguf(header)
    sources = {}
    for name, tensor in header.tensors.items():
        renamed = _rename(name)
        if renamed is None:
            if name.startswith("rope_freqs"):
                raise FileFormatError(
                    f"{header.path}: per-frequency rope factors ('{name}') are not supported. "
                    "Use the model's Hugging Face folder."
                )
            raise FileFormatError(f"{header.path}: unexpected tensor {name!r}.")
        sources[renamed] = tensor
    with header.path.open("rb") as file:
        raw = np.memmap(file, dtype=np.uint8, mode="r")

        def read(name: str) -> Tensor:
            values = _dequantize(raw, sources[name])
            heads = {"q_proj": spec.num_heads, "k_proj": spec.num_kv_heads}
            part = name.split(".")[-2]
            if spec.family == "llama" and part in heads:
                values = _unpermute(values, heads[part])
            return values

        shapes = {name: tensor.shape for name, tensor in sources.items()}
        return fill(spec, shapes, read, header.path, dtype, device)


def _rename(name: str) -> str | None:
    """Hugging Face's name of a GGUF tensor."""
    head, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias"):
        return None
    if head in _TOP_NAMES:
        return f"{_TOP_NAMES[head]}.{leaf}"
    parts = head.split(".")
    if len(parts) == 3 and parts[0] == "blk" and parts[1].isdigit() and parts[2] in _BLOCK_NAMES:
        return f"model.layers.{parts[1]}.{_BLOCK_NAMES[parts[2]]}.{leaf}"
    return None


def _dequantize(raw: np.memmap[tuple[int], np.dtype[np.uint8]], tensor: GgufTensor) -> Tensor:
    data = np.asarray(raw[tensor.offset : tensor.offset + tensor.num_bytes])
    if tensor.type == "F32":
        return torch.from_numpy(data.view(np.float32).reshape(tensor.shape).copy())
    from gguf import GGMLQuantizationType, dequantize

    rows = data.reshape(*tensor.shape[:-1], -1)
    values = dequantize(rows, GGMLQuantizationType[tensor.type])
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).view(tensor.shape)


def _unpermute(rows: Tensor, heads: int) -> Tensor:
    """Rows of adjacent-pair rotary embedding in half-split order."""
    shape = rows.shape
    return rows.view(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
