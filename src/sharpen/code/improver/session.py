"""A person who steers: looks at proposals, asks for others, measures, and decides.

Florath and Kiraly, *LLM interactive optimization of open source Python libraries*, 2023: a model
and an expert made library functions faster, and what made it work was the expert's part, to
measure, to reject, to ask again. All that is done is written to ``session.jsonl``, so that the
decisions can be checked again without the person and the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.improve import Prepared, Steer, judge_of, prepare
from sharpen.code.improver.journal import Attempt
from sharpen.code.improver.judge import Judge, Proposal
from sharpen.code.improver.llm import ask, question, spliced
from sharpen.code.improver.objective import said
from sharpen.code.improver.patch import unified
from sharpen.code.improver.verdict import Verdict, decide
from sharpen.code.replies import function_in
from sharpen.core.errors import FileFormatError, MissingFileError, SharpenError, storage_errors

__all__ = ["HELP", "Session", "read_session", "replay", "steered"]

HELP = """\
next            show the next proposal          accept          take this one and stop
reject WHY      leave it; a model is told why    edit FILE       try the function in a file
ask WHAT        ask the model for something      measure         time it as for the last word
diff            show what it changes             profile         show where time goes
stop            end without a change             help            this"""

Say = Callable[[str], None]


@dataclass(slots=True)
class Session:
    """Proposals for one function, and what a person does with them.

    Args:
        prepared: the function and what is known of it.
        judge: tries texts.
        waiting: proposals that rules have found, the best first.
        lm: a language model; None without one.
        log: ``session.jsonl``; None keeps nothing.
        say: shows a text.
    """

    prepared: Prepared
    judge: Judge
    waiting: list[Attempt]
    lm: Any
    log: Path | None
    say: Say
    current: Attempt | None = None
    verdict: Verdict | None = None
    remarks: list[str] = field(default_factory=list)
    _number: int = 0

    def run(self, lines: Iterator[str]) -> tuple[Attempt, Verdict] | None:
        """Follow commands until one ends the session.

        Returns:
            What was accepted, with what was measured of it; None where nothing was.

        Raises:
            StorageError: the log cannot be written.
        """
        target = self.prepared.target
        self._write("begin", target.entry, digest=target.digest)
        self.say(HELP)
        self._do("next", "")
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            if word == "stop":
                break
            if word == "accept" and self._accept():
                assert self.current is not None
                assert self.verdict is not None
                return self.current, self.verdict
            if word != "accept":
                self._do(word, rest.strip())
        self._write("stop", "")
        return None

    def _do(self, word: str, rest: str) -> None:
        actions: dict[str, Callable[[str], None]] = {
            "next": self._next,
            "reject": self._reject,
            "edit": self._edit,
            "ask": self._ask,
            "measure": self._measure,
            "diff": self._diff,
            "profile": self._profile,
        }
        action = actions.get(word)
        if action is None:
            self.say(HELP)
            return
        try:
            action(rest)
        except SharpenError as error:
            self.say(f"{word}: {error}")

    def _show(self, attempt: Attempt) -> None:
        self.current, self.verdict = attempt, None
        what = f"{attempt.verdict}: {attempt.reason}" if attempt.reason else attempt.verdict
        if attempt.verdict == "kept":
            told = said(self.prepared.config.objective, attempt.score)
            what = f"right as far as was seen, about {told}"
        self.say(
            f"{', '.join(attempt.steps)}: {what}\n{unified(self.prepared.target, attempt.text)}"
        )

    def _next(self, rest: str) -> None:
        if self.waiting:
            attempt = self.waiting.pop(0)
            self._write("next", "", attempt)
            self._show(attempt)
        elif self.lm is not None:
            self._ask("")
        else:
            self.say("there are no more proposals; edit FILE tries one of yours")

    def _reject(self, rest: str) -> None:
        self._write("reject", rest, self.current)
        if rest:
            self.remarks.append(rest)
        self.current = self.verdict = None
        self._next("")

    def _edit(self, rest: str) -> None:
        path = Path(rest)
        if not rest or not path.is_file():
            raise MissingFileError(f"edit needs a file with the function; there is no {rest!r}.")
        code = function_in(path.read_text(encoding="utf-8"), self.prepared.target.name)
        if code is None:
            raise FileFormatError(f"{path} does not define '{self.prepared.target.name}'.")
        self._try(spliced(self.prepared.target, code), "user", "edit", rest)

    def _ask(self, rest: str) -> None:
        if self.lm is None:
            self.say("no language model is named (--llm)")
            return
        if rest:
            self.remarks.append(rest)
        tried = [one for one in self.judge.journal.attempts if one.origin == "llm"]
        best = max(tried, key=lambda one: one.score, default=None)
        prompt = question(self.prepared, best if best and best.score > 1 else None, tried)
        if self.remarks:
            prompt += "\n\nThe person who will use it says:\n" + "\n".join(self.remarks)
        self._number += 1
        for reply in ask(self.lm, prompt, 1, self.prepared.config.seed + self._number):
            code = function_in(reply, self.prepared.target.name)
            if code is None:
                self._write("ask", rest, reply=reply)
                self.say(f"the reply holds no function:\n{reply[:500]}")
            else:
                self._try(spliced(self.prepared.target, code), "llm", "ask", rest)

    def _try(self, text: str, origin: str, action: str, argument: str) -> None:
        attempt = self.judge.consider(
            Proposal(text=text, origin=origin, steps=(origin,), explain=f"By {origin}: {argument}")
        )
        self._write(action, argument, attempt)
        self._show(attempt)

    def _measure(self, rest: str) -> None:
        if self.current is None or self.current.verdict != "kept":
            self.say("there is no proposal that is right as far as was seen")
            return
        prepared = self.prepared
        self.verdict = decide(
            self.judge,
            self.current,
            prepared.corpus,
            prepared.original,
            prepared.again,
            prepared.command,
        )
        self._write("measure", "", self.current, accepted=self.verdict.accepted)
        lines = [
            f"{one.name}: {one.ratio:.3g} x [{one.low:.3g}, {one.high:.3g}]"
            for one in self.verdict.levels
        ]
        self.say("\n".join([*lines, self.verdict.reason or "it may be accepted"]))

    def _accept(self) -> bool:
        if self.verdict is None:
            self._measure("")
        if self.verdict is None or not self.verdict.accepted:
            self.say("it is not accepted: see above")
            return False
        self._write("accept", "", self.current)
        return True

    def _diff(self, rest: str) -> None:
        text = self.prepared.target.text if self.current is None else self.current.text
        self.say(unified(self.prepared.target, text) or "no change")

    def _profile(self, rest: str) -> None:
        profile = self.prepared.profile
        self.say("there is no profile" if profile is None else profile.table())

    def _write(
        self, action: str, argument: str, attempt: Attempt | None = None, **more: Any
    ) -> None:
        if self.log is None:
            return
        row: dict[str, Any] = {"format": 1, "action": action, "argument": argument, **more}
        if attempt is not None:
            row["attempt"] = replace(attempt).to_dict()
        with storage_errors(self.log), self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def replay(self, rows: list[dict[str, Any]]) -> list[str]:
        """Check the claims of a session again.

        Args:
            rows: of :func:`read_session`.

        Returns:
            What came out otherwise; empty where nothing did.

        Raises:
            FileFormatError: it belongs to another text of the file.
        """
        target = self.prepared.target
        if rows[0].get("digest") != target.digest:
            raise FileFormatError(
                f"the session is of another text of {target.file.name}: check that one out first."
            )
        found: list[str] = []
        for number, row in enumerate(rows):
            if row["action"] not in ("next", "edit", "ask", "measure") or "attempt" not in row:
                continue
            said = row["attempt"]
            self.current = self.judge.consider(
                Proposal(
                    text=said["text"],
                    origin=said["origin"],
                    steps=tuple(said["steps"]),
                    explain=said["explain"],
                    risk=said["risk"],
                )
            )
            where = f"line {number + 1}, {row['action']}"
            if self.current.verdict != said["verdict"]:
                found.append(f"{where}: {said['verdict']} then, {self.current.verdict} now")
            elif row["action"] == "measure":
                self._measure("")
                assert self.verdict is not None
                if self.verdict.accepted != row["accepted"]:
                    found.append(f"{where}: accepted {row['accepted']}, now {self.verdict.reason}")
        return found


def steered(lm: Any, log: Path | None, lines: Iterator[str], say: Say) -> Steer:
    """What lets a person choose, for :func:`sharpen.code.improver.improve.improve`.

    Args:
        lm: a language model; None without one.
        log: ``session.jsonl``.
        lines: commands.
        say: shows a text.
    """

    def steer(
        prepared: Prepared, judge: Judge, candidates: list[Attempt]
    ) -> tuple[Attempt, Verdict] | None:
        return Session(prepared, judge, list(candidates), lm, log, say).run(lines)

    return steer


def replay(
    path: str | Path, function: str, session: Path, config: ImproveConfig, say: Say
) -> list[str]:
    """Check a session again, without the person and the model.

    Args:
        path: the file.
        function: its function.
        session: ``session.jsonl``.
        config: as it was in the session.
        say: called with a line at each step.

    Returns:
        What came out otherwise; empty where nothing did.
    """
    rows = read_session(session)
    with ExitStack() as stack:
        prepared = prepare(path, function, config, stack, say=say)
        judge = judge_of(prepared, stack, out=None, sandboxed=True)
        return Session(prepared, judge, [], None, None, say).replay(rows)


def read_session(path: Path) -> list[dict[str, Any]]:
    """The last session in a file.

    Raises:
        MissingFileError: it is not there.
        FileFormatError: it is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        begins = [i for i, row in enumerate(rows) if row["action"] == "begin"]
        return rows[begins[-1] :]
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}.") from None
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise FileFormatError(f"{path} is no session of sharpen improve: {error!r}.") from None
