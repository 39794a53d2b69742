"""The shape of a decoder language model, read from ``config.json`` or a GGUF header.

No weights are read and no torch is loaded, so that planning works for models of any size.

Counts (``L`` layers, ``h`` hidden, ``f`` MLP width, ``h_q = heads * d``, ``h_kv = kv_heads * d``,
``V`` vocabulary)::

    layer        = h h_q + 2 h h_kv + h_q h + 3 h f + 2 h   (+ biases, + 2 d with query/key norms;
                                                             a parallel block has h for the 2 h)
    parameters   = L layer + V h (1 if tied else 2) + h
    in matmuls   = L (h h_q + 2 h h_kv + h_q h + 3 h f) + V h
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.gguf_header import GgufHeader, read_gguf_header

__all__ = ["ARCHITECTURES", "ModelSpec", "RopeScaling"]

Family = Literal["llama", "mistral", "qwen2", "qwen3"]
ARCHITECTURES: dict[str, Family] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
# How a family with parallel blocks is called: names that no other tool takes for its own.
_PARALLEL = {name.replace("For", "ParallelFor"): family for name, family in ARCHITECTURES.items()}
_GGUF_FAMILIES: dict[str, Family] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_MAX_DIM = 1 << 24
_MAX_LAYERS = 1 << 12
# Keys of rope scaling that change the numbers, and the value at which they do not.
_ROPE_NEUTRAL = {
    "mscale": None,
    "mscale_all_dim": None,
    "partial_rotary_factor": 1.0,
    "truncate": True,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts beyond those trained on."""

    kind: Literal["linear", "dynamic", "llama3", "yarn"]
    """``linear`` divides positions, ``dynamic`` raises the base with the length, ``llama3`` and
    ``yarn`` scale by wavelength."""

    factor: float = 1.0
    """The stretch."""

    original_max_positions: int | None = None
    """``llama3``, ``yarn``: context length of the pre-training; ``dynamic`` goes by the model's."""

    low_freq_factor: float = 1.0
    """``llama3``: wavelengths above original/low are divided by ``factor``."""

    high_freq_factor: float = 4.0
    """``llama3``: wavelengths below original/high stay."""

    beta_fast: float = 32.0
    """``yarn``: rotations above which frequencies stay."""

    beta_slow: float = 1.0
    """``yarn``: rotations below which frequencies are divided by ``factor``."""

    attention_factor: float | None = None
    """``yarn``: factor on cos and sin; default 0.1 ln(factor) + 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.factor >= 1.0 or not math.isfinite(self.factor):
            raise ConfigError(f"factor={self.factor} of rope scaling must be at least 1.")
        original = self.original_max_positions
        if original is None:
            if self.kind in ("llama3", "yarn"):
                raise ConfigError(f"rope scaling '{self.kind}' needs original_max_positions.")
        elif self.kind in ("linear", "dynamic"):
            raise ConfigError(f"rope scaling '{self.kind}' takes no original_max_positions.")
        elif type(original) is not int or not 1 <= original <= _MAX_DIM:
            raise ConfigError(
                f"original_max_positions={original!r} must be an integer from 1 to {_MAX_DIM}."
            )
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if not 0 < getattr(self, low) < getattr(self, high) < math.inf:
                raise ConfigError(
                    f"{low}={getattr(self, low)!r} must be above 0 and below "
                    f"{high}={getattr(self, high)!r}."
                )
        if self.attention_factor is not None and not 0 < self.attention_factor < math.inf:
            raise ConfigError(f"attention_factor={self.attention_factor} must be above 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """Everything that shapes a decoder language model of the Llama kind."""

    family: Family
    """Layout: which biases and norms there are."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    """Context length."""

    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    """The head is the embedding."""

    attention_bias: bool = False
    """Biases on the query, key and value projections (and on the output's, for Llama)."""

    mlp_bias: bool = False
    sliding_window: int | None = None
    """A position sees itself and the ``sliding_window - 1`` before it."""

    sliding_layers: tuple[bool, ...] | None = None
    """Which layers slide; None is all of them."""

    block: Literal["serial", "parallel"] = "serial"
    """``parallel``: attention and MLP read one norm and are added together; no other tool reads
    such a model."""

    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        """Check that the numbers can belong together."""
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "max_positions",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= _MAX_DIM:
                raise ConfigError(f"{name}={value!r} must be an integer from 1 to {_MAX_DIM}.")
        if self.num_layers > _MAX_LAYERS:
            raise ConfigError(f"num_layers={self.num_layers} must be at most {_MAX_LAYERS}.")
        if self.num_heads % self.num_kv_heads:
            legal = [n for n in range(1, self.num_heads + 1) if self.num_heads % n == 0]
            raise ConfigError(
                f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}. "
                f"Choose one of {', '.join(map(str, legal))}."
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim={self.head_dim} must be even for rotary embedding.")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ConfigError(f"sliding_window={self.sliding_window} must be at least 1.")
        if self.sliding_layers is not None and len(self.sliding_layers) != self.num_layers:
            raise ConfigError(
                f"sliding_layers has {len(self.sliding_layers)} entries for "
                f"{self.num_layers} layers."
            )
        if not self.rms_norm_eps > 0 or not self.rope_theta > 1:
            raise ConfigError(
                f"rms_norm_eps={self.rms_norm_eps} must be above 0 and "
                f"rope_theta={self.rope_theta} above 1."
            )
        scaling = self.rope_scaling
        if scaling is not None and scaling.kind == "dynamic" and self.head_dim < 4:
            raise ConfigError(f"head_dim={self.head_dim} must be at least 4 for dynamic scaling.")

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normed per head (Qwen3)."""
        return self.family == "qwen3"

    @property
    def qkv_bias(self) -> bool:
        """Whether the query, key and value projections have biases."""
        return self.attention_bias or self.family == "qwen2"

    @property
    def output_bias(self) -> bool:
        """Whether the attention's output projection has a bias."""
        return self.attention_bias and self.family != "qwen2"

    @property
    def block_norms(self) -> int:
        """Norms of the hidden states in one block: before attention, and before a serial MLP."""
        return 1 if self.block == "parallel" else 2

    @property
    def query_size(self) -> int:
        """``num_heads * head_dim``."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """``num_kv_heads * head_dim``."""
        return self.num_kv_heads * self.head_dim

    @property
    def layer_matmul_parameters(self) -> int:
        """Weights of one block that take part in matrix products."""
        attention = 2 * self.hidden_size * (self.query_size + self.kv_size)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def layer_parameters(self) -> int:
        """Parameters of one block."""
        count = self.layer_matmul_parameters + self.block_norms * self.hidden_size
        if self.qkv_bias:
            count += self.query_size + 2 * self.kv_size
        if self.output_bias:
            count += self.hidden_size
        if self.mlp_bias:
            count += 2 * self.intermediate_size + self.hidden_size
        if self.qk_norm:
            count += 2 * self.head_dim
        return count

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters, a tied head counted once."""
        heads = 1 if self.tie_word_embeddings else 2
        blocks = self.num_layers * self.layer_parameters
        return blocks + heads * self.embedding_parameters + self.hidden_size

    @property
    def matmul_parameters(self) -> int:
        """Weights in matrix products, the head included."""
        return self.num_layers * self.layer_matmul_parameters + self.embedding_parameters

    def slides(self, layer: int) -> bool:
        """Whether ``layer`` uses the sliding window."""
        if self.sliding_window is None:
            return False
        return self.sliding_layers is None or self.sliding_layers[layer]

    @classmethod
    def from_ref(cls, path: str | Path) -> ModelSpec:
        """Read the spec of a model folder or ``.gguf`` file.

        Raises:
            MissingFileError: no such path, or a folder without ``config.json``.
            FileFormatError: damaged, or an architecture that is not supported.
        """
        path = Path(path)
        if path.is_dir():
            data = read_json(path / "config.json", "model config")
            return cls.from_config(data, where=str(path / "config.json"))
        if not path.exists():
            raise MissingFileError(f"no such model: {path}")
        return cls.from_gguf(read_gguf_header(path))

    @classmethod
    def from_config(cls, data: Any, *, where: str = "config.json") -> ModelSpec:
        """From the contents of a Hugging Face ``config.json``.

        Raises:
            FileFormatError: an unsupported architecture, or keys missing or of the wrong type.
        """
        if not isinstance(data, Mapping):
            raise FileFormatError(f"{where} is not a JSON object.")
        family, block = _family(data, where)
        activation = data.get("hidden_act", "silu")
        if activation not in ("silu", "swish"):
            raise FileFormatError(
                f"{where}: hidden_act {activation!r} is not supported; supported: 'silu'."
            )
        try:
            rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
            if not isinstance(rope, Mapping):
                raise TypeError(f"the rope parameters are {rope!r:.60}, not an object")
            theta = rope.get("rope_theta", data.get("rope_theta"))
            heads = data["num_attention_heads"]
            head_dim = data.get("head_dim") or data["hidden_size"] // heads
            positions = data.get("max_position_embeddings", 2048)
            window, layers = _window(data, family)
            eos = data.get("eos_token_id")
            return cls(
                family=family,
                vocab_size=data["vocab_size"],
                hidden_size=data["hidden_size"],
                intermediate_size=data["intermediate_size"],
                num_layers=data["num_hidden_layers"],
                num_heads=heads,
                num_kv_heads=data.get("num_key_value_heads") or heads,
                head_dim=head_dim,
                max_positions=positions,
                rms_norm_eps=float(data.get("rms_norm_eps", 1e-6)),
                rope_theta=float(theta if theta is not None else 10_000.0),
                rope_scaling=_rope(rope, positions, where),
                tie_word_embeddings=bool(data.get("tie_word_embeddings", False)),
                attention_bias=bool(data.get("attention_bias", False)),
                mlp_bias=family == "llama" and bool(data.get("mlp_bias", False)),
                sliding_window=window,
                sliding_layers=layers,
                block=block,
                bos_token_id=data.get("bos_token_id"),
                eos_token_ids=tuple(map(int, eos)) if isinstance(eos, list) else _one(eos),
                pad_token_id=data.get("pad_token_id"),
            )
        except KeyError as error:
            raise FileFormatError(f"{where} lacks the key {error}.") from None
        except (TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"{where} cannot be used: {error}") from None

    @classmethod
    def from_gguf(cls, header: GgufHeader) -> ModelSpec:
        """From a GGUF header.

        Raises:
            FileFormatError: an unsupported architecture, or keys missing or of the wrong type.
        """
        meta, where = header.metadata, str(header.path)
        name = meta.get("general.architecture")
        family = _GGUF_FAMILIES.get(str(name))
        if family is None:
            raise FileFormatError(
                f"{where}: architecture {name!r} is not supported; supported: "
                f"{', '.join(_GGUF_FAMILIES)}."
            )

        def get(key: str, default: Any = None) -> Any:
            value = meta.get(f"{name}.{key}", default)
            if value is None:
                raise FileFormatError(f"{where} lacks the metadata '{name}.{key}'.")
            return value

        try:
            heads, hidden = get("attention.head_count"), get("embedding_length")
            tokens = meta.get("tokenizer.ggml.tokens") or []
            embedding = header.tensors.get("token_embd.weight")
            vocab = embedding.shape[0] if embedding is not None else len(tokens)
            positions = get("context_length")
            rope = {
                "rope_type": meta.get(f"{name}.rope.scaling.type", "default"),
                "factor": meta.get(f"{name}.rope.scaling.factor", 1.0),
                "original_max_position_embeddings": meta.get(
                    f"{name}.rope.scaling.original_context_length"
                ),
            }
            return cls(
                family=family,
                vocab_size=vocab,
                hidden_size=hidden,
                intermediate_size=get("feed_forward_length"),
                num_layers=get("block_count"),
                num_heads=heads,
                num_kv_heads=get("attention.head_count_kv", heads),
                head_dim=get("attention.key_length", hidden // heads),
                max_positions=positions,
                rms_norm_eps=float(f"{get('attention.layer_norm_rms_epsilon'):.6g}"),
                rope_theta=float(get("rope.freq_base", 10_000.0)),
                rope_scaling=_rope(rope, positions, where),
                tie_word_embeddings="output.weight" not in header.tensors,
                attention_bias=family == "llama" and "blk.0.attn_q.bias" in header.tensors,
                bos_token_id=meta.get("tokenizer.ggml.bos_token_id"),
                eos_token_ids=_one(meta.get("tokenizer.ggml.eos_token_id")),
                pad_token_id=meta.get("tokenizer.ggml.padding_token_id"),
            )
        except (TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"{where} cannot be used: {error}") from None

    def to_config(self, *, dtype: str = "bfloat16") -> dict[str, Any]:
        """The ``config.json`` that ``transformers`` reads, in its older and newer keys.

        With parallel blocks it names an architecture and a model type that only Sharpen knows, so
        that other tools refuse the folder.
        """
        parallel = self.block == "parallel"
        architectures = _PARALLEL if parallel else ARCHITECTURES
        architecture = next(k for k, v in architectures.items() if v == self.family)
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if self.rope_scaling is not None:
            rope |= _rope_config(self.rope_scaling)
        eos = list(self.eos_token_ids)
        config: dict[str, Any] = {
            "architectures": [architecture],
            "model_type": f"{self.family}_parallel" if parallel else self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": rope,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos[0] if len(eos) == 1 else (eos or None),
            "pad_token_id": self.pad_token_id,
            "dtype": dtype,
            "torch_dtype": dtype,
        }
        if parallel:
            config["block"] = self.block
        if self.rope_scaling is not None:
            config["rope_scaling"] = _rope_config(self.rope_scaling)
        if self.family == "llama":
            config["mlp_bias"] = self.mlp_bias
        if self.family != "llama":
            config["sliding_window"] = self.sliding_window
        if self.family in ("qwen2", "qwen3"):
            config["use_sliding_window"] = self.sliding_window is not None
            names = {True: "sliding_attention", False: "full_attention"}
            config["layer_types"] = [names[self.slides(i)] for i in range(self.num_layers)]
            full = [i for i in range(self.num_layers) if not self.slides(i)]
            config["max_window_layers"] = len(full) if full else 0
        return config


_SCORED, _CAUSAL = "ForSequenceClassification", "ForCausalLM"


def _family(data: Mapping[str, Any], where: str) -> tuple[Family, Literal["serial", "parallel"]]:
    """The family, and how its blocks are built: by the architecture's name or the key ``block``."""
    block = data.get("block", "serial")
    if block not in ("serial", "parallel"):
        raise FileFormatError(f"{where}: block {block!r} is not supported; 'serial' or 'parallel'.")
    names = data.get("architectures") or []
    names = names if isinstance(names, list) else [names]
    for one in names:
        # A reward model has the same body under another head.
        name = one.replace(_SCORED, _CAUSAL) if isinstance(one, str) else one
        if isinstance(name, str) and name in ARCHITECTURES:
            return ARCHITECTURES[name], block
        if isinstance(name, str) and name in _PARALLEL:
            return _PARALLEL[name], "parallel"
    kind = data.get("model_type")
    if not names and isinstance(kind, str):
        plain = kind.removesuffix("_parallel")
        if plain in ARCHITECTURES.values():
            return cast(Family, plain), block if plain == kind else "parallel"
    given = ", ".join(map(str, names)) or repr(kind)
    raise FileFormatError(
        f"{where}: the architecture {given} is not supported; supported: "
        f"{', '.join(ARCHITECTURES)}."
    )


def _one(value: Any) -> tuple[int, ...]:
    return () if value is None else (int(value),)


def _window(data: Mapping[str, Any], family: str) -> tuple[int | None, tuple[bool, ...] | None]:
    window = data.get("sliding_window")
    if window is None or family == "llama":
        return None, None
    if family == "mistral":
        return int(window), None
    if not data.get("use_sliding_window", False):
        return None, None
    num_layers = min(data["num_hidden_layers"], _MAX_LAYERS + 1)
    kinds = data.get("layer_types")
    if kinds is not None:
        odd = [k for k in kinds if k not in ("sliding_attention", "full_attention")]
        if odd:
            raise ValueError(f"the layer type {odd[0]!r} is not supported")
        layers = tuple(kind == "sliding_attention" for kind in kinds)
    else:
        first = data.get("max_window_layers", 0)
        layers = tuple(i >= first for i in range(num_layers))
    return (int(window), layers) if any(layers) else (None, None)


def _rope(rope: Mapping[str, Any], positions: int, where: str) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind in ("default", "none"):
        return None
    if kind not in ("linear", "dynamic", "llama3", "yarn"):
        raise FileFormatError(
            f"{where}: rope scaling {kind!r} is not supported; supported: linear, dynamic, "
            "llama3, yarn."
        )
    for key, neutral in _ROPE_NEUTRAL.items():
        if rope.get(key, neutral) not in (neutral, None):
            raise FileFormatError(
                f"{where}: '{key}' of rope scaling is {rope[key]!r}, which is not supported."
            )
    renamed = {"original_max_position_embeddings": "original_max_positions"}
    known = {f.name for f in fields(RopeScaling)}
    values = {renamed.get(k, k): v for k, v in rope.items()}
    values = {k: v for k, v in values.items() if k in known and v is not None}
    if kind in ("linear", "dynamic"):
        values.pop("original_max_positions", None)
    if kind == "yarn":
        original = values.setdefault("original_max_positions", positions)
        values.setdefault("factor", positions / original)
    return RopeScaling(**{**values, "kind": kind})


def _rope_config(scaling: RopeScaling) -> dict[str, Any]:
    config: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.original_max_positions is not None:
        config["original_max_position_embeddings"] = scaling.original_max_positions
    if scaling.kind == "llama3":
        config["low_freq_factor"] = scaling.low_freq_factor
        config["high_freq_factor"] = scaling.high_freq_factor
    if scaling.kind == "yarn":
        config["beta_fast"] = scaling.beta_fast
        config["beta_slow"] = scaling.beta_slow
        if scaling.attention_factor is not None:
            config["attention_factor"] = scaling.attention_factor
    return config
