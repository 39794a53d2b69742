"""Questions and answers that a text marks as such, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.data.batch import Batch
from sharpen.data.ops.base import Annotator, operator
from sharpen.data.ops.mappers.cleaning import compiled

__all__ = ["ExtractQa"]


@operator("extract_qa")
@dataclass(frozen=True, kw_only=True)
class ExtractQa(Annotator):
    """Reads pairs such as ``Q: ...`` and ``A: ...`` out of the text into a field.

    A question goes on to the next answer, and an answer to the next question or the text's end.
    Questions without an answer, and the reverse, are left out.
    """

    question: str = r"(?mi)^[ \t]*(?:q|question|human|user)[ \t]*\d*[ \t]*[:：][ \t]*"
    """What stands before a question, for RE2."""

    answer: str = r"(?mi)^[ \t]*(?:a|answer|assistant|ai)[ \t]*\d*[ \t]*[:：][ \t]*"
    """What stands before an answer."""

    field: str = "qa"
    """Where the pairs go: a list of objects with ``question`` and ``answer``."""

    def __post_init__(self) -> None:
        """Check the patterns."""
        compiled(self.question)
        compiled(self.answer)

    def annotate(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        """See :class:`Annotator`."""
        return {self.field: [self._pairs(text) for text in batch.texts.strings]}

    def _pairs(self, text: str) -> list[dict[str, str]]:
        marks = [(m.start(), m.end(), "question") for m in compiled(self.question).finditer(text)]
        marks += [(m.start(), m.end(), "answer") for m in compiled(self.answer).finditer(text)]
        marks.sort()
        pairs: list[dict[str, str]] = []
        asked: str | None = None
        for k, (_, end, kind) in enumerate(marks):
            said = text[end : marks[k + 1][0] if k + 1 < len(marks) else len(text)].strip()
            if kind == "question":
                asked = said
            elif asked and said:
                pairs.append({"question": asked, "answer": said})
                asked = None
        return pairs
