"""The ``sharpen`` command.

A command's file is imported only when that command is run, so ``sharpen --help`` is quick.
"""

from __future__ import annotations

import importlib
import os
import sys

import typer

from sharpen._version import __version__
from sharpen.cli.common import flags, new_app, report

__all__ = ["main"]

COMMANDS = {
    "run": "Carry out a recipe, from data to a served model.",
    "plan": "Tell whether a recipe fits, what takes the memory, and how long it takes.",
    "tune": "Search over a recipe's settings.",
    "data": "Clean a corpus, find duplicates, and see why each row went.",
    "train": "Carry out a recipe up to its last training stage.",
    "align": "Learn from feedback: preferences, labels, rankings, rewards.",
    "compress": "Quantize or prune a model's weights.",
    "eval": "Measure a model: perplexity, choices, exact match.",
    "serve": "Serve a model over an OpenAI-compatible HTTP API.",
    "monitor": "Tell whether what a served model is asked has drifted.",
    "chat": "Talk with a model in the terminal.",
    "search": "Run, join and inspect studies.",
    "text": "Programs made of calls to language models.",
    "improve": "Make a function faster, and keep that only where no difference shows.",
    "code": "Run programs that nobody trusts, time your own, evaluate those of models.",
    "ui": "Show studies and runs in the browser, live.",
    "bench": "Measure what training costs on this machine.",
    "assets": "List, locate and verify models and corpora that ship in packages.",
    "systems": "Print the catalog of systems and how far each is.",
    "doctor": "Check this machine and this installation.",
}
_HELP = (
    "Take a model from data to deployment at the limit of the hardware you have.\n\n"
    "Start with:  sharpen run examples/quickstart.yaml"
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def build_app(arguments: list[str]) -> typer.Typer:
    """The application; only the command named in ``arguments`` is imported."""
    app = new_app(_HELP)

    @app.callback()
    def root(
        version: bool = typer.Option(
            False, "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ) -> None:
        """Nothing to do before a command."""

    wanted = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        if name == wanted:
            module = importlib.import_module(f"sharpen.cli.{name}")
            if hasattr(module, "app"):
                app.add_typer(module.app, name=name, help=summary)
            else:
                module.register(app)
        else:
            app.command(name, help=summary)(_unloaded)
    return app


def _unloaded() -> None:
    """Stands for a command that was not named; never called."""


def main() -> None:
    """Run the command line and exit with its code."""
    # Worker threads that wait by spinning take the cores from whatever else runs: with one other
    # busy process two threads decoded 20 times slower. OpenMP reads this when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    arguments = sys.argv[1:]
    app = build_app(arguments)
    if "--json" not in arguments:
        app()
        return
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise  # not one of the parser's errors
        flags.as_json = True
        code = report(error, explain(), 2)
    sys.exit(code)


if __name__ == "__main__":
    main()
