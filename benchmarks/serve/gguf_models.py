"""Models as .gguf files in the types of llama.cpp, for engines that read nothing else.

Tensors by llama.cpp's names; rows of queries and keys in its order, which turns neighbours instead
of halves. No tokenizer: the benchmarks give tokens.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import gguf
import torch
from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models import load_model

__all__ = ["TYPES", "add_shape", "write_gguf"]

TYPES = {"q8_0": 7, "q4_0": 2}
"""Types that llama.cpp makes of a file in bfloat16, and its numbers for them."""

_QUANTIZE = """
import sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = int(sys.argv[3])
params.nthread = 2
assert llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params) == 0
"""


def write_gguf(folder: Path, where: Path, python: str) -> dict[str, str]:
    """Files of a model of the llama family: bfloat16, and :data:`TYPES`.

    Args:
        folder: the model in Hugging Face layout.
        where: where they go.
        python: interpreter that has llama-cpp-python.

    Returns:
        Paths by type.
    """
    model = load_model(folder, dtype=torch.bfloat16)
    spec, tensors = model.spec, model.state_dict()
    base = where / "bf16.gguf"
    writer = gguf.GGUFWriter(str(base), "llama")
    add_shape(writer, spec)
    writer.add_vocab_size(spec.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, spec.num_layers)
    for name, tensor in tensors.items():
        if name == "lm_head.weight" and spec.tie_word_embeddings:
            continue
        if name.endswith("q_proj.weight"):
            tensor = _neighbours(tensor, spec.num_heads)
        elif name.endswith("k_proj.weight"):
            tensor = _neighbours(tensor, spec.num_kv_heads)
        target = names.get_name(name, try_suffixes=(".weight",))
        if tensor.dim() == 1:
            writer.add_tensor(target, tensor.float().numpy())
        else:
            bits = tensor.contiguous().view(torch.uint16).numpy().view("uint8")
            writer.add_tensor(target, bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = {"bf16": str(base)}
    for kind, number in TYPES.items():
        found[kind] = str(where / f"{kind}.gguf")
        command = [python, "-c", _QUANTIZE, str(base), found[kind], str(number)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return found


def add_shape(writer: gguf.GGUFWriter, spec: ModelSpec) -> None:
    """What a file says of a model's shape."""
    writer.add_context_length(spec.max_positions)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_block_count(spec.num_layers)
    writer.add_feed_forward_length(spec.intermediate_size)
    writer.add_head_count(spec.num_heads)
    writer.add_head_count_kv(spec.num_kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(spec.rms_norm_eps)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_rope_dimension_count(spec.head_dim)


def _neighbours(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head from (first half, second half) to pairs."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
