"""Language modelling of bytes: source text of the running Python's standard library."""

from __future__ import annotations

import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.optim.bench.workload import Batch, Workload

__all__ = ["WORKLOADS", "load_bytes"]

_LENGTH, _WORDS = 64, 128
# Long modules whose text hardly changes between versions of Python.
_FILES = (
    *("_pydecimal", "argparse", "bdb", "calendar", "cmd", "configparser", "difflib", "doctest"),
    *("fractions", "ftplib", "heapq", "imaplib", "mailbox", "mimetypes", "optparse", "pickle"),
    *("pickletools", "poplib", "pprint", "shutil", "smtplib", "statistics", "tarfile", "zipfile"),
)


@lru_cache(maxsize=1)
def load_bytes() -> dict[str, Batch]:
    """Rows of 65 bytes of each split, int64, values below 128."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(p.read_bytes() for n in _FILES if (p := folder / f"{n}.py").is_file())
    values = torch.frombuffer(bytearray(text), dtype=torch.uint8).long().clamp_(max=_WORDS - 1)
    rows = values[: len(values) // (_LENGTH + 1) * (_LENGTH + 1)].view(-1, _LENGTH + 1)
    # Held-out text comes from everywhere, but in stretches, so that little of it is half known.
    stretch = torch.arange(len(rows)) // 16 % 12
    chosen = {"train": stretch < 10, "validation": stretch == 10, "test": stretch == 11}
    return {
        name: (rows[mask][:2000] if name != "train" else rows[mask],)
        for name, mask in chosen.items()
    }


class _Bytes(Workload):
    metric = "nats a byte"
    batch_size = 16
    eval_every = 50
    steps = 300

    def splits(self) -> dict[str, Batch]:
        """See :meth:`Workload.splits`."""
        found = load_bytes()
        return {name: (found[name][0][: None if name == "train" else 192],) for name in found}

    def loss(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy of the next byte."""
        rows = batch[0]
        logits = model(rows[:, :-1])
        return F.cross_entropy(
            logits.flatten(0, 1), rows[:, 1:].flatten(), label_smoothing=label_smoothing
        )

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over rows of the mean cross entropy."""
        return self.loss(model, batch) * len(batch[0])


class BytesTransformer(_Bytes):
    """Two decoder blocks."""

    name = "bytes-transformer"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "post-norm": {"norm_first": False},
        "wide": {"width": 96},
    }

    def make_model(self) -> nn.Module:
        """See :meth:`Workload.make_model`."""
        return _Transformer(self.options.get("width", 64), self.options.get("norm_first", True))


class _Transformer(nn.Module):
    def __init__(self, width: int, norm_first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_WORDS, width)
        self.places = nn.Parameter(0.02 * torch.randn(_LENGTH, width))
        layer = nn.TransformerEncoderLayer(
            *(width, 4, 3 * width, 0.0, "gelu"), batch_first=True, norm_first=norm_first
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, _WORDS)
        nn.init.normal_(self.embedding.weight, std=0.02)
        mask = nn.Transformer.generate_square_subsequent_mask(_LENGTH)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, T, 128] of bytes [B, T]."""
        x = self.embedding(tokens) + self.places
        x = self.blocks(x, mask=self.mask, is_causal=True)
        out: Tensor = self.head(self.norm(x))
        return out


class BytesGRU(_Bytes):
    """A gated recurrent network."""

    name = "bytes-gru"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "layer-norm": {"norm": True},
        "two-layers": {"layers": 2, "width": 96},
    }

    def make_model(self) -> nn.Module:
        """See :meth:`Workload.make_model`."""
        return _GRU(
            self.options.get("width", 128),
            self.options.get("layers", 1),
            self.options.get("norm", False),
        )


class _GRU(nn.Module):
    def __init__(self, width: int, layers: int, norm: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_WORDS, 32)
        self.cells = nn.GRU(32, width, layers, batch_first=True)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.head = nn.Linear(width, _WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, T, 128] of bytes [B, T]."""
        out: Tensor = self.head(self.norm(self.cells(self.embedding(tokens))[0]))
        return out


WORKLOADS: list[type[Workload]] = [BytesTransformer, BytesGRU]
