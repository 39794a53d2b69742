"""Filters by images that rows name: shape, size, sharpness, light, and a classifier of your own.

Sharpness is the variance of the Laplacian: Pech-Pacheco et al., "Diatom autofocusing in brightfield
microscopy: a comparative study", ICPR 2000. With gray values I from 0 to 255 and the kernel of four
neighbours::

    L(x, y) = I(x-1, y) + I(x+1, y) + I(x, y-1) + I(x, y+1) - 4 I(x, y),   sharpness = var(L)

over the pixels that have all four. Gray is 0.299 R + 0.587 G + 0.114 B (ITU-R 601).
"""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import DataError, DependencyNotInstalled
from sharpen.core.files import sha256_file
from sharpen.data.ops.base import Bound, operator
from sharpen.data.ops.media.base import FileSize, Measured, MediaFilter, MediaRange
from sharpen.data.ops.rows.own_code import check_allowed, load_function

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "ImageAspectRatio",
    "ImageClassifier",
    "ImageLight",
    "ImageShape",
    "ImageSharpness",
    "ImageSize",
    "gray",
    "open_image",
]


def open_image(data: bytes, name: str) -> Image:
    """An image, its pixels read.

    Raises:
        DataError: it is damaged, of an unknown kind, or too large to be honest.
        DependencyNotInstalled: there is no Pillow.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("operators of images", "data-media") from None
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        shown = name if not name.startswith("data:") else "a data: address"
        raise DataError(f"{shown} is no image that can be read: {error}.") from None
    return image


def gray(image: Image) -> npt.NDArray[np.float64]:
    """[height, width] from 0 to 255."""
    return np.asarray(image.convert("L"), np.float64)


@dataclass(frozen=True, kw_only=True)
class ImageFilter(MediaFilter):
    """A filter by what is measured of images."""

    field: str = "images"
    """Where the row's images are named."""

    def measure_file(self, data: bytes, name: str) -> Measured:
        """See :class:`MediaFilter`."""
        return self.measure_image(open_image(data, name))

    @abstractmethod
    def measure_image(self, image: Image) -> Measured:
        """Statistics of an image."""


@operator("image_shape")
@dataclass(frozen=True, kw_only=True)
class ImageShape(ImageFilter):
    """Width and height of images."""

    min_width: float = 1
    """Least pixels of a line."""

    max_width: float = math.inf
    """Most pixels of a line."""

    min_height: float = 1
    """Least lines."""

    max_height: float = math.inf
    """Most lines."""

    @property
    def bounds(self) -> Sequence[Bound]:
        """See :class:`Filter`."""
        return (
            Bound("width", self.min_width, self.max_width),
            Bound("height", self.min_height, self.max_height),
        )

    def measure_image(self, image: Image) -> Measured:
        """See :class:`ImageFilter`."""
        return {"width": image.width, "height": image.height}


@operator("image_size")
@dataclass(frozen=True, kw_only=True)
class ImageSize(FileSize):
    """Bytes of the files of images."""

    field: str = "images"
    """Where the row's images are named."""


@dataclass(frozen=True, kw_only=True)
class ImageRange(ImageFilter, MediaRange):
    """A filter of one statistic of images."""


@operator("image_aspect_ratio")
@dataclass(frozen=True, kw_only=True)
class ImageAspectRatio(ImageRange):
    """Width over height of images."""

    min: float = 0.333
    """Least value to keep."""

    max: float = 3.0
    """Greatest value to keep."""

    def measure_image(self, image: Image) -> Measured:
        """See :class:`ImageFilter`."""
        return {self.name: image.width / image.height}


@operator("image_sharpness")
@dataclass(frozen=True, kw_only=True)
class ImageSharpness(ImageRange):
    """Variance of the Laplacian of the gray image: low where it is blurred."""

    min: float = 100
    """Least value to keep."""

    def measure_image(self, image: Image) -> Measured:
        """See :class:`ImageFilter`."""
        i = gray(image)
        if min(i.shape) < 3:
            return {self.name: 0.0}
        around = i[:-2, 1:-1] + i[2:, 1:-1] + i[1:-1, :-2] + i[1:-1, 2:]
        return {self.name: float((around - 4 * i[1:-1, 1:-1]).var())}


@operator("image_light")
@dataclass(frozen=True, kw_only=True)
class ImageLight(ImageFilter):
    """Brightness and contrast: mean and standard deviation of the gray image, from 0 to 1."""

    min_brightness: float = 0.05
    """Least mean."""

    max_brightness: float = 0.95
    """Greatest mean."""

    min_contrast: float = 0.02
    """Least standard deviation."""

    @property
    def bounds(self) -> Sequence[Bound]:
        """See :class:`Filter`."""
        return (
            Bound("brightness", self.min_brightness, self.max_brightness),
            Bound("contrast", self.min_contrast),
        )

    def measure_image(self, image: Image) -> Measured:
        """See :class:`ImageFilter`."""
        values = gray(image) / 255
        return {"brightness": float(values.mean()), "contrast": float(values.std())}


@operator("image_classifier")
@dataclass(frozen=True, kw_only=True)
class ImageClassifier(ImageRange):
    """A score that a function of yours gives to images: not safe for work, watermarks, beauty."""

    path: str
    """A file of Python."""

    function: str = "score"
    """Its function: of a ``PIL.Image.Image``, to a number."""

    allow_code: bool = False
    """That you trust it."""

    max: float = 0.5
    """Greatest value to keep."""

    def __post_init__(self) -> None:
        """Check that there is the function."""
        super().__post_init__()
        check_allowed(self.name, self.allow_code)
        load_function(self.path, self.function)

    def describe(self) -> dict[str, Any]:
        """See :class:`Operator`; a changed file is another operator."""
        return {**super().describe(), "sha256": sha256_file(Path(self.path))}

    def measure_image(self, image: Image) -> Measured:
        """See :class:`ImageFilter`."""
        return {self.name: float(load_function(self.path, self.function)(image))}
