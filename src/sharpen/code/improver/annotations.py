"""A gain as a line that a service for code review shows beside the function.

GitHub's form: ``::notice file=...,line=...,title=...::text``, with its escapes.
"""

from __future__ import annotations

from sharpen.code.improver.patch import path_in_patch
from sharpen.code.improver.result import ImproveResult

__all__ = ["annotation"]


def annotation(result: ImproveResult) -> str:
    """The line; a warning where something better was found, else a notice."""
    assert result.proof is not None
    location = result.proof.location
    node = location.node
    kind = "warning" if result.improved else "notice"
    place = f"file={_property(path_in_patch(location.file))},line={node.lineno}"
    end = f",endLine={node.end_lineno}" if node.end_lineno is not None else ""
    text = result.summary() + (f"\n{result.explain}" if result.explain else "")
    return f"::{kind} {place}{end},title={_property('sharpen improve')}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
