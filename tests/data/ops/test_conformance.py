"""What holds for every operator: batches of any size and slices of them come to the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.texts import TEXTS, make_batch
from sharpen.core.config import parse_yaml
from sharpen.data import ops
from sharpen.data.batch import Batch
from sharpen.data.ops.catalogue import EXAMPLES, example
from sharpen.data.process import operators_of

NEED_FILES = (
    *("chinese_convert", "decontaminate", "image_classifier", "perplexity", "python_file"),
    *("image_onnx_classifier", "quality_score", "token_num"),
    *("llm_classify", "llm_quality_score", "llm_question", "llm_question_rows", "llm_rewrite"),
)


def made(name):
    return operators_of(parse_yaml(example(name)).data)[0]


def names(kind):
    every = [name for name in ops.operator_names() if name not in NEED_FILES]
    return [name for name in every if issubclass(ops.operator_type(name), kind)]


COLUMN = st.lists(TEXTS, min_size=1, max_size=5)
FIELDS = {"stars": 3, "meta": {"domain": "a", "language": "en"}, "url": "a.org", "path": "a.md"}


def slices(texts):
    """The whole, each row as a slice of the whole, and each row alone."""
    whole = make_batch(texts, [FIELDS] * len(texts))
    sliced = [Batch(whole.table.slice(i, 1)) for i in range(len(texts))]
    alone = [
        Batch(make_batch(texts, [FIELDS] * len(texts)).table.take([i])) for i in range(len(texts))
    ]
    return whole, sliced, alone


def plain(values):
    return [None if isinstance(v, float) and np.isnan(v) else v for v in values]


@pytest.mark.parametrize("name", names(ops.Filter))
@given(texts=COLUMN)
@settings(max_examples=15)
def test_a_filter_measures_each_row_for_itself(name, texts):
    one = made(name)
    whole, sliced, alone = slices(texts)
    found = one.measure(whole)
    kept = one.keep(found)
    assert kept.dtype == bool
    assert len(kept) == len(texts)
    for some in (sliced, alone):
        for i, batch in enumerate(some):
            single = one.measure(batch)
            assert set(single) == set(found)
            for key in found:
                assert plain(list(single[key])) == plain([found[key][i]]), key
    for i in np.nonzero(~kept)[0]:
        miss = one.miss(found, int(i))
        assert miss.threshold or miss.reason
    assert len(whole.with_statistics(found).table.schema.names) == 3 + len(found)
    empty = Batch(whole.table.slice(0, 0))
    assert len(one.keep(one.measure(empty))) == 0


@pytest.mark.parametrize("name", names(ops.Mapper))
@given(texts=COLUMN)
@settings(max_examples=15)
def test_a_mapper_edits_each_row_for_itself(name, texts):
    one = made(name)
    whole, sliced, alone = slices(texts)
    found = one.edit(whole).to_pylist()
    for some in (sliced, alone):
        assert [one.edit(batch).to_pylist() for batch in some] == [[text] for text in found]
    assert len(one.edit(Batch(whole.table.slice(0, 0)))) == 0


@pytest.mark.parametrize("name", names(ops.Splitter))
@given(texts=COLUMN)
@settings(max_examples=15)
def test_a_splitter_splits_each_row_for_itself(name, texts):
    one = made(name)
    whole, sliced, alone = slices(texts)
    found = [list(parts) for parts in one.split(whole)]
    for some in (sliced, alone):
        assert [list(one.split(batch)[0]) for batch in some] == found


@pytest.mark.parametrize("name", ops.operator_names())
def test_arguments_are_described_and_read_back(name):
    if name in NEED_FILES:
        return
    one = made(name)
    described = one.describe()
    assert (described["op"], described["version"]) == (name, one.version)
    given_ = EXAMPLES.get(name) or {}
    assert ops.make_operator(name, given_) == one
