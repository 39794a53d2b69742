import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.models.tokenizer import StreamDecoder, Tokenizer, check_compatible, load_tokenizer
from small_models import SPECIALS, TEMPLATE, byte_tokenizer, small_spec

TEXT = "It's 12345 o'clock:\n\n  naïve café — 東京 🎉🎉\r\n\tdef f(x):  return x**2  "
BYTES = byte_tokenizer()


def trained() -> Tokenizer:
    """A byte-level BPE with merges."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT * 3, "the cat on the mat " * 9], trainer)
    return Tokenizer(backend, {"eos_token": "<|im_end|>"})


TRAINED = trained()


@given(st.text())
def test_decoding_gives_the_text_back(text: str) -> None:
    for tokenizer in (BYTES, TRAINED):
        ids = tokenizer.encode(text)
        if not any(special in text for special in SPECIALS):
            assert tokenizer.decode(ids) == text
        assert tokenizer.encode_batch([text, text]) == [ids, ids]
        assert tokenizer.encode_offsets(text)[0] == ids


@given(st.text(), st.booleans())
def test_streamed_pieces_add_up_to_the_text(text: str, skip: bool) -> None:
    for tokenizer in (BYTES, TRAINED):
        ids = tokenizer.encode(text)
        stream = StreamDecoder(tokenizer, skip_special=skip)
        pieces = [stream.push(i) for i in ids]
        assert "".join([*pieces, stream.finish()]) == tokenizer.decode(ids, skip_special=skip)
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.integers(0, BYTES.vocab_size + 5), max_size=40))
def test_streamed_pieces_of_any_ids_add_up(ids: list[int]) -> None:
    for tokenizer in (BYTES, TRAINED):
        stream = StreamDecoder(tokenizer)
        pieces = [stream.push(i) for i in ids]
        assert "".join([*pieces, stream.finish()]) == tokenizer.decode(ids)


def test_streams_of_tokenizers_that_are_not_byte_level_add_up() -> None:
    backend = Backend(models.BPE(byte_fallback=True, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Strip(" ", 1, 0)]
    )
    special = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["?", *special])
    backend.train_from_iterator([TEXT * 3], trainer)
    tokenizer = Tokenizer(backend)
    assert tokenizer.bytes_of() is None
    ids = [*tokenizer.encode("the cat"), *(backend.token_to_id(f"<0x{i}>") for i in ("E2", "68"))]
    stream = StreamDecoder(tokenizer, skip_special=False)
    pieces = [stream.push(i) for i in ids]
    assert "".join([*pieces, stream.finish()]) == tokenizer.decode(ids, skip_special=False)


def test_a_character_of_several_tokens_comes_out_once_whole() -> None:
    stream = StreamDecoder(BYTES)
    assert [stream.push(i) for i in BYTES.encode("a🎉b")] == ["a", "", "", "", "🎉", "b"]
    stream.push(BYTES.encode("🎉")[0])
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


def test_special_tokens_are_found_in_text_and_left_out_of_it() -> None:
    ids = BYTES.encode("a<|im_end|>b")
    assert ids[1] == BYTES.eos_id == 2
    assert BYTES.decode(ids) == "ab"
    assert BYTES.decode(ids, skip_special=False) == "a<|im_end|>b"
    assert BYTES.special_ids == {0, 1, 2}
    assert (BYTES.pad_id, BYTES.bos_id, BYTES.vocab_size) == (0, None, 259)


def test_ids_past_the_vocabulary_give_no_text_and_impossible_ones_are_refused() -> None:
    assert BYTES.decode([*BYTES.encode("ab"), 300]) == "ab"
    for bad in (-1, 1 << 31):
        with pytest.raises(DataError, match=f"token id {bad} is outside 0 to 258"):
            BYTES.decode([5, bad])


def test_a_saved_tokenizer_loads_with_the_same_ids_and_template(tmp_path: Path) -> None:
    BYTES.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode(TEXT) == BYTES.encode(TEXT)
    assert again.chat_template == TEMPLATE
    assert (again.eos_id, again.pad_id) == (2, 0)
    assert again.fingerprint == BYTES.fingerprint != TRAINED.fingerprint


def test_padding_and_truncation_of_the_file_do_not_change_ids() -> None:
    backend = Backend.from_str(BYTES.backend.to_str())
    backend.enable_truncation(3)
    backend.enable_padding(length=8)
    assert Tokenizer(backend).encode("abcdef") == BYTES.encode("abcdef")
    assert Tokenizer(backend).fingerprint == BYTES.fingerprint


def write_files(folder: Path, **files: Any) -> Path:
    BYTES.save(folder)
    (folder / "chat_template.jinja").unlink()
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (folder / f"{name}.json").write_text(text)
    return folder


def test_templates_and_tokens_are_found_wherever_folders_keep_them(tmp_path: Path) -> None:
    config = {"chat_template": [{"name": "tools", "template": "t"}, 5]}
    assert load_tokenizer(write_files(tmp_path, tokenizer_config=config)).chat_template is None
    config["chat_template"].append({"name": "default", "template": "d"})
    assert load_tokenizer(write_files(tmp_path, tokenizer_config=config)).chat_template == "d"
    tokens = {"eos_token": {"content": "<|endoftext|>"}}
    found = load_tokenizer(write_files(tmp_path, tokenizer_config={}, special_tokens_map=tokens))
    assert found.eos_id == 0
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_tokenizer(tmp_path).token_text("eos_token") == "<|endoftext|>"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer": "{"}, "tokenizer.json is damaged"),
        ({"tokenizer": {"version": "1.0"}}, "tokenizer.json is damaged"),
        ({"tokenizer_config": "{"}, "tokenizer config"),
        ({"tokenizer_config": []}, "is not a JSON object"),
        ({"tokenizer_config": {"eos_token": "<none>"}}, "eos_token '<none>' is not in its"),
        ({"tokenizer_config": {"chat_template": 5}}, "chat_template is 5, not text"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        load_tokenizer(write_files(tmp_path, **files))
    assert str(tmp_path) in str(caught.value)


def test_a_template_that_is_not_utf8_and_missing_files_are_refused(tmp_path: Path) -> None:
    (write_files(tmp_path) / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(FileFormatError, match="not UTF-8"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(MissingFileError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(MissingFileError, match="neither an asset nor an existing path"):
        load_tokenizer(tmp_path / "absent")


def test_a_tokenizer_of_another_model_is_refused() -> None:
    check_compatible(BYTES, small_spec(vocab_size=259))
    with pytest.raises(ConfigError, match="259 ids and the model embeds 258"):
        check_compatible(BYTES, small_spec(vocab_size=258))


def vocabulary() -> tuple[list[str], list[str]]:
    """Tokens in order of their ids, and the merges, of the trained tokenizer."""
    data = json.loads(TRAINED.backend.to_str())["model"]
    tokens = sorted(data["vocab"], key=data["vocab"].get)
    return tokens, [" ".join(pair) for pair in data["merges"]]


def write_gguf(path: Path, **changes: Any) -> Path:
    gguf = pytest.importorskip("gguf")
    tokens, merges = vocabulary()
    values = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "merges": merges,
        "token_type": [3 if t in SPECIALS else 1 for t in tokens],
        "eos_token_id": 2,
        **changes,
    }
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in values.items():
        name = f"tokenizer.ggml.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif value is not None:
            writer.add_string(name, value)
    writer.add_string("tokenizer.chat_template", TEMPLATE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_a_gguf_tokenizer_gives_the_ids_of_the_one_it_was_made_from(tmp_path: Path) -> None:
    found = load_tokenizer(write_gguf(tmp_path / "t.gguf"))
    text = "the cat<|im_end|>" + TEXT
    assert found.encode(text) == TRAINED.encode(text)
    assert found.decode(found.encode(TEXT)) == TEXT
    assert (found.eos_id, found.bos_id, found.chat_template) == (2, None, TEMPLATE)
    assert found.special_ids == {0, 1, 2}


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["it", "'s", " 1234", ",", " ok", "  ", " no"]),
        ("llama-bpe", ["it", "'s", " ", "123", "4", ",", " ok", "  ", " no"]),
        ("qwen2", ["it", "'s", " ", "1", "2", "3", "4", ",", " ok", "  ", " no"]),
        ("smollm", ["it", "'s", " ", "1", "2", "3", "4", ",", " ok", "  ", " no"]),
    ],
)
def test_text_is_split_as_the_pre_tokenizer_says(
    tmp_path: Path, pre: str, pieces: list[str]
) -> None:
    found = load_tokenizer(write_gguf(tmp_path / "t.gguf", pre=pre))
    text = "it's 1234, ok   no"
    split = found.backend.pre_tokenizer.pre_tokenize_str(text)
    assert [text[a:b] for _, (a, b) in split] == pieces


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama"}, "the tokenizer 'llama'"),
        ({"pre": "mystery"}, "pre-tokenizer 'mystery'"),
        ({"tokens": None}, "no tokens or no merges"),
        ({"merges": [1, 2]}, "no tokens or no merges"),
        ({"merges": ["a"]}, "tokenizer is damaged"),
        ({"merges": ["zz yy"]}, "tokenizer is damaged"),
        ({"token_type": [1, 1]}, "token types do not fit"),
        ({"token_type": 1}, "token types do not fit"),
        ({"eos_token_id": 10**6}, "eos token id is 1000000"),
        ({"eos_token_id": "x"}, "eos token id is 'x'"),
    ],
)
def test_a_damaged_gguf_tokenizer_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FileFormatError, match=message):
        load_tokenizer(write_gguf(tmp_path / "t.gguf", **changes))
