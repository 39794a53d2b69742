"""``sharpen code eval``: whether programs are right, and how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "eval", example="sharpen code eval own --samples samples.jsonl --k 1,10")
    def evaluate_(
        problems: Annotated[
            str,
            typer.Argument(
                help="own, humaneval, humaneval-levels, enamel, or a file or folder of yours.",
                show_default=False,
            ),
        ],
        samples: Annotated[
            str,
            typer.Option(
                help="A .json or .jsonl file of programs, or reference, or canonical.",
                show_default=False,
            ),
        ] = "",
        data: Annotated[
            Path | None, typer.Option(help="The file of the set, such as enamel.csv.")
        ] = None,
        k: Annotated[str, typer.Option(help="Of pass@k and eff@k, as in 1,10.")] = "1",
        clock: Annotated[
            str, typer.Option(help="cpu (processor time), wall or opcodes (instructions).")
        ] = "cpu",
        jobs: Annotated[int, typer.Option(help="Problems at a time.", min=1)] = 1,
        limit: Annotated[
            int | None, typer.Option(help="The first so many problems only.", min=1)
        ] = None,
        some: Annotated[
            bool, typer.Option("--some", help="Only the problems that have samples.")
        ] = False,
        packages: Annotated[
            str, typer.Option(help="Installed packages that programs may import, as in numpy.")
        ] = "",
        out: Annotated[
            Path | None, typer.Option(help="Where the report goes; a killed run then resumes.")
        ] = None,
    ) -> Output:
        """Run programs on the problems of a set, in sandboxes.

        Problems with inputs in several sizes are timed, as in ENAMEL; tests have to pass where
        there are some.
        """
        from sharpen.cli.progress import bar, observe
        from sharpen.code.evaluate import EvalConfig, evaluate, read_samples
        from sharpen.code.problems import load_problems
        from sharpen.core.errors import ConfigError

        if not samples:
            raise ConfigError("name the programs: --samples FILE, or reference, or canonical.")
        config = EvalConfig(clock=clock, k=_numbers(k), jobs=jobs)  # type: ignore[arg-type]
        chosen = load_problems(problems, data=data)[:limit]
        programs = read_samples(samples, chosen, some=some)
        with observe() as observer, bar(observer, "problems", len(programs)) as advance:
            report = evaluate(
                chosen,
                programs,
                config,
                out=out,
                packages=[name.strip() for name in packages.split(",") if name.strip()],
                on_problem=lambda name: advance(1),
            )
        return Output({"set": problems, **report}, lambda console: _render(console, report, out))


def _numbers(text: str) -> tuple[int, ...]:
    from sharpen.core.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--k {text}: write numbers, as in 1,10.") from None


def _render(console: Any, report: dict[str, Any], out: Path | None) -> None:
    from rich.table import Table

    table = Table("", "value", "95 % interval", "")
    for name, one in report["metrics"].items():
        more = ""
        if "optimized" in one:
            more = f"median {one['median']:.2f}, {one['optimized']:.0%} at least 1.1"
        table.add_row(name, f"{one['value']:.4g}", f"{one['low']:.4g} to {one['high']:.4g}", more)
    console.print(table)
    console.print(f"{report['samples']} programs for {len(report['problems'])} problems")
    failed = [
        (name, why)
        for name, one in report["problems"].items()
        for why, passed in zip(one["why"], one["passed"], strict=True)
        if not passed
    ]
    for name, why in failed[:10]:
        console.print(f"{name}: {why}", markup=False, soft_wrap=True)
    if len(failed) > 10:
        console.print(f"... and {len(failed) - 10} more that did not pass")
    if report["suspicious"]:
        console.print(f"{report['suspicious']} programs whose times are not believed")
    if out is not None:
        console.print(f"report: {out}", markup=False, soft_wrap=True)
