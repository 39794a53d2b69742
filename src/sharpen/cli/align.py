"""``sharpen align``: learning from feedback, one command a method; look at data; plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, new_app
from sharpen.cli.progress import observe
from sharpen.cli.run import result_table

__all__ = ["app"]

app = new_app("Learn from feedback: preferences, labels, rankings, rewards.")

_METHODS = {
    "sft": ("Learn completions by heart.", ""),
    "rm": ("Make a reward model of preferences.", ""),
    "dpo": ("Learn preferences directly.", ""),
    "ipo": ("Learn preferences directly, without overfitting them.", ""),
    "kto": ("Learn from completions called good or bad.", ""),
    "orpo": ("Learn completions and preferences at once, without a reference.", ""),
    "rrhf": ("Rank candidates by likelihood as their scores do.", ""),
    "bcoder": ("Learn values of programs, and from them a policy.", ""),
    "rft": ("Learn the best of several own completions.", " --reward number"),
    "ppo": ("Learn from rewards with a critic.", " --reward number"),
    "remax": ("Learn from rewards against the greedy completion.", " --reward number"),
    "rloo": ("Learn from rewards against the prompt's other completions.", " --reward number"),
    "grpo": ("Learn from rewards within groups of completions.", " --reward number"),
}

World = Annotated[
    str, typer.Option("--world", "-w", help="rooms, calculator, retrieval, FILE.py:CLASS.")
]
Instructions = Annotated[str, typer.Option(help="What stands before the goal: a text, or @FILE.")]
Model = Annotated[str, typer.Option("--model", "-m", help="An asset's name, or a model folder.")]
Data = Annotated[str, typer.Option("--data", "-d", help="Rows in TRL's formats: file or folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Further settings: KEY=VALUE, such as batch=16 or options.beta=0.05.",
        show_default=False,
    ),
]
Reward = Annotated[
    str | None, typer.Option(help="A reward's name, FILE.py:FUNCTION or MODULE:FUNCTION.")
]
Out = Annotated[
    Path | None, typer.Option("--output", "-o", help="Run folder; default runs/<method>.")
]
Lora = Annotated[int | None, typer.Option(help="Train adapters of this rank.")]
Steps = Annotated[int | None, typer.Option(help="Steps; default 100.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")]
Reference = Annotated[str | None, typer.Option(help="The reference: a model; default the start.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out and count them.")]
Processes = Annotated[
    int | None, typer.Option("--nproc", help="Processes that learn, on this machine.", min=1)
]
Seed = Annotated[int, typer.Option(help="Of order, completions and adapters.")]
Force = Annotated[bool, typer.Option("--force", help="Run even when the plan says no.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Plan, and do nothing.")]


def _recipe(
    method: str, model: str, overrides: list[str] | None, given: dict[str, Any], seed: int
) -> Any:
    from sharpen.align.aligned import alignment_recipe

    return alignment_recipe(method, model, given, overrides or [], seed=seed)


def _add(method: str, title: str, example: str) -> None:
    def run(
        model: Model,
        data: Data,
        overrides: Overrides = None,
        reward: Reward = None,
        output: Out = None,
        lora: Lora = None,
        steps: Steps = None,
        lr: Rate = None,
        reference: Reference = None,
        skip_bad: SkipBad = False,
        nproc: Processes = None,
        seed: Seed = 0,
        force: Force = False,
        dry_run: DryRun = False,
    ) -> Output:
        given = {
            "data": data,
            "reward": {"uses": reward} if reward is not None else None,
            "tune": "lora" if lora is not None else None,
            "rank": lora,
            "steps": steps,
            "lr": lr,
            "reference": reference,
            "skip_bad": skip_bad or None,
            "nproc": nproc,
        }
        recipe = _recipe(method, model, overrides, given, seed)
        if dry_run:
            return _planned(recipe)
        return _carried_out(recipe, output or Path("runs") / method, force)

    run.__doc__ = title
    usage = f"sharpen align {method} --model tiny --data rows.jsonl{example}"
    command(app, method, example=usage)(run)


for _name, (_title, _example) in _METHODS.items():
    _add(_name, _title, _example)


def _carried_out(recipe: Any, output: Path, force: bool) -> Output:
    from dataclasses import asdict

    from sharpen.align.health import check_health
    from sharpen.core.run import run
    from sharpen.core.signals import curves_of

    with observe() as observer:
        done = run(recipe, output=output, force=force, observer=observer)
    model = str(done.artifact("align"))
    remarks = check_health(curves_of(done.metrics, "align"))

    def render(console: Any) -> None:
        console.print(result_table(done.summary))
        for remark in remarks:
            console.print(f"worth a look: {remark.signal}: {remark.text}", highlight=False)
        console.print(f"model: {model}")
        console.print(f"run folder: {done.folder}")
        console.print(f"report: {done.report}")

    document = {
        "run": str(done.folder),
        "model": model,
        "report": str(done.report),
        "remarks": [asdict(remark) for remark in remarks],
        "reused": done.reused,
        "summary": done.summary,
    }
    return Output(document, render)


def _planned(recipe: Any) -> Output:
    from dataclasses import asdict

    from sharpen.core.report import format_value
    from sharpen.core.run import predict

    found = predict(recipe)["align"]

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table("memory", "GiB", box=None, header_style="bold")
        for name, size in [*found.parts.items(), ("in all", found.peak_bytes)]:
            table.add_row(name, format_value(size / 2**30))
        console.print(table)
        console.print(f"seconds of learning a batch: {found.details['learning_s_a_batch']:.3g}")
        for remedy in found.remedies:
            console.print(f"less memory: {remedy}")

    return Output({"align": asdict(found)}, render)


@command(
    app, "plan", example="sharpen align plan ppo --model tiny --data rows.jsonl --reward number"
)
def plan(
    method: Annotated[str, typer.Argument(help="The method.")],
    model: Model,
    data: Data,
    overrides: Overrides = None,
    reward: Reward = None,
    lora: Lora = None,
) -> Output:
    """Tell what a method would need, without doing it."""
    given = {
        "data": data,
        "reward": {"uses": reward} if reward is not None else None,
        "tune": "lora" if lora is not None else None,
        "rank": lora,
    }
    return _planned(_recipe(method, model, overrides, given, 0))


@command(
    app, "agent", example="sharpen align agent --model tiny --world rooms --method grpo --steps 20"
)
def agent(
    model: Model,
    world: World,
    overrides: Overrides = None,
    method: Annotated[str, typer.Option(help="grpo, rloo, ppo, rft; or dpo, of steps.")] = "grpo",
    instructions: Instructions = "",
    output: Out = None,
    lora: Lora = None,
    steps: Steps = None,
    lr: Rate = None,
    nproc: Processes = None,
    seed: Seed = 0,
    force: Force = False,
    dry_run: DryRun = False,
) -> Output:
    """Let a model act in a world, turn by turn, and learn from what comes of it."""
    given = {
        "world": world,
        "instructions": instructions or None,
        "tune": "lora" if lora is not None else None,
        "rank": lora,
        "steps": steps,
        "lr": lr,
        "nproc": nproc,
    }
    recipe = _recipe(method, model, overrides, given, seed)
    if dry_run:
        return _planned(recipe)
    return _carried_out(recipe, output or Path("runs") / f"agent-{method}", force)


@command(
    app, "play", example="sharpen align play --model tiny --world rooms --tasks 50 --save t.jsonl"
)
def play(
    model: Model,
    world: World,
    tasks: Annotated[int, typer.Option(help="Tasks to play.", min=1)] = 100,
    first: Annotated[int, typer.Option(help="Seed of the first.")] = 100_000,
    draws: Annotated[int, typer.Option(help="Episodes of each task.", min=1)] = 1,
    branch: Annotated[bool, typer.Option("--branch", help="Also try others at each step.")] = False,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a turn.", min=1)] = 32,
    temperature: Annotated[
        float, typer.Option(help="Of what is drawn; 0 takes the likeliest.", min=0.0, max=2.0)
    ] = 1.0,
    save: Annotated[Path | None, typer.Option(help="Write the trajectories, JSONL.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Write pairs of steps for sharpen align dpo, JSONL.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Least difference of a pair's rewards.")] = 0.3,
    instructions: Instructions = "",
) -> Output:
    """Let a model act in a world and tell how often it succeeds; keep what it did."""
    from sharpen.align.agents.playing import play_world

    found = play_world(
        model,
        world,
        tasks=range(first, first + tasks),
        draws=draws,
        branch=branch,
        max_tokens=max_tokens,
        temperature=temperature,
        instructions=_text_of(instructions),
        save=save,
        pairs=pairs,
        margin=margin,
    )
    return Output(found, lambda console: console.print_json(data=found))


@command(
    app,
    "instruct",
    example="sharpen align instruct --world rooms --lm local:smollm2 --max-calls 5000",
)
def instruct(
    world: World,
    lm: Annotated[
        str | None,
        typer.Option("--lm", help="What acts: local:NAME, http://HOST:PORT/v1 or scripted:FILE."),
    ] = None,
    instructions: Annotated[str, typer.Option(help="The first ones: a text, or @FILE.")] = "",
    proposer: Annotated[
        str | None, typer.Option(help="The model that criticizes and writes; default --lm.")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="textgrad, opro or optoprime.")] = "textgrad",
    train: Annotated[int, typer.Option(help="Tasks that feedback is given on.", min=1)] = 16,
    val: Annotated[int, typer.Option(help="Tasks that compare proposals.", min=1)] = 16,
    test: Annotated[int, typer.Option(help="Tasks that decide at the end.", min=1)] = 50,
    steps: Annotated[int, typer.Option(help="Turns of the search.", min=1)] = 5,
    proposals: Annotated[int, typer.Option(help="New instructions a turn.", min=1)] = 2,
    batch: Annotated[int, typer.Option(help="Episodes a turn that are criticized.", min=1)] = 4,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a turn.", min=1)] = 64,
    max_calls: Annotated[
        int | None, typer.Option(help="Most calls of all models; the run stops before the next.")
    ] = None,
    reply_tokens: Annotated[
        int, typer.Option(help="Tokens of a reply of the proposer.", min=1)
    ] = 1024,
    seed: Annotated[int, typer.Option(help="Of the order of tasks and of proposals.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run; the same one goes on.")
    ] = Path("runs/instruct"),
) -> Output:
    """Find instructions for an agent: nothing is trained, and replies are never paid for twice.

    Proposals come from episodes of some tasks, are compared on others, and are accepted only where
    they are better on tasks kept apart, by a paired test.
    """
    from sharpen.align.agents.instructing import most_episodes, tune_instructions
    from sharpen.align.agents.worlds import find_world
    from sharpen.cli.progress import bar
    from sharpen.cli.text_prompts import client_of
    from sharpen.core.lm import Budget

    make = find_world(world)
    budget = None if max_calls is None else Budget(max_calls=max_calls)
    allowed = most_episodes(train, val, test, steps, proposals, batch)
    with observe() as observer, bar(observer, "episodes", allowed) as advance:
        observer.say(f"{world}: at most {allowed} episodes; replies are kept in {output}")
        found = tune_instructions(
            make,
            client_of(lm, None, output, budget),
            _text_of(instructions),
            optimizer=optimizer,
            proposer=None if proposer is None else client_of(proposer, None, output, budget),
            train=range(train),
            val=range(100_000, 100_000 + val),
            test=range(200_000, 200_000 + test),
            steps=steps,
            proposals=proposals,
            batch=batch,
            seed=seed,
            reply_tokens=reply_tokens,
            run_dir=output,
            on_episode=lambda: advance(1),
            max_tokens=max_tokens,
        )

    def render(console: Any) -> None:
        console.print(found.summary(), markup=False, highlight=False)
        console.print(f"\n{found.instructions}", markup=False, highlight=False)
        console.print(f"\n{output / 'instructions.txt'}", markup=False)

    return Output({"format": 1, **found.to_dict(), "output": str(output)}, render)


def _text_of(given: str) -> str:
    from sharpen.align.places import instructions_of
    from sharpen.core.stage import resolve_path

    return instructions_of(given, lambda path: resolve_path(path, None))


@command(app, "rank", example="sharpen align rank --model runs/bcoder/align --data ranked.jsonl")
def rank(
    model: Annotated[str, typer.Option("--model", "-m", help="A model that bcoder made.")],
    data: Annotated[
        str, typer.Option("--data", "-d", help="Queries with responses and scores: file or folder.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Options of its training, such as gamma=0.99.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(help="Candidates of each query to keep.", min=1)] = 1,
    start: Annotated[
        str | None,
        typer.Option(help="What bcoder began with: more exact, twice the time."),
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Use the chat template.")] = False,
) -> Output:
    """Rank candidates by the values that bcoder learnt, where there is no test."""
    from sharpen.align.ranking import rank_file

    found = rank_file(model, data, overrides or [], top=top, start=start, use_template=chat)

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table("query", "place", "score", "candidate", box=None, header_style="bold")
        for row in found:
            for place, one in enumerate(row["top"], 1):
                table.add_row(
                    row["where"] if place == 1 else "",
                    str(place),
                    f"{one['score']:.3f}",
                    repr(one["candidate"]),
                )
        console.print(table)

    return Output({"rows": found}, render)


@command(app, "inspect", example="sharpen align inspect rows.jsonl --model tiny")
def inspect(
    path: Annotated[Path, typer.Argument(help="Rows: a file or folder.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Count this model's tokens.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a sequence.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Use the chat template.")] = False,
) -> Output:
    """Look at feedback before anything is trained on it."""
    from sharpen.align.rows import inspect_rows
    from sharpen.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model) if model is not None else None
    found = inspect_rows(path, tokenizer, max_length=max_length, use_template=chat)
    return Output(found.to_json(), lambda console: console.print(str(found), highlight=False))
