"""Operators of images and sounds that rows name."""

from __future__ import annotations

from sharpen.data.ops.media import (
    audio,
    image_models,
    images,
)

__all__ = [
    "audio",
    "image_models",
    "images",
]
