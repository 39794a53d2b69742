"""``sharpen code make-dataset`` and ``selfplay``: training data for models that write fast code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sharpen.cli.common import Output, command

if TYPE_CHECKING:
    from sharpen.core.lm import LM

__all__ = ["register"]

Model = Annotated[
    str | None,
    typer.Option("--llm", help="The model: http://HOST:PORT/v1, local:NAME or scripted:FILE."),
]
Name = Annotated[str | None, typer.Option("--model", help="The model's name at its server.")]
Calls = Annotated[int | None, typer.Option(help="Calls of the model, at most.", min=1)]
Tokens = Annotated[int, typer.Option(help="Tokens of a reply, at most.", min=1)]
Out = Annotated[Path, typer.Option(help="The JSONL file that is written.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""

    @command(
        app,
        "make-dataset",
        example="sharpen code make-dataset --tasks own --llm local:smollm2 --out efficient.jsonl",
    )
    def make_dataset_(
        tasks: Annotated[str, typer.Option(help="own, humaneval, or a file or folder.")] = "own",
        llm: Model = None,
        model: Name = None,
        out: Out = Path("efficient.jsonl"),
        rounds: Annotated[int, typer.Option(help="Replies asked for a task.", min=1)] = 5,
        only_faster: Annotated[
            bool, typer.Option("--only-faster", help="Only tasks that were made faster.")
        ] = False,
        max_calls: Calls = None,
        max_tokens: Tokens = 1024,
        limit: Annotated[int | None, typer.Option(help="The first tasks only.", min=1)] = None,
        packages: Annotated[str, typer.Option(help="What programs may import, as in numpy.")] = "",
        seed: Annotated[int, typer.Option(help="Of the replies.")] = 0,
    ) -> Output:
        """Let a model solve tasks and make its solutions faster; keep the best of each as a row.

        As in Effi-Code: what is right comes back with its profile, and is asked for faster.
        """
        from sharpen.cli.progress import bar, observe
        from sharpen.code.problems import load_problems
        from sharpen.code.training_data import SoapConfig, make_dataset

        config = SoapConfig(rounds=rounds, only_faster=only_faster, seed=seed)
        problems = load_problems(tasks)[:limit]
        client = _client(llm, model, max_calls, max_tokens, out)
        with observe() as observer, bar(observer, "tasks", len(problems)) as advance:
            found = make_dataset(
                problems,
                client,
                out,
                config,
                packages=[one.strip() for one in packages.split(",") if one.strip()],
                on_problem=lambda _: advance(1),
            )

        def render(console: Any) -> None:
            console.print(f"{found['rows']} rows in {out}", markup=False)
            if found["speedup"] is not None:
                console.print(
                    f"{found['faster']} were made faster; median {found['speedup']:.2f} x"
                )
            for why, count in found["dropped"].items():
                console.print(f"{count} tasks without a row: {why}", markup=False)

        return Output({"format": 1, "out": str(out), **found}, render)

    @command(
        app,
        "selfplay",
        example="sharpen code selfplay --llm local:smollm2 --programs 50 --out pairs.jsonl",
    )
    def selfplay(
        llm: Model = None,
        model: Name = None,
        out: Out = Path("pairs.jsonl"),
        programs: Annotated[int, typer.Option(help="How many are invented.", min=1)] = 20,
        min_gain: Annotated[float, typer.Option(help="The least gain of a pair.")] = 1.1,
        max_calls: Calls = None,
        max_tokens: Tokens = 1024,
        seed: Annotated[int, typer.Option(help="Of the replies.")] = 0,
    ) -> Output:
        """Let a model invent programs and make them faster; keep the pairs that hold.

        As in PIE: the results are the same, the gain is measured, no program does what another did.
        """
        from sharpen.cli.progress import bar, observe
        from sharpen.code.problems import load_problems
        from sharpen.code.training_data import Pair, self_play

        known = [
            Pair(slow=p.slow, fast=p.reference) for p in load_problems("own") if p.slow is not None
        ]
        client = _client(llm, model, max_calls, max_tokens, out)
        with observe() as observer, bar(observer, "programs", programs) as advance:
            found = self_play(
                client,
                out,
                programs=programs,
                examples=known,
                min_gain=min_gain,
                seed=seed,
                on_program=lambda _: advance(1),
            )

        def render(console: Any) -> None:
            console.print(f"{found['pairs']} pairs in {out}", markup=False)
            for why, count in found["dropped"].items():
                console.print(f"{count} programs without a pair: {why}", markup=False)

        return Output({"format": 1, "out": str(out), **found}, render)


def _client(
    llm: str | None, model: str | None, max_calls: int | None, max_tokens: int, out: Path
) -> LM:
    """The model, with the replies so far kept beside the output: a killed run pays none twice."""
    from sharpen.core.errors import ConfigError
    from sharpen.core.lm import LM, Budget

    if llm is None:
        raise ConfigError("name the model: --llm http://HOST:PORT/v1, local:NAME or scripted:FILE.")
    return LM(
        llm,
        cache=out.with_name(out.name + ".replies.sqlite"),
        budget=None if max_calls is None else Budget(max_calls=max_calls),
        options=None if model is None else {"model": model},
        max_tokens=max_tokens,
    )
