"""Data-Juicer's and datatrove's operators, in an interpreter of their own; see ``beside.py``.

Each task takes texts and operators, and gives for each operator what it measured or made, which
rows it kept, and the CPU seconds of the work.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__: list[str] = []


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _filter(op: Any, texts: list[str]) -> dict[str, Any]:
    stats = "__dj__stats__"
    if op.is_batched_op():
        samples = {"text": list(texts), stats: [{} for _ in texts]}
        samples = op.compute_stats_batched(samples)
        found = samples[stats]
        kept = list(op.process_batched(samples))
    else:
        rows = [op.compute_stats_single({"text": text, stats: {}}) for text in texts]
        found = [row[stats] for row in rows]
        kept = [op.process_single(row) for row in rows]
    values = [_plain(next(iter(row.values()), None)) for row in found]
    return {"values": values, "kept": [bool(k) for k in kept]}


def _mapper(op: Any, texts: list[str]) -> dict[str, Any]:
    if op.is_batched_op():
        return {"texts": list(op.process_batched({"text": list(texts)})["text"])}
    return {"texts": [op.process_single({"text": text})["text"] for text in texts]}


def _hashes(op: Any, texts: list[str]) -> dict[str, Any]:
    """Rows kept: the first of each hash."""
    rows = [op.compute_hash({"text": text}) for text in texts]
    seen: set[Any] = set()
    kept = []
    for row in rows:
        (value,) = (v for k, v in row.items() if k != "text")
        kept.append(value not in seen)
        seen.add(value)
    return {"kept": kept}


def datajuicer(given: dict[str, Any]) -> dict[str, Any]:
    """Operators ``[name, arguments]`` of Data-Juicer, one after the other on the same texts."""
    from data_juicer.ops import OPERATORS
    from data_juicer.ops.common.special_characters import SPECIAL_CHARACTERS

    results = []
    for name, arguments in given["operators"]:
        op = OPERATORS.modules[name](**arguments)
        run = _filter if name.endswith("_filter") else _mapper
        run = _hashes if name.endswith("_deduplicator") else run
        begin = time.process_time()
        try:
            found = run(op, given["texts"])
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        results.append({**found, "cpu_s": time.process_time() - begin})
    return {"results": results, "special": sorted(c for c in SPECIAL_CHARACTERS if len(c) == 1)}


def datatrove(given: dict[str, Any]) -> dict[str, Any]:
    """Filters ``[class, arguments]`` of datatrove; ``words`` says how it parts words."""
    from datatrove.data import Document
    from datatrove.pipeline import filters
    from datatrove.pipeline.filters import (
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )

    if given["words"] == "white space":
        import re

        def split(text: str, language: str = "") -> list[str]:
            return [word for word in re.split("[ \n\t]", text) if word]

        for module in (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter):
            module.split_into_words = split
    results = []
    for name, arguments in given["operators"]:
        op = getattr(filters, name)(**arguments)
        documents = [Document(text=text, id=str(i)) for i, text in enumerate(given["texts"])]
        begin = time.process_time()
        kept, reasons = [], []
        for document in documents:
            try:
                found = op.filter(document)
            except ZeroDivisionError:
                found = (False, "division by zero")
            held, reason = found if isinstance(found, tuple) else (found, None)
            kept.append(bool(held))
            reasons.append(reason)
        spent = time.process_time() - begin
        texts = [document.text for document in documents]
        results.append({"kept": kept, "reasons": reasons, "texts": texts, "cpu_s": spent})
    return {"results": results}


TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "datajuicer": datajuicer,
    "datatrove": datatrove,
}


def main() -> None:
    task, source, target = sys.argv[1:]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    found = TASKS[task](json.loads(Path(source).read_text()))
    from importlib import metadata

    versions = {name: metadata.version(name) for name in ("py-data-juicer", "datatrove")}
    Path(target).write_text(json.dumps({**found, "versions": versions}))


if __name__ == "__main__":
    main()
