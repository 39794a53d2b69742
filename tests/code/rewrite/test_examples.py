"""Every rewriter does what its example says."""

from __future__ import annotations

import re

import pytest

from differential import assert_same, drawn_calls, facts_of
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
    calls = drawn_calls([ARGUMENTS[entry]], 1, 120)
    assert assert_same(before, after, entry, calls) > 60


def test_names_are_unlike() -> None:
    assert len({r.name for r in REWRITERS}) == len(REWRITERS)
    assert all(re.fullmatch(r"[a-z0-9-]+", r.name) for r in REWRITERS)
