"""Prompts, marks and examples by likeness."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from sharpen.code.training_data import (
    Pair,
    Retriever,
    prompt_conditioned,
    prompt_fewshot,
    prompt_instruct,
    tag_deciles,
)
from sharpen.code.training_data.retrieval import normalized_tokens
from sharpen.core.errors import ConfigError, DataError

SUM = "def total(xs):\n    t = 0\n    for x in xs:\n        t += x\n    return t\n"
JOIN = "def glue(parts):\n    s = ''\n    for p in parts:\n        s = s + str(p)\n    return s\n"
SORT = "def first(xs):\n    return sorted(xs)[0]\n"
PAIRS = [
    Pair(slow=SUM, fast="def total(xs):\n    return sum(xs)\n"),
    Pair(slow=JOIN, fast="def glue(parts):\n    return ''.join(map(str, parts))\n"),
    Pair(slow=SORT, fast="def first(xs):\n    return min(xs)\n"),
]


def test_prompts_hold_what_they_are_given() -> None:
    assert SUM.rstrip() in prompt_instruct(SUM)
    shown = prompt_fewshot(SUM, PAIRS[1:])
    assert shown.index("glue") < shown.index("first") < shown.index("total")
    assert "min(xs)" in shown
    assert shown.endswith(prompt_instruct(SUM))
    assert "10/10" in prompt_conditioned(SUM)
    assert "```cpp" in prompt_conditioned("int main(){}", 3, language="cpp")
    with pytest.raises(DataError, match="mark=11"):
        prompt_conditioned(SUM, 11)


def test_marks_are_deciles_of_closeness() -> None:
    pairs = [Pair(slow="", fast="", problem="p", fast_s=float(k)) for k in range(1, 11)]
    assert tag_deciles(pairs) == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    # A better one that is known elsewhere changes no order within the problem.
    assert tag_deciles(pairs, {"p": 0.1}) == tag_deciles(pairs)
    two = [Pair(slow="", fast="", problem=name, fast_s=5.0) for name in "ab"]
    assert tag_deciles(two) == [10, 10]
    assert tag_deciles(two, {"a": 1.0}) == [5, 10]
    with pytest.raises(DataError, match="fast_s"):
        tag_deciles([Pair(slow="", fast="")])


@given(some.lists(some.floats(0.01, 100.0), min_size=1, max_size=30))
def test_marks_follow_the_times(times: list[float]) -> None:
    marks = tag_deciles([Pair(slow="", fast="", fast_s=t) for t in times])
    assert all(1 <= mark <= 10 for mark in marks)
    assert max(marks) == 10
    for t, mark in zip(times, marks, strict=True):
        assert all(other <= mark for u, other in zip(times, marks, strict=True) if u >= t)


def test_names_do_not_count() -> None:
    renamed = SUM.replace("total", "all_of").replace("xs", "values").replace("t ", "acc ")
    assert normalized_tokens(renamed) == normalized_tokens(SUM)
    assert "sorted" in normalized_tokens(SORT)
    assert normalized_tokens("int main() { return 7; }") != []


def test_the_most_like_comes_last() -> None:
    retriever = Retriever(PAIRS)
    like_join = JOIN.replace("parts", "words").replace("glue", "concat")
    assert retriever.nearest(like_join, 2)[-1] == PAIRS[1]
    assert len(retriever.nearest(like_join, 9)) == 3
    assert PAIRS[0] not in retriever.nearest(SUM, 9)
    with pytest.raises(ConfigError, match="no pairs"):
        Retriever([])


def test_vectors_of_ones_own() -> None:
    places = {SUM: [1.0, 0.0], JOIN: [0.0, 1.0], SORT: [0.7, 0.7], "q": [0.1, 2.0]}
    retriever = Retriever(PAIRS, embed=lambda some: np.array([places[one] for one in some]))
    assert [one.slow for one in retriever.nearest("q", 3)] == [SUM, SORT, JOIN]
