"""A language model whose best prompt is known, to compare ways of searching for it.

It stands for a model and its task. How often it is right depends on which of some phrases the
instruction holds and on which exemplars it is shown::

    p(example) = base + sum of the weights of phrases in the instruction
                      + weight of exemplars, by how many kinds of inputs they cover
    p          = (1 - noise) p + noise / 2
    right, if a number that is drawn for (example, prompt's phrases and exemplars) is below p

so the score of a prompt can be computed, and the best one too. As a proposer it changes phrases at
random, with a known chance of a good change: what a method makes of such proposals is the method's
own merit. Replies depend on the request alone, so runs are repeated exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np

from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine, Usage, text_of
from sharpen.text.prompts.task import Example

__all__ = ["Oracle"]

_INPUT = re.compile(r"\[case (\d+) of kind (\w)\]")
_SHOWN = re.compile(r"\[case (\d+) of kind (\w)\] -> (\w+)")
_PHRASE = re.compile(r"\(([a-z]+\d*)\)")
_LABELS = ("yes", "no")
_KINDS = "abcd"


class Oracle(ThreadedEngine):
    """A model with a known optimum, that solves the task and proposes instructions.

    Args:
        weights: of each phrase ``(name)`` that an instruction may hold; harmful ones are negative.
        base: chance of a right answer without any.
        exemplar_weight: of a set of exemplars that covers all kinds of inputs.
        skill: chance that a proposal makes a good change rather than any.
        noise: chance of an answer that does not depend on the prompt.
        seed: of what is right by chance.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        base: float = 0.3,
        exemplar_weight: float = 0.2,
        skill: float = 0.3,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.model = "oracle"
        settings = (seed, sorted(weights.items()), base, exemplar_weight, skill, noise)
        self.scope = f"oracle {settings}"
        self.capabilities: set[str] = {"seed"}
        self.weights = dict(weights)
        self.base = base
        self.exemplar_weight = exemplar_weight
        self.skill = skill
        self.noise = noise
        self.seed = seed

    def examples(self, count: int, first: int = 0) -> list[Example]:
        """Labelled examples, numbered from ``first``."""
        rng = np.random.default_rng([self.seed, 17])
        labels = rng.integers(2, size=first + count)
        return [
            Example(
                {"input": f"[case {k} of kind {_KINDS[k % 4]}]"}, _LABELS[labels[k]], f"case{k}"
            )
            for k in range(first, first + count)
        ]

    def chance(self, instruction: str, exemplars: Sequence[str] = ()) -> float:
        """Chance of a right answer under a prompt.

        Args:
            instruction: its phrases count.
            exemplars: kinds of the exemplars that are shown.
        """
        held = {phrase for phrase in _PHRASE.findall(instruction) if phrase in self.weights}
        covered = len(set(exemplars)) / len(_KINDS)
        value = self.base + sum(self.weights[phrase] for phrase in held)
        p = float(np.clip(value + self.exemplar_weight * covered, 0.02, 0.98))
        return (1 - self.noise) * p + self.noise / 2

    @property
    def best_chance(self) -> float:
        """Chance under the best prompt."""
        good = "".join(f"({phrase})" for phrase, weight in self.weights.items() if weight > 0)
        return self.chance(good, _KINDS)

    def complete(self, request: ChatRequest) -> ChatResponse:
        """An answer to a case, or a proposal."""
        prompt = "\n".join(text_of(message) for message in request.messages)
        if "<PROMPT>" in prompt:
            text = f"<PROMPT>{self.propose(prompt, request.repeat, request.temperature)}</PROMPT>"
        else:
            text = self.answer(prompt)
        usage = Usage(prompt=len(prompt.split()), completion=len(text.split()))
        return ChatResponse([text], usage, ["stop"], self.model)

    def _rng(self, *about: object) -> np.random.Generator:
        digest = sha256(repr((self.seed, *about)).encode("utf-8", "surrogatepass")).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def answer(self, prompt: str) -> str:
        """The label of the last case in a prompt, right or wrong."""
        shown = _SHOWN.findall(prompt)
        cases = _INPUT.findall(prompt)
        if not cases:
            return "unsure"
        number, _ = cases[-1]
        labels = np.random.default_rng([self.seed, 17]).integers(2, size=int(number) + 1)
        right = _LABELS[labels[int(number)]]
        chance = self.chance(prompt, [kind for _, kind, _ in shown])
        held = sorted(set(_PHRASE.findall(prompt)))
        draw = self._rng("answer", number, held, sorted(shown)).random()
        return right if draw < chance else _LABELS[1 - _LABELS.index(right)]

    def propose(self, prompt: str, *draw: object) -> str:
        """An instruction made of the last one in a prompt; ``draw`` parts equal requests."""
        rng = self._rng("propose", prompt, *draw)
        held = list(dict.fromkeys(_PHRASE.findall(_last_instruction(prompt))))
        if rng.random() < self.skill:
            harmful = [p for p in held if self.weights.get(p, 0) < 0]
            useful = [p for p, w in self.weights.items() if w > 0 and p not in held]
            if harmful and (not useful or rng.random() < 0.5):
                held.remove(harmful[int(rng.integers(len(harmful)))])
            elif useful:
                held.append(useful[int(rng.integers(len(useful)))])
        else:
            phrase = list(self.weights)[int(rng.integers(len(self.weights)))]
            if phrase in held:
                held.remove(phrase)
            else:
                held.append(phrase)
        return f"Answer yes or no. {' '.join(f'({p})' for p in held)}"


def _last_instruction(prompt: str) -> str:
    """The best instruction that a proposer was shown: the last that holds the task's words."""
    found = re.findall(r"Answer yes or no\.[^\n]*", prompt)
    return found[-1] if found else ""
