"""``sharpen code bench``: how long a function takes, or which of two is faster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command

__all__ = ["register"]

Target = Annotated[str, typer.Argument(help="FILE.py:FUNCTION.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "bench", example="sharpen code bench slow.py:f fast.py:f --inputs cases.json")
    def bench(
        target: Target,
        other: Annotated[
            str | None, typer.Argument(help="Another, that is compared with it.")
        ] = None,
        inputs: Annotated[
            str, typer.Option(help="A JSON list of calls, or FILE.py:NAME that gives one.")
        ] = "",
        clock: Annotated[
            str, typer.Option(help="cpu, thread (of one thread alone) or wall.")
        ] = "cpu",
        budget: Annotated[float, typer.Option(help="Seconds for a comparison.")] = 10.0,
        min_effect: Annotated[float, typer.Option(help="The least ratio that matters.")] = 1.025,
        instructions: Annotated[
            bool,
            typer.Option("--instructions", help="Count those of the machine too, by valgrind."),
        ] = False,
        root: Annotated[
            Path | None, typer.Option(help="The folder that imports start from.")
        ] = None,
    ) -> Output:
        """Time a function of your own, or compare two in interleaved pairs.

        The code is run as it is, without a sandbox: it must be yours.
        """
        from sharpen.code.inputs import read_inputs, read_program
        from sharpen.code.measure import compare, count_instructions, measure
        from sharpen.core.errors import ConfigError

        if not inputs:
            raise ConfigError("name the inputs: --inputs cases.json, or --inputs cases.py:NAME.")
        program, calls = read_program(target, root=root), read_inputs(inputs)
        if other is None:
            figures = measure(program, calls, clock=clock)
            counted = count_instructions(program, calls) if instructions else None
            document = {"format": 1, "target": target, **figures.to_dict()}
            document["instructions"] = counted

            def render(console: Any) -> None:
                console.print("  input        seconds    spread       opcodes")
                rows = zip(figures.seconds, figures.spread, figures.opcodes, strict=True)
                for i, (seconds, spread, opcodes) in enumerate(rows):
                    console.print(f"{i:>7}  {seconds:>13.6g}  {spread:>7.1%}  {opcodes:>12,}")
                console.print(f"memory: {figures.peak_mib:.1f} MiB")
                if counted is not None:
                    console.print(f"machine instructions: {counted:,.0f}")
                if figures.growth is not None:
                    power, sure = figures.growth.exponent, figures.growth.r2
                    console.print(f"time grows with n^{power:.2f} (r2 {sure:.3f})")

            return Output(document, render)
        second = read_program(other, root=root)
        found = compare(
            program,
            second,
            calls,
            clock=clock,
            budget_s=budget,
            min_effect=min_effect,
            opcodes=True,
        )
        both = [count_instructions(p, calls) for p in (program, second)] if instructions else None
        document = {"format": 1, "a": target, "b": other, **found.to_dict(), "instructions": both}

        def render_both(console: Any) -> None:
            console.print(f"{other} is {found.summary()}", markup=False)
            console.print(f"{found.a_s:.6g} s and {found.b_s:.6g} s, one call of each input")
            if both is not None:
                console.print(f"machine instructions: {both[0]:,.0f} and {both[1]:,.0f}")

        return Output(document, render_both)
