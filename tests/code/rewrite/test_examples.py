"""Every rewriter does what its example says."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differential import assert_same, drawn_calls, facts_of, find, like, load, outcome
from rewriter_examples import ARGUMENTS, entry_of
from sharpen.code.rewrite import REWRITERS, Rewriter, propose


@pytest.mark.parametrize("rewriter", REWRITERS, ids=lambda r: r.name)
def test_the_example_is_rewritten_as_it_says(rewriter: Rewriter) -> None:
    before, after = rewriter.example
    entry = entry_of(before)
    facts = facts_of(before, entry, [ARGUMENTS[entry]], allow=rewriter.needs)
    found = [r for r in propose(before, entry, facts) if r.rewriter == rewriter.name]
    assert [r.text for r in found] == [after]
    assert found[0].risk == rewriter.risk
    assert re.fullmatch(r"[a-z].*[^.]", found[0].explain)
    calls = drawn_calls([ARGUMENTS[entry]], 1, 60)
    assert assert_same(before, after, entry, calls) > 30


@lru_cache
def functions(name: str) -> tuple[Callable[..., Any], Callable[..., Any], str]:
    before, after = next(r.example for r in REWRITERS if r.name == name)
    entry = entry_of(before)
    return find(load(before), entry), find(load(after), entry), entry


@pytest.mark.parametrize("rewriter", REWRITERS, ids=lambda r: r.name)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_before_and_after_do_the_same(rewriter: Rewriter, data: st.DataObject) -> None:
    one, other, entry = functions(rewriter.name)
    call = data.draw(st.tuples(*(like(v) for v in ARGUMENTS[entry])))
    expected = outcome(one, call)
    assert expected is None or outcome(other, call) == expected


def test_names_are_unlike() -> None:
    assert len({r.name for r in REWRITERS}) == len(REWRITERS)
    assert all(re.fullmatch(r"[a-z0-9-]+", r.name) for r in REWRITERS)
