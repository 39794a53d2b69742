"""``sharpen chat``: talk with a model in the terminal."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, error_console, flags
from sharpen.cli.options import Device
from sharpen.cli.serve import Adapter, Dtype, Model

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "chat", example='sharpen chat smollm2-135m-instruct --prompt "Hi!"')
    def chat(
        model: Model,
        prompt: Annotated[
            str | None, typer.Option(help="Ask this, print the answer, and end.")
        ] = None,
        system: Annotated[str | None, typer.Option(help="The system's message.")] = None,
        temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.7,
        top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 0.95,
        max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
        seed: Annotated[int | None, typer.Option(help="Same seed, same answers.")] = None,
        dtype: Dtype = "auto",
        device: Device = "auto",
        adapter: Adapter = None,
    ) -> Output:
        """Talk with a model; an empty line or Ctrl-D ends it."""
        from sharpen.core.errors import ConfigError
        from sharpen.serve.llm import LLM
        from sharpen.serve.sampling import SamplingParams

        if flags.as_json and prompt is None:
            raise ConfigError("--json answers one question: give it with --prompt.")
        params = SamplingParams(
            temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed
        )
        llm = LLM(model, dtype=dtype, device=device, adapter=adapter, max_batch=1)
        messages: list[dict[str, Any]] = []
        if system is not None:
            messages.append({"role": "system", "content": system})
        if prompt is not None:
            messages.append({"role": "user", "content": prompt})
            document = _turn(llm, messages, params, show=not flags.as_json)
            return Output(document)
        console = error_console()
        console.print(f"{llm.name}: an empty line or Ctrl-D ends the conversation.")
        turns = 0
        while (line := _read(console)) is not None:
            messages.append({"role": "user", "content": line})
            _turn(llm, messages, params, show=True)
            turns += 1
        return Output({"turns": turns})


def _read(console: Any) -> str | None:
    """The user's next line, or None at the end."""
    if sys.stdin.isatty():
        console.print("[bold]>[/] ", end="")
    line = sys.stdin.readline().strip()
    return line or None


def _turn(llm: Any, messages: list[dict[str, Any]], params: Any, *, show: bool) -> dict[str, Any]:
    """Answer, streaming to standard output when ``show``; the answer joins ``messages``."""
    text, count, reason = "", 0, None
    for piece in llm.stream_chat(messages, params):
        text += piece.text
        count += len(piece.ids)
        reason = piece.finish_reason
        if show:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
    if show:
        sys.stdout.write("\n")
    messages.append({"role": "assistant", "content": text})
    return {"text": text, "tokens": count, "finish_reason": reason}
