"""Any program as a problem: values go in as arguments, metrics come out as a line of JSON.

The command is split as a shell would split it, but no shell runs it: a value is one argument (or a
part of one) whatever characters it has. The metrics are the last line of standard output that is a
JSON object; or the last of a file; or the last number that a pattern finds. Lines with a ``step``
are points of a learning curve, and a trial that is not worth going on is ended at one of them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, ExecutionError, KilledError, did_you_mean
from sharpen.core.problem import Constraint, Fidelity, Objective, TrialContext, check_names
from sharpen.core.space import Space

__all__ = ["CommandProblem"]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.-]*)\}")
_SPECIAL = ("seed", "trial")
_TAIL_LINES = 15


class CommandProblem:
    """A command line whose ``{name}`` placeholders are parameters; see the module.

    ``{seed}`` and ``{trial}`` stand for the trial's seed and number, unless parameters are called
    so, and the fidelity's name for how closely to measure. An argument with the placeholder of an
    inactive parameter is left out. ``python`` is the interpreter that runs this package.

    Args:
        command: such as ``"python train.py --lr={lr}"``.
        space: what to search over.
        objectives: keys of the printed JSON.
        constraints: on keys of the printed JSON.
        name: of the problem.
        folder: where it runs; default the working folder.
        metrics: where the values are: ``"stdout"``; ``"file:PATH"``, a file whose last line of JSON
            has them (a path in ``folder``, with placeholders); or ``"regex:PATTERN"``, whose last
            match in the output has the only objective in its first group.
        fidelity: how closely the program may be asked to measure.

    Raises:
        ConfigError: unbalanced quotes, an empty command, a placeholder that is no parameter, or
            metrics of another form.
    """

    def __init__(
        self,
        command: str,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        *,
        name: str = "command",
        folder: str | Path | None = None,
        metrics: str = "stdout",
        fidelity: Fidelity | None = None,
    ) -> None:
        self.command = command
        self.space = space
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.name = name
        self.folder = str(folder) if folder is not None else None
        self.fidelity = fidelity
        self.metrics = metrics
        self._pattern = self._check_metrics(metrics)
        check_names(self.objectives, self.constraints)
        try:
            self.arguments = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"the command {command!r} cannot be split: {error}.") from None
        if not self.arguments:
            raise ConfigError("the command is empty.")
        known = [*space, *_SPECIAL, *([fidelity.name] if fidelity is not None else [])]
        if fidelity is not None and fidelity.name in space:
            raise ConfigError(f"'{fidelity.name}' is both a parameter and the fidelity.")
        for used in self._placeholders(command + metrics.partition("file:")[2]):
            if used not in known:
                raise ConfigError(
                    f"the command has the placeholder {{{used}}}, which is no parameter."
                    f"{did_you_mean(used, known)} Parameters: {', '.join(space)}."
                )

    @staticmethod
    def _placeholders(text: str) -> list[str]:
        return _PLACEHOLDER.findall(text)

    def command_line(self, config: dict[str, Any], trial: TrialContext) -> list[str]:
        """The arguments for a configuration."""
        values = self._values(config, trial)
        line = []
        for argument in self.arguments:
            if all(name in values for name in self._placeholders(argument)):
                line.append(_PLACEHOLDER.sub(lambda m: _text(values[m[1]]), argument))
        return line

    def _values(self, config: dict[str, Any], trial: TrialContext) -> dict[str, Any]:
        """What placeholders stand for."""
        values = {"seed": trial.seed, "trial": trial.number, **config}
        if self.fidelity is not None:
            closely = self.fidelity.high if trial.fidelity is None else trial.fidelity
            values[self.fidelity.name] = int(closely) if self.fidelity.integer else closely
        return values

    def _check_metrics(self, metrics: str) -> re.Pattern[str] | None:
        kind, _, rest = metrics.partition(":")
        if metrics == "stdout" or (kind == "file" and rest):
            return None
        if kind != "regex" or not rest:
            raise ConfigError(
                f"metrics={metrics!r} must be stdout, file:PATH or regex:PATTERN, such as "
                "'regex:accuracy: ([0-9.]+)'."
            )
        try:
            pattern = re.compile(rest)
        except re.error as error:
            raise ConfigError(f"the pattern {rest!r} cannot be read: {error}.") from None
        if pattern.groups != 1 or len(self.objectives) != 1 or self.constraints:
            raise ConfigError(f"the pattern {rest!r} must have one group, for the only objective.")
        return pattern

    def evaluate(self, config: dict[str, Any], trial: TrialContext) -> dict[str, Any]:
        """Run the command; see :meth:`Problem.evaluate`.

        Raises:
            ExecutionError: it cannot be started, fails, or gives no metrics.
        """
        line = self.command_line(config, trial)
        file = self._file(config, trial)
        if file is not None:
            file.unlink(missing_ok=True)  # an earlier trial's must not count
        code, lines, errors = self._run(line, trial)
        if code and not trial.stopped:
            how = f"failed with exit code {code}"
            if code < 0:
                how = f"died of signal {signal.Signals(-code).name}"
            kind = KilledError if code == -signal.SIGKILL else ExecutionError
            raise kind(f"{shlex.join(line)} {how}:\n{_tail(errors)}")
        if file is not None:
            if not file.exists():
                raise ExecutionError(f"{shlex.join(line)} wrote no file {file}.")
            lines = file.read_text(errors="replace").splitlines()
        metrics = self._read(lines)
        if metrics is None:
            wanted = (
                f"nothing that {self._pattern.pattern!r} finds"
                if self._pattern is not None
                else "no line of JSON. Its last line should be, for example, "
                f'{{"{self.objectives[0].name}": 0.5}}'
            )
            raise ExecutionError(
                f"{shlex.join(line)} printed {wanted}. It printed:\n" + _tail("\n".join(lines))
            )
        return metrics

    def _file(self, config: dict[str, Any], trial: TrialContext) -> Path | None:
        """Where the metrics will be; None is standard output."""
        if not self.metrics.startswith("file:"):
            return None
        values = self._values(config, trial)
        name = _PLACEHOLDER.sub(lambda m: _text(values.get(m[1], "")), self.metrics[5:])
        return Path(self.folder or ".") / name

    def _run(self, line: list[str], trial: TrialContext) -> tuple[int, list[str], str]:
        """Carry the command out; returns its exit code and what it printed."""
        # The folder of this interpreter comes first, so that `python` has the same packages.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        with tempfile.TemporaryFile() as errors:
            try:
                # No process group of its own: a worker that is killed takes it along.
                process = subprocess.Popen(
                    line,
                    cwd=self.folder,
                    env={**os.environ, "PATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
            except OSError as error:
                raise ExecutionError(
                    f"cannot start {shlex.join(line)}: {error.strerror}."
                ) from None
            with process:
                assert process.stdout is not None
                lines = []
                for raw in process.stdout:
                    text = raw.decode("utf-8", "replace").rstrip("\n")
                    lines.append(text)
                    if self._is_hopeless(text, trial):
                        process.kill()
                        break
            errors.seek(0)
            return process.returncode, lines, errors.read().decode("utf-8", "replace")

    def _is_hopeless(self, text: str, trial: TrialContext) -> bool:
        """Report a point of the learning curve, if ``text`` is one."""
        found = _json_object(text) or {}
        step, value = found.get("step"), found.get(self.objectives[0].name)
        if not isinstance(step, int) or not isinstance(value, (int, float)):
            return False
        return trial.report(step, value) == "stop"

    def _read(self, lines: list[str]) -> dict[str, Any] | None:
        """The metrics among what was printed."""
        for text in reversed(lines):
            if self._pattern is None:
                found = _json_object(text)
                if found is not None:
                    return found
            else:
                matches = self._pattern.findall(text)
                if matches:
                    try:
                        return {self.objectives[0].name: float(matches[-1])}
                    except ValueError:
                        raise ExecutionError(
                            f"{self._pattern.pattern!r} found {matches[-1]!r}, which is no number."
                        ) from None
        return None


def _json_object(text: str) -> dict[str, Any] | None:
    """What a line holds, if that is a JSON object."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found


def _text(value: Any) -> str:
    """A value as an argument: shortest floats, true and false, tuples as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value)


def _tail(output: str) -> str:
    return "\n".join(output.splitlines()[-_TAIL_LINES:])
