import json
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sharpen.core.errors import FileFormatError, MissingFileError, StorageError, UserError
from sharpen.core.model_spec import ModelSpec, RopeScaling
from sharpen.models.hf import (
    copy_tokenizer,
    load_folder,
    open_tensors,
    read_safetensors_header,
    save_model,
    save_tensors,
)
from small_models import byte_tokenizer, save_small_model, small_model, small_spec

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-biases-untied": {
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
        "num_kv_heads": 4,
    },
    "mistral-sliding": {"family": "mistral", "sliding_window": 7, "tie_word_embeddings": False},
    "qwen2-biases": {"family": "qwen2", "num_kv_heads": 1},
    "qwen2-sliding-layers": {
        "family": "qwen2",
        "sliding_window": 5,
        "sliding_layers": (False, True),
        "eos_token_ids": (2, 0),
    },
    "qwen3-wide-heads": {"family": "qwen3", "head_dim": 32, "tie_word_embeddings": False},
}
SCALINGS = {
    "linear": RopeScaling(kind="linear", factor=4.0),
    "dynamic": RopeScaling(kind="dynamic", factor=2.0),
    "llama3": RopeScaling(kind="llama3", factor=8.0, original_max_positions=32),
    "yarn": RopeScaling(kind="yarn", factor=4.0, original_max_positions=32),
    "yarn-factor": RopeScaling(
        kind="yarn", factor=4.0, original_max_positions=32, attention_factor=1.3, beta_fast=16.0
    ),
}


def some_ids(rows: int = 2, tokens: int = 40) -> torch.Tensor:
    return torch.randint(3, 300, (rows, tokens), generator=torch.Generator().manual_seed(7))


def cases() -> list[Any]:
    plain = [pytest.param(changes, id=name) for name, changes in FAMILIES.items()]
    stretched = [
        pytest.param({"rope_scaling": scaling, "max_positions": 32}, id=f"llama-{name}")
        for name, scaling in SCALINGS.items()
    ]
    # The stretched context is four times the trained one, as such configs usually say.
    stretched += [
        pytest.param({"rope_scaling": scaling, "max_positions": 128}, id=f"llama-{name}-128")
        for name, scaling in SCALINGS.items()
    ]
    both = {"rope_scaling": SCALINGS["yarn"], **FAMILIES["qwen2-sliding-layers"]}
    return [*plain, *stretched, pytest.param(both, id="qwen2-sliding-yarn")]


@pytest.mark.peer
@pytest.mark.parametrize("changes", cases())
def test_transformers_loads_what_we_save_and_we_load_what_it_saves(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    model, ids = small_model(3, **changes), some_ids()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero in a new model
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
        expected = model(ids)
        save_model(model, tmp_path / "ours", shard_bytes=50_000)
        assert (tmp_path / "ours" / "model.safetensors.index.json").exists()
        peer = AutoModelForCausalLM.from_pretrained(
            tmp_path / "ours", dtype=torch.float32, attn_implementation="eager"
        )
        # float32 sums in another order: a few 1e-6 on logits of size 1.
        torch.testing.assert_close(peer(ids).logits, expected, rtol=1e-4, atol=1e-4)

        peer.save_pretrained(tmp_path / "theirs", max_shard_size="50KB")
        again = load_folder(tmp_path / "theirs")
        assert again.spec == model.spec
        torch.testing.assert_close(again(ids), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shard_bytes", [1, 40_000, 10**9])
def test_a_saved_folder_loads_with_equal_weights(tmp_path: Path, shard_bytes: int) -> None:
    model = small_model(1, tie_word_embeddings=False)
    save_model(model, tmp_path / "m", shard_bytes=shard_bytes, tokenizer=byte_tokenizer())
    again = load_folder(tmp_path / "m")
    assert again.spec == model.spec
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)
    assert (tmp_path / "m" / "tokenizer.json").exists()
    index = tmp_path / "m" / "model.safetensors.index.json"
    assert index.exists() == (shard_bytes < 10**9)
    if index.exists():
        found = json.loads(index.read_text())
        assert set(found["weight_map"]) == set(dict(model.named_parameters()))
        assert found["metadata"]["total_size"] == 4 * model.spec.num_parameters


def test_weights_are_rounded_to_the_type_asked_for(tmp_path: Path) -> None:
    model = small_model(1)
    save_model(model, tmp_path / "m", dtype=torch.bfloat16)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    again = load_folder(tmp_path / "m", dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter.to(torch.bfloat16))


def test_files_have_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_model(small_model(), tmp_path / "m", tokenizer=byte_tokenizer())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "m").iterdir()} == {0o640}
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o750


def test_tokenizer_files_are_copied_between_folders(tmp_path: Path) -> None:
    save_small_model(tmp_path / "a")
    (tmp_path / "b").mkdir()
    copy_tokenizer(tmp_path / "a", tmp_path / "b")
    assert {p.name for p in (tmp_path / "b").iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }


def test_a_head_beside_a_tied_embedding_and_old_frequencies_are_ignored(tmp_path: Path) -> None:
    model = small_model(tie_word_embeddings=True)
    save_model(model, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    more = {
        "lm_head.weight": model.lm_head.weight.detach().clone(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
    }
    save_file({**load_file(file), **more}, file)
    again = load_folder(tmp_path / "m")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_head_that_differs_from_its_tied_embedding_is_used_as_transformers_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM

    save_model(small_model(1), tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    head = small_model(2).lm_head.weight.detach()
    save_file({**load_file(file), "lm_head.weight": head}, file)
    found = load_folder(tmp_path / "m")
    assert torch.equal(found.lm_head.weight, head)
    assert not found.spec.tie_word_embeddings
    assert "weights of its own" in caplog.text
    peer = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    ids = some_ids()
    torch.testing.assert_close(found(ids), peer(ids).logits, rtol=1e-4, atol=1e-4)


def write_raw(path: Path, header: bytes, body: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    return path


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}


def damaged_headers() -> list[Any]:
    whole = {"a": entry()}
    two = {"a": entry(), "b": entry(data_offsets=[16, 32])}
    cases: dict[str, tuple[Any, int, str]] = {
        "not-json": (b"{", 0, "not JSON"),
        "not-utf8": (b"\xff\xfe", 0, "not JSON"),
        "huge-integer": (b'{"a": ' + b"9" * 5000 + b"}", 0, "not JSON"),
        "deep": (b"[" * 100_000, 0, "not JSON"),
        "a-list": (b"[]", 0, "not a JSON object"),
        "entry-is-text": ({"a": "x"}, 16, "malformed"),
        "no-dtype": ({"a": {"shape": [], "data_offsets": [0, 4]}}, 4, "malformed"),
        "dtype-is-a-list": ({"a": entry(dtype=[])}, 16, "malformed"),
        "shape-is-a-number": ({"a": entry(shape=4)}, 16, "malformed"),
        "negative": ({"a": entry(shape=[-2, -2])}, 16, "malformed"),
        "fraction": ({"a": entry(shape=[2.0, 2])}, 16, "malformed"),
        "true": ({"a": entry(shape=[True, 4])}, 16, "malformed"),
        "many-dimensions": ({"a": entry(shape=[1] * 100)}, 16, "malformed"),
        "three-offsets": ({"a": entry(data_offsets=[0, 1, 2])}, 16, "malformed"),
        "unknown-type": ({"a": entry(dtype="Q9")}, 16, "unsupported type 'Q9'"),
        "huge-shape": ({"a": entry(shape=[1 << 60, 1 << 60])}, 16, "claims 16 bytes"),
        "backwards": ({"a": entry(data_offsets=[16, 0])}, 16, "claims -16 bytes"),
        "past-the-end": (whole, 15, "truncated"),
        "far-past-the-end": (
            {"a": entry(shape=[1 << 40], data_offsets=[0, 1 << 42])},
            16,
            "truncated",
        ),
        "overlap": ({"a": entry(), "b": entry(data_offsets=[8, 24])}, 24, "starts at byte"),
        "twice-the-same": ({"a": entry(), "b": entry()}, 16, "starts at byte"),
        "hole": ({"a": entry(), "b": entry(data_offsets=[20, 36])}, 36, "starts at byte"),
        "left-over": (two, 40, "8 bytes at its end"),
    }
    return [pytest.param(*case, id=name) for name, case in cases.items()]


@pytest.mark.parametrize(("header", "body", "message"), damaged_headers())
def test_a_header_that_lies_is_refused(
    tmp_path: Path, header: Any, body: int, message: str
) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    with pytest.raises(FileFormatError, match=message):
        read_safetensors_header(write_raw(tmp_path / "x.safetensors", raw, b"\0" * body))


@pytest.mark.parametrize("claim", [0, 1, 7, 1 << 20, 1 << 62])
def test_a_header_length_that_lies_is_refused(tmp_path: Path, claim: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", claim) + b'{"a":1}')
    with pytest.raises(FileFormatError, match=r"x\.safetensors"):
        read_safetensors_header(path)


def test_missing_files_and_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        read_safetensors_header(tmp_path / "absent")
    with pytest.raises(FileFormatError, match="is a folder"):
        read_safetensors_header(tmp_path)
    (tmp_path / "short").write_bytes(b"1234567")
    with pytest.raises(FileFormatError, match="7 bytes"):
        read_safetensors_header(tmp_path / "short")
    with pytest.raises(MissingFileError, match="only safetensors are read"):
        open_tensors(tmp_path)
    with pytest.raises(MissingFileError, match=r"config\.json"):
        load_folder(tmp_path)


def test_every_type_and_an_empty_tensor_are_read_as_the_library_wrote_them(tmp_path: Path) -> None:
    kinds = [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    ]
    tensors = {str(k): torch.arange(5).to(k).view(5, 1) for k in kinds}
    tensors["empty"], tensors["scalar"] = torch.empty(0, 3), torch.tensor(2.5)
    save_file(tensors, tmp_path / "x.safetensors")
    found = read_safetensors_header(tmp_path / "x.safetensors")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        read = found[name].read()
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("hf") / "m", vocab_size=40, hidden_size=16)


@given(st.data())
@settings(max_examples=60)
def test_any_truncation_or_changed_byte_of_the_header_gives_our_error_or_a_model(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    damaged = bytearray(raw[: data.draw(st.integers(0, len(raw)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            at = data.draw(st.integers(0, min(len(damaged), 8 + length) - 1))
            damaged[at] = data.draw(st.integers(0, 255))
    other = tmp_path_factory.mktemp("damaged")
    (other / "config.json").write_bytes((folder / "config.json").read_bytes())
    (other / "model.safetensors").write_bytes(damaged)
    model = None
    with suppress(UserError):
        model = load_folder(other)
    assert model is None or model.spec == load_folder(folder).spec


Edit = Callable[[dict[str, torch.Tensor]], None]


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.norm.weight"]


def add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["extra.weight"] = torch.zeros(1)


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = torch.ones(65)


def whole_numbers(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = torch.ones(64, dtype=torch.int32)


def poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"][3] = torch.nan


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop, r"missing 'model\.norm\.weight'"),
        (add, r"unexpected 'extra\.weight'"),
        (reshape, r"has shape \[65\]; its config\.json says \[64\]"),
        (whole_numbers, "not floats"),
        (poison, "NaN or infinity"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_refused(
    tmp_path: Path, edit: Edit, message: str
) -> None:
    save_model(small_model(), tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    with pytest.raises(FileFormatError, match=message):
        load_folder(tmp_path / "m")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 3, "too few for 3 layers|missing"),
        ("num_hidden_layers", 4000, "too few for 4000 layers"),
        ("num_hidden_layers", 10**12, "num_layers"),
        ("hidden_size", 1 << 20, "its config.json says"),
        ("vocab_size", 1 << 24, "its config.json says"),
        ("intermediate_size", "128", "intermediate_size='128'"),
        ("num_key_value_heads", 3, "does not divide"),
    ],
)
def test_a_config_that_lies_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    save_model(small_model(), tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(FileFormatError, match=message):
        load_folder(tmp_path / "m")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "no 'weight_map'"),
        ([], "no 'weight_map'"),
        ({"weight_map": {"a": 5}}, "is not a file of this folder"),
        ({"weight_map": {"a": "../m.safetensors"}}, "is not a file of this folder"),
        ({"weight_map": {"a": ".."}}, "is a folder"),
        ({"weight_map": {"a": "other.safetensors"}}, "no such file"),
        ({"weight_map": {"a": "x.safetensors"}}, "lacks the tensor 'a'"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, index: Any, message: str) -> None:
    save_file({"b": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        open_tensors(tmp_path)


def test_the_config_we_write_says_what_the_spec_says(tmp_path: Path) -> None:
    spec = small_spec(rope_scaling=SCALINGS["llama3"])
    assert ModelSpec.from_config(spec.to_config()) == spec


def test_what_keeps_tensors_from_being_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*missing: No such file"):
        save_tensors({"w": torch.zeros(4)}, tmp_path / "missing" / "model.safetensors")
