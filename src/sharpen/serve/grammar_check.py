"""A process that tries whether a grammar can be compiled, and may be ended when it takes too long.

The parent writes JSON lines to its standard input, first the vocabulary, then grammars; it answers
each with a line: what is wrong, or an empty text. It has a limit on memory, and dies with its
parent.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.fork_server import die_with_parent

__all__ = ["SPACE", "GrammarChecker", "compile_grammar", "main", "new_vocabulary"]

_MEMORY_BYTES = 4 << 30
_START_S = 30.0
SPACE = r"[\x20\x0A\x0D\x09]{1,24}"
"""White space at one place of a JSON text: bounded, as small models may never end it."""


def new_vocabulary(tokenizer: str, vocab_size: int, eos_ids: Sequence[int]) -> Any:
    """A tokenizer as ``llguidance`` knows it.

    Args:
        tokenizer: the text of ``tokenizer.json``.
        vocab_size: V, of the logits.
        eos_ids: tokens that end a text, at least one.

    Raises:
        ConfigError: the tokenizer is of a kind it does not know, or nothing ends a text.
        DependencyNotInstalled: it is not installed.
    """
    try:
        import llguidance
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("structured output", "serve") from None
    if not eos_ids:
        raise ConfigError("structured output needs a model with an end-of-sequence token.")
    try:
        return llguidance.LLTokenizer(tokenizer, n_vocab=vocab_size, eos_token=list(eos_ids))
    except Exception as error:  # the library raises several kinds, plain Exception among them
        raise ConfigError(f"structured output cannot use this tokenizer: {error}.") from None


def compile_grammar(vocabulary: Any, kind: str, text: str) -> tuple[Any, str]:
    """The matcher of a grammar at its start, and what is wrong with it: one line, or nothing."""
    from llguidance import LLMatcher, LLParserLimits

    if kind == "json":
        try:
            made = LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_pattern": SPACE})
        except ValueError as error:  # nested too deeply
            return None, _first_line(str(error))
    elif kind == "regex":
        made = LLMatcher.grammar_from_regex(text)
    else:
        made = LLMatcher.grammar_from_lark(text)
    limits = LLParserLimits(verbose_errors=False)
    matcher = LLMatcher(vocabulary, made, log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()  # finds those that nothing can begin
    return matcher, _first_line(matcher.get_error()) if matcher.is_error() else ""


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if lines and " " not in lines[0]:  # the name of a reason to stop at once
        return f"no text meets it ({lines[0]})."
    if len(lines) > 1 and lines[0].endswith(":"):  # what a regular expression's error begins with
        told = next((line for line in lines if line.startswith("error:")), lines[0])
        return f"{lines[0].rpartition(': ')[2].rstrip(':')}: {told.removeprefix('error: ')}"[:300]
    return (lines[0] if lines else "unknown error")[:300]


class GrammarChecker:
    """Runs the process, and starts it again where it had to be ended.

    Args:
        tokenizer: the text of ``tokenizer.json``.
        vocab_size: V, of the logits.
        eos_ids: tokens that end a text.
        timeout_s: seconds that a grammar may take.
    """

    def __init__(
        self, tokenizer: str, vocab_size: int, eos_ids: Sequence[int], *, timeout_s: float
    ) -> None:
        self._vocabulary = [tokenizer, vocab_size, list(eos_ids)]
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], Any] = lambda: None

    def check(self, kind: str, text: str) -> str:
        """What is wrong with a grammar: one line, or nothing."""
        if self._process is None:
            self._start()
        self._send([kind, text])
        answer = self._answer(self._timeout_s)
        if answer is None:
            self.close()
            return f"compiling it takes longer than {self._timeout_s:g} s."
        if not answer:
            self.close()
            return "compiling it takes too much memory."
        return str(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        self._process = None
        self._end()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sharpen.serve.grammar_check", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._end = weakref.finalize(self, _end, self._process)
        self._send(self._vocabulary)
        if not self._answer(_START_S):
            self.close()
            raise ConfigError("the process that checks grammars does not start.")

    def _send(self, message: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # when it is gone, its answer tells
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, timeout_s: float) -> bytes | None:
        """Its next line; empty where it is gone, None where it does not come in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return self._process.stdout.readline() if ready else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()


def main() -> int:
    """Entry point of the process."""
    die_with_parent(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    lines = (json.loads(line) for line in sys.stdin)
    vocabulary = new_vocabulary(*next(lines))
    print(json.dumps("ready"), flush=True)
    for kind, text in lines:
        print(json.dumps(compile_grammar(vocabulary, kind, text)[1]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
