import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.formats import Document
from sharpen.data.loader import TokenLoader
from sharpen.data.shards import TokenDataset, write_dataset


def make(folder: Path, rows: int) -> TokenDataset:
    """Row i holds the token i."""
    documents = [Document([i, i], [True, True]) for i in range(rows)]
    write_dataset(
        folder,
        {"train": documents},
        max_tokens=3,
        packing=False,
        tokenizer_fingerprint="t",
        vocab_size=1000,
    )
    return TokenDataset(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    return make(tmp_path_factory.mktemp("loader"), 10)


def take(loader: TokenLoader, batches: int) -> list[int]:
    return [int(row[0]) for _ in range(batches) for row in next(loader).input_ids]


@given(st.integers(0, 5), st.integers(1, 7), st.integers(1, 4))
def test_the_stream_depends_on_neither_batch_size_nor_ranks(
    dataset: TokenDataset, seed: int, batch_size: int, world: int
) -> None:
    expected = take(TokenLoader(dataset, 1, seed=seed), 60)
    ranks = [TokenLoader(dataset, batch_size, seed=seed, rank=r, world=world) for r in range(world)]
    found: list[int] = []
    while len(found) < 60:
        for loader in ranks:
            found += take(loader, 1)
    assert found[:60] == expected


@given(st.integers(0, 5), st.integers(0, 40), st.integers(1, 5), st.integers(1, 5))
def test_any_position_resumes_even_with_another_batch_size(
    dataset: TokenDataset, seed: int, batches: int, before: int, after: int
) -> None:
    first = TokenLoader(dataset, before, seed=seed)
    take(first, batches)
    second = TokenLoader(dataset, after, seed=seed)
    second.load_state_dict(first.state_dict())
    expected = take(TokenLoader(dataset, 1, seed=seed), batches * before + 3 * after)
    assert take(second, 3) == expected[batches * before :]


def test_every_row_comes_once_an_epoch_in_a_new_order(dataset: TokenDataset) -> None:
    loader = TokenLoader(dataset, 5, seed=0)
    epochs = [take(loader, 2) for _ in range(20)]
    for epoch in epochs:
        assert Counter(epoch) == Counter(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert epochs[0] != take(TokenLoader(dataset, 5, seed=1), 2)


def test_neighbouring_epochs_share_no_runs(tmp_path: Path) -> None:
    """In independent orders of 500 rows a row keeps its successor once in 500."""
    loader = TokenLoader(make(tmp_path, 500), 500, seed=0)
    orders = [take(loader, 1) for _ in range(6)]
    for one, two in itertools.pairwise(orders):
        successors = set(itertools.pairwise(one))
        assert sum(pair in successors for pair in itertools.pairwise(two)) <= 8


def test_without_shuffling_the_order_is_that_of_the_files(dataset: TokenDataset) -> None:
    assert take(TokenLoader(dataset, 4, seed=0, shuffle=False), 5) == [*range(10), *range(10)]


def test_a_batch_holds_rows_of_int64(dataset: TokenDataset) -> None:
    loader = TokenLoader(dataset, 2, seed=0, shuffle=False)
    assert iter(loader) is loader
    batch = next(loader)
    assert batch.input_ids.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert batch.labels.tolist() == [[0, -100, -100], [1, -100, -100]]
    assert batch.document_ids.tolist() == [[0, -1, -1]] * 2
    assert batch.position_ids.tolist() == [[0, 0, 0]] * 2
    assert batch.input_ids.dtype == np.int64


def test_a_position_of_another_stream_is_refused(dataset: TokenDataset) -> None:
    loader = TokenLoader(dataset, 2, seed=0)
    for change in ({"seed": 1}, {"rows": 11}):
        with pytest.raises(ConfigError, match="this is seed 0 and 10 rows"):
            loader.load_state_dict({**loader.state_dict(), **change})


def test_empty_data_and_impossible_ranks_are_refused(tmp_path: Path, dataset: TokenDataset) -> None:
    with pytest.raises(DataError, match="has no rows"):
        TokenLoader(make(tmp_path, 0), 1, seed=0)
    for options in ({"rank": 2, "world": 2}, {"rank": -1}):
        with pytest.raises(ConfigError, match="do not fit"):
            TokenLoader(dataset, 1, seed=0, **options)
    with pytest.raises(ConfigError, match="batch_size=0"):
        TokenLoader(dataset, 0, seed=0)
