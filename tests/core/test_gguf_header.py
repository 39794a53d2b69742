import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import FileFormatError, MissingFileError, UserError
from sharpen.core.gguf_header import TYPES, read_gguf_header
from sharpen.core.model_spec import ModelSpec


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def header(
    metadata: list[bytes], tensors: list[bytes], *, version: int = 3, magic: bytes = b"GGUF"
) -> bytes:
    start = magic + struct.pack("<IQQ", version, len(tensors), len(metadata))
    return start + b"".join(metadata) + b"".join(tensors)


def pair(key: str, kind: int, raw: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + raw


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def write(path: Path, raw: bytes, body: int = 0) -> Path:
    path.write_bytes(raw + b"\0" * (-len(raw) % 32) + b"\0" * body)
    return path


def test_what_the_peer_wrote_is_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    expected: dict[str, Any] = {
        "u8": 200,
        "i8": -5,
        "u16": 60_000,
        "i16": -300,
        "u32": 1 << 31,
        "i32": -(1 << 30),
        "u64": 1 << 62,
        "i64": -(1 << 62),
        "f32": 0.5,
        "f64": 0.1,
        "yes": True,
        "words": "naïve",
        "ints": [1, -2, 3],
        "names": ["a", "é", ""],
    }
    for key, add in {
        "u8": writer.add_uint8,
        "i8": writer.add_int8,
        "u16": writer.add_uint16,
        "i16": writer.add_int16,
        "u32": writer.add_uint32,
        "i32": writer.add_int32,
        "u64": writer.add_uint64,
        "i64": writer.add_int64,
        "f32": writer.add_float32,
        "f64": writer.add_float64,
        "yes": writer.add_bool,
        "words": writer.add_string,
        "ints": writer.add_array,
        "names": writer.add_array,
    }.items():
        add(key, expected[key])
    a, b = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(5, np.float16)
    writer.add_tensor("a", a)
    writer.add_tensor("b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf_header(path)
    assert {k: found.metadata[k] for k in expected} == expected
    assert found.metadata["general.architecture"] == "llama"
    assert (found.version, found.path) == (3, path)
    raw = path.read_bytes()
    for name, values in (("a", a), ("b", b)):
        place = found.tensors[name]
        assert place.shape == values.shape
        assert raw[place.offset : place.offset + place.num_bytes] == values.tobytes()
    assert (found.tensors["a"].type, found.tensors["b"].type) == ("F32", "F16")


def test_block_sizes_are_the_peers() -> None:
    gguf = pytest.importorskip("gguf")
    for number, (name, block, block_bytes) in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert kind.name == name
        assert gguf.GGML_QUANT_SIZES[kind] == (block, block_bytes)


HUGE = struct.pack("<Q", 1 << 62)
NESTED = struct.pack("<IQ", 9, 1) * 6 + struct.pack("<IQ", 0, 0)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "not-gguf": (header([], [], magic=b"GGML"), "does not start with 'GGUF'"),
    "old-version": (header([], [], version=1), "version 1; 2 and 3 are read"),
    "big-endian": (header([], [], version=3 << 24), "version 50331648"),
    "many-tensors": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "claims 1099511627776 tensors"),
    "many-values": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "values"),
    "long-text": (header([pair("k", 8, HUGE)], []), "a text claims"),
    "long-key": (header([HUGE], []), "a text claims"),
    "long-list": (header([pair("k", 9, struct.pack("<I", 4) + HUGE)], []), "a list claims"),
    "long-list-of-texts": (
        header([pair("k", 9, struct.pack("<I", 8) + HUGE)], []),
        "a list claims",
    ),
    "unknown-kind": (header([pair("k", 13, b"\0" * 8)], []), "unknown value type 13"),
    "nested-lists": (header([pair("k", 9, NESTED)], []), "unknown value type 9"),
    "not-utf8": (header([struct.pack("<Q", 2) + b"\xff\xfe" + b"\0" * 20], []), "not UTF-8"),
    "no-dimensions": (header([], [tensor("t", ())]), "claims 0 dimensions"),
    "many-dimensions": (header([], [tensor("t", (1,) * 9)]), "claims 9 dimensions"),
    "unknown-type": (header([], [tensor("t", (4,), kind=99)]), "unsupported type number 99"),
    "empty-tensor": (header([], [tensor("t", (0, 4))]), "has shape"),
    "part-of-a-block": (header([], [tensor("t", (33,), kind=8)]), "has shape"),
    "past-the-end": (header([], [tensor("t", (40,))]), "truncated"),
    "far-offset": (header([], [tensor("t", (4,), offset=1 << 60)]), "truncated"),
    "huge-tensor": (header([], [tensor("t", (1 << 60, 1 << 60))]), "truncated"),
    "same-name": (header([], [tensor("t", (4,)), tensor("t", (4,))]), "same name"),
    "zero-alignment": (
        header([pair("general.alignment", 4, struct.pack("<I", 0))], []),
        "general.alignment is 0",
    ),
    "alignment-is-text": (
        header([pair("general.alignment", 8, text("x"))], []),
        "general.alignment is 'x'",
    ),
}


@pytest.mark.parametrize(("raw", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_header_that_lies_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        read_gguf_header(write(tmp_path / "x.gguf", raw, 64))


def test_missing_short_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        read_gguf_header(tmp_path / "absent.gguf")
    with pytest.raises(FileFormatError, match="is a folder"):
        read_gguf_header(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"")
    with pytest.raises(FileFormatError, match="0 bytes: too short"):
        read_gguf_header(tmp_path / "x.gguf")


def test_alignment_moves_the_tensors(tmp_path: Path) -> None:
    metadata = [pair("general.alignment", 4, struct.pack("<I", 256))]
    raw = header(metadata, [tensor("t", (4,), offset=256)])
    path = tmp_path / "x.gguf"
    path.write_bytes(raw + b"\0" * (-len(raw) % 256) + b"\0" * 272)
    assert read_gguf_header(path).tensors["t"].offset == 512


WHOLE = header(
    [
        pair("general.architecture", 8, text("llama")),
        pair("llama.context_length", 4, struct.pack("<I", 64)),
        pair("llama.embedding_length", 4, struct.pack("<I", 32)),
        pair("llama.block_count", 4, struct.pack("<I", 2)),
        pair("llama.feed_forward_length", 4, struct.pack("<I", 48)),
        pair("llama.attention.head_count", 4, struct.pack("<I", 4)),
        pair("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)),
        pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
    ],
    [tensor("token_embd.weight", (32, 2)), tensor("blk.0.attn_norm.weight", (32,), offset=256)],
)


def test_a_small_header_gives_a_spec(tmp_path: Path) -> None:
    spec = ModelSpec.from_ref(write(tmp_path / "x.gguf", WHOLE, 512))
    assert (spec.hidden_size, spec.num_kv_heads, spec.head_dim, spec.vocab_size) == (32, 4, 8, 2)
    assert spec.rms_norm_eps == 1e-5
    assert spec.tie_word_embeddings


@given(st.data())
@settings(max_examples=200)
def test_any_truncation_or_changed_bytes_give_our_error_or_a_spec(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(WHOLE[: data.draw(st.integers(0, len(WHOLE)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            at = data.draw(st.integers(0, len(damaged) - 1))
            damaged[at] = data.draw(st.integers(0, 255))
    path = write(tmp_path_factory.mktemp("g") / "x.gguf", bytes(damaged), 512)
    spec = None
    with suppress(UserError):
        spec = ModelSpec.from_ref(path)
    assert spec is None or spec.num_layers >= 1
