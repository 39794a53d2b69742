"""Text data: readers, formats, packing, token shards and the loader; imports no torch."""

from sharpen.data.loader import Batch, TokenLoader
from sharpen.data.packing import pack
from sharpen.data.readers import read_rows
from sharpen.data.shards import Sequence, TokenDataset, write_dataset

__all__ = [
    "Batch",
    "Sequence",
    "TokenDataset",
    "TokenLoader",
    "pack",
    "read_rows",
    "write_dataset",
]
