"""``sharpen text optimize`` and ``eval``: prompts for labelled examples."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, error_console, flags

__all__ = ["client_of", "register"]

TaskFile = Annotated[Path, typer.Argument(help="The task, a YAML file.", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option("--lm", help="The model: local:NAME, http://HOST:PORT/v1 or scripted:FILE."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", help="Its name at the server, where that has several.")
]
Calls = Annotated[
    int | None, typer.Option(help="Most calls of all models; the run stops before the next.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    _optimize(app)
    _eval(app)


def _optimize(app: typer.Typer) -> None:
    @command(app, "optimize", example="sharpen text optimize task.yaml --lm local:smollm2")
    def optimize(
        task: TaskFile,
        lm: Model = None,
        model: ModelName = None,
        proposer: Annotated[
            str | None, typer.Option(help="The model that writes instructions; default --lm.")
        ] = None,
        io: Annotated[
            str | None, typer.Option(help="How instructions are found: none, select, gepa, ...")
        ] = None,
        eo: Annotated[
            str | None, typer.Option(help="How exemplars are chosen: none, mutation, nearest, ...")
        ] = None,
        budget: Annotated[
            int | None, typer.Option(help="Full evaluations on the validation examples.")
        ] = None,
        k: Annotated[int | None, typer.Option(help="Exemplars in a prompt.")] = None,
        seed: Annotated[int | None, typer.Option(help="Of all randomness.")] = None,
        max_calls: Calls = None,
        output: Annotated[
            Path | None,
            typer.Option("--output", "-o", help="Folder of the run; default runs/TASK."),
        ] = None,
    ) -> Output:
        """Search for the best prompt; the same command goes on after a kill, paying nothing twice.

        Prompts are compared on the validation examples; the result is measured on test examples
        that nothing was chosen by. Writes result.json, prompt.json, history.jsonl, report.html.
        """
        from sharpen.text.prompts.optimize import optimize_prompt, plan
        from sharpen.text.prompts.task_file import load_task

        read = load_task(task)
        config, search = read.config, read.config.search
        folder = output or Path("runs") / (config.name or task.stem)
        limit = _limit(max_calls)
        client = client_of(lm or config.lm, model, folder, limit)
        writer = proposer or config.proposer
        given = {"io": io, "eo": eo, "budget": budget, "k": k, "seed": seed}
        chosen: dict[str, Any] = {
            name: getattr(search, name) if value is None else value for name, value in given.items()
        }
        planned = plan(
            read.val,
            read.test,
            io=chosen["io"],
            eo=chosen["eo"],
            budget=chosen["budget"],
            io_share=search.io_share,
        )
        _say(f"{len(read.val)} validation examples: {planned}")
        result = optimize_prompt(
            read.program,
            config.instruction,
            read.val,
            read.metric,
            lm=client,
            train=read.train,
            test=read.test,
            io_share=search.io_share,
            rounds=search.rounds,
            instructions=config.instructions,
            proposer=None if writer is None else client_of(writer, None, folder, limit),
            concurrency=search.concurrency,
            run_dir=folder,
            progress=_progress,
            **chosen,
            **config.sampling,
        )

        def render(console: Any) -> None:
            console.print(result.summary(), markup=False)
            console.print(f"\n{result.candidate.instruction}", markup=False)
            shown = len(result.candidate.exemplars)
            console.print(f"\nwith {shown} exemplars: {folder / 'prompt.json'}", markup=False)

        document = {"format": 1, **result.to_dict(), "output": str(folder)}
        return Output(document, render)


def _eval(app: typer.Typer) -> None:
    @command(app, "eval", example="sharpen text eval task.yaml --prompt runs/task/prompt.json")
    def evaluate(
        task: TaskFile,
        prompt: Annotated[
            Path | None,
            typer.Option(help="A prompt.json; default the task's first instruction."),
        ] = None,
        lm: Model = None,
        model: ModelName = None,
        split: Annotated[str, typer.Option(help="Which examples: train, val or test.")] = "test",
        max_calls: Calls = None,
        cache: Annotated[
            Path | None, typer.Option(help="A file that keeps replies; default none.")
        ] = None,
    ) -> Output:
        """Measure a prompt on one part of the examples, with its interval and each reply."""
        import json

        from sharpen.core.errors import ConfigError, MissingFileError
        from sharpen.text.prompts.confidence import mean_interval
        from sharpen.text.prompts.evaluator import Evaluator
        from sharpen.text.prompts.task import Candidate
        from sharpen.text.prompts.task_file import load_task

        read = load_task(task)
        examples = {"train": read.train, "val": read.val, "test": read.test}.get(split)
        if not examples:
            raise ConfigError(f"the task has no examples '{split}'; there are train, val, test.")
        candidate, prior = Candidate(read.config.instruction), None
        if prompt is not None:
            try:
                data = json.loads(prompt.read_text(encoding="utf-8"))
                candidate, prior = Candidate.from_dict(data), data.get("prior")
            except FileNotFoundError:
                raise MissingFileError(f"no such file: {prompt}") from None
            except ValueError as error:
                raise ConfigError(f"{prompt} is no prompt: {error}.") from None
        client = client_of(lm or read.config.lm, model, cache, _limit(max_calls))
        evaluator = Evaluator(
            read.program,
            client,
            read.metric,
            batch=examples,
            prior=prior,
            concurrency=read.config.search.concurrency,
            **read.config.sampling,
        )
        evaluation = evaluator(candidate, examples)
        interval = mean_interval(evaluation.scores)
        rows = [
            {
                "id": one.example.id,
                "reply": one.reply,
                "prediction": one.prediction,
                "output": one.example.output,
                "score": one.score,
                "feedback": one.feedback,
            }
            for one in evaluation.outcomes
        ]
        document = {
            "format": 1,
            "split": split,
            "examples": len(rows),
            "score": {"value": interval.value, "low": interval.low, "high": interval.high},
            "unparsed": evaluation.unparsed,
            "calls": client.usage.calls,
            "tokens": client.usage.tokens,
            "outcomes": rows,
        }

        def render(console: Any) -> None:
            console.print(f"{split}: {interval} on {len(rows)} examples", markup=False)
            if evaluation.unparsed:
                console.print(f"{evaluation.unparsed} replies held no prediction")

        return Output(document, render)


def _limit(calls: int | None) -> Any:
    """One budget for all models of a command."""
    from sharpen.core.lm import Budget

    return None if calls is None else Budget(max_calls=calls)


def client_of(address: str | None, model: str | None, where: Path | None, budget: Any) -> Any:
    """A client whose replies are kept in the run's folder, or in a file of their own."""
    from sharpen.core.errors import SharpenError, storage_errors
    from sharpen.core.lm import LM

    cache, made = where, []
    if where is not None and not where.suffix:
        made = [one for one in (where, *where.parents) if not one.exists()]
        with storage_errors(where):
            where.mkdir(parents=True, exist_ok=True)
        cache = where / "replies.sqlite"
    try:
        return LM(
            address,
            cache=cache,
            budget=budget,
            options=None if model is None else {"model": model},
        )
    except SharpenError:
        with suppress(OSError):  # something is in it
            for folder in made:
                folder.rmdir()
        raise


def _say(text: str) -> None:
    if not flags.quiet and not flags.as_json:
        error_console().print(text, markup=False)


def _progress(evaluation: Any, made: int, allowed: int) -> None:
    shown = evaluation.candidate.instruction.replace("\n", " ")[:60]
    exemplars = len(evaluation.candidate.exemplars)
    _say(f"{made:>6}/{allowed}  {evaluation.score:.3f}  {exemplars} exemplars  {shown}")
