"""Whole recipes beside Data-Juicer and datatrove: CPU seconds, memory, and the rows kept.

    BENCH_CORPORA=FOLDER BENCH_DATAJUICER_PYTHON=... BENCH_DATATROVE_PYTHON=...
        python -m benchmarks.data.bench_recipe

Two recipes on the same documents (``benchmarks.data.corpus``), run in turn: Data-Juicer's typical
one (3 mappers, 10 filters, exact and MinHash duplicates with 256 hashes; with its fusion of
operators, two workers on both sides), and datatrove's rules of quality (C4, Gopher's repetition and
quality, FineWeb; datatrove in one process). Start-up, measured with two documents, is shown apart
and taken off on both sides. CPU seconds are those of all processes. Then ours alone on corpora of
150 MB and 1.5 GB.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from benchmarks.common import arguments, draw_bars, save
from benchmarks.data.corpora import own_pages
from benchmarks.data.corpus import write_corpus
from benchmarks.data.processes import measured

from sharpen.data.ops.filters.words import STOPWORDS

REPEATS = 3
MEGABYTES = 12.5
FLAGGED = ("casino", "viagra")

TYPICAL: list[Any] = [
    "clean_email",
    "clean_links",
    "whitespace_normalization",
    {"text_length": {"min": 10}},
    {"words_num": {"min": 10}},
    {"alphanumeric": {"min": 0.25}},
    {"average_line_length": {"min": 10}},
    {"maximum_line_length": {"min": 10}},
    {"special_characters": {"max": 0.5}},
    {"character_repetition": {"max": 0.5, "size": 10}},
    {"word_repetition": {"max": 0.5, "size": 10}},
    {"stopwords": {"min": 0.1}},
    {"flagged_words": {"max": 0.045, "words": list(FLAGGED)}},
    {"exact_dedup": {}},
    {"minhash_dedup": {"threshold": 0.7, "lanes": 256}},
]
QUALITY: list[Any] = [
    "c4_lines",
    "c4_quality",
    "gopher_repetition",
    "gopher_quality",
    "fineweb_quality",
]


def ours(folder: Path, source: Path, process: list[Any]) -> list[str]:
    """Our command for a recipe."""
    recipe = {
        "sharpen": 1,
        "name": "bench",
        "data": {
            "source": {"path": str(source)},
            "process": process,
            "output": {"path": str(folder / "out"), "trace": True},
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    program = "from sharpen.cli.main import main; main()"
    return [sys.executable, "-c", program, "data", "run", str(path), "--workers", "2", "--json"]


def data_juicer(folder: Path, source: Path) -> list[str]:
    """Data-Juicer's command for the typical recipe."""
    words = folder / "words"
    words.mkdir()
    (words / "stopwords.json").write_text(json.dumps({"en": list(STOPWORDS)}))
    (words / "flagged_words.json").write_text(json.dumps({"en": list(FLAGGED)}))
    config = {
        "project_name": "bench",
        "dataset_path": str(source),
        "export_path": str(folder / "out" / "out.jsonl"),
        "np": 2,
        "use_cache": False,
        "op_fusion": True,
        "fusion_strategy": "greedy",
        "process": [
            {"clean_email_mapper": None},
            {"clean_links_mapper": None},
            {"whitespace_normalization_mapper": None},
            {"text_length_filter": {"min_len": 10}},
            {"words_num_filter": {"min_num": 10}},
            {"alphanumeric_filter": {"min_ratio": 0.25}},
            {"average_line_length_filter": {"min_len": 10}},
            {"maximum_line_length_filter": {"min_len": 10}},
            {"special_characters_filter": {"max_ratio": 0.5}},
            {"character_repetition_filter": {"rep_len": 10, "max_ratio": 0.5}},
            {"word_repetition_filter": {"rep_len": 10, "max_ratio": 0.5}},
            {"stopwords_filter": {"min_ratio": 0.1, "stopwords_dir": str(words)}},
            {"flagged_words_filter": {"max_ratio": 0.045, "flagged_words_dir": str(words)}},
            {"document_deduplicator": None},
            {"document_minhash_deduplicator": {"num_permutations": 256, "jaccard_threshold": 0.7}},
        ],
    }
    path = folder / "dj.yaml"
    path.write_text(yaml.safe_dump(config))
    program = Path(os.environ["BENCH_DATAJUICER_PYTHON"]).with_name("dj-process")
    return [str(program), "--config", str(path)]


def datatrove(folder: Path, source: Path) -> list[str]:
    """Datatrove's pipeline of the rules of quality."""
    program = f"""
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import (
    C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
if __name__ == "__main__":
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader({str(source.parent)!r}, glob_pattern="*.jsonl"),
            C4QualityFilter(),
            GopherRepetitionFilter(), GopherQualityFilter(), FineWebQualityFilter(),
            JsonlWriter({str(folder / "out")!r}, compression=None),
        ],
        tasks=1, workers=1, logging_dir={str(folder / "logs")!r}, skip_completed=False,
    ).run()
"""
    path = folder / "pipeline.py"
    path.write_text(program)
    return [os.environ["BENCH_DATATROVE_PYTHON"], str(path)]


def kept(folder: Path) -> set[str]:
    """The ids of the rows that a side kept."""
    found = set()
    for path in folder.rglob("*.jsonl"):
        if "stats" in path.name or "trace" in path.parts:
            continue
        for line in path.read_text(encoding="utf-8").splitlines() if path.stat().st_size else ():
            row = json.loads(line)
            if "id" in row:
                found.add(str(row["id"]))
    return found


Command = Callable[[Path, Path], list[str]]


def once(command: Command, source: Path, keep: bool = False) -> tuple[dict[str, Any], set[str]]:
    """Run one side in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Nothing outside is asked: what is not there must not be waited for.
        quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        found = measured(command(folder, source), folder, quiet)
        return found, kept(folder / "out") if keep else set()


def beside(name: str, process: list[Any], peer: Command | None, source: Path) -> dict[str, Any]:
    """A recipe on both sides in turn, and with two documents for what starting costs."""
    small = source.parent.with_name(source.parent.name + "-small")
    small.mkdir(exist_ok=True)
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    for path in sorted(source.parent.glob("*.jsonl")):
        (small / path.name).write_text("".join(lines[:2]), encoding="utf-8")
    sides: dict[str, Command] = {"sharpen": lambda folder, path: ours(folder, path, process)}
    if peer is not None:
        sides[name] = peer
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    starts: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    rows: dict[str, set[str]] = {}
    for _ in range(REPEATS):
        for side, command in sides.items():
            starts[side].append(once(command, small / source.name)[0])
            found, rows[side] = once(command, source, keep=True)
            runs[side].append(found)
    result: dict[str, Any] = {"documents": len(lines), "bytes": source.stat().st_size}
    for side in sides:
        start = statistics.median(r["cpu_s"] for r in starts[side])
        net = [r["cpu_s"] - start for r in runs[side]]
        result[side] = {
            "runs": runs[side],
            "start": starts[side],
            "start_cpu_s": start,
            "start_wall_s": statistics.median(r["wall_s"] for r in starts[side]),
            "net_cpu_s": net,
            "kept": len(rows[side]),
            "memory_bytes": max(r["memory_bytes"] for r in runs[side]),
        }
    if peer is not None:
        a, b = result["sharpen"], result[name]
        result["ratio"] = statistics.median(
            p / o for p, o in zip(b["net_cpu_s"], a["net_cpu_s"], strict=True)
        )
        result["memory_ratio"] = b["memory_bytes"] / a["memory_bytes"]
        result["only_ours"] = len(rows["sharpen"] - rows[name])
        result["only_theirs"] = len(rows[name] - rows["sharpen"])
    return result


def large(megabytes: float) -> dict[str, Any]:
    """Ours alone on a corpus of a size."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "corpus.jsonl"
        count, size = write_corpus(source, int(megabytes * 1e6))
        found, _ = once(lambda folder, path: ours(folder, path, TYPICAL), source)
        return {"documents": count, "bytes": size, **found}


def _own_corpus(path: Path) -> None:
    """This project's pages as a corpus, for a quick check."""
    rows = [{"id": str(i), "text": text} for i, text in enumerate(own_pages())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> int:
    args = arguments(__doc__, "data_recipe")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "corpus" / "corpus.jsonl"
        source.parent.mkdir()
        if args.quick:
            _own_corpus(source)
        else:
            write_corpus(source, int(MEGABYTES * 1e6))
        has = os.environ.keys()
        peer = data_juicer if "BENCH_DATAJUICER_PYTHON" in has and not args.quick else None
        results["typical"] = beside("data-juicer", TYPICAL, peer, source)
        peer = datatrove if "BENCH_DATATROVE_PYTHON" in has and not args.quick else None
        results["quality"] = beside("datatrove", QUALITY, peer, source)
    if not args.quick:
        results["sizes"] = [large(150), large(1500)]

    def plot(figure: Any) -> None:
        axes = figure.subplots(1, 2)
        for one, (part, other) in zip(
            axes, (("typical", "data-juicer"), ("quality", "datatrove")), strict=True
        ):
            row = results[part]
            series = {}
            for side in ("sharpen", other):
                if side in row:
                    rate = row["bytes"] / 1e6 / statistics.median(row[side]["net_cpu_s"])
                    series[side] = [rate]
            draw_bars(one, y_label="MB a CPU second", groups=[part], series=series)
            one.set_yscale("log")

    config = {"repeats": REPEATS, "typical": TYPICAL, "quality": QUALITY, "workers": 2}
    save(args, results, config=config, plot=plot)
    for part in ("typical", "quality"):
        shown = {k: v for k, v in results[part].items() if not isinstance(v, dict)}
        print(part, json.dumps(shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
