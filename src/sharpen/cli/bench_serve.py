"""``sharpen bench serve``: how fast a model answers, beside other engines and against load."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sharpen.cli.common import Output, command, error_console, flags
from sharpen.cli.options import Device

if TYPE_CHECKING:
    from sharpen.serve.bench.throughput import Settings

__all__ = ["register"]

Model = Annotated[str, typer.Option("--model", help="An asset, a model folder or a .gguf file.")]
Peers = Annotated[
    str,
    typer.Option(help="auto: those that are installed; none; or names separated by commas."),
]
Python = Annotated[
    str | None,
    typer.Option("--peers-python", help="Interpreter that has the peers.", show_default=False),
]
Threads = Annotated[int, typer.Option(help="Of every engine.", min=1)]
Passes = Annotated[int, typer.Option(help="Over all engines in turn.", min=1)]
Mode = Annotated[str, typer.Option(help="throughput, load or all.")]
Rates = Annotated[
    list[str] | None,
    typer.Option(
        "--rate",
        help="inf, poisson:R or gamma:R:CV requests a second; repeat it. Default: a quarter, half "
        "and nine tenths of what the engine does.",
        show_default=False,
    ),
]
Dataset = Annotated[str, typer.Option(help="Requests of a load.")]
Requests = Annotated[int, typer.Option(help="Of each load.", min=1)]
Folder = Annotated[
    Path | None,
    typer.Option(help="Where peers keep converted models.", show_default=False),
]
Url = Annotated[
    str | None,
    typer.Option(help="Load this server instead of an engine in this process."),
]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "serve", example="sharpen bench serve --model tiny --peers auto --json")
    def serve(
        model: Model,
        peers: Peers = "auto",
        peers_python: Python = None,
        threads: Threads = 1,
        device: Device = "cpu",
        passes: Passes = 3,
        mode: Mode = "all",
        rate: Rates = None,
        dataset: Dataset = "random:in=128,out=64",
        requests: Requests = 40,
        folder: Folder = None,
        url: Url = None,
    ) -> Output:
        """Time decoding and prompts beside installed peers, then latency against load."""
        from sharpen.core.errors import ConfigError
        from sharpen.models.devices import resolve_device
        from sharpen.models.load import resolve_model
        from sharpen.serve.bench.throughput import Settings

        device = str(resolve_device(device))
        if mode not in ("throughput", "load", "all"):
            raise ConfigError(f"--mode {mode!r} must be throughput, load or all.")
        path = str(resolve_model(model))
        document: dict[str, Any] = {
            "format": 1,
            "model": model,
            "threads": threads,
            "load_average": list(os.getloadavg()),
        }
        if mode != "load":
            settings = Settings(threads=threads, device=device, passes=passes)
            if device != "cpu":
                settings = dataclasses.replace(settings, batches=(1, 16, 64, 256))
            document |= _throughput(path, peers, peers_python, settings, folder)
        if mode != "throughput":
            document["loads"] = _loads(path, model, threads, device, rate, dataset, requests, url)
        return Output(document, lambda console: _render(console, document))


def _say(text: str) -> None:
    if not flags.quiet and not flags.as_json:
        error_console().print(f"[dim]{text}[/]")


def _throughput(
    path: str, peers: str, python: str | None, settings: Settings, folder: Path | None
) -> dict[str, Any]:
    from sharpen.core.files import cache_home
    from sharpen.serve.bench.peers import choose_peers
    from sharpen.serve.bench.roofline import measure_bandwidth, token_bytes
    from sharpen.serve.bench.throughput import Entry, measure_throughput

    names, left_out = choose_peers(peers, path, python, settings.device)
    for name, why in left_out.items():
        _say(f"without {name}: {why}")
    where = folder or cache_home() / "bench-serve" / Path(path).name
    entries = [Entry(name, path) for name in ("sharpen", *names)]
    rows = measure_throughput(entries, settings, where, python=python, tell=_say)
    bandwidth = measure_bandwidth(settings.threads, settings.device)
    size = token_bytes(path)
    return {
        "rows": [dataclasses.asdict(row) for row in rows],
        "left_out": left_out,
        "bandwidth_gb_s": bandwidth / 1e9,
        "bytes_per_token": size,
        "roofline_tokens_per_s": bandwidth / size,
        "comparable": all(row.spread <= 0.2 for row in rows if not row.error),
    }


def _loads(
    path: str,
    name: str,
    threads: int,
    device: str,
    rates: list[str] | None,
    dataset: str,
    requests: int,
    url: str | None,
) -> list[dict[str, Any]]:
    from sharpen.core.errors import DependencyNotInstalled
    from sharpen.serve.bench.load import (
        Arrivals,
        EngineTarget,
        HttpTarget,
        Lengths,
        Target,
        run_load,
    )
    from sharpen.serve.llm import LLM
    from sharpen.serve.worker import Worker

    lengths = Lengths.parse(dataset)
    arrivals = [Arrivals.parse(text) for text in rates or []]
    target: Target
    worker = None
    if url is not None:
        try:
            target = HttpTarget(url, name, os.environ.get("SHARPEN_API_KEY"))
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("a load over HTTP", "serve") from None
        vocab_size = 1000
    else:
        import torch

        torch.set_num_threads(threads)
        llm = LLM(path, device=device)
        vocab_size = llm.spec.vocab_size
        worker = Worker(llm.engine)
        target = EngineTarget(worker)
    found = []
    try:
        whole = Arrivals()
        if not arrivals:
            _say("how much the engine does")
            prompts = lengths.prompts(16, vocab_size, seed=1)
            capacity = run_load(target, prompts, lengths.output, whole)
            most = capacity.requests / capacity.duration_s
            arrivals = [Arrivals(rate=most * share) for share in (0.25, 0.5, 0.9)]
        for number, one in enumerate(arrivals):
            _say(f"load {number + 1} of {len(arrivals)}")
            prompts = lengths.prompts(requests, vocab_size, seed=2 + number)
            result = run_load(target, prompts, lengths.output, one)
            found.append({**dataclasses.asdict(one), **dataclasses.asdict(result)})
    finally:
        if worker is not None:
            worker.close()
    return found


def _render(console: Any, document: dict[str, Any]) -> None:
    from rich.table import Table

    if "rows" in document:
        table = Table(
            title=f"{document['model']}, tokens a second, {document['threads']} thread(s)"
        )
        for title in ("engine", "weights", "1 sequence", "16 sequences", "prompt of 512", "memory"):
            left = title in ("engine", "weights")
            table.add_column(title, justify="left" if left else "right", no_wrap=left)
        for row in document["rows"]:
            if row["error"]:
                console.print(f"[yellow]{row['name']}:[/] {row['error']}")
                continue
            speeds = [row["decode"].get(1), row["decode"].get(16), row["prefill"]]
            cells = [f"{speed:,.0f}" if speed else "-" for speed in speeds]
            table.add_row(row["name"], row["weights"], *cells, f"{row['peak_bytes'] / 1e6:,.0f} MB")
        console.print(table)
        console.print(
            f"memory allows {document['roofline_tokens_per_s']:,.0f} tokens/s of one sequence "
            f"({document['bandwidth_gb_s']:.1f} GB/s, {document['bytes_per_token'] / 1e6:,.0f} MB "
            "a token)"
        )
        if not document["comparable"]:
            console.print(
                "[yellow]passes differ by more than 20 %: other work disturbed them. Compare "
                "nothing by this run.[/]"
            )
    if "loads" in document:
        table = Table(title="latency against load, milliseconds")
        for title in ("requests/s", "tokens/s", "TTFT p50", "p99", "TPOT p50", "p99", "goodput/s"):
            table.add_column(title, justify="right")
        for load in document["loads"]:
            ttft, tpot = load["percentiles"]["ttft"], load["percentiles"]["tpot"]
            rate = "at once" if load["rate"] is None else f"{load['rate']:.2f}"
            times = [ttft.get("p50"), ttft.get("p99"), tpot.get("p50"), tpot.get("p99")]
            cells = [f"{1e3 * t:,.1f}" if t is not None else "-" for t in times]
            table.add_row(rate, f"{load['tokens_per_s']:,.0f}", *cells, f"{load['goodput']:.2f}")
        console.print(table)
