"""Near duplicates of images, by perceptual hashes of 64 bits.

Of the gray image I, made small; Zauner, "Implementation and Benchmarking of Perceptual Image Hash
Functions", 2010::

    average      8 x 8:    bit = I > mean(I)
    difference   9 x 8:    bit = I(x + 1, y) > I(x, y)
    dct          32 x 32:  C = D I D', the discrete cosine transform; bit = C > median(C)
                           over the 8 x 8 lowest frequencies
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.data.batch import Batch
from sharpen.data.corpus import Corpus
from sharpen.data.ops.barrier import Copies, Deduplicator
from sharpen.data.ops.base import one_of, operator
from sharpen.data.ops.dedup.hamming import check_blocks, close_hashes
from sharpen.data.ops.dedup.joining import Cluster
from sharpen.data.ops.media.base import files_of, read_file
from sharpen.data.ops.media.images import gray, open_image
from sharpen.data.statistics.hashing import hash_points

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageDedup", "perceptual_hash"]

_Method = Literal["average", "difference", "dct"]
_SIDE, _LARGE = 8, 32


@operator("image_dedup")
@dataclass(frozen=True, kw_only=True)
class ImageDedup(Deduplicator):
    """Keeps one of rows whose images look alike, whatever their size, quality or file.

    Rows with several images are copies only if all hashes are equal, in order. Images of one color,
    and rows without images, are copies of none.
    """

    method: _Method = "dct"
    """How hashes are made; ``dct`` bears most, ``difference`` is fastest."""

    distance: int = 4
    """Bits of 64 in which the hashes of copies may differ."""

    blocks: int = 6
    """Blocks of bits, more than ``distance``."""

    field: str = "images"
    """Where the row's images are named."""

    folder: str = "."
    """What relative paths begin at."""

    cluster: Cluster = "components"
    """``components``: copies of copies are copies. ``star``: a row goes only if it is a copy of one
    that stays."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_blocks(self.distance, self.blocks)
        one_of(self, "method", get_args(_Method))

    def marks(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Deduplicator`."""
        found = np.zeros(len(batch), np.uint64)
        for i, files in enumerate(files_of(batch, self.field)):
            images = (open_image(read_file(file, self.folder), file) for file in files)
            hashes = [perceptual_hash(image, self.method) for image in images]
            if len(hashes) > 1 and all(hashes):
                found[i] = hash_points(hashes)
            elif len(hashes) == 1:
                found[i] = hashes[0]
        return {"image": pa.array(found)}

    def copies(self, rows: Corpus, order: npt.NDArray[np.int64]) -> Copies:
        """See :class:`Deduplicator`."""
        return close_hashes(
            rows.column("image").astype(np.uint64),
            distance=self.distance,
            blocks=self.blocks,
            order=order,
            cluster=self.cluster,
        )


def perceptual_hash(image: Image, method: _Method = "dct") -> int:
    """64 bits that images which look alike share; 0 for one of one color."""
    low, high = image.convert("L").getextrema()
    if low == high:
        return 0
    if method == "average":
        small = _small(image, _SIDE, _SIDE)
        bits = small > small.mean()
    elif method == "difference":
        small = _small(image, _SIDE + 1, _SIDE)
        bits = small[:, 1:] > small[:, :-1]
    else:
        transform = _cosines()
        waves = (transform @ _small(image, _LARGE, _LARGE) @ transform.T)[:_SIDE, :_SIDE]
        bits = waves > np.median(waves)
    return int.from_bytes(np.packbits(bits).tobytes(), "big") or 1


def _small(image: Image, width: int, height: int) -> npt.NDArray[np.float64]:
    """[height, width] gray, from 0 to 255."""
    from PIL.Image import Resampling

    return gray(image.convert("L").resize((width, height), Resampling.LANCZOS))


@functools.cache
def _cosines() -> npt.NDArray[np.float64]:
    """[32, 32] D of the discrete cosine transform (type 2), without its scale."""
    k, n = np.arange(_LARGE)[:, None], np.arange(_LARGE)
    matrix: npt.NDArray[np.float64] = np.cos(np.pi * k * (2 * n + 1) / (2 * _LARGE))
    return matrix
