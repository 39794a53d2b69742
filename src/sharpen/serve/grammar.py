"""Text that must fit a grammar: before every token, a bit for each that may come next.

Willard and Louf, Efficient Guided Generation for Large Language Models, 2023, arXiv 2307.09702. An
automaton over bytes and the vocabulary give the set M of tokens that keep the text a beginning of
some text of the grammar; the rest cannot be drawn::

    l_i < -l_i if i in M else -inf

The end of sequence is in M exactly when the text is complete. The automaton is ``llguidance``'s:
JSON schemas, regular expressions and context-free grammars; a mask takes some 50 microseconds.

Schemas come from strangers, and few lines of one may take a compiler hours or more memory than
there is. So a grammar is first compiled in a process of its own, which is ended after a time limit
(``grammar_check.py``), and only then here. Compiled ones are kept.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, DataError
from sharpen.models.tokenizer import Tokenizer
from sharpen.serve.grammar_check import GrammarChecker, compile_grammar, new_vocabulary

__all__ = ["Grammar", "Grammars", "Guide"]

_MOST_CHARS = 1 << 20
_KEPT = 256


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a text must be; made by the class methods."""

    kind: Literal["json", "regex", "lark"]
    """How ``text`` is meant."""

    text: str
    """A JSON schema, a regular expression, or a grammar in Lark's notation."""

    def __post_init__(self) -> None:
        """Check the size."""
        if not self.text.strip():
            raise ConfigError("the grammar is empty.")
        if len(self.text) > _MOST_CHARS:
            raise ConfigError(
                f"the grammar has {len(self.text)} characters; {_MOST_CHARS} may be used."
            )

    @classmethod
    def json(cls, schema: Mapping[str, Any] | str | Any = None) -> Grammar:
        """A JSON object, or a JSON value of a schema.

        Args:
            schema: a JSON schema, as a mapping or its text, or a pydantic model; None for any
                object.

        Raises:
            ConfigError: it is not JSON.

        Example:
            >>> Grammar.json({"type": "integer"}).text
            '{"type": "integer"}'
        """
        if schema is None:
            schema = {"type": "object"}
        if hasattr(schema, "model_json_schema"):
            schema = schema.model_json_schema()
        try:
            value = json.loads(schema) if isinstance(schema, str) else schema
            text = json.dumps(value, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"the JSON schema is not JSON: {error}.") from None
        if not isinstance(value, Mapping):
            raise ConfigError(f"the JSON schema is {text:.60}; it must be an object.")
        return cls("json", text)

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """A text that a regular expression matches as a whole."""
        return cls("regex", pattern)

    @classmethod
    def choice(cls, options: Sequence[str]) -> Grammar:
        """One of some texts.

        Raises:
            ConfigError: there are none, or an empty one.
        """
        if not options or not all(options):
            raise ConfigError("a choice needs at least one option, none of them empty.")
        return cls("lark", "start: " + " | ".join(json.dumps(one) for one in options))

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """A context-free grammar in Lark's notation, whose first rule is ``start``."""
        return cls("lark", text)


class Guide:
    """Keeps one continuation within its grammar.

    Args:
        matcher: a compiled grammar at its start; used up.
    """

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def finished(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def mask(self, logits: Tensor, avoid: Collection[int] = ()) -> Tensor:
        """Logits [V] with those of tokens that may not come at minus infinity.

        Args:
            logits: of the next token; not changed.
            avoid: tokens that are taken only where there is no other.

        Raises:
            DataError: the grammar is too complex at this place, or allows nothing.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=logits.shape[-1], bitorder="little").astype(np.bool_)
        if self._matcher.is_error():
            raise DataError(_told(self._matcher.get_error()))
        if avoid:
            rest = allowed.copy()
            rest[list(avoid)] = False
            allowed = rest if rest.any() else allowed
        if not allowed.any():
            raise DataError("the grammar allows no token of this model here.")
        return logits.masked_fill(torch.from_numpy(~allowed).to(logits.device), float("-inf"))

    def advance(self, token: int) -> None:
        """Take a token that :meth:`mask` allowed.

        Raises:
            DataError: the grammar is too complex at this place.
        """
        if not self._matcher.consume_token(token):
            raise DataError(_told(self._matcher.get_error()))

    def fitting(self, tokens: Sequence[int]) -> int:
        """How many of the tokens may come next, one after another."""
        return int(self._matcher.validate_tokens(list(tokens)))


class Grammars:
    """Compiles grammars for a tokenizer, each once; safe from any thread.

    Args:
        tokenizer: whose tokens the texts are made of.
        vocab_size: V, of the logits.
        eos_ids: tokens that end a text.
        timeout_s: longest time to compile one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        eos_ids: Collection[int],
        *,
        timeout_s: float = 5.0,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_ids = sorted(eos_ids)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._checker: GrammarChecker | None = None
        self._vocabulary: Any = None
        self._known: OrderedDict[Grammar, Future[Any]] = OrderedDict()

    def begin(self, grammar: Grammar) -> Future[Any]:
        """Compile a grammar in a thread; its exception is what :meth:`guide` raises."""
        with self._lock:
            future = self._known.get(grammar)
            if future is not None and not (future.done() and future.exception() is not None):
                self._known.move_to_end(grammar)
                return future
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="sharpen-grammar")
            future = self._known[grammar] = self._pool.submit(self._compile, grammar)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return future

    def guide(self, grammar: Grammar) -> Guide:
        """A guide at the start of a grammar, which is compiled first where it is not yet.

        Raises:
            ConfigError: it is wrong, cannot be met, or takes too long to compile.
            DependencyNotInstalled: ``llguidance`` is not installed.
        """
        return Guide(self.begin(grammar).result().deep_copy())

    def close(self) -> None:
        """End the process that checks."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        if self._checker is not None:
            self._checker.close()

    def _compile(self, grammar: Grammar) -> Any:
        if self._vocabulary is None:
            text = self._tokenizer.backend.to_str()
            self._vocabulary = new_vocabulary(text, self._vocab_size, self._eos_ids)
            self._checker = GrammarChecker(
                text, self._vocab_size, self._eos_ids, timeout_s=self._timeout_s
            )
        assert self._checker is not None
        wrong = self._checker.check(grammar.kind, grammar.text)
        if not wrong:
            matcher, wrong = compile_grammar(self._vocabulary, grammar.kind, grammar.text)
        if wrong:
            raise ConfigError(_told(wrong))
        return matcher


def _told(message: str) -> str:
    return f"the grammar cannot be used: {message}"
