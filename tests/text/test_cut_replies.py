"""Replies that a limit of tokens has ended."""

from __future__ import annotations

import sharpen.text as st
from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine

FIRST = '<variable name="a">one</variable>\n'
BOTH = FIRST + '<variable name="b">two</variable>'


class Limited(ThreadedEngine):
    """Its first reply ends right after a whole variable."""

    model = "limited"
    capabilities: set[str] = set()  # noqa: RUF012

    def __init__(self, *replies: tuple[str, str]) -> None:
        self.replies = list(replies)

    def complete(self, request: ChatRequest) -> ChatResponse:
        text, reason = self.replies.pop(0)
        return ChatResponse([text], finish_reasons=[reason])


def _step(*replies: tuple[str, str], retries: int = 1) -> tuple[st.StepReport, list[str]]:
    a, b = st.Parameter("A", "a"), st.Parameter("B", "b")
    lm = st.LM(Limited(*replies))
    optimizer = st.OptoPrime([a, b], lm, format="xml", retries=retries)
    (a + b).backward("wrong")
    return optimizer.step(), [a.value, b.value]


def test_tags_of_a_cut_reply_are_asked_for_again() -> None:
    report, values = _step((FIRST, "length"), (BOTH, "stop"))
    assert values == ["one", "two"]
    assert report.calls == 2


def test_a_cut_reply_is_never_applied_in_half() -> None:
    report, values = _step((FIRST, "length"), retries=0)
    assert values == ["A", "B"]
    assert "limit of tokens" in report.rejected["reply"]


def test_what_was_said_whole_before_the_cut_counts() -> None:
    report, values = _step(('{"suggestion": {"a": "one"}} And so', "length"))
    assert values == ["one", "B"]
    assert report.calls == 1
