"""What the functions of slow.py must keep doing."""

from slow import common, fibonacci, most_common_letter, pairs_with_sum, total, unique


def test_pairs_with_sum() -> None:
    assert pairs_with_sum([1, 5, 3, 3, 7], 6) == [(1, 5), (3, 3)]
    assert pairs_with_sum([], 0) == []
    assert pairs_with_sum([4, -4, 4, 0, 0], 0) == [(4, -4), (-4, 4), (0, 0)]


def test_unique() -> None:
    assert unique(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]


def test_common() -> None:
    assert common([3, 1, 2, 3], [3, 4, 1]) == [3, 1, 3]


def test_most_common_letter() -> None:
    assert most_common_letter("banana") == "a"
    assert most_common_letter("abab") == "a"
    assert most_common_letter("") == ""


def test_fibonacci() -> None:
    assert [fibonacci(n) for n in range(10)] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]


def test_total() -> None:
    assert total([1, 2, 3]) == 6
