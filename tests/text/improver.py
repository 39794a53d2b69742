"""A language model that improves numbers: it reads prompts, and draws near what they show.

It stands for a model in tests of loops: from the values that it is shown it proposes others, by a
step of random size drawn with the request's seed, so a better score is found by luck and kept by
the optimizer's choice of what to show.
"""

from __future__ import annotations

import json
import re
from typing import Any
from zlib import crc32

import numpy as np

from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine, text_of

_NUMBER = r"[-+0-9.e]+"
_VARIABLE = re.compile(rf"^\(float\) ([\w.]+) = ({_NUMBER})$", re.MULTILINE)
_BOUND = re.compile(rf"^([\w.]+): low: ({_NUMBER}), high: ({_NUMBER})", re.MULTILINE)
_ONE = re.compile(rf"The value '([\w.]+)'\..*?Now it is:\n({_NUMBER})\n", re.DOTALL)
_ONE_BOUND = re.compile(rf"- low: ({_NUMBER}), high: ({_NUMBER})")


class Improver(ThreadedEngine):
    """See the module; a new object replies as an old one does."""

    model = "improver"
    scope = ""
    capabilities: set[str] = set()  # noqa: RUF012 - as an engine has it

    def complete(self, request: ChatRequest) -> ChatResponse:
        words = text_of(request.messages[-1])
        rng = np.random.default_rng([request.seed or 0, crc32(words.encode())])
        return ChatResponse([self._reply(words, rng)], None, ["stop"], self.model, 0.0, {})

    def _reply(self, words: str, rng: np.random.Generator) -> str:
        one = _ONE.search(words)
        if one:
            bound = _ONE_BOUND.search(words)
            if bound is None:
                return "It is good as it is."
            better = self._near(float(one[2]), float(bound[1]), float(bound[2]), rng)
            return f"<NEW>{better}</NEW>"
        values: dict[str, Any] = {n: float(v) for n, v in _VARIABLE.findall(words)}
        pairs = [json.loads(line) for line in words.splitlines() if line.startswith('{"variables')]
        if pairs and not values:
            shown = pairs[-1]["variables"]
            values = {n: v for n, v in shown.items() if isinstance(v, float)}
        bounds = {n: (float(low), float(high)) for n, low, high in _BOUND.findall(words)}
        new = {n: self._near(v, *bounds[n], rng) for n, v in values.items() if n in bounds}
        return json.dumps({"reasoning": "near it", "suggestion": new})

    @staticmethod
    def _near(value: float, low: float, high: float, rng: np.random.Generator) -> float:
        step = (high - low) * 10 ** rng.uniform(-3, -0.3) * rng.normal()
        return float(np.clip(value + step, low, high))
