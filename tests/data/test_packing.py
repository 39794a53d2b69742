import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import DataError
from sharpen.data.packing import pack


@given(st.integers(1, 60).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c)))))
def test_every_document_is_in_one_row_and_rows_are_not_overfull(
    case: tuple[int, list[int]],
) -> None:
    capacity, lengths = case
    rows = pack(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in row) for row in rows]
    assert all(0 < total <= capacity for total in sums)
    # Two rows that fit into one would have been one: at most one row is half empty.
    assert sum(2 * total <= capacity for total in sums) <= 1
    assert [min(row) for row in rows] == sorted(min(row) for row in rows)
    assert rows == pack(lengths, capacity)


def test_each_document_goes_to_the_fullest_row_that_holds_it() -> None:
    assert pack([6, 4, 3, 7], 10) == [[0, 1], [2, 3]]
    assert pack([5, 5, 5], 10) == [[0, 1], [2]]
    assert pack([], 10) == []


@pytest.mark.parametrize(("lengths", "message"), [([3, 0], "document 1 has 0"), ([11], "1 to 10")])
def test_documents_that_do_not_fit_are_refused(lengths: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pack(lengths, 10)
