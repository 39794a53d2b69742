"""Folders of models with rows of 4 and 8 bits: made layer by layer, resumable, and loaded.

A folder has Hugging Face's layout, and ``quantization_config`` says ``"quant_method":
"sharpen-mixed"``: it is read by Sharpen only. Each linear layer in the blocks is stored as the
tensors of :class:`~sharpen.compress.mixed.MixedWeight`, and so is, with ``head=8``, the head: under
the name of the embedding where both are one. All else is stored in floats. Folders of format
version 1 may have embedding and head as packed 8-bit rows, each with one scale.

While it is made, finished parts lie in a hidden folder beside it, under the hash of model, config
and calibration rows; the same call goes on there after an interruption and ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sharpen.compress.calibration import Sample, samples
from sharpen.compress.config import MixLLMConfig
from sharpen.compress.files import (
    fill_rest,
    load_packed,
    refuse_quantized,
    write_model_config,
)
from sharpen.compress.mixed import MixedEmbedding, MixedLinear, MixedWeight
from sharpen.compress.mixllm import States, choose_rows, quantize_block
from sharpen.compress.prune import first_inputs
from sharpen.compress.rows import GROUP, quantize_rows
from sharpen.compress.salience import block_linears, row_salience
from sharpen.core.config import read_json, to_dict
from sharpen.core.errors import BusyError, ConfigError, FileFormatError
from sharpen.core.files import FileLock, atomic_dir, atomic_write_json
from sharpen.core.model_spec import ModelSpec
from sharpen.data.shards import TokenDataset
from sharpen.eval.scoring import evaluating
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import TensorFile, empty_model, open_tensors, save_tensors, write_tensors
from sharpen.models.tokenizer import Tokenizer

__all__ = ["QUANT_METHOD", "MixedSummary", "load_mixed", "save_mixed", "write_mixed"]

QUANT_METHOD = "sharpen-mixed"
_FORMAT_VERSION = 2
_HEAD_ACTIVATION_BITS: Final = 16
_VERSION_1_HEAD = [(["Embedding", "lm_head"], 8)]
_EMBEDDING, _HEAD = "model.embed_tokens", "lm_head"

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class MixedSummary:
    """What was chosen."""

    rows: int
    """Of all linear layers in the blocks."""

    rows_int8: int
    """Those with 8 bits."""

    share_int8: dict[str, float]
    """The same by kind of layer, such as ``down_proj``, 0 to 1."""

    stored_bits: dict[str, float]
    """Stored bits of a weight, with scales, zero points and places: of the linear layers in the
    ``blocks``, of the ``head``, and of ``all`` weights."""


def save_mixed(
    model: DecoderLM,
    folder: str | Path,
    config: MixLLMConfig | None = None,
    dataset: TokenDataset | None = None,
    *,
    scores: Mapping[str, Tensor] | None = None,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.bfloat16,
    on_progress: Progress | None = None,
) -> MixedSummary:
    """Quantize a model by MixLLM into a folder, which appears whole.

    Interrupted, the same call goes on where it stopped.

    Args:
        model: full-precision weights, adapters merged; not changed.
        folder: replaced if it exists.
        config: bits, solver, calibration.
        dataset: calibration rows; only bits 4 or 8 with solver ``rtn`` need none.
        scores: of each row, to choose by; default its salience on the calibration rows.
        tokenizer: written beside the weights.
        dtype: of what is not quantized.
        on_progress: is told how many more hundredths of the work are done.

    Raises:
        ConfigError: no data set where one is needed, or the model is quantized.
        DataError: NaN or infinity in a weight, or calibration rows without labels.
        BusyError: another process makes the same folder.
        StorageError: the folder cannot be written.

    Examples:
        >>> save_mixed(model, "out/mixed", MixLLMConfig(bits=4.4), rows)  # doctest: +SKIP
        MixedSummary(rows=155520, rows_int8=15552, share_int8={'q_proj': 0.02, ...})
    """
    folder = Path(folder)
    work = folder.parent / f".{folder.name}.partial"
    try:
        with atomic_dir(folder) as temporary:
            found = write_mixed(
                model,
                temporary,
                config,
                dataset,
                work=work,
                scores=scores,
                dtype=dtype,
                on_progress=on_progress,
            )
            if tokenizer is not None:
                tokenizer.save(temporary)
    except BusyError:
        raise
    except BaseException:
        if not any(work.glob("*.safetensors")):
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return found


def write_mixed(
    model: DecoderLM,
    folder: Path,
    config: MixLLMConfig | None = None,
    dataset: TokenDataset | None = None,
    *,
    work: Path,
    scores: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    on_progress: Progress | None = None,
) -> MixedSummary:
    """Write config and weights into an existing folder; see :func:`save_mixed`.

    Args:
        model: as there.
        folder: exists.
        config: as there.
        dataset: as there.
        work: where finished parts are kept until the caller removes them.
        scores: as there.
        dtype: as there.
        on_progress: as there.
    """
    config = config or MixLLMConfig()
    refuse_quantized(model)
    chosen = scores is not None and config.solver == "rtn"
    if config.needs_texts and not chosen and dataset is None:
        raise ConfigError(
            "MixLLM looks at what goes into each layer and needs calibration rows. Give it a data "
            "set, or use bits 4 or 8 with solver 'rtn'."
        )
    rows: list[Sample] = []
    if config.needs_texts and dataset is not None:
        rows = list(samples(dataset, config.calibration, model))
    with FileLock(work / "lock", f"the quantization into {folder.name}"):
        parts = _Parts(work, _key(model, config, rows, scores, dtype))
        tell = _Share(on_progress, len(rows), len(model.model.layers))
        eight = _eight_bit_rows(model, config, rows, scores, parts, tell)
        tensors: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            if not name.startswith("model.layers."):
                tensors |= _outer(model, name, parameter, config, dtype)
        tensors |= _blocks(model, config, rows, eight, parts, dtype, tell)
    found = _summary(model, eight, tensors)
    write_model_config(model.spec, folder, dtype, _quantization_config(config, found))
    write_tensors(tensors, folder)
    return found


class _Share:
    """Hundredths of the work: choosing rows takes about as long as quantizing blocks."""

    def __init__(self, on_progress: Progress | None, num_rows: int, num_blocks: int) -> None:
        self._tell = on_progress or (lambda _: None)
        self._row = 50 / max(num_rows, 1)
        self._block = 50 / max(num_blocks, 1)

    def rows(self, count: float) -> None:
        self._tell(self._row * count)

    def all_rows(self) -> None:
        self._tell(50)

    def block(self) -> None:
        self._tell(self._block)


class _Parts:
    """Finished parts on disk, good for one model, config and set of rows."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        plan = folder / "plan.json"
        if not plan.exists() or read_json(plan, "plan").get("key") != key:
            for file in folder.glob("*.safetensors"):
                file.unlink()
            atomic_write_json(plan, {"key": key})

    def read(self, name: str) -> dict[str, Tensor] | None:
        path = self._folder / f"{name}.safetensors"
        return load_file(path) if path.exists() else None

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        unfinished = self._folder / f"{name}.tmp"
        save_tensors(dict(tensors), unfinished)
        unfinished.replace(self._folder / f"{name}.safetensors")


def _key(
    model: DecoderLM,
    config: MixLLMConfig,
    rows: list[Sample],
    scores: Mapping[str, Tensor] | None,
    dtype: torch.dtype,
) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([_FORMAT_VERSION, to_dict(config), str(dtype)]).encode())
    tensors: list[Tensor] = [*model.parameters(), *(scores or {}).values()]
    tensors += [t for row in rows for t in (row.input_ids, row.labels, row.document_ids)]
    for tensor in tensors:
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


def _eight_bit_rows(
    model: DecoderLM,
    config: MixLLMConfig,
    rows: list[Sample],
    scores: Mapping[str, Tensor] | None,
    parts: _Parts,
    tell: _Share,
) -> dict[str, Tensor]:
    linears = block_linears(model)
    if config.share in (0, 1):
        tell.all_rows()
        return {
            name: torch.full((layer.out_features,), config.share == 1)
            for name, layer in linears.items()
        }
    found = parts.read("salience") if scores is None else scores
    if found is None:
        found = row_salience(model, rows, on_progress=tell.rows)
        found = {name: score.cpu() for name, score in found.items()}
        parts.write("salience", found)
    else:
        tell.all_rows()
    wanted = {name: layer.out_features for name, layer in linears.items()}
    if {name: score.numel() for name, score in found.items()} != wanted:
        raise ConfigError("scores must hold one number for each row of each layer in the blocks.")
    ordered = {name: found[name] for name in linears}
    columns = {name: layer.in_features for name, layer in linears.items()}
    return choose_rows(ordered, columns, config.share, unit=config.unit)


def _blocks(
    model: DecoderLM,
    config: MixLLMConfig,
    rows: list[Sample],
    eight: Mapping[str, Tensor],
    parts: _Parts,
    dtype: torch.dtype,
    tell: _Share,
) -> dict[str, Tensor]:
    """Stored tensors of all blocks."""
    found: dict[str, Tensor] = {}
    with evaluating(model):
        states: States = []
        if config.solver != "rtn":
            states = first_inputs(model, rows)
        for number, block in enumerate(model.model.layers):
            prefix = f"model.layers.{number}."
            own = {n.removeprefix(prefix): e for n, e in eight.items() if n.startswith(prefix)}
            before = {name: p.data for name, p in block.named_parameters()}
            try:
                stored = parts.read(f"block-{number:05d}")
                if stored is None:
                    stored = quantize_block(block, own, config, states, where=prefix[:-1])
                    stored = {
                        n: t.to("cpu", dtype if n in before else t.dtype).contiguous()
                        for n, t in stored.items()
                    }
                    parts.write(f"block-{number:05d}", stored)
                _take(block, stored)
                states = [(block(hidden, context), context) for hidden, context in states]
            finally:
                for name, data in before.items():
                    block.get_parameter(name).data = data
            found |= {prefix + name: tensor for name, tensor in stored.items()}
            tell.block()
    return found


def _outer(
    model: DecoderLM, name: str, parameter: Tensor, config: MixLLMConfig, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Stored tensors of a parameter outside the blocks."""
    layer = _head_of(model.spec)
    if config.head == 16 or name != f"{layer}.weight":
        return {name: parameter.detach().to("cpu", dtype).contiguous()}
    eight = torch.ones(parameter.shape[0], dtype=torch.bool)
    weight = MixedWeight.of(quantize_rows(parameter.detach().cpu(), eight, where=layer))
    return {f"{layer}.{k}": tensor for k, tensor in weight.tensors().items()}


def _head_of(spec: ModelSpec) -> str:
    """The layer whose weight the head has."""
    return _EMBEDDING if spec.tie_word_embeddings else _HEAD


def _take(block: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Let a block compute with stored tensors."""
    for name, parameter in block.named_parameters():
        layer = name.removesuffix(".weight")
        if f"{layer}.weight_int4" in stored:
            weight = MixedWeight(**{k: stored[f"{layer}.{k}"] for k in MixedWeight.names()})
            value = weight.dequantized()
        else:
            value = stored[name]
        parameter.data = value.to(parameter.device, parameter.dtype)


def _summary(
    model: DecoderLM, eight: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> MixedSummary:
    total: Counter[str] = Counter()
    chosen: Counter[str] = Counter()
    for name, rows in eight.items():
        kind = name.rpartition(".")[2]
        total[kind] += rows.numel()
        chosen[kind] += int(rows.sum())
    shares = {kind: chosen[kind] / total[kind] for kind in total}
    return MixedSummary(total.total(), chosen.total(), shares, _stored_bits(model, tensors))


def _stored_bits(model: DecoderLM, tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Bits by part; biases of linear layers count to all only."""
    parts = {"blocks": set(block_linears(model)), "head": {_head_of(model.spec)}}
    found = {}
    for part, layers in parts.items():
        weights = sum(model.get_parameter(f"{layer}.weight").numel() for layer in layers)
        stored = {name: t for name, t in tensors.items() if not name.endswith(".bias")}
        own = (t.nbytes for name, t in stored.items() if name.rpartition(".")[0] in layers)
        found[part] = 8 * sum(own) / weights
    total = sum(parameter.numel() for parameter in model.parameters())
    return {**found, "all": 8 * sum(t.nbytes for t in tensors.values()) / total}


def _quantization_config(config: MixLLMConfig, found: MixedSummary) -> dict[str, Any]:
    return {
        "quant_method": QUANT_METHOD,
        "format_version": _FORMAT_VERSION,
        "group_size": GROUP,
        "activation_bits": 8,
        "head_activation_bits": _HEAD_ACTIVATION_BITS,
        "rows": found.rows,
        "rows_int8": found.rows_int8,
        **to_dict(config),
    }


def load_mixed(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> DecoderLM:
    """Load a folder of :func:`save_mixed`; the weights stay packed.

    Args:
        folder: with ``"quant_method": "sharpen-mixed"`` in its ``config.json``.
        dtype: of what is not quantized, and of activations between layers.
        device: where the weights go.

    Raises:
        MissingFileError: a file is missing.
        FileFormatError: damaged, or written by a newer version.
    """
    folder = Path(folder)
    spec = ModelSpec.from_ref(folder)
    _check_config(folder / "config.json")
    files = open_tensors(folder)
    model = empty_model(spec)
    used = load_packed(model, folder, files, _VERSION_1_HEAD, dtype=dtype, device=device)
    for name, layer in block_linears(model).items():
        shape = layer.out_features, layer.in_features
        weight = _read(folder, files, name, shape, device, used)
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, MixedLinear(weight, layer.bias))
    head = _head_of(spec)
    if f"{head}.weight_int8" in files:
        shape = spec.vocab_size, spec.hidden_size
        weight = _read(folder, files, head, shape, device, used)
        model.lm_head = MixedLinear(weight, activation_bits=_HEAD_ACTIVATION_BITS)  # type: ignore[assignment]
        if head == _EMBEDDING:
            if weight.indices_int4.numel():
                raise FileFormatError(f"{folder}: {head} must have 8 bits in all its rows.")
            model.model.embed_tokens = MixedEmbedding(weight, dtype=dtype)  # type: ignore[assignment]
    fill_rest(model, folder, files, used, dtype, device)
    return model.eval()


def _read(
    folder: Path,
    files: Mapping[str, TensorFile],
    name: str,
    shape: tuple[int, int],
    device: torch.device | str,
    used: set[str],
) -> MixedWeight:
    """A layer's weight; the names of its tensors go into ``used``."""
    parts = {k: f"{name}.{k}" for k in MixedWeight.names()}
    read = {k: files[full].read() for k, full in parts.items() if full in files}
    weight = MixedWeight.checked(read, shape, f"{folder}: {name}")
    used |= set(parts.values())
    return MixedWeight(**{k: tensor.to(device) for k, tensor in weight.tensors().items()})


def _check_config(path: Path) -> None:
    config = read_json(path, "model config")["quantization_config"]
    config = {"head_activation_bits": _HEAD_ACTIVATION_BITS, **config}  # version 1 lacks it
    wanted = {
        "format_version": (1, 2),
        "group_size": (GROUP,),
        "activation_bits": (8,),
        "head_activation_bits": (_HEAD_ACTIVATION_BITS,),
    }
    for key, values in wanted.items():
        if config.get(key) not in values:
            raise FileFormatError(
                f"{path}: {key}={config.get(key)!r} of {QUANT_METHOD} is not supported; "
                f"supported: {', '.join(map(str, values))}."
            )
