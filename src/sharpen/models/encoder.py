"""Sentence embeddings by a BERT encoder, as the folders of sentence-transformers hold them.

Devlin et al., *BERT: Pre-training of Deep Bidirectional Transformers*, NAACL 2019 (arXiv
1810.04805); Reimers and Gurevych, *Sentence-BERT*, EMNLP 2019 (arXiv 1908.10084)::

    h = LayerNorm(word + position + type)
    h = LayerNorm(h + attention(h));  h = LayerNorm(h + W2 gelu(W1 h))      each layer
    e = mean of h over all tokens (or h of the first one);  e / |e|

Texts longer than the model reads are read in windows, and the mean goes over the tokens of all:
nothing of a text is dropped. (sentence-transformers cuts them off.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from sharpen.core.config import read_json
from sharpen.core.embedding.opening import unit
from sharpen.core.errors import FileFormatError
from sharpen.models.hf import read_safetensors_header

__all__ = ["BertEmbedder", "BertEncoder", "BertSpec", "load"]

_TOKENS_AT_ONCE = 4096  # of a padded batch: more do not fit the caches
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
}
_IGNORED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class BertSpec:
    """Sizes of an encoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"

    @classmethod
    def from_file(cls, file: Path) -> BertSpec:
        """Read a ``config.json``.

        Raises:
            FileFormatError: a size is missing or no number, or another kind of encoder.
        """
        config = read_json(file, "config of an encoder")
        config = config if isinstance(config, dict) else {}
        sizes = [
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        ]
        given: dict[str, Any] = {name: config.get(name) for name in sizes}
        given["type_vocab_size"] = config.get("type_vocab_size", 2)
        for name, value in given.items():
            if type(value) is not int or not 0 < value < 10**7:
                raise FileFormatError(f"{file}: {name}={value!r} must be a positive integer.")
        if given["hidden_size"] % given["num_attention_heads"]:
            raise FileFormatError(f"{file}: hidden_size is no multiple of num_attention_heads.")
        eps, act = config.get("layer_norm_eps", 1e-12), config.get("hidden_act", "gelu")
        if type(eps) is not float or not 0 < eps < 1:
            raise FileFormatError(f"{file}: layer_norm_eps={eps!r} must be between 0 and 1.")
        positions = config.get("position_embedding_type", "absolute")
        if act not in _ACTIVATIONS or positions != "absolute":
            raise FileFormatError(
                f"{file}: hidden_act={act!r} with {positions!r} positions is not supported;"
                f" {', '.join(_ACTIVATIONS)} with 'absolute' are."
            )
        return cls(**given, layer_norm_eps=eps, hidden_act=act)


class _Layer(nn.Module):
    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        width, eps = spec.hidden_size, spec.layer_norm_eps
        self.heads, self.act = spec.num_attention_heads, _ACTIVATIONS[spec.hidden_act]
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps)
        self.up = nn.Linear(width, spec.intermediate_size)
        self.down = nn.Linear(spec.intermediate_size, width)
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        def split(projection: nn.Module) -> Tensor:
            found: Tensor = projection(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            return found

        mixed = functional.scaled_dot_product_attention(
            split(self.query), split(self.key), split(self.value), attn_mask=mask
        )
        hidden = self.attention_norm(hidden + self.out(mixed.transpose(1, 2).flatten(2)))
        found: Tensor = self.norm(hidden + self.down(self.act(self.up(hidden))))
        return found


class BertEncoder(nn.Module):
    """States of all tokens.

    Args:
        spec: the sizes.
    """

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        width = spec.hidden_size
        self.word = nn.Embedding(spec.vocab_size, width)
        self.position = nn.Embedding(spec.max_position_embeddings, width)
        self.segment = nn.Embedding(spec.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, spec.layer_norm_eps)
        self.layers = nn.ModuleList(_Layer(spec) for _ in range(spec.num_hidden_layers))

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """States [B, s, H] of tokens ``ids`` [B, s], of which the first ``lengths`` [B] count."""
        size = ids.shape[1]
        hidden: Tensor = self.word(ids) + self.position.weight[:size] + self.segment.weight[0]
        hidden = self.norm(hidden)
        seen: Tensor = torch.arange(size, device=ids.device) < lengths[:, None]
        mask = None if bool(seen.all()) else seen[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden


class BertEmbedder:
    """Vectors of texts.

    Args:
        model: the encoder.
        tokenizer: of ``tokenizers``; its template adds the tokens at both ends.
        window: tokens that are read at once, those at the ends included.
        pooling: ``mean`` or ``first``.

    Attributes:
        width: of the vectors.
    """

    def __init__(
        self, model: BertEncoder, tokenizer: Tokenizer, window: int, pooling: str = "mean"
    ) -> None:
        self.model, self._tokenizer, self.window, self.pooling = model, tokenizer, window, pooling
        self.width = model.word.embedding_dim
        tokenizer.no_padding()
        tokenizer.no_truncation()
        ends = tokenizer.encode("").ids
        self._first, self._last = ends[: len(ends) // 2], ends[len(ends) // 2 :]
        self._pad = self._last[0] if self._last else 0
        if len(ends) >= window:
            raise FileFormatError(f"a window of {window} tokens has no room for a text.")

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """[texts, width] vectors of length 1."""
        owners, windows = [], []
        for i, ids in enumerate(self._ids(texts)):
            room = self.window - len(self._first) - len(self._last)
            for start in range(0, max(len(ids), 1), room):
                owners.append(i)
                windows.append([*self._first, *ids[start : start + room], *self._last])
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i]))
        sums = torch.zeros(len(texts), self.width)
        counts = torch.zeros(len(texts))
        done = 0
        while done < len(order):
            longest = len(windows[order[done]])
            some = order[done : done + max(1, _TOKENS_AT_ONCE // longest)]
            done += len(some)
            lengths = torch.tensor([len(windows[i]) for i in some])
            rows = [windows[i] + [self._pad] * (longest - len(windows[i])) for i in some]
            hidden = self.model(torch.tensor(rows), lengths)
            of = torch.tensor([owners[i] for i in some])
            if self.pooling == "first":
                pooled, weight = hidden[:, 0], torch.ones(len(some))
            else:
                seen = torch.arange(longest) < lengths[:, None]
                pooled, weight = (hidden * seen[..., None]).sum(1), lengths.float()
            sums.index_add_(0, of, pooled)
            counts.index_add_(0, of, weight)
        return unit((sums / counts.clamp(min=1)[:, None]).numpy())

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        coded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [one.ids for one in coded]


def load(weights: Path, tokenizer: Path) -> BertEmbedder:
    """Read a folder of sentence-transformers: BERT, pooling by the mean or the first token.

    Raises:
        MissingFileError: ``config.json`` is not there.
        FileFormatError: damaged files, tensors missing or of another shape, another pooling.
    """
    folder = weights.parent
    spec = BertSpec.from_file(folder / "config.json")
    pooling, window = _pooling(folder), _window(folder, spec)
    with torch.device("meta"):
        model = BertEncoder(spec)
    tensors = read_safetensors_header(weights)
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in tensors else ""
    wanted = _names(spec)
    state = {}
    for name, shape in {n: p.shape for n, p in model.named_parameters()}.items():
        stored = tensors.get(prefix + wanted[name])
        if stored is None or stored.shape != tuple(shape):
            raise FileFormatError(
                f"{weights}: the tensor {wanted[name]!r} must have the shape {list(shape)}"
                f" (config.json), it {'is missing' if stored is None else f'has {stored.shape}'}."
            )
        value = stored.read().float()
        if not bool(torch.isfinite(value).all()):
            raise FileFormatError(f"{weights}: the tensor {wanted[name]!r} holds NaN or infinity.")
        state[name] = value
    unknown = set(tensors) - {prefix + n for n in (*wanted.values(), *_IGNORED)}
    if unknown:
        raise FileFormatError(f"{weights} holds tensors of another model: {min(unknown)!r}.")
    model.load_state_dict(state, assign=True)
    try:
        backend = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # of the library's own kind
        raise FileFormatError(f"{tokenizer} cannot be read: {error}.") from None
    if backend.get_vocab_size() > spec.vocab_size:
        raise FileFormatError(f"{tokenizer} has more tokens than {weights} has rows.")
    return BertEmbedder(model.eval(), backend, window, pooling)


def _names(spec: BertSpec) -> dict[str, str]:
    """Names in the file, by our own."""
    found = {
        "word.weight": "embeddings.word_embeddings.weight",
        "position.weight": "embeddings.position_embeddings.weight",
        "segment.weight": "embeddings.token_type_embeddings.weight",
    }
    modules = {"norm": "embeddings.LayerNorm"}
    inside = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm": "output.LayerNorm",
    }
    for i in range(spec.num_hidden_layers):
        modules |= {f"layers.{i}.{k}": f"encoder.layer.{i}.{v}" for k, v in inside.items()}
    for ours, theirs in modules.items():
        found |= {f"{ours}.{leaf}": f"{theirs}.{leaf}" for leaf in ("weight", "bias")}
    return found


def _pooling(folder: Path) -> str:
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return "mean"
    config: Any = read_json(file, "pooling config")
    modes = {k for k, v in config.items() if v is True} if isinstance(config, dict) else set()
    modes = {mode for mode in modes if mode.startswith("pooling_mode_")}
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
    if len(modes) != 1 or not modes <= set(known):
        raise FileFormatError(f"{file}: the mean of all tokens, or the first, are supported.")
    return known[modes.pop()]


def _window(folder: Path, spec: BertSpec) -> int:
    """Tokens that the model was trained to read at once."""
    file = folder / "sentence_bert_config.json"
    config: Any = read_json(file, "sentence config") if file.is_file() else {}
    size = config.get("max_seq_length") if isinstance(config, dict) else None
    if type(size) is not int or size < 1:
        size = spec.max_position_embeddings
    return min(size, spec.max_position_embeddings)
