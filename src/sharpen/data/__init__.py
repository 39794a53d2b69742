"""Text data: readers, formats, packing, token shards and the loader; imports no torch.

``Dataset`` and ``ops`` are imported when first used, since they need pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sharpen.data.loader import Batch, TokenLoader
from sharpen.data.packing import pack
from sharpen.data.readers import read_rows
from sharpen.data.shards import Sequence, TokenDataset, write_dataset

if TYPE_CHECKING:
    from sharpen.data import ops
    from sharpen.data.dataset import Dataset, Result

__all__ = [
    "Batch",
    "Dataset",
    "Result",
    "Sequence",
    "TokenDataset",
    "TokenLoader",
    "ops",
    "pack",
    "read_rows",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    """What needs pyarrow."""
    if name == "ops":
        return import_module("sharpen.data.ops")
    if name in ("Dataset", "Result"):
        return getattr(import_module("sharpen.data.dataset"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
