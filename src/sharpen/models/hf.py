"""Model folders in Hugging Face layout: config.json and safetensors, single or sharded.

Files are checked before anything is allocated: the safetensors header against the file's size,
every tensor's name and shape against the model. Only safetensors are read; no pickle.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sharpen.core.config import read_json
from sharpen.core.errors import FileFormatError, MissingFileError, storage_errors
from sharpen.core.files import atomic_dir, atomic_write_json, follow_umask
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM

__all__ = [
    "TOKENIZER_FILES",
    "TensorFile",
    "empty_model",
    "load_folder",
    "open_tensors",
    "read_safetensors_header",
    "save_model",
    "save_tensors",
]

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_log = logging.getLogger(__name__)
_MAX_HEADER = 100 << 20
_MAX_RANK = 8
_LINEARS_A_LAYER = 7
_SHARD_BYTES = 5 * 10**9
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """Where a tensor lies in a safetensors file."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    """Bytes from the file's start."""
    num_bytes: int

    def read(self) -> Tensor:
        """The tensor, as a copy in memory."""
        if self.num_bytes == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.from_file(
            str(self.path), shared=False, size=self.offset + self.num_bytes, dtype=torch.uint8
        )[self.offset :]
        return flat.clone().view(self.dtype).view(self.shape)


def read_safetensors_header(path: Path) -> dict[str, TensorFile]:
    """Places of all tensors of a safetensors file, every length checked against its size.

    Tensors must fill the file without holes and without overlap, as the format demands.

    Raises:
        MissingFileError: no such file.
        FileFormatError: truncated, not safetensors, or a header that lies.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise FileFormatError(f"{path} has {size} bytes: too short for safetensors.")
            (length,) = struct.unpack("<Q", start)
            if length > min(size - 8, _MAX_HEADER):
                raise FileFormatError(
                    f"{path} is truncated or damaged: its header claims {length} bytes and "
                    f"the file has {size}. Get the file again."
                )
            raw = file.read(length)
    except FileNotFoundError:
        raise MissingFileError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise FileFormatError(f"{path} is a folder, not a safetensors file.") from None
    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):  # also an integer of thousands of digits
        raise FileFormatError(f"{path} is damaged: its header is not JSON.") from None
    if not isinstance(header, dict):
        raise FileFormatError(f"{path} is damaged: its header is not a JSON object.")
    found: dict[str, TensorFile] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            found[name] = _tensor_file(path, name, entry, 8 + length, size)
    end = 8 + length
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].offset, item[1].num_bytes)):
        if tensor.offset != end:
            raise FileFormatError(
                f"{path} is damaged: tensor {name!r} starts at byte {tensor.offset} and the one "
                f"before it ends at {end}."
            )
        end += tensor.num_bytes
    if end != size:
        raise FileFormatError(f"{path} is damaged: {size - end} bytes at its end are no tensor's.")
    return found


def _tensor_file(path: Path, name: str, entry: Any, start: int, size: int) -> TensorFile:
    try:
        dtype_name, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        whole = isinstance(dtype_name, str) and len(shape) <= _MAX_RANK
        whole = whole and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise FileFormatError(f"{path} is damaged: the entry of tensor {name!r} is malformed.")
    if dtype_name not in _DTYPES:
        raise FileFormatError(
            f"{path}: tensor {name!r} has the unsupported type {dtype_name!r}; supported: "
            f"{', '.join(_DTYPES)}."
        )
    dtype = _DTYPES[dtype_name]
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise FileFormatError(
            f"{path} is damaged: tensor {name!r} of shape {list(shape)} and type {dtype_name} "
            f"claims {end - begin} bytes."
        )
    if start + end > size:
        raise FileFormatError(
            f"{path} is truncated: tensor {name!r} ends at byte {start + end} and the file has "
            f"{size}. Get the file again."
        )
    return TensorFile(path, dtype, shape, start + begin, end - begin)


def open_tensors(folder: Path) -> dict[str, TensorFile]:
    """Places of all tensors of a model folder, through its index if it is sharded.

    Raises:
        MissingFileError: no safetensors in it.
        FileFormatError: a damaged file, or an index that points outside the folder.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return read_safetensors_header(single)
    if not index.exists():
        raise MissingFileError(
            f"{folder} has neither model.safetensors nor model.safetensors.index.json; "
            "only safetensors are read."
        )
    data = read_json(index, "safetensors index")
    weight_map = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise FileFormatError(f"{index} has no 'weight_map'.")
    found: dict[str, TensorFile] = {}
    shards: dict[str, dict[str, TensorFile]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise FileFormatError(
                f"{index}: the shard {shard!r} of tensor {name!r} is not a file of this folder."
            )
        if shard not in shards:
            shards[shard] = read_safetensors_header(folder / shard)
        if name not in shards[shard]:
            raise FileFormatError(
                f"{folder / shard} lacks the tensor {name!r} that its index names."
            )
        found[name] = shards[shard][name]
    return found


def load_folder(
    folder: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> DecoderLM:
    """Load a model folder.

    Raises:
        MissingFileError: ``config.json`` or the weights are missing.
        FileFormatError: damaged, tensors missing, unexpected or of the wrong shape.
    """
    spec = ModelSpec.from_ref(folder)
    tensors = open_tensors(folder)
    return fill(
        spec, {n: t.shape for n, t in tensors.items()}, _reader(tensors), folder, dtype, device
    )


def _reader(tensors: Mapping[str, TensorFile]) -> Any:
    def read(name: str) -> Tensor:
        return tensors[name].read()

    return read


class _Unset(TorchFunctionMode):
    """Modules are made with weights of no value.

    On the meta device nothing is drawn, but each rule that would draw loads torch's compiler first:
    as long again as loading torch.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def empty_model(spec: ModelSpec) -> DecoderLM:
    """The modules of a model, with weights on the meta device."""
    with torch.device("meta"), _Unset():
        return DecoderLM(spec)


def fill(
    spec: ModelSpec,
    shapes: Mapping[str, tuple[int, ...]],
    read: Any,
    where: Path,
    dtype: torch.dtype,
    device: torch.device | str,
) -> DecoderLM:
    """A model with the tensors that ``read(name)`` gives, each checked by name and shape."""
    least = spec.num_layers * (_LINEARS_A_LAYER + spec.block_norms)
    if least > len(shapes):  # before building a module for each
        raise FileFormatError(
            f"{where} does not hold this model: {len(shapes)} tensors are too few for "
            f"{spec.num_layers} layers."
        )
    if spec.tie_word_embeddings and _has_own_head(shapes, read):
        _log.warning("%s: tie_word_embeddings is set, but the head has weights of its own", where)
        spec = replace(spec, tie_word_embeddings=False)
    model = empty_model(spec)
    wanted = {name: tuple(p.shape) for name, p in model.named_parameters()}
    extra = {"lm_head.weight"} if spec.tie_word_embeddings else set()
    ignored = {n for n in shapes if n.endswith("rotary_emb.inv_freq")}
    missing = sorted(set(wanted) - set(shapes))
    unexpected = sorted(set(shapes) - set(wanted) - extra - ignored)
    if missing or unexpected:
        raise FileFormatError(
            f"{where} does not hold this model: "
            + "; ".join(
                f"{what} {', '.join(map(repr, names[:3]))}{' ...' if len(names) > 3 else ''}"
                for what, names in (("missing", missing), ("unexpected", unexpected))
                if names
            )
        )
    for name, shape in wanted.items():
        if tuple(shapes[name]) != shape:
            raise FileFormatError(
                f"{where}: tensor {name!r} has shape {list(shapes[name])}; its config.json says "
                f"{list(shape)}."
            )
    for name in wanted:
        owner, _, leaf = name.rpartition(".")
        tensor = read(name)
        if not tensor.is_floating_point():
            raise FileFormatError(f"{where}: tensor {name!r} holds {tensor.dtype}, not floats.")
        value = tensor.to(device=device, dtype=dtype)
        if not bool(torch.isfinite(value).all()):
            raise FileFormatError(f"{where}: tensor {name!r} holds NaN or infinity.")
        setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(value))
    if spec.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval()


def _has_own_head(shapes: Mapping[str, tuple[int, ...]], read: Any) -> bool:
    """Whether a head is stored beside the embedding and differs; ``transformers`` unties it too."""
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    if head not in shapes or embedding not in shapes or shapes[head] != shapes[embedding]:
        return False
    return not torch.equal(read(head), read(embedding))


def save_model(
    model: DecoderLM,
    folder: str | Path,
    *,
    tokenizer: Any = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Write a model folder that ``transformers`` loads with equal logits; appears whole.

    Args:
        model: adapters must be merged first.
        folder: replaced if it exists.
        tokenizer: a :class:`~sharpen.models.tokenizer.Tokenizer` to write beside it.
        dtype: of the stored weights; default as they are.
        shard_bytes: largest file; more weights make several and an index.
    """
    with atomic_dir(Path(folder)) as temporary:
        write_folder(model, temporary, dtype=dtype, shard_bytes=shard_bytes)
        if tokenizer is not None:
            tokenizer.save(temporary)


def write_folder(
    model: DecoderLM,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Write config and weights into an existing folder."""
    tensors = {
        name: p.detach().to("cpu", dtype or p.dtype).contiguous()
        for name, p in model.named_parameters()
    }
    stored = next(iter(tensors.values())).dtype
    config = model.spec.to_config(dtype=str(stored).removeprefix("torch."))
    atomic_write_json(folder / "config.json", config)
    generation = {
        key: config[key]
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        if config[key] is not None
    }
    atomic_write_json(folder / "generation_config.json", generation)
    write_tensors(tensors, folder, shard_bytes=shard_bytes)


def write_tensors(
    tensors: Mapping[str, Tensor], folder: Path, *, shard_bytes: int = _SHARD_BYTES
) -> None:
    """Write tensors into an existing folder: one file, or several and an index."""
    shards = list(_shards(tensors, shard_bytes))
    if len(shards) == 1:
        save_tensors(shards[0], folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors(shard, folder / name)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    atomic_write_json(folder / "model.safetensors.index.json", index)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one safetensors file, with the mode the umask gives (the library makes it private).

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    with storage_errors(path.parent):
        try:
            save_file(tensors, path, metadata={"format": "pt"})
        except SafetensorError as error:  # tells the system's number in its text only
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            code = int(number[1])
            raise OSError(code, os.strerror(code)) from error
    follow_umask(path)


def _shards(tensors: Mapping[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        num_bytes = tensor.numel() * tensor.element_size()
        if shard and size + num_bytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += num_bytes
    yield shard


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files of one model folder to another."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
