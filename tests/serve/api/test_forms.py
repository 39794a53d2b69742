"""What a stream writes once is what it would have written each time."""

import json

import pytest

from sharpen.serve.api.forms import ChatForm, Frames, TextForm
from sharpen.serve.request import Piece, TokenLogprob
from sharpen.serve.tools import ToolReader

SCORED = TokenLogprob(id=5, text="a", logprob=-0.5, top=((5, "a", -0.5),))
PIECES = [
    Piece(text="TEXT", ids=(5,)),
    Piece(text='"quoted" \\ \n 東京 🎉 \u2028', ids=(5, 6), index=1),
    Piece(text="", ids=(7,), finish_reason="length"),
    Piece(text="end", ids=(8,), index=1, finish_reason="stop"),
]


def made(kind: str) -> ChatForm | TextForm:
    if kind == "chat":
        return ChatForm('a "model"', False)
    if kind == "tools":
        return ChatForm("m", False, [ToolReader("hermes", ["f"]) for _ in range(2)])
    if kind == "text":
        return TextForm("m", False, ["TEXT", ""])
    return TextForm("m", True, ["a", ""]) if kind == "scored text" else ChatForm("m", True)


@pytest.mark.parametrize("with_usage", [False, True])
@pytest.mark.parametrize("kind", ["chat", "tools", "text", "scored text", "scored chat"])
def test_frames_hold_the_chunks_of_the_form(kind: str, with_usage: bool) -> None:
    form, twin = made(kind), made(kind)
    frames = Frames(form, 2, with_usage)
    assert form.is_plain == (kind in ("chat", "text"))
    pieces = PIECES
    if kind == "scored text":
        pieces = [Piece(text="x", ids=(5,), logprobs=(SCORED,), prompt_logprobs=(SCORED,)), *PIECES]
    more = {"usage": None} if with_usage else {}
    pairs = [(frames.opening(i), twin.opening(i)) for i in range(2)]
    pairs += [(frames.piece(p.index, p), twin.delta(p.index, p)) for p in pieces]
    for text, choice in pairs:
        if choice is None:
            assert text == ""
            continue
        assert text.startswith("data: ")
        assert text.endswith("\n\n")
        assert "\n" not in text[:-2]
        assert json.loads(text[6:]) == {
            **form.head,
            "object": form.chunk_object,
            "choices": [choice],
            **more,
        }
    last = json.loads(frames.usage(3, 4)[6:])
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
