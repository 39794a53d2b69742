"""A simulator that is a program of its own, as a problem: DRAMSys, Timeloop, gem5 and the like.

Each trial gets a fresh folder. Templates are written into it with the trial's values, the command
runs there, and a parser finds the metrics in what it printed or wrote. In templates and command
``{name}`` stands for a parameter, ``{root}`` for the folder in which the study was started; braces
around anything else stay, so that JSON, YAML and source code are templates as they stand.
"""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.core.command import CommandProblem
from sharpen.core.errors import ConfigError, ExecutionError, KilledError, MissingFileError
from sharpen.core.problem import Constraint, Objective, TrialContext
from sharpen.core.space import Space

__all__ = ["ExternalSimulator"]

Parser = Mapping[str, str] | Callable[[str, Path], Mapping[str, Any]]
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.-]*)\}")
_TAIL_LINES = 15


class ExternalSimulator(CommandProblem):
    """A program that reads files and prints or writes a report; see the module.

    Args:
        command: split as a shell would, but no shell runs it; a program given by a relative path
            is looked for in ``root``.
        space: what to search over.
        objectives: names of metrics that the parser finds.
        constraints: on such metrics.
        template: a file that is written into the trial's folder under its own name, or several by
            the names that they get there.
        parser: patterns by metric, each with one group, whose last match in the report counts; or a
            function of the printed text and the trial's folder that gives the metrics.
        report: the file, in the trial's folder, that patterns search; default what is printed.
        root: default the working folder.
        keep: folder in which the trials' folders stay, under their numbers; default none stays.
        name: of the problem.

    Raises:
        ConfigError: a parameter that neither the command nor a template uses, or a bad pattern.
        MissingFileError: a template that does not exist.
    """

    def __init__(
        self,
        command: str,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        *,
        template: str | Path | Mapping[str, str | Path] | None = None,
        parser: Parser,
        report: str | None = None,
        root: str | Path = ".",
        keep: str | Path | None = None,
        name: str = "external",
    ) -> None:
        self.root = Path(root).resolve()
        self.templates = self._read_templates(template)
        self.report = report
        self.keep = None if keep is None else Path(keep).resolve()
        self._parse = _pattern_parser(parser) if isinstance(parser, Mapping) else parser
        super().__init__(
            command.replace("{root}", shlex.quote(str(self.root))),
            space,
            objectives,
            constraints,
            name=name,
        )
        program = Path(self.arguments[0])
        if len(program.parts) > 1 and not program.is_absolute():
            self.arguments[0] = str(self.root / program)
        used = set(self._placeholders(command))
        for text in self.templates.values():
            used |= set(_PLACEHOLDER.findall(text))
        unused = [parameter for parameter in space if parameter not in used]
        if unused:
            raise ConfigError(
                f"neither the command nor a template uses {{{unused[0]}}}, so that parameter would "
                f"change nothing. Templates: {', '.join(self.templates) or 'none'}."
            )

    def _read_templates(
        self, given: str | Path | Mapping[str, str | Path] | None
    ) -> dict[str, str]:
        if given is None:
            return {}
        files = given if isinstance(given, Mapping) else {Path(given).name: given}
        found = {}
        for name, file in files.items():
            path = self.root / file
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ConfigError(f"the template's name {name!r} must lie in the trial's folder.")
            if not path.is_file():
                raise MissingFileError(f"there is no template {path}.")
            found[name] = path.read_text(encoding="utf-8")
        return found

    def evaluate(self, config: dict[str, Any], trial: TrialContext | None = None) -> dict[str, Any]:
        """Write the templates, run the command and parse its report.

        Raises:
            ExecutionError: it cannot be started, fails, or its report lacks a metric.
        """
        trial = trial or TrialContext()
        folder = self._make_folder(trial)
        try:
            return self._evaluate_in(folder, config, trial)
        finally:
            if self.keep is None:
                shutil.rmtree(folder, ignore_errors=True)

    def _make_folder(self, trial: TrialContext) -> Path:
        if self.keep is None:
            return Path(tempfile.mkdtemp(prefix="sharpen-"))
        folder = self.keep / str(trial.number)
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
        folder.mkdir(parents=True)
        return folder

    def _evaluate_in(
        self, folder: Path, config: dict[str, Any], trial: TrialContext
    ) -> dict[str, Any]:
        values = {**self._values(config, trial), "root": str(self.root)}
        for name, text in self.templates.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_PLACEHOLDER.sub(lambda m: _filled(m, values), text), encoding="utf-8")
        line = self.command_line(config, trial)
        there = copy.copy(self)
        there.folder = str(folder)
        code, lines, errors = there._run(line, trial)
        printed = "\n".join(lines)
        if code:
            how = f"failed with exit code {code}"
            if code < 0:
                how = f"died of signal {signal.Signals(-code).name}"
            kind = KilledError if code == -signal.SIGKILL else ExecutionError
            raise kind(f"{shlex.join(line)} {how}:\n{_tail(errors or printed)}")
        text = printed
        if self.report is not None:
            path = folder / self.report
            if not path.is_file():
                raise ExecutionError(f"{shlex.join(line)} wrote no {self.report}.")
            text = path.read_text(encoding="utf-8", errors="replace")
        return dict(self._parse(text, folder))


def _filled(match: re.Match[str], values: Mapping[str, Any]) -> str:
    if match[1] not in values:
        return match[0]
    value = values[match[1]]
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _pattern_parser(patterns: Mapping[str, str]) -> Callable[[str, Path], dict[str, float]]:
    compiled = {}
    for name, pattern in patterns.items():
        try:
            compiled[name] = re.compile(pattern, re.MULTILINE)
        except re.error as error:
            raise ConfigError(f"the pattern of '{name}' cannot be read: {error}.") from None
        if compiled[name].groups != 1:
            raise ConfigError(
                f"the pattern of '{name}' has {compiled[name].groups} groups; it must have one, "
                "around the number."
            )

    def parse(text: str, folder: Path) -> dict[str, float]:
        found = {}
        for name, pattern in compiled.items():
            matches = pattern.findall(text)
            if not matches:
                raise ExecutionError(
                    f"the report has nothing that {pattern.pattern!r} ('{name}') finds. It ends:\n"
                    + _tail(text)
                )
            try:
                found[name] = float(matches[-1])
            except ValueError:
                raise ExecutionError(f"'{name}' is {matches[-1]!r}, which is no number.") from None
        return found

    return parse


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
