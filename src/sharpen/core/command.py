"""Any program as a problem: values go in as arguments, metrics come out as a line of JSON.

The command is split as a shell would split it, but no shell runs it: a value is one argument (or a
part of one) whatever characters it has. The metrics are the last line of standard output that is a
JSON object.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, ExecutionError, did_you_mean
from sharpen.core.problem import Constraint, Objective, TrialContext, check_names
from sharpen.core.space import Space

__all__ = ["CommandProblem"]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.-]*)\}")
_SPECIAL = ("seed", "trial")
_TAIL_LINES = 15


class CommandProblem:
    """A command line whose ``{name}`` placeholders are parameters; see the module.

    ``{seed}`` and ``{trial}`` stand for the trial's seed and number, unless parameters are called
    so. An argument with the placeholder of an inactive parameter is left out. ``python`` is the
    interpreter that runs this package.

    Args:
        command: such as ``"python train.py --lr={lr}"``.
        space: what to search over.
        objectives: keys of the printed JSON.
        constraints: on keys of the printed JSON.
        name: of the problem.
        folder: where it runs; default the working folder.

    Raises:
        ConfigError: unbalanced quotes, an empty command, or a placeholder that is no parameter.
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
    ) -> None:
        self.command = command
        self.space = space
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.name = name
        self.folder = str(folder) if folder is not None else None
        check_names(self.objectives, self.constraints)
        try:
            self.arguments = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"the command {command!r} cannot be split: {error}.") from None
        if not self.arguments:
            raise ConfigError("the command is empty.")
        known = [*space, *_SPECIAL]
        for used in self._placeholders(command):
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
        values = {"seed": trial.seed, "trial": trial.number, **config}
        line = []
        for argument in self.arguments:
            if all(name in values for name in self._placeholders(argument)):
                line.append(_PLACEHOLDER.sub(lambda m: _text(values[m[1]]), argument))
        return line

    def evaluate(self, config: dict[str, Any], trial: TrialContext) -> dict[str, Any]:
        """Run the command; see :meth:`Problem.evaluate`.

        Raises:
            ExecutionError: it cannot be started, fails, or prints no line of JSON.
        """
        line = self.command_line(config, trial)
        # The folder of this interpreter comes first, so that `python` has the same packages.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        try:
            # No process group of its own: a worker that is killed takes it along.
            done = subprocess.run(
                line,
                cwd=self.folder,
                env={**os.environ, "PATH": path},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise ExecutionError(f"cannot start {shlex.join(line)}: {error.strerror}.") from None
        if done.returncode:
            how = f"failed with exit code {done.returncode}"
            if done.returncode < 0:
                how = f"died of signal {signal.Signals(-done.returncode).name}"
            raise ExecutionError(f"{shlex.join(line)} {how}:\n{_tail(done.stderr)}")
        for text in reversed(done.stdout.decode("utf-8", "replace").splitlines()):
            if text.lstrip().startswith("{"):
                try:
                    metrics = json.loads(text)
                except json.JSONDecodeError:
                    continue
                assert isinstance(metrics, dict)
                return metrics
        raise ExecutionError(
            f"{shlex.join(line)} printed no line of JSON. Its last line should be, for example, "
            f'{{"{self.objectives[0].name}": 0.5}}. It printed:\n{_tail(done.stdout)}'
        )


def _text(value: Any) -> str:
    """A value as an argument: shortest floats, true and false, tuples as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value)


def _tail(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])
