"""Locret: small trained heads tell, from a token alone, how much it will matter.

Huang et al., "Locret: enhancing eviction in long-context LLM inference with trained retaining
heads", 2024, arXiv 2410.01805, sections 3.1-3.3 and algorithm 1. In each layer, with the token's
projections before norms and rotary positions::

    s_t = W2 silu(W1 [q_t; k_t; v_t]) + b2       one score a key/value head

A score needs nothing of what comes later, so units are dropped while the prompt is still read. The
heads are trained by ``locret_training.py``; the model stays as it is.

Differs from the paper: the first tokens may be kept whatever their scores (``sinks``, off by
default), which heads trained on few texts do not all know to be worth it; scores are rounded to
1/1024 when units are chosen (:func:`~sharpen.compress.kv.policy.on_grid`).

Time: (N + 2 K) D hidden products a token and layer. Memory: as many weights a layer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sharpen.compress.kv.plan import EvictionConfig
from sharpen.compress.kv.policy import KVPolicy, on_grid
from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.files import atomic_dir, atomic_write_json
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import save_tensors
from sharpen.models.paged import Seen

__all__ = [
    "LocretPolicy",
    "RetainingHead",
    "RetainingHeads",
    "load_heads",
    "norms_fingerprint",
    "save_heads",
]

_WEIGHTS, _ABOUT = "locret_heads.safetensors", "locret_heads.json"
_FORMAT_VERSION = 1


class RetainingHead(nn.Module):
    """Scores of one layer.

    Args:
        features: (N + 2 K) D.
        kv_heads: K.
        hidden: width between the two products.
    """

    def __init__(self, features: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, kv_heads)

    def forward(self, qkv: Tensor) -> Tensor:
        """[K, C] float32 from the projections [C, (N + 2 K) D] of any type."""
        scores: Tensor = self.fc2(F.silu(self.fc1(qkv.to(self.fc1.weight.dtype))))
        return scores.float().T


class RetainingHeads(nn.Module):
    """A head for each layer of a model.

    Attributes:
        fingerprint: of the model they belong to (:func:`norms_fingerprint`); empty for any.

    Args:
        spec: the model's shape.
        hidden: width between the two products.
    """

    def __init__(self, spec: ModelSpec, hidden: int = 1024, *, fingerprint: str = "") -> None:
        super().__init__()
        if hidden < 1:
            raise ConfigError(f"hidden={hidden} must be at least 1.")
        self.shape = (spec.num_layers, spec.query_size + 2 * spec.kv_size, spec.num_kv_heads)
        self.hidden = hidden
        self.fingerprint = fingerprint
        layers, features, kv_heads = self.shape
        self.layers = nn.ModuleList(
            RetainingHead(features, kv_heads, hidden) for _ in range(layers)
        )

    def init_weights(self, seed: int) -> None:
        """Uniform random weights within 1 / sqrt(inputs), zero biases."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim == 1:
                    parameter.zero_()
                    continue
                bound = parameter.shape[1] ** -0.5
                parameter.uniform_(-bound, bound, generator=generator)

    def check(self, spec: ModelSpec) -> None:
        """Refuse a model of another shape.

        Raises:
            ConfigError: layers, projections or heads differ.
        """
        shape = (spec.num_layers, spec.query_size + 2 * spec.kv_size, spec.num_kv_heads)
        if shape != self.shape:
            raise ConfigError(
                "the retaining heads are for a model of {} layers, {} projections and {} key/value "
                "heads, and this one has {}, {} and {}. ".format(*self.shape, *shape)
                + "Train heads for it: sharpen compress locret train."
            )

    def check_model(self, model: DecoderLM) -> None:
        """Refuse another model than that the heads were trained for.

        Raises:
            ConfigError: shape or norms differ.
        """
        self.check(model.spec)
        if self.fingerprint and self.fingerprint != norms_fingerprint(model):
            raise ConfigError(
                "the retaining heads were trained for another model of the same shape. Train "
                "heads for this one: sharpen compress locret train."
            )


def norms_fingerprint(model: DecoderLM) -> str:
    """Tells models apart by the weights of their norms.

    It does not depend on the type the model was loaded in, nor change with adapters or integer
    weights, with which heads go on working.
    """
    made = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            made.update(name.encode())
            bits = parameter.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16)
            made.update(bits.numpy().tobytes())
    return made.hexdigest()


class LocretPolicy(KVPolicy):
    """Trained scores. See the module for the rule.

    Args:
        heads: trained for the model.
        config: how much stays.
        sinks: first units that stay whatever their scores; the paper has 0.

    Raises:
        ConfigError: sinks and stabilizers do not fit the budget together.
    """

    name: ClassVar[str] = "locret"

    def __init__(
        self, heads: RetainingHeads, config: EvictionConfig | None = None, *, sinks: int = 0
    ) -> None:
        super().__init__(config)
        self.heads = heads.eval()
        room = self.config.budget - self.config.num_stabilizers
        if not 0 <= sinks <= room:
            raise ConfigError(
                f"sinks={sinks} must be from 0 to {room}: budget {self.config.budget} less "
                f"{self.config.num_stabilizers} stabilizers."
            )
        self._sinks = sinks

    def check(self, spec: ModelSpec) -> None:
        """Refuse a model of another shape, too."""
        super().check(spec)
        self.heads.check(spec)

    def score(self, past: Tensor, seen: Seen, border: int) -> Tensor:
        """Scores of the part's tokens."""
        with torch.no_grad():
            new = self.heads.layers[seen.layer](seen.qkv)
        new = on_grid(new)
        new[:, : max(0, self._sinks - seen.start)] = torch.inf
        return torch.cat((past, new), 1)


def save_heads(heads: RetainingHeads, folder: str | Path, **about: object) -> None:
    """Write heads into a folder, which appears whole.

    Args:
        heads: any device.
        folder: replaced if it exists.
        about: plain data about the training, for people.
    """
    layers, features, kv_heads = heads.shape
    document = {
        "format_version": _FORMAT_VERSION,
        "layers": layers,
        "features": features,
        "kv_heads": kv_heads,
        "hidden": heads.hidden,
        "model": heads.fingerprint,
        **about,
    }
    tensors = {name: p.detach().cpu().contiguous() for name, p in heads.named_parameters()}
    with atomic_dir(Path(folder)) as temporary:
        save_tensors(tensors, temporary / _WEIGHTS)
        atomic_write_json(temporary / _ABOUT, document)


def load_heads(
    folder: str | Path, spec: ModelSpec, *, device: torch.device | str = "cpu"
) -> RetainingHeads:
    """Read what :func:`save_heads` wrote.

    Args:
        folder: with ``locret_heads.safetensors`` and ``locret_heads.json``.
        spec: of the model they are to serve.
        device: where they go.

    Raises:
        MissingFileError: a file is missing.
        FileFormatError: damaged, or written by a newer version.
        ConfigError: they are for a model of another shape.
    """
    folder = Path(folder)
    for name in (_WEIGHTS, _ABOUT):
        if not (folder / name).is_file():
            raise MissingFileError(
                f"{folder / name} does not exist. Make heads: sharpen compress locret train."
            )
    about = read_json(folder / _ABOUT, "about the retaining heads")
    if not isinstance(about, dict) or about.get("format_version") != _FORMAT_VERSION:
        raise FileFormatError(
            f"{folder / _ABOUT} is not of format {_FORMAT_VERSION}. Train the heads again, or "
            "update sharpen."
        )
    try:
        heads = RetainingHeads(spec, int(about["hidden"]), fingerprint=str(about["model"]))
        heads.shape = (int(about["layers"]), int(about["features"]), int(about["kv_heads"]))
        heads.check(spec)
        heads.load_state_dict(load_file(folder / _WEIGHTS))
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise FileFormatError(f"{folder} holds no retaining heads: {error}.") from error
    return heads.to(device).eval()
