"""A filter by an image classifier of yours in an ONNX file: not safe for work, watermarks, beauty.

An image becomes what the network was trained on: its bands as ``bands`` says, scaled to ``size``
(``stretch``, or ``crop``: the shorter side scaled, the middle taken), then::

    x = (pixel / 255 - mean) / std

and the score is the sum of the probabilities of the ``classes`` that are to go. Networks that take
whole numbers of 8 bits are given the pixels themselves.

ONNX Runtime computes in the thread that asks it: as many batches at once as the run has workers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import (
    ConfigError,
    DataError,
    DependencyNotInstalled,
    FileFormatError,
    MissingFileError,
)
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Statistics, at_least, one_of, operator
from sharpen.data.ops.filters.language_models import file_digest, file_stamp
from sharpen.data.ops.media.base import Measured, files_of, read_file
from sharpen.data.ops.media.images import ImageRange, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageOnnxClassifier"]

Pixels = npt.NDArray[Any]
Stamp = tuple[str, int, int]

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


@dataclass(frozen=True, slots=True)
class _Network:
    """A network, and what it takes and gives."""

    session: Any
    input: str
    type: Any
    channels: int
    first: bool
    """Whether channels come before rows: [n, channels, height, width]."""

    size: tuple[int, int] | None
    """Width and height; None takes any."""

    at_once: int | None
    """Images of a batch; None takes any number."""

    classes: int | None
    """Of the output; None is known when it is run."""


@functools.lru_cache(maxsize=4)
def _network(stamp: Stamp) -> _Network:
    """Load a network.

    Raises:
        DependencyNotInstalled: there is no ONNX Runtime.
        FileFormatError: the file is damaged, or no classifier of images.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("image_onnx_classifier", "onnx") from None
    path = stamp[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            Path(path).read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has no base for its errors
        told = str(error).partition("\n")[0]
        raise FileFormatError(
            f"{path} is no ONNX file that can be run: {told:.300}. Weights must be inside the file."
        ) from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise FileFormatError(f"{path} must have one input, images; it has {names or 'none'}.")
    (given,) = inputs
    shape = [one if isinstance(one, int) and one > 0 else None for one in given.shape]
    if given.type not in _TYPES:
        known = ", ".join(_TYPES)
        raise FileFormatError(f"{path}: the input '{given.name}' is {given.type}; known: {known}.")
    if len(shape) != 4 or not {1, 3} & {shape[1], shape[3]}:
        raise FileFormatError(
            f"{path}: the input '{given.name}' has the shape {given.shape}; it must be [n, "
            "channels, height, width] or [n, height, width, channels] with 1 or 3 channels."
        )
    first = shape[1] in (1, 3)
    channels = shape[1] if first else shape[3]
    height, width = shape[2:] if first else shape[1:3]
    classes = [one for one in outputs[0].shape[1:] if one != 1]
    assert channels is not None
    return _Network(
        session,
        given.name,
        _TYPES[given.type],
        channels,
        first,
        (width, height) if width is not None and height is not None else None,
        shape[0],
        classes[0] if len(classes) == 1 and isinstance(classes[0], int) else None,
    )


@operator("image_onnx_classifier")
@dataclass(frozen=True, kw_only=True)
class ImageOnnxClassifier(ImageRange):
    """Probability that an ONNX classifier gives to unwanted classes, such as not safe for work."""

    model: str
    """The network's file; one input of images, one output of classes."""

    classes: Sequence[str] = ("1",)
    """The unwanted ones: names of ``labels``, or their numbers from 0."""

    labels: Sequence[str] = ()
    """Names of the network's outputs, in order."""

    size: Sequence[int] = ()
    """Width and height of its images; that of the network itself unless it takes any."""

    resize: Literal["stretch", "crop"] = "stretch"
    """Scale both sides, or the shorter one and take the middle."""

    mean: Sequence[float] = (0.5, 0.5, 0.5)
    """Taken off each band, of values from 0 to 1."""

    std: Sequence[float] = (0.5, 0.5, 0.5)
    """What each band is divided by then."""

    bands: Literal["rgb", "bgr"] = "rgb"
    """Their order."""

    output: Literal["softmax", "sigmoid", "none"] = "softmax"
    """What makes its outputs probabilities; ``none`` if they are."""

    batch: int = 32
    """Images that are computed together."""

    max: float = 0.5
    """Greatest value to keep."""

    def __post_init__(self) -> None:
        """Load the network, and check that the arguments fit it."""
        super().__post_init__()
        if not Path(self.model).is_file():
            raise MissingFileError(f"{self.name}: there is no model {self.model}.")
        one_of(self, "resize", ("stretch", "crop"))
        one_of(self, "bands", ("rgb", "bgr"))
        one_of(self, "output", ("softmax", "sigmoid", "none"))
        at_least(self, 1, "batch")
        network = _network(self._stamp)
        if network.size is None and not self.size:
            raise ConfigError(f"{self.model} takes images of any size: give size: [width, height].")
        if self.size and (len(self.size) != 2 or min(self.size) < 1):
            raise ConfigError(f"size={list(self.size)} must be a width and a height.")
        if network.size is not None and self.size and tuple(self.size) != network.size:
            raise ConfigError(
                f"size={list(self.size)}: {self.model} takes images of {list(network.size)}."
            )
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, network.channels):
                raise ConfigError(f"{name} must have 1 or {network.channels} values.")
        if not all(value > 0 for value in self.std):
            raise ConfigError(f"std={list(self.std)} must be above 0.")
        if network.classes is not None:
            self._check_classes(network.classes)

    def _check_classes(self, count: int) -> None:
        """Whether labels and classes fit so many outputs.

        Raises:
            ConfigError: they do not.
        """
        if self.labels and len(self.labels) != count:
            raise ConfigError(f"{self.model} has {count} outputs; labels names {len(self.labels)}.")
        wrong = [one for one in self.classes if not self._numbers([one], count)]
        if wrong or not self.classes:
            names = ", ".join(self.labels) or f"0 to {count - 1}"
            raise ConfigError(f"classes: {', '.join(wrong) or 'none'}; there are: {names}.")

    def _numbers(self, classes: Sequence[str], count: int) -> list[int]:
        """The outputs of classes; those that there are not are left out."""
        found = []
        for one in classes:
            if one in self.labels:
                found.append(list(self.labels).index(one))
            elif one.isdigit() and int(one) < count:
                found.append(int(one))
        return found

    @property
    def _stamp(self) -> Stamp:
        return file_stamp(self.model)

    def describe(self) -> dict[str, Any]:
        """See :class:`Operator`; a changed file is another operator."""
        return {**super().describe(), "model": file_digest(self._stamp)}

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`; [n] lists, a number for each image."""
        rows = files_of(batch, self.field)
        scores: list[float] = []
        network = _network(self._stamp)
        at_once = network.at_once or self.batch
        names = [name for row in rows for name in row]
        for start in range(0, len(names), at_once):
            some = names[start : start + at_once]
            images = [open_image(read_file(name, self.folder), name) for name in some]
            scores += self._scores(network, images, some)
        found = np.empty(len(batch), object)
        place = 0
        for i, row in enumerate(rows):
            found[i] = scores[place : place + len(row)]
            place += len(row)
        return {self.name: found}

    def measure_image(self, image: Image) -> Measured:
        """See :class:`ImageFilter`."""
        (score,) = self._scores(_network(self._stamp), [image], ["the image"])
        return {self.name: score}

    def _scores(
        self, network: _Network, images: Sequence[Image], names: Sequence[str]
    ) -> list[float]:
        """[n] scores of images.

        Raises:
            DataError: the network cannot take them, or comes to what is no number.
        """
        given = np.stack([self._pixels(network, image) for image in images])
        if network.at_once is not None and len(given) < network.at_once:
            given = np.concatenate([given, np.repeat(given[-1:], network.at_once - len(given), 0)])
        try:
            made = network.session.run(None, {network.input: given})[0]
        except Exception as error:  # ONNX Runtime has no base for its errors
            told = str(error).partition("\n")[0]
            raise DataError(
                f"{self.model} cannot take images of the shape {list(given.shape[1:])}: {told:.300}"
            ) from None
        values = np.asarray(made, np.float64).reshape(len(given), -1)[: len(images)]
        self._check_classes(values.shape[1])
        for row, name in zip(values, names, strict=True):
            if not np.isfinite(row).all():
                shown = name if not name.startswith("data:") else "a data: address"
                raise DataError(f"{self.model} comes to what is no number for {shown}.")
        if self.output == "softmax":
            values = np.exp(values - values.max(1, keepdims=True))
            values /= values.sum(1, keepdims=True)
        elif self.output == "sigmoid":
            values = 1 / (1 + np.exp(-np.clip(values, -700, 700)))
        chosen = self._numbers(self.classes, values.shape[1])
        return [float(one) for one in values[:, chosen].sum(1)]

    def _pixels(self, network: _Network, image: Image) -> Pixels:
        """An image as the network takes it."""
        from PIL.Image import Resampling

        width, height = self.size or network.size or (0, 0)
        image = image.convert("L" if network.channels == 1 else "RGB")
        if self.resize == "crop":
            scale = max(width / image.width, height / image.height)
            whole = (
                max(round(image.width * scale), width),
                max(round(image.height * scale), height),
            )
            image = image.resize(whole, Resampling.BILINEAR)
            left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
            image = image.crop((left, top, left + width, top + height))
        else:
            image = image.resize((width, height), Resampling.BILINEAR)
        pixels = np.asarray(image).reshape(height, width, network.channels)
        if self.bands == "bgr":
            pixels = pixels[:, :, ::-1]
        if network.type is not np.uint8:
            mean, std = (np.array(one, np.float32) for one in (self.mean, self.std))
            pixels = ((pixels / np.float32(255) - mean) / std).astype(network.type)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if network.first else pixels)
