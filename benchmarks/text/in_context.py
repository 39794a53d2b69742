"""A classifier that learns from its prompt alone, on real text, and proposes instructions for it.

The task: which package of Python's standard library a docstring is from. The classifier stands for
a language model: it knows what words mean (static embeddings), reads the exemplars of a prompt and
the descriptions that its instruction gives of the labels, and answers by likeness::

    score(label) = max over the label's exemplars of cos(input, exemplar)
                 + weight x cos(input, the label with its description)

Without either it has the names of the labels alone. As a proposer it does what a model does with
errors that it is shown: of an example whose right label it is told it puts some words into the
description of the label, or takes some out. Nothing in it knows which prompt is good.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.core.assets import asset_path
from sharpen.core.embedding import open_embedder
from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine, Usage, text_of
from sharpen.text.prompts.parsers import make_parser
from sharpen.text.prompts.task import Example, PromptProgram

__all__ = ["FIRST", "LABELS", "PROGRAM", "InContext", "docstrings", "parts"]

LABELS = ("asyncio", "email", "logging", "multiprocessing", "tkinter", "xml")
FIRST = "Which package is this docstring from?"
PROGRAM = PromptProgram(
    template="{{instruction}}\n\n{{exemplars}}\n\nDocstring: {{input}}\nPackage:",
    exemplar="Docstring: {{input}}\nPackage: {{output}}",
    parser=make_parser("label", LABELS),
)
_WORD = re.compile(r"[a-z]{4,}")
_SHOWN = re.compile(r"^Docstring: (.+)\nPackage: (\w+)$", re.MULTILINE)
_ASKED = re.compile(r"^Docstring: (.+)\nPackage:\s*\Z", re.MULTILINE)
_INSTRUCTION = re.compile(r"Which package is this docstring from\?(?:\n\w+: .*)*")
_TOLD = re.compile(
    r"Input: (.+)\n(?:Reply: .*\n)?(?:Right|Output): (\w+)|Input: (.+)\n.*\n.*right is: (\w+)"
)
_WEIGHT = 1.0


@functools.cache
def docstrings() -> dict[str, list[str]]:
    """First sentences of docstrings by package, without its name; each once, in order of files."""
    root = Path(asset_path("python-stdlib"))
    found: dict[str, dict[str, None]] = {label: {} for label in LABELS}
    seen: set[str] = set()
    for label, texts in found.items():
        for path in sorted((root / label).rglob("*.py")):
            if "test" in path.parts:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8", errors="ignore"))
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    text = " ".join((ast.get_docstring(node) or "").split())[:160]
                    folded = text.casefold()
                    if len(text.split()) >= 6 and label not in folded and folded not in seen:
                        seen.add(folded)
                        texts[text] = None
    return {label: list(texts) for label, texts in found.items()}


def parts(seed: int, sizes: Sequence[int]) -> list[list[Example]]:
    """Disjoint sets of examples, drawn anew for each seed, labels about equally often."""
    rng = np.random.default_rng(seed)
    rows = []
    for label, texts in docstrings().items():
        picked = rng.permutation(len(texts))[: -(-sum(sizes) // len(LABELS))]
        rows += [Example({"input": texts[int(k)]}, label) for k in picked]
    order = rng.permutation(len(rows))
    ends = np.cumsum([0, *sizes])
    return [[rows[int(k)] for k in order[begin:end]] for begin, end in itertools.pairwise(ends)]


class InContext(ThreadedEngine):
    """The classifier, and a proposer of instructions for it.

    Args:
        seed: of its proposals.
    """

    def __init__(self, seed: int = 0) -> None:
        self.model = "in-context"
        self.scope = f"in-context {seed}"
        self.capabilities: set[str] = {"seed"}
        self.seed = seed
        self._embedder = open_embedder("wordllama")
        self._known: dict[str, Any] = {}

    def vector(self, text: str) -> Any:
        """[d] a text's direction."""
        if text not in self._known:
            (found,) = self._embedder.encode([text])
            self._known[text] = found / max(float(np.linalg.norm(found)), 1e-9)
        return self._known[text]

    def complete(self, request: ChatRequest) -> ChatResponse:
        """A label, or a proposal."""
        prompt = "\n".join(text_of(message) for message in request.messages)
        if "<PROMPT>" in prompt:
            text = f"<PROMPT>{self._propose(prompt, request.repeat)}</PROMPT>"
        else:
            text = self._answer(prompt)
        usage = Usage(prompt=len(prompt.split()), completion=len(text.split()))
        return ChatResponse([text], usage, ["stop"], self.model)

    def _answer(self, prompt: str) -> str:
        asked = _ASKED.findall(prompt)
        if not asked:
            return "unsure"
        query = self.vector(asked[-1])
        told = _described(prompt)
        scores = {
            label: _WEIGHT * float(query @ self.vector(f"{label} {told.get(label, '')}".strip()))
            for label in LABELS
        }
        nearest = dict.fromkeys(LABELS, 0.0)
        for text, label in _SHOWN.findall(prompt):
            if label in nearest:
                nearest[label] = max(nearest[label], float(query @ self.vector(text)))
        return max(LABELS, key=lambda label: scores[label] + nearest[label])

    def _propose(self, prompt: str, repeat: int | None) -> str:
        digest = sha256(repr((self.seed, repeat, prompt)).encode("utf-8", "surrogatepass")).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        found = _INSTRUCTION.findall(prompt)
        told = _described(found[-1]) if found else {}
        examples = [(a or c, b or d) for a, b, c, d in _TOLD.findall(prompt)]
        held = [label for label, words in told.items() if words]
        if held and (not examples or rng.random() < 0.2):
            label = held[int(rng.integers(len(held)))]
            words = told[label].split()
            words.pop(int(rng.integers(len(words))))
            told[label] = " ".join(words)
        elif examples:
            text, label = examples[int(rng.integers(len(examples)))]
            words = _WORD.findall(text.casefold())
            if words and label in LABELS:
                count = min(len(words), 1 + int(rng.integers(4)))
                picked = [words[int(k)] for k in rng.permutation(len(words))[:count]]
                told[label] = " ".join(dict.fromkeys([*told.get(label, "").split(), *picked]))
        lines = [f"{label}: {told[label]}" for label in LABELS if told.get(label)]
        return "\n".join([FIRST, *lines])


def _described(text: str) -> dict[str, str]:
    """Descriptions of labels in an instruction."""
    found = _INSTRUCTION.findall(text)
    lines = found[-1].splitlines()[1:] if found else []
    pairs = (line.partition(":") for line in lines)
    return {label: words.strip() for label, _, words in pairs if label in LABELS}
