"""The table of rewriters for the documentation: ``python -m sharpen.code.rewrite.table PAGE``."""

from __future__ import annotations

import sys
from pathlib import Path

from sharpen.code.rewrite.propose import REWRITERS

__all__ = ["rewriters_table", "with_table"]

_BEGIN = "<!-- rewriters: begin -->"
_END = "<!-- rewriters: end -->"


def rewriters_table() -> str:
    """What each rewriter is called, changes and rests on, and its example before and after."""
    rows = ["| Rewriter | What | Rests on |", "|---|---|---|"]
    for one in REWRITERS:
        needs = f", needs {' and '.join(one.needs)}" if one.needs else ""
        rows.append(f"| [`{one.name}`](#{one.name}) | {one.summary}{needs} | {one.risk} |")
    parts = ["\n".join(rows)]
    for one in REWRITERS:
        before, after = (text.rstrip("\n") for text in one.example)
        parts.append(
            f"### {one.name}\n\n```text\n{before}\n```\n\nbecomes\n\n```text\n{after}\n```"
        )
    return "\n\n".join(parts)


def with_table(page: str) -> str:
    """The text of a page with the table of today between its marks."""
    head, _, rest = page.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}\n{rewriters_table()}\n{_END}{tail}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
