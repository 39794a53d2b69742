"""What every command shares: ``--json``, verbosity, errors without tracebacks, exit codes."""

from __future__ import annotations

import inspect
import json
import logging
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.core.errors import Interrupted, SharpenError

__all__ = [
    "Output",
    "command",
    "console",
    "default_command",
    "error_console",
    "flags",
    "new_app",
    "report",
]

_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
_VERBOSE = Annotated[bool, typer.Option("--verbose", "-v", help="Print what is decided and why.")]
_DEBUG = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]
_FLAGS: dict[str, Any] = {"as_json": _JSON, "quiet": _QUIET, "verbose": _VERBOSE, "debug": _DEBUG}


@dataclass(frozen=True, slots=True)
class Output:
    """What a command returns."""

    document: Any
    """Plain data for ``--json``."""

    render: Callable[[Any], None] | None = None
    """Prints the same for people, on a rich console; None prints nothing."""

    exit_code: int = 0
    """The command's exit code."""


@dataclass(slots=True)
class _Flags:
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False


flags = _Flags()
"""Flags of the command being run; one command runs in a process."""


def console() -> Any:
    """A rich console on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def error_console() -> Any:
    """A rich console on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def new_app(help_text: str) -> typer.Typer:
    """A group of commands with this package's settings."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )


def command(
    app: typer.Typer, name: str, *, example: str, aliases: tuple[str, ...] = ()
) -> Callable[[Callable[..., Output]], Callable[..., Output]]:
    """Register a function that returns an :class:`Output` as a command of ``app``.

    The command gets ``--json``, ``--quiet``, ``--verbose`` and ``--debug``; errors are printed
    without a traceback and end the process with the error's exit code.

    Args:
        app: the group.
        name: the command's name.
        example: a line that works, shown under ``--help``.
        aliases: further names.
    """

    def register(function: Callable[..., Output]) -> Callable[..., Output]:
        def run(**arguments: Any) -> None:
            for flag in _FLAGS:
                setattr(flags, flag, arguments.pop(flag))
            raise typer.Exit(_guarded(function, arguments))

        _with_flags(run, function)
        for one in (name, *aliases):
            app.command(one, epilog=f"Example:  {example}", hidden=one != name)(run)
        return function

    return register


def default_command(
    app: typer.Typer, *, example: str
) -> Callable[[Callable[..., Output]], Callable[..., Output]]:
    """Register a function as what a group of commands does when none is named.

    Args:
        app: the group.
        example: a line that works, shown under ``--help``.
    """

    def register(function: Callable[..., Output]) -> Callable[..., Output]:
        def run(**arguments: Any) -> None:
            if arguments.pop("context").invoked_subcommand is not None:
                return
            for flag in _FLAGS:
                setattr(flags, flag, arguments.pop(flag))
            raise typer.Exit(_guarded(function, arguments))

        context = inspect.Parameter(
            "context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
        )
        _with_flags(run, function, context)
        app.callback(invoke_without_command=True, epilog=f"Example:  {example}")(run)
        return function

    return register


def _with_flags(
    run: Callable[..., None], function: Callable[..., Output], *more: inspect.Parameter
) -> None:
    """Let ``run`` look like ``function`` with the flags of every command."""
    signature = inspect.signature(function, eval_str=True)
    extra = [
        inspect.Parameter(
            flag, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
        )
        for flag, annotation in _FLAGS.items()
    ]
    parameters = [*signature.parameters.values(), *extra, *more]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = inspect.getdoc(function)


def _guarded(function: Callable[..., Output], arguments: Mapping[str, Any]) -> int:
    level = logging.WARNING
    if flags.verbose or flags.debug:
        level = logging.DEBUG if flags.debug else logging.INFO
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("sharpen").setLevel(level)
    try:
        output = function(**arguments)
    except SharpenError as error:
        return report(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        return report(error, "interrupted.", Interrupted.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away; nobody is left to tell
        return 1
    except MemoryError as error:
        return report(error, f"out of memory: {error}. Use a smaller model or batch.", 1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return report(error, f"{error.strerror or error}{where}.", 1)
    if flags.as_json:
        sys.stdout.write(json.dumps(plain(output.document), ensure_ascii=False) + "\n")
    elif output.render is not None:
        output.render(console())
    return output.exit_code


def report(error: BaseException, message: str, code: int) -> int:
    """Print an error as the flags say; returns its exit code."""
    if flags.debug:
        traceback.print_exception(error)
    if flags.as_json:
        document = {"error": {"type": type(error).__name__, "message": message, "exit_code": code}}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    error_console().print("[bold red]error:[/] ", end="")
    sys.stderr.write(f"{message}\n")
    return code


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: NaN and infinities become null, paths text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
