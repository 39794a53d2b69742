"""The page of the documentation lists all rewriters as they are."""

from __future__ import annotations

from pathlib import Path

from sharpen.code.rewrite import REWRITERS
from sharpen.code.rewrite.table import rewriters_table, with_table

PAGE = Path(__file__).parents[3] / "docs" / "code" / "rewriters.md"


def test_the_page_is_of_today() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_table(text) == text, (
        "run: python -m sharpen.code.rewrite.table docs/code/rewriters.md"
    )


def test_every_rewriter_has_a_row_and_an_example() -> None:
    table = rewriters_table()
    for rewriter in REWRITERS:
        assert f"| [`{rewriter.name}`](#{rewriter.name}) |" in table
        assert all(part.rstrip() in table for part in rewriter.example)
