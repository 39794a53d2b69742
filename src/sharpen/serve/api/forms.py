"""The JSON of answers: one form for chat, one for plain completions; whole or as a stream.

A stream repeats itself: what stands around the text of a chunk is written once for each
continuation, and only the text is encoded anew.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from sharpen.serve.request import Piece, TokenLogprob
from sharpen.serve.tools import ToolCall, ToolReader

__all__ = ["ChatForm", "Form", "Frames", "TextForm", "usage"]

_MARK = "TEXT"
_encode = json.JSONEncoder(ensure_ascii=False).encode


class Form(Protocol):
    """How the pieces of continuations become the choices of an answer."""

    head: dict[str, Any]
    """What every chunk repeats: id, creation time and model."""

    object: str
    """Kind of a whole answer."""

    chunk_object: str
    """Kind of a streamed chunk."""

    is_plain: bool
    """Whether a chunk of text has nothing else that changes from piece to piece."""

    def opening(self, index: int) -> dict[str, Any] | None:
        """The choice of the first chunk of continuation ``index``; None when there is none."""
        ...

    def delta(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """The choice of one chunk; None when there is nothing to tell yet."""
        ...

    def choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """The choice of a whole answer."""
        ...


class ChatForm:
    """``chat.completion`` and ``chat.completion.chunk``.

    Args:
        model: the name to answer with.
        logprobs: whether log-probabilities were asked for.
        readers: of each continuation, what finds calls in it; none where there are no tools.
        is_named: whether the request names the function to call: such an answer ends with ``stop``,
            as OpenAI's does, and only one that had the choice with ``tool_calls``.
    """

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(
        self,
        model: str,
        logprobs: bool,
        readers: Sequence[ToolReader] = (),
        *,
        is_named: bool = False,
    ) -> None:
        self.head = _head("chatcmpl", model)
        self.is_plain = not (logprobs or readers)
        self._logprobs = logprobs
        self._readers = list(readers)
        self._reason_of_calls = "stop" if is_named else "tool_calls"

    def opening(self, index: int) -> dict[str, Any] | None:
        """The role comes first."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """New text, or calls once they are complete."""
        text, calls, reason = self._read(index, piece)
        if not (text or calls or reason or piece.logprobs):
            return None
        delta: dict[str, Any] = {"content": text} if text else {}
        if calls:
            first = self._readers[index].num_calls - len(calls)
            delta["tool_calls"] = [
                {"index": first + i, **_call(call)} for i, call in enumerate(calls)
            ]
        return {
            "index": index,
            "delta": delta,
            "logprobs": self._block(piece.logprobs),
            "finish_reason": reason,
        }

    def choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """The whole message."""
        read = [self._read(index, piece) for piece in pieces]
        text = "".join(one for one, _, _ in read)
        calls = [_call(call) for _, some, _ in read for call in some]
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        return {
            "index": index,
            "message": message,
            "logprobs": self._block([one for piece in pieces for one in piece.logprobs]),
            "finish_reason": read[-1][2],
        }

    def _read(self, index: int, piece: Piece) -> tuple[str, list[ToolCall], str | None]:
        """Text, calls and the reason to end of a piece."""
        if not self._readers:
            return piece.text, [], piece.finish_reason
        reader = self._readers[index]
        text, calls = reader.push(piece.text)
        reason: str | None = piece.finish_reason
        if reason is not None:
            rest, more = reader.finish()
            text, calls = text + rest, calls + more
            if reason == "stop" and reader.num_calls:
                reason = self._reason_of_calls
        return text, calls, reason

    def _block(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        entries = []
        for one in logprobs:
            top = [_entry(text, value) for _, text, value in one.top]
            entries.append({**_entry(one.text, one.logprob), "top_logprobs": top})
        return {"content": entries, "refusal": None}


class TextForm:
    """``text_completion``, streamed or not.

    Args:
        model: the name to answer with.
        logprobs: whether log-probabilities were asked for.
        echo: text that each continuation begins with, by index; with log-probabilities, those of
            its tokens come with it.
    """

    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, model: str, logprobs: bool, echo: Sequence[str]) -> None:
        self.head = _head("cmpl", model)
        self.is_plain = not logprobs
        self._logprobs = logprobs
        self._echo = list(echo)
        self._offsets = [0 if logprobs else len(text) for text in echo]

    def opening(self, index: int) -> dict[str, Any] | None:
        """The prompt, where it is echoed."""
        text = self._echo[index]
        if not text or self._logprobs:  # then it comes with the first piece
            return None
        return {"index": index, "text": text, "logprobs": None, "finish_reason": None}

    def delta(self, index: int, piece: Piece) -> dict[str, Any]:
        """New text."""
        return {
            "index": index,
            "text": (self._echo[index] if piece.prompt_logprobs else "") + piece.text,
            "logprobs": self._block(index, [*piece.prompt_logprobs, *piece.logprobs]),
            "finish_reason": piece.finish_reason,
        }

    def choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """The whole text."""
        return {
            "index": index,
            "text": self._echo[index] + "".join(piece.text for piece in pieces),
            "logprobs": self._block(
                index,
                [one for piece in pieces for one in (*piece.prompt_logprobs, *piece.logprobs)],
            ),
            "finish_reason": pieces[-1].finish_reason,
        }

    def _block(self, index: int, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        offsets = []
        for one in logprobs:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(one.text)
        return {
            "tokens": [one.text for one in logprobs],
            "token_logprobs": [_known(one.logprob) for one in logprobs],
            "top_logprobs": [
                None if math.isnan(one.logprob) else {text: value for _, text, value in one.top}
                for one in logprobs
            ],
            "text_offset": offsets,
        }


class Frames:
    """The server-sent events of an answer.

    Args:
        form: of the answer.
        num: continuations.
        with_usage: whether the stream ends with its usage, for which every chunk has a field.
    """

    def __init__(self, form: Form, num: int, with_usage: bool) -> None:
        self._form = form
        head = _encode({**form.head, "object": form.chunk_object})
        self._before = f'data: {head[:-1]}, "choices": ['
        self._after = '], "usage": null}\n\n' if with_usage else "]}\n\n"
        self._around: list[tuple[str, str]] = []
        for index in range(num) if form.is_plain else ():
            choice = _encode(form.delta(index, Piece(text=_MARK, ids=())))
            before, _, after = choice.rpartition(_encode(_MARK))
            self._around.append((self._before + before, after + self._after))

    def opening(self, index: int) -> str:
        """The first event of a continuation; may be empty."""
        return self._framed(self._form.opening(index))

    def piece(self, index: int, piece: Piece) -> str:
        """The event of a piece; may be empty."""
        if self._around and piece.finish_reason is None and not piece.prompt_logprobs:
            before, after = self._around[index]
            return f"{before}{_encode(piece.text)}{after}"
        return self._framed(self._form.delta(index, piece))

    def usage(self, num_prompt: int, num_new: int) -> str:
        """The event with the usage."""
        told = _encode(usage(num_prompt, num_new))
        return f'{self._before}], "usage": {told}}}\n\n'

    def _framed(self, choice: dict[str, Any] | None) -> str:
        return "" if choice is None else f"{self._before}{_encode(choice)}{self._after}"


def usage(num_prompt: int, num_new: int) -> dict[str, int]:
    """The ``usage`` object."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_new,
        "total_tokens": num_prompt + num_new,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _head(prefix: str, model: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
