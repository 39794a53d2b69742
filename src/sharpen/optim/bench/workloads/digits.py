"""Workloads on scikit-learn's digits: 1797 grey images of 8 x 8 pixels, ten classes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.core.errors import DependencyNotInstalled
from sharpen.optim.bench.workload import Batch, Workload

__all__ = ["WORKLOADS"]

_CLASSES, _SIDE = 10, 8
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


@lru_cache(maxsize=1)
def _load() -> dict[str, Batch]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DependencyNotInstalled(
            "the digits workloads need scikit-learn. Install it with: pip install 'sharpen[bench]'"
        ) from None
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32) / 16
    labels = torch.tensor(found.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    parts = {"train": order[:1077], "validation": order[1077:1437], "test": order[1437:]}
    return {name: (images[part], labels[part]) for name, part in parts.items()}


class _Digits(Workload):
    metric = "error"

    def splits(self) -> dict[str, Batch]:
        """See :meth:`Workload.splits`."""
        return _load()

    def loss(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels, label_smoothing=label_smoothing)

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Number of wrong classes."""
        images, labels = batch
        wrong: Tensor = (model(images).argmax(1) != labels).sum()
        return wrong


class DigitsMLP(_Digits):
    """Two hidden layers."""

    name = "digits-mlp"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "tanh": {"activation": "tanh"},
        "wide-init": {"scale": 3.0},
    }

    def make_model(self) -> nn.Module:
        """See :meth:`Workload.make_model`."""
        activation = _ACTIVATIONS[self.options.get("activation", "relu")]
        model = nn.Sequential(
            *(nn.Flatten(), nn.Linear(_SIDE**2, 128), activation()),
            *(nn.Linear(128, 128), activation(), nn.Linear(128, _CLASSES)),
        )
        with torch.no_grad():
            for layer in model:
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(self.options.get("scale", 1.0))
        return model


class DigitsCNN(_Digits):
    """Three convolutions with batch norm."""

    name = "digits-cnn"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "group-norm": {"norm": "group"},
        "gelu": {"activation": "gelu"},
    }

    def make_model(self) -> nn.Module:
        """See :meth:`Workload.make_model`."""
        activation = _ACTIVATIONS[self.options.get("activation", "relu")]
        layers: list[nn.Module] = [nn.Unflatten(1, (1, _SIDE))]
        for before, after, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 2)):
            group = self.options.get("norm") == "group"
            norm: nn.Module = nn.GroupNorm(4, after) if group else nn.BatchNorm2d(after)
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), norm, activation()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4, _CLASSES))


class DigitsViT(_Digits):
    """A transformer on the sixteen patches of 2 x 2 pixels."""

    name = "digits-vit"
    eval_every = 50
    steps = 400
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "post-norm": {"norm_first": False},
        "relu": {"activation": "relu"},
    }

    def make_model(self) -> nn.Module:
        """See :meth:`Workload.make_model`."""
        return _ViT(self.options.get("norm_first", True), self.options.get("activation", "gelu"))


class _ViT(nn.Module):
    def __init__(self, norm_first: bool, activation: str) -> None:
        super().__init__()
        width = 48
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.places = nn.Parameter(0.02 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(
            *(width, 4, 96, 0.0, activation), batch_first=True, norm_first=norm_first
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, _CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, 10] of images [B, 8, 8]."""
        patches = self.patches(images.unsqueeze(1)).flatten(2).transpose(1, 2)
        out: Tensor = self.head(self.norm(self.blocks(patches + self.places)).mean(1))
        return out


class DigitsAutoencoder(_Digits):
    """Images through eight numbers and back; mean absolute error of a pixel."""

    name = "digits-autoencoder"
    metric = "absolute error"
    eval_every = 50
    steps = 400
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "tanh": {"activation": "tanh"},
        "narrow": {"width": 64},
    }

    def make_model(self) -> nn.Module:
        """See :meth:`Workload.make_model`."""
        activation = _ACTIVATIONS[self.options.get("activation", "relu")]
        width = self.options.get("width", 128)
        return nn.Sequential(
            *(nn.Flatten(), nn.Linear(_SIDE**2, width), activation(), nn.Linear(width, 8)),
            *(nn.Linear(8, width), activation(), nn.Linear(width, _SIDE**2)),
            nn.Unflatten(1, (_SIDE, _SIDE)),
        )

    def loss(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean absolute error; it has no labels to smooth."""
        return F.l1_loss(model(batch[0]), batch[0])

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over images of the mean absolute error."""
        error: Tensor = (model(batch[0]) - batch[0]).abs().mean((1, 2)).sum()
        return error


WORKLOADS: list[type[Workload]] = [DigitsMLP, DigitsCNN, DigitsViT, DigitsAutoencoder]
