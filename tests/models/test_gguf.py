import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caches import own_cache
from distributed import process
from sharpen.core.assets import asset_path
from sharpen.core.errors import FileFormatError, MissingFileError
from sharpen.core.model_spec import ModelSpec
from sharpen.models import gguf as ours
from sharpen.models.chat import render_chat
from sharpen.models.decoder import DecoderLM
from sharpen.models.gguf import cache_folder, load_gguf
from sharpen.models.load import load_model
from sharpen.models.tokenizer import load_tokenizer
from small_models import small_model

gguf = pytest.importorskip("gguf")
from benchmarks.serve.gguf_models import add_shape  # noqa: E402  (needs gguf)

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_cache(tmp_path / "cache", monkeypatch) / "models"


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows as GGUF's Llama files have them: row 2 j + s of a head is row j + s D/2 of ours."""
    size = rows.shape[0] // heads
    order = [
        head * size + half * (size // 2) + j
        for head in range(heads)
        for j in range(size // 2)
        for half in (0, 1)
    ]
    return rows[order]


def gguf_name(name: str) -> str:
    head, _, leaf = name.rpartition(".")
    parts = head.removeprefix("model.").split(".")
    if parts[0] == "layers":
        return f"blk.{parts[1]}.{NAMES['.'.join(parts[2:])]}.{leaf}"
    return f"{NAMES[parts[0]]}.{leaf}"


def write(
    path: Path,
    model: DecoderLM,
    *,
    kind: str = "F32",
    extra: dict[str, np.ndarray] | None = None,
    architecture: str | None = None,
) -> dict[str, torch.Tensor]:
    """Write a model as GGUF with the peer's writer; returns the weights it then holds."""
    spec = model.spec
    writer = gguf.GGUFWriter(str(path), architecture or spec.family)
    add_shape(writer, spec)
    writer.add_eos_token_id(2)
    kept = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        kept[name] = torch.from_numpy(values.copy())
        stored, heads = values, {"q_proj": spec.num_heads, "k_proj": spec.num_kv_heads}
        part = name.split(".")[-2]
        permuted = spec.family == "llama" and part in heads
        if permuted:
            stored = interleaved(values, heads[part])
        if values.ndim == 2 and kind != "F32":
            type_ = gguf.GGMLQuantizationType[kind]
            packed = gguf.quantize(stored, type_)
            writer.add_tensor(gguf_name(name), packed, raw_dtype=type_)
            rounded = gguf.dequantize(packed, type_).reshape(values.shape)
            if permuted:
                where = interleaved(np.arange(len(rounded)), heads[part])
                rounded = rounded[np.argsort(where)]
            kept[name] = torch.from_numpy(np.ascontiguousarray(rounded, dtype=np.float32))
        else:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(stored))
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_weights_are_those_the_peer_wrote_with_rows_in_half_split_order(
    tmp_path: Path, kind: str
) -> None:
    model = small_model(1, tie_word_embeddings=kind == "F32")
    expected = write(tmp_path / "m.gguf", model, kind=kind)
    found = load_gguf(tmp_path / "m.gguf", use_cache=False)
    for name, value in expected.items():
        assert torch.equal(found.get_parameter(name), value), name
    assert found.spec.tie_word_embeddings == (kind == "F32")


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "qwen2", "tie_word_embeddings": False},
        {"family": "qwen3", "head_dim": 32},
        {"family": "llama", "attention_bias": True, "num_kv_heads": 4},
    ],
    ids=["qwen2", "qwen3", "llama-biases"],
)
@torch.no_grad()
def test_other_layouts_give_the_logits_of_the_original(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model, ids = small_model(2, **changes), torch.tensor([[5, 90, 7, 201]])
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and "o_proj" not in name:
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    write(tmp_path / "m.gguf", model)
    found = load_gguf(tmp_path / "m.gguf", use_cache=False)
    assert torch.equal(found(ids), model(ids))
    spec = ModelSpec.from_ref(tmp_path / "m.gguf")
    assert (spec.family, spec.num_parameters) == (changes["family"], model.spec.num_parameters)
    assert spec.eos_token_ids == (2,)


def test_the_second_load_reads_the_cache_and_equals_the_first(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m.gguf", small_model(1), kind="Q8_0")
    first = load_gguf(tmp_path / "m.gguf", dtype=torch.bfloat16)
    (folder,) = [p for p in cache.iterdir() if p.is_dir()]
    assert cache_folder() == cache

    def fail(*_: object) -> None:
        raise AssertionError("converted again")

    with monkeypatch.context() as patch:
        patch.setattr(ours, "_convert", fail)
        second = load_gguf(tmp_path / "m.gguf", dtype=torch.bfloat16)
        for name, value in first.named_parameters():
            assert torch.equal(second.get_parameter(name), value)
    (folder / "model.safetensors").write_bytes(b"broken")
    third = load_gguf(tmp_path / "m.gguf", dtype=torch.bfloat16)
    assert torch.equal(third.lm_head.weight, first.lm_head.weight)


def test_a_cache_that_cannot_be_written_is_gone_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    model = small_model(1)
    write(tmp_path / "m.gguf", model)
    found = load_gguf(tmp_path / "m.gguf")
    assert torch.equal(found.lm_head.weight, model.lm_head.weight)
    assert "cannot be used" in caplog.text


@pytest.mark.slow
def sum_of_head(file: str, cache: str, output: Path) -> None:
    os.environ["XDG_CACHE_HOME"] = cache
    output.write_text(str(float(load_gguf(file).lm_head.weight.detach().sum())))


def test_two_processes_convert_at_once_and_both_get_the_model(tmp_path: Path, cache: Path) -> None:
    model = small_model(1)
    write(tmp_path / "m.gguf", model)
    outputs = [tmp_path / name for name in ("first", "second")]
    given = str(tmp_path / "m.gguf"), os.environ["XDG_CACHE_HOME"]
    children = [process(sum_of_head, *given, output) for output in outputs]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0]
    expected = float(model.lm_head.weight.detach().sum())
    found = [float(output.read_text()) for output in outputs]
    assert found == pytest.approx([expected] * 2)
    assert len([p for p in cache.iterdir() if p.is_dir()]) == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"rope_freqs.weight": np.ones(8, np.float32)}, "rope factors"),
        ({"blk.0.mystery.weight": np.ones(8, np.float32)}, "unexpected tensor 'blk.0.mystery"),
        ({"blk.0.attn_q.scale": np.ones(8, np.float32)}, "unexpected tensor"),
        ({"blk.7.attn_norm.weight": np.ones(64, np.float32)}, "unexpected 'model.layers.7"),
        ({"odd": np.ones(8, np.float64)}, "the type F64, which is not read"),
    ],
)
def test_tensors_that_are_not_understood_are_refused(
    tmp_path: Path, extra: dict[str, np.ndarray], message: str
) -> None:
    write(tmp_path / "m.gguf", small_model(), extra=extra)
    with pytest.raises(FileFormatError, match=message):
        load_gguf(tmp_path / "m.gguf")


def test_a_missing_file_and_another_architecture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        load_gguf(tmp_path / "absent.gguf")
    write(tmp_path / "m.gguf", small_model(), architecture="mamba")
    with pytest.raises(FileFormatError, match="architecture"):
        load_gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize("cut", [0, 10, 24, 100, 5000, 100_000])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    write(tmp_path / "m.gguf", small_model())
    raw = (tmp_path / "m.gguf").read_bytes()
    assert cut < len(raw)
    (tmp_path / "m.gguf").write_bytes(raw[:cut])
    with pytest.raises(FileFormatError, match=r"m\.gguf"):
        load_gguf(tmp_path / "m.gguf")


def peer_results(path: Path, text: str, conversation: list[dict[str, str]], out: Path) -> Any:
    """What transformers makes of the file, in a process of its own: tracing slows it threefold."""
    arguments = json.dumps([str(path.parent), path.name, text, conversation, str(out)])
    program = (
        "import functools, gguf, json, sys, torch\n"
        # It reads the file anew for the tokenizer, the config and the weights.
        "gguf.GGUFReader = functools.cache(gguf.GGUFReader)\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "folder, name, text, conversation, out = json.loads(sys.argv[1])\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)\n"
        "ids = tokenizer(text, add_special_tokens=False).input_ids\n"
        "chat = tokenizer.apply_chat_template(conversation, tokenize=False)\n"
        "load = AutoModelForCausalLM.from_pretrained\n"
        "model = load(folder, gguf_file=name, dtype=torch.float32)\n"
        "with torch.no_grad():\n"
        "    logits = model(torch.tensor([ids[:128]])).logits\n"
        "torch.save((ids, chat, logits), out)\n"
    )
    subprocess.run([sys.executable, "-c", program, arguments], check=True, capture_output=True)
    return torch.load(out)


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.asset
@torch.no_grad()
def test_smollm2_is_what_transformers_loads_from_the_same_file(tmp_path: Path) -> None:
    path = asset_path("smollm2-135m-instruct")
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    assert tokenizer.encode("The capital of France is") == [504, 3575, 282, 4649, 314]
    text = (asset_path("python-stdlib") / "argparse.py").read_text(encoding="utf-8")
    conversation = [{"role": "user", "content": "2 < 3?"}, {"role": "assistant", "content": "Yes"}]
    peer_ids, chat, expected = peer_results(path, text, conversation, tmp_path / "peer.pt")
    assert tokenizer.encode(text) == peer_ids
    assert render_chat(tokenizer, conversation) == chat
    model = load_model("smollm2-135m-instruct")
    found = model(torch.tensor([peer_ids[:128]]))
    # Both in float32 over 30 layers; logits reach 30.
    assert float((found - expected).abs().max()) < 1e-3
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    again = load_model("smollm2-135m-instruct")
    for name, value in model.named_parameters():
        assert torch.equal(again.get_parameter(name), value)
