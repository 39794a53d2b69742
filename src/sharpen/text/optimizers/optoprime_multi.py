"""OptoPrime with several replies to one problem, of which one is chosen.

Replies differ by temperature or by model. They are chosen by evaluation, where the caller can judge
a configuration, or else by a model that is shown them beside the problem.

::

    theta_1 ... theta_k = A(theta, tau)      k replies
    theta = argmax_i f(theta_i)              by evaluation
    theta = theta_i, i = choice(tau, theta_1 ... theta_k)      by a model
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.space import Space
from sharpen.text.asking import Asker
from sharpen.text.module import Module
from sharpen.text.optimizers.base import Suggestion
from sharpen.text.optimizers.optoprime import OptoPrime
from sharpen.text.parameter import Parameter

__all__ = ["OptoPrimeMulti"]

_CHOOSE = """\
Several proposals were made for the problem above. Which one will be judged best by its #Feedback?
{proposals}

Reply with the number of one proposal and nothing else."""
_NUMBER = re.compile(r"\d+")


class OptoPrimeMulti(OptoPrime):
    """Asks several times and takes the best reply.

    Args:
        parameters: what to change: a module, parameters, or a space.
        lm: the model, or several that take turns; the first one chooses.
        temperatures: one for each reply.
        evaluate: the score of a configuration, higher is better; None has the model choose.
        concurrency: calls at once.
        options: those of :class:`~sharpen.text.optimizers.optoprime.OptoPrime`.

    Attributes:
        proposals: the valid configurations of the last step, in order of the replies.

    Raises:
        ConfigError: no temperature or no model.
    """

    name: ClassVar[str] = "optoprime-multi"

    def __init__(
        self,
        parameters: Module | Sequence[Parameter] | Space,
        lm: Any,
        *,
        temperatures: Sequence[float] = (0.0, 0.5, 1.0),
        evaluate: Callable[[dict[str, Any]], float] | None = None,
        concurrency: int = 8,
        **options: Any,
    ) -> None:
        models = list(lm) if isinstance(lm, list | tuple) else [lm]
        if not temperatures or not models:
            raise ConfigError("temperatures and lm must name at least one (OptoPrimeMulti).")
        if concurrency < 1:
            raise ConfigError(f"concurrency={concurrency} must be at least 1 (OptoPrimeMulti).")
        super().__init__(parameters, models[0], **options)
        self.models = models
        self.temperatures = tuple(temperatures)
        self.evaluate = evaluate
        self.concurrency = concurrency
        self.proposals: list[dict[str, Any]] = []

    def suggest(self, number: int, base: Trial) -> Suggestion:
        """The chosen one of several replies."""
        messages = self.messages(base)
        askers = []
        for draw, temperature in enumerate(self.temperatures):
            model = self.models[draw % len(self.models)]
            sampling = self.sampling(number, temperature, draw)
            askers.append(Asker(model, max_tokens=self.max_tokens, **sampling))
        with ThreadPoolExecutor(min(self.concurrency, len(askers))) as pool:
            replies = list(pool.map(lambda asker: self._read(asker, messages), askers))
        found: dict[str, tuple[Suggestion, dict[str, Any]]] = {}
        rejected: dict[str, str] = {}
        for suggestion in replies:
            config, report = self._checked(suggestion, base.config)
            if report.applied or suggestion.terminated:
                key = json.dumps(config, sort_keys=True, default=str)
                found.setdefault(key, (suggestion, config))
            rejected |= report.rejected
        calls = sum(asker.calls for asker in askers)
        tokens = sum(asker.tokens for asker in askers)
        self.proposals = [config for _, config in found.values()]
        if not found:
            return Suggestion(rejected=rejected, calls=calls, tokens=tokens)
        if len(found) == 1:
            chosen = 0
        elif self.evaluate is not None:
            scores = [self.evaluate(dict(config)) for config in self.proposals]
            chosen = max(range(len(scores)), key=scores.__getitem__)
        else:
            judge = Asker(self.models[0], max_tokens=self.max_tokens)
            chosen = self._chosen(judge, messages, [one for one, _ in found.values()])
            calls, tokens = calls + judge.calls, tokens + judge.tokens
        suggestion = [one for one, _ in found.values()][chosen]
        return replace(suggestion, calls=calls, tokens=tokens)

    def _chosen(
        self, judge: Asker, messages: Sequence[Mapping[str, str]], proposals: list[Suggestion]
    ) -> int:
        """The place of the proposal that the model names; the first where it names none."""
        listed = "\n".join(
            f"[{k}] {json.dumps(dict(one.values), ensure_ascii=False)}"
            for k, one in enumerate(proposals, start=1)
        )
        problem = messages[-1]["content"].removesuffix("Your reply:")
        said = judge(problem + _CHOOSE.format(proposals=listed))
        numbers = [int(word) for word in _NUMBER.findall(said)]
        valid = [number for number in numbers if 1 <= number <= len(proposals)]
        return valid[-1] - 1 if valid else 0
