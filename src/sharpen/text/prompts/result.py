"""What a search for a prompt found: the prompt, how sure it is better, what it took."""

from __future__ import annotations

import difflib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpen.core.diagram import Box, svg
from sharpen.core.errors import storage_errors
from sharpen.core.files import atomic_write_text
from sharpen.core.report import Chart, Picture, Section, Series, Table, Text, write_html
from sharpen.text.prompts.confidence import mcnemar, mean_interval, paired_difference
from sharpen.text.prompts.evaluator import Evaluation
from sharpen.text.prompts.task import Candidate, PromptProgram
from sharpen.text.prompts.template import fields_of

__all__ = ["PromptResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptResult:
    """The best prompt by the validation examples, and what is known of it."""

    program: PromptProgram = field(repr=False)
    first: Evaluation
    """The prompt that was given, on the validation examples."""

    best: Evaluation
    """The best one, on the same."""

    tested: tuple[Evaluation, Evaluation] | None = None
    """The best one and the first, on the test examples."""

    history: Sequence[Evaluation] = field(default=(), repr=False)
    """All full evaluations, in order."""

    prior: Mapping[str, float] = field(default_factory=dict)
    """Mean score of each label, which a calibrated decision subtracts."""

    model: str = ""
    """What the prompt is for."""

    method: str = ""
    judgements: int = 0
    """Calls that compared prompts."""

    allowed: int = 0
    """How many might have been made."""

    unreadable: int = 0
    """Replies of the proposer that held no instruction, or tags that do not pair."""

    usage: Mapping[str, Any] = field(default_factory=dict)
    """Calls, tokens, cost of all models."""

    stopped: str = ""
    """The limit that ended it early; empty where it ran to its end."""

    @property
    def candidate(self) -> Candidate:
        """The prompt."""
        return self.best.candidate

    @property
    def improved(self) -> bool:
        """Whether the best prompt is another than the one that was given."""
        return self.best.candidate.key != self.first.candidate.key

    def messages(self, **values: Any) -> list[dict[str, str]]:
        """The conversation for an input, by the best prompt.

        Args:
            values: of the template's fields.
        """
        from sharpen.text.prompts.exemplars import Nearest
        from sharpen.text.prompts.task import Example

        shown = list(self.candidate.exemplars)
        if self.candidate.nearest:
            shown = Nearest(shown).find(Example(values, ""), self.candidate.nearest)
        return self.program.messages(self.candidate, values, shown)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: scores with 95 % intervals, the prompt, what it took."""
        found: dict[str, Any] = {
            "method": self.method,
            "improved": self.improved,
            "prompt": self._prompt(),
            "validation": _compared(self.best, self.first),
            "test": None if self.tested is None else _compared(*self.tested),
            "judgements": self.judgements,
            "judgements_allowed": self.allowed,
            "full_evaluations": len(self.history),
            "proposals_unreadable": self.unreadable,
            "usage": dict(self.usage),
        }
        if self.stopped:
            found["stopped"] = self.stopped
        return found

    def _prompt(self) -> dict[str, Any]:
        return self.candidate.to_dict() | ({"prior": dict(self.prior)} if self.prior else {})

    def summary(self) -> str:
        """A few lines for people."""
        lines = [f"{self.method}: {len(self.history)} prompts, {self.judgements} judgements"]
        for name, pair in (("validation", (self.best, self.first)), ("test", self.tested)):
            if pair is None:
                lines.append("test        none: no examples were kept for it")
                continue
            best, first = (mean_interval(one.scores) for one in pair)
            difference = paired_difference(pair[0].scores, pair[1].scores)
            p = mcnemar(pair[0].scores, pair[1].scores)
            lines.append(f"{name:<11} {first} -> {best}, difference {difference}, p = {p:.3g}")
        if not self.improved:
            lines.append("no prompt was better than the one that was given")
        if self.unreadable:
            lines.append(f"{self.unreadable} replies of the proposer held no instruction")
        if self.stopped:
            lines.append(f"stopped early: {self.stopped}")
        return "\n".join(lines)

    def save(self, folder: str | Path) -> None:
        """Write ``result.json``, ``prompt.json``, ``history.jsonl`` and ``report.html``.

        The report needs plotly and is left out without it.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = Path(folder)
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "number": number,
                "score": one.score,
                "unparsed": one.unparsed,
                "scores": one.scores,
                "prompt": one.candidate.to_dict(),
            }
            for number, one in enumerate(self.history)
        ]
        for name, text in (
            ("history.jsonl", "".join(f"{_json(row)}\n" for row in rows)),
            ("prompt.json", _json(self._prompt(), indent=2) + "\n"),
            ("result.json", _json(self.to_dict(), indent=2) + "\n"),
        ):
            atomic_write_text(path / name, text)
        if importlib.util.find_spec("plotly") is not None:
            write_html(
                path / "report.html", "Prompt search", self._sections(), subtitle=self.method
            )

    def _sections(self) -> list[Section]:
        best_so_far, top = [], float("-inf")
        for one in self.history:
            top = max(top, one.score)
            best_so_far.append(top)
        numbers = list(range(len(self.history)))
        chart = Chart(
            "Score on the validation examples",
            [
                Series("prompt", numbers, [one.score for one in self.history]),
                Series("best so far", numbers, best_so_far),
            ],
            "prompt",
            "score",
        )
        rows = [
            [n, one.score, one.unparsed, len(one.candidate.exemplars), one.candidate.instruction]
            for n, one in enumerate(self.history)
        ]
        change = "\n".join(
            difflib.unified_diff(
                self.first.candidate.instruction.splitlines(),
                self.candidate.instruction.splitlines(),
                "given",
                "best",
                lineterm="",
            )
        )
        shown = "\n\n".join(
            f"{one.id}: {dict(one.input)}\n-> {one.output}" for one in self.candidate.exemplars
        )
        cost = Table(["", ""], [[name, value] for name, value in self.usage.items()])
        return [
            Section("Result", [Text(self.summary(), preformatted=True), chart]),
            Section("Program", [Picture(self._picture())]),
            Section(
                "Prompt",
                [
                    Text(self.candidate.instruction, preformatted=True),
                    Text(f"Changes:\n{change or 'none'}", preformatted=True),
                    Text(f"Exemplars:\n{shown or 'none'}", preformatted=True),
                ],
            ),
            Section("Cost", [cost]),
            Section(
                "All prompts",
                [Table(["number", "score", "unparsed", "exemplars", "instruction"], rows)],
            ),
        ]

    def _picture(self) -> str:
        """From the input to the prediction, what is searched in the colour of parameters."""
        program, best = self.program, self.candidate
        searched = [Box("instruction", best.instruction, "parameter", best.instruction)]
        if program.takes_exemplars:
            count = best.nearest or len(best.exemplars)
            shown = (
                f"{count} nearest of {len(best.exemplars)}" if best.nearest else f"{count} chosen"
            )
            searched.append(Box("exemplars", shown, "parameter"))
        fields = [f for f in fields_of(program.template) if f not in ("instruction", "exemplars")]
        inputs = [Box(name, "", "input") for name in fields]
        decision = {"reply": "its reply", "scores": "probabilities of labels"}
        how = decision.get(program.decision, "calibrated probabilities of labels")
        after = [
            Box("template", program.template, hint=program.template),
            Box("model", self.model),
            Box("prediction", how, "output"),
        ]
        boxes = [*searched, *inputs, *after]
        first = len(boxes) - len(after)
        edges = [(i, first) for i in range(first)] + [(first, first + 1), (first + 1, first + 2)]
        return svg(boxes, edges)


def _compared(best: Evaluation, first: Evaluation) -> dict[str, Any]:
    def interval(value: Any) -> dict[str, float]:
        return {"value": value.value, "low": value.low, "high": value.high}

    return {
        "examples": len(best.outcomes),
        "score": interval(mean_interval(best.scores)),
        "score_given": interval(mean_interval(first.scores)),
        "difference": interval(paired_difference(best.scores, first.scores)),
        "p_mcnemar": mcnemar(best.scores, first.scores),
        "unparsed": best.unparsed,
        "unparsed_given": first.unparsed,
    }


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
