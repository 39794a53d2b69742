"""Tokenizers of Hugging Face folders and GGUF files, over the ``tokenizers`` library; no torch.

GGUF files carry a byte-level BPE as lists of tokens and merges; the pre-tokenizer's name decides
how text is split first. Special tokens are added after the BPE is built and keep their ids.
"""

from __future__ import annotations

import codecs
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.config import digest, read_json
from sharpen.core.errors import (
    ConfigError,
    DataError,
    FileFormatError,
    MissingFileError,
    SharpenError,
)
from sharpen.core.files import atomic_write_json, atomic_write_text
from sharpen.core.gguf_header import GgufHeader, read_gguf_header
from sharpen.core.model_spec import ModelSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["StreamDecoder", "Tokenizer", "check_compatible", "load_tokenizer"]

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_PRE_TOKENIZERS = ("default", "gpt-2", "llama-bpe", "llama3", "qwen2", "smollm")


class Tokenizer:
    """Text to token ids and back.

    Args:
        backend: a ``tokenizers.Tokenizer``.
        config: as ``tokenizer_config.json``: special tokens and the chat template.

    Attributes:
        bos_id, eos_id, pad_id: ids of the special tokens, or None.
        chat_template: a jinja2 template, or None.
    """

    def __init__(self, backend: Backend, config: dict[str, Any] | None = None) -> None:
        self.backend = backend
        backend.no_padding()
        backend.no_truncation()
        self.config = dict(config or {})
        self._known_bytes: dict[bool, dict[int, bytes]] = {}
        self.chat_template: str | None = self.config.get("chat_template")
        if not isinstance(self.chat_template, str | None):
            raise FileFormatError(
                f"the tokenizer's chat_template is {self.chat_template!r:.60}, not text."
            )
        self.bos_id = self._special("bos_token")
        self.eos_id = self._special("eos_token")
        self.pad_id = self._special("pad_token")

    def _special(self, key: str) -> int | None:
        token = self.token_text(key)
        if token is None:
            return None
        found: int | None = self.backend.token_to_id(token)
        if found is None:
            raise FileFormatError(f"the tokenizer's {key} {token!r} is not in its vocabulary.")
        return found

    def token_text(self, key: str) -> str | None:
        """Text of ``bos_token``, ``eos_token`` or ``pad_token``; None when there is none."""
        token = self.config.get(key)
        if isinstance(token, dict):
            token = token.get("content")
        return token if isinstance(token, str) and token else None

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens."""
        added = self.backend.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    @property
    def fingerprint(self) -> str:
        """Digest of what decides ids: the vocabulary, the merges and the splitting."""
        return digest(json.loads(self.backend.to_str()))

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids of ``text``; special tokens written in it are recognized.

        Args:
            text: any text.
            add_special: also add what the tokenizer puts around a text, such as a first bos.
        """
        ids: list[int] = self.backend.encode(text, add_special_tokens=add_special).ids
        return ids

    def encode_batch(self, texts: Sequence[str], *, add_special: bool = False) -> list[list[int]]:
        """Token ids of several texts, in parallel."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=add_special)
        return [encoding.ids for encoding in encodings]

    def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and, for each, its first and last + 1 character in ``text``."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids.

        Ids past the vocabulary give no text: many models embed more ids than their tokenizer has.

        Raises:
            DataError: an id is negative or takes more than 31 bits.
        """
        ids = list(ids)
        for i in ids:
            if not 0 <= i < 1 << 31:
                raise DataError(f"token id {i} is outside 0 to {self.vocab_size - 1}.")
        return str(self.backend.decode(ids, skip_special_tokens=skip_special))

    def bytes_of(self, *, skip_special: bool = True) -> Callable[[int], bytes] | None:
        """What gives the bytes of an id; None where they depend on the ids around it."""
        decoder = self.backend.decoder
        if decoder is None or json.loads(decoder.__getstate__())["type"] != "ByteLevel":
            return None
        known = self._known_bytes.setdefault(skip_special, {})
        special = self.special_ids if skip_special else frozenset()
        letters = _byte_of_letter()

        def find(token_id: int) -> bytes:
            found = known.get(token_id)
            if found is None:
                token = self.backend.id_to_token(token_id) or ""
                if token_id in special:
                    found = b""
                elif all(letter in letters for letter in token):
                    found = bytes(letters[letter] for letter in token)
                else:
                    found = token.encode()  # one that was added as it is
                known[token_id] = found
            return found

        return find

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and the chat template."""
        atomic_write_text(folder / "tokenizer.json", self.backend.to_str(pretty=False))
        config = {k: v for k, v in self.config.items() if k != "chat_template"}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        atomic_write_json(folder / "tokenizer_config.json", config)
        if self.chat_template is not None:
            atomic_write_text(folder / "chat_template.jinja", self.chat_template)


class StreamDecoder:
    """Decodes a growing sequence of ids, giving text only once its characters are complete.

    Where the tokenizer is a byte-level one (Radford et al., 2019), an id stands for bytes whatever
    comes before it, and one more costs O(1). Else it costs two calls of the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        bytes_of = tokenizer.bytes_of(skip_special=skip_special)
        self._inner = (
            _ByBytes(bytes_of) if bytes_of is not None else _ByText(tokenizer, skip_special)
        )

    def push(self, token_id: int) -> str:
        """Add one id; returns the new text, which may be empty."""
        return self._inner.push(token_id)

    def finish(self) -> str:
        """What is left at the end, incomplete characters as U+FFFD."""
        return self._inner.finish()


class _ByBytes:
    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self._decoder.decode(self._bytes_of(token_id))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class _ByText:
    def __init__(self, tokenizer: Tokenizer, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special
        self._ids: list[int] = []
        self._prefix = 0
        self._read = 0

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        before, now = self._texts()
        if now.endswith("\ufffd") or len(now) <= len(before):
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return now[len(before) :]

    def finish(self) -> str:
        before, now = self._texts()
        self._prefix = self._read = len(self._ids)
        return now[len(before) :]

    def _texts(self) -> tuple[str, str]:
        decode = self._tokenizer.decode
        before = decode(self._ids[self._prefix : self._read], skip_special=self._skip)
        return before, decode(self._ids[self._prefix :], skip_special=self._skip)


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """The letter that stands for each byte in byte-level tokens, reversed."""
    from tokenizers import pre_tokenizers

    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in plain]
    letters |= {chr(256 + i): byte for i, byte in enumerate(others)}
    assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
    return letters


def load_tokenizer(ref: str | Path) -> Tokenizer:
    """Load a tokenizer.

    Args:
        ref: an asset's name, a folder in Hugging Face layout, or a ``.gguf`` file.

    Raises:
        AssetNotInstalled: the asset is not installed.
        MissingFileError: no such path, or no ``tokenizer.json`` in the folder.
        FileFormatError: damaged, or a kind that is not supported.
    """
    path = asset_path(str(ref)) if str(ref) in ASSETS else Path(ref)
    if path.is_dir():
        return _from_folder(path)
    if not path.exists():
        raise MissingFileError(f"tokenizer {str(ref)!r} is neither an asset nor an existing path.")
    return _from_gguf(read_gguf_header(path))


def check_compatible(tokenizer: Tokenizer, spec: ModelSpec, where: str = "the model") -> None:
    """Refuse a tokenizer whose ids the model has no embedding for.

    Raises:
        ConfigError: the vocabulary is larger than the model's.
    """
    if tokenizer.vocab_size > spec.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} ids and {where} embeds {spec.vocab_size}: "
            "they do not belong together. Use the tokenizer of the same model."
        )


def _from_folder(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    file = folder / "tokenizer.json"
    if not file.exists():
        raise MissingFileError(f"{folder} has no tokenizer.json.")
    try:
        backend = Backend.from_file(str(file))
    except Exception as error:  # the library raises plain Exception for any damage
        raise FileFormatError(f"{file} is damaged: {error}") from None
    config: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").exists():
        config = read_json(folder / "tokenizer_config.json", "tokenizer config")
        if not isinstance(config, dict):
            raise FileFormatError(f"{folder / 'tokenizer_config.json'} is not a JSON object.")
    special_map = folder / "special_tokens_map.json"
    if special_map.exists():
        extra = read_json(special_map, "special tokens")
        config = {**(extra if isinstance(extra, dict) else {}), **config}
    template = folder / "chat_template.jinja"
    if template.exists():
        try:
            config["chat_template"] = template.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise FileFormatError(f"{template} is not UTF-8: {error}") from None
    elif isinstance(config.get("chat_template"), list):
        entries = [t for t in config["chat_template"] if isinstance(t, dict)]
        config["chat_template"] = next(
            (t.get("template") for t in entries if t.get("name") == "default"), None
        )
    try:
        return Tokenizer(backend, config)
    except FileFormatError as error:
        raise FileFormatError(f"{folder}: {error}") from None


def _from_gguf(header: GgufHeader) -> Tokenizer:
    from tokenizers import AddedToken, decoders, models
    from tokenizers import Tokenizer as Backend

    meta = header.metadata
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise FileFormatError(
            f"{header.path}: the tokenizer '{kind}' with pre-tokenizer '{pre}' is not supported; "
            f"supported: 'gpt2' with {', '.join(_PRE_TOKENIZERS)}."
        )
    tokens: Any = meta.get("tokenizer.ggml.tokens")
    merges: Any = meta.get("tokenizer.ggml.merges")
    if not _texts(tokens) or not _texts(merges):
        raise FileFormatError(f"{header.path}: its tokenizer has no tokens or no merges.")
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    try:
        vocab = {token: i for i, token in enumerate(tokens)}
        backend = Backend(models.BPE(vocab=vocab, merges=pairs, ignore_merges=pre == "llama-bpe"))
    except Exception as error:  # the library raises plain Exception for any damage
        raise FileFormatError(f"{header.path}: its tokenizer is damaged: {error}") from None
    backend.pre_tokenizer = _pre_tokenizer(pre)
    backend.decoder = decoders.ByteLevel()
    kinds = meta.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        raise FileFormatError(f"{header.path}: its tokenizer's token types do not fit its tokens.")
    special = [t for t, k in zip(tokens, kinds, strict=True) if k == 3]
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    added = [t for t, k in zip(tokens, kinds, strict=True) if k == 4]
    backend.add_tokens([AddedToken(t, normalized=False) for t in added])
    config: dict[str, Any] = {"chat_template": meta.get("tokenizer.chat_template")}
    for key, name in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding")):
        number = meta.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None:
            if not isinstance(number, int) or not 0 <= number < len(tokens):
                raise FileFormatError(f"{header.path}: its {name} token id is {number!r}.")
            config[key] = tokens[number]
    try:
        return Tokenizer(backend, config)
    except SharpenError as error:
        raise FileFormatError(f"{header.path}: {error}") from None


def _texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, str) for v in values)


def _pre_tokenizer(name: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if name == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    patterns = {"llama-bpe": _LLAMA3, "llama3": _LLAMA3, "qwen2": _QWEN2}
    split = pre_tokenizers.Split(Regex(patterns.get(name, _GPT2)), "isolated", invert=False)
    return pre_tokenizers.Sequence([split, byte_level])
