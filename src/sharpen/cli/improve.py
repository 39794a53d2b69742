"""``sharpen improve``: make a function faster without a difference that shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, error_console, flags

__all__ = ["register"]

Target = Annotated[
    str,
    typer.Argument(
        help="FILE.py:FUNCTION, FILE.py:Class.method, or a folder whose slowest functions are"
        " improved.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "improve", example="sharpen improve examples/code/slow.py:pairs_with_sum")
    def improve(
        target: Target,
        tests: Annotated[
            str,
            typer.Option(
                help="A folder or file for pytest, or a command; none for no tests. Without it the "
                "file of tests that has the module's name."
            ),
        ] = "",
        inputs: Annotated[
            str, typer.Option(help="A JSON list of calls, or FILE.py:NAME that gives one.")
        ] = "",
        program: Annotated[
            str, typer.Option("--command", help="A program to profile and record, for a folder.")
        ] = "",
        top: Annotated[int, typer.Option(help="For a folder: how many functions.")] = 5,
        objective: Annotated[
            str,
            typer.Option(help="What is made less: cpu, wall, memory, tmu, opcodes, instructions."),
        ] = "cpu",
        equal: Annotated[
            str,
            typer.Option(help="exact, close:rtol=1e-9,atol=0, ulp:4 or mod:FILE.py:NAME."),
        ] = "exact",
        propose: Annotated[str, typer.Option(help="Who proposes: rewrite,llm.")] = "rewrite,llm",
        llm: Annotated[
            str, typer.Option(help="A language model: http://..., local:NAME or scripted:FILE.")
        ] = "",
        model: Annotated[str, typer.Option(help="The model's name on its server.")] = "",
        trust_llm: Annotated[
            bool, typer.Option("--trust-llm", help="Run the model's code outside of the sandbox.")
        ] = False,
        allow: Annotated[
            str, typer.Option(help="Packages that may be imported, as in numpy,numba.")
        ] = "",
        budget: Annotated[str, typer.Option(help="Time for the search, as in 90s or 5m.")] = "30s",
        tries: Annotated[int, typer.Option(help="Most proposals that are tried.")] = 200,
        min_gain: Annotated[
            float, typer.Option(help="Least gain, by the lower end of the interval.")
        ] = 1.10,
        max_regress: Annotated[
            float, typer.Option(help="Most slowdown at any size of inputs.")
        ] = 1.02,
        max_memory: Annotated[
            float, typer.Option(help="Most growth of peak memory, in times; 16 MiB are free.")
        ] = 2.0,
        symbolic: Annotated[
            str,
            typer.Option(help="Time in which crosshair solves for arguments that differ, as 30s."),
        ] = "",
        levels: Annotated[int, typer.Option(help="Sizes of inputs that are timed.")] = 3,
        seed: Annotated[int, typer.Option(help="Of the inputs that are made up.")] = 0,
        root: Annotated[
            Path | None, typer.Option(help="The folder that imports start from.")
        ] = None,
        out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("improve_out"),
        apply: Annotated[
            bool, typer.Option("--apply", help="Write the change, and run the tests again.")
        ] = False,
        check: Annotated[
            bool, typer.Option("--check", help="Write nothing; exit 1 where there is a gain.")
        ] = False,
        annotations: Annotated[
            str, typer.Option(help="github: also print a line that it shows at the function.")
        ] = "",
        interactive: Annotated[
            bool, typer.Option("--interactive", help="Choose among proposals yourself.")
        ] = False,
        replay: Annotated[
            Path | None, typer.Option(help="Check the claims of a session.jsonl again.")
        ] = None,
        fail_on_no_gain: Annotated[
            bool, typer.Option("--fail-on-no-gain", help="Exit 1 where nothing better is found.")
        ] = False,
    ) -> Output:
        """Make a function faster, and keep that only where no difference shows.

        The file is changed with --apply alone; the patch, a report and a test go to --out.
        """
        from sharpen.code.improver.annotations import annotation
        from sharpen.code.improver.config import ImproveConfig
        from sharpen.code.improver.improve import improve as improve_function
        from sharpen.code.improver.output import apply_result, write_results
        from sharpen.core.errors import ConfigError, Interrupted

        if annotations not in ("", "github"):
            raise ConfigError(f"--annotations {annotations!r}: github is what there is.")
        if check and apply:
            raise ConfigError("--check writes nothing and --apply writes: give one of them.")
        config = ImproveConfig(
            tests=tests or None,
            inputs=inputs or None,
            objective=objective,
            equal=equal,
            propose=_words(propose),
            allow=_words(allow),
            budget_s=_seconds(budget, "--budget"),
            tries=tries,
            min_gain=min_gain,
            max_regress=max_regress,
            max_memory=max_memory,
            symbolic_s=_seconds(symbolic, "--symbolic") if symbolic else 0.0,
            levels=levels,
            seed=seed,
            trust_llm=trust_llm,
            root=None if root is None else str(root),
        )
        say = _say
        lm = _model(llm, model, config.propose, say)
        place = None if check else out
        if Path(target).is_dir():
            return _folder(Path(target), program, tests, top, config, lm, place, fail_on_no_gain)
        file, entry = _split(target)
        if replay is not None:
            return _replay(file, entry, replay, config)
        steer = None
        if interactive:
            from sharpen.code.improver.session import steered

            log = None if place is None else place / "session.jsonl"
            steer = steered(lm, log, _commands(), say)
        try:
            result = improve_function(
                file, entry, lm=lm, out=place, config=config, say=say, steer=steer
            )
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; run the same command again: what was tried is not tried twice."
            ) from None
        applied = ""
        if not check:
            write_results(result, out, config)
            if apply and result.improved:
                applied = apply_result(result, config)
        document = {**result.to_dict(), "out": None if check else str(out), "applied": applied}

        def render(console: Any) -> None:
            console.print(result.summary(), markup=False, soft_wrap=True)
            if result.improved:
                console.print(f"\n{result.explain}\n\n{result.patch}", markup=False, soft_wrap=True)
            for note in result.notes:
                console.print(f"note: {note}", markup=False)
            if annotations:
                console.print(annotation(result), markup=False, soft_wrap=True)
            if check:
                return
            if applied:
                console.print(f"{applied}; {out}/report.md tells what was checked", markup=False)
            elif result.improved:
                console.print(f"apply it:  git apply {out}/patch.diff", markup=False)

        code = 0
        if (check and result.improved) or (fail_on_no_gain and not result.improved):
            code = 1
        return Output(document, render, code)


def _folder(
    folder: Path,
    program: str,
    tests: str,
    top: int,
    config: Any,
    lm: Any,
    out: Path | None,
    fail_on_no_gain: bool,
) -> Output:
    """Improve the functions of a folder in which a program spends its time."""
    from sharpen.code.improver.hot import find_hot, improve_hot
    from sharpen.code.improver.output import write_results
    from sharpen.code.improver.testing import command_of
    from sharpen.core.errors import ConfigError

    if not (program or tests):
        raise ConfigError(f"{folder} is a folder: say what runs it, with --tests or --command.")
    command = command_of(program or tests)
    hot = find_hot(command, folder)[:top]
    outcomes = improve_hot(
        hot, command=command, tests=tests or None, config=config, lm=lm, out=out, say=_say
    )
    rows = []
    for one in outcomes:
        row: dict[str, Any] = {
            "target": f"{one.hot.file}:{one.hot.entry}",
            "share": one.hot.share,
            "calls": one.hot.calls,
            "error": one.error,
        }
        if one.result is not None:
            row |= one.result.to_dict() | {"target": row["target"]}
            if out is not None:
                write_results(one.result, out / f"{one.hot.file.stem}.{one.hot.entry}", config)
        rows.append(row)
    gains = sum(bool(row.get("improved")) for row in rows)

    def render(console: Any) -> None:
        for row in rows:
            why = row["error"] or row["why"]
            said = f"{row['gain']['ratio']:.3g} x" if row.get("improved") else why
            name = Path(row["target"]).name
            console.print(f"{row['share']:>6.1%}  {name}: {said.splitlines()[0]}", markup=False)

    checked = out is None
    code = 1 if (checked and gains) or (fail_on_no_gain and not gains) else 0
    return Output({"format": 1, "functions": rows, "improved": gains}, render, code)


def _commands() -> Iterator[str]:
    """Lines that a person types, or that come through a pipe."""
    while True:
        if sys.stdin.isatty():
            error_console().print("> ", end="")
        line = sys.stdin.readline()
        if not line:
            return
        yield line


def _replay(file: str, entry: str, session: Path, config: Any) -> Output:
    from sharpen.code.improver.session import replay

    found = replay(file, entry, session, config, _say)

    def render(console: Any) -> None:
        console.print("\n".join(found) or "every decision came out as it was", markup=False)

    return Output({"format": 1, "differences": found}, render, 1 if found else 0)


def _say(text: str) -> None:
    if not flags.quiet and not flags.as_json:
        error_console().print(text, markup=False, soft_wrap=True)


def _split(target: str) -> tuple[str, str]:
    from sharpen.core.errors import ConfigError

    file, colon, entry = target.rpartition(":")
    if not colon or not file or not entry:
        raise ConfigError(f"{target!r} must be FILE.py:FUNCTION, such as slow.py:pairs_with_sum.")
    return file, entry


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _seconds(text: str, option: str) -> float:
    from sharpen.core.errors import ConfigError

    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise ConfigError(f"{option} {text!r}: write 90s, 5m or 1h.") from None


def _model(llm: str, model: str, propose: tuple[str, ...], say: Any) -> Any:
    """The language model that was named, or that the environment names; None without one."""
    import os

    named = llm or os.environ.get("SHARPEN_LLM_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
    if "llm" not in propose:
        return None
    if not named:
        say("no language model is named (--llm): rules alone propose")
        return None
    from sharpen.core.lm import LM

    return LM(named, options={"model": model} if model else None)
