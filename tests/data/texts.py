"""Texts with all that makes texts hard, for hypothesis; and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
from hypothesis import strategies as st

from sharpen.data.batch import FIELDS, ID, TEXT, Batch

ODD = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029 \t\u00a0\u3000"
ODD += "ΣσςİiI\u0307é日本Ⅷ٣½😀👍🏽\u200d\ufe0f-=*.,'\"#…ß•。"
TEXTS = st.text(
    st.one_of(
        st.sampled_from(ODD),
        st.sampled_from("abcAB 12\n"),
        st.characters(codec="utf-8"),
    ),
    max_size=120,
)
COLUMNS = st.lists(TEXTS, max_size=6)


def make_batch(texts: Sequence[str], fields: Sequence[dict[str, Any]] | None = None) -> Batch:
    """Rows ``0``, ``1``, ... of texts, with further fields."""
    rows = fields if fields is not None else [{} for _ in texts]
    return Batch(
        pa.RecordBatch.from_arrays(
            [
                pa.array(list(map(str, range(len(texts)))), pa.string()),
                pa.array(list(texts), pa.large_string()),
                pa.array([orjson.dumps(row) for row in rows], pa.large_binary()),
            ],
            names=[ID, TEXT, FIELDS],
        )
    )
