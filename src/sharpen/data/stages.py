"""The ``data`` stage: a source to token shards, split so that nothing leaks."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from sharpen.core.errors import DataError
from sharpen.core.files import atomic_write_text
from sharpen.core.report import Section, Table, Text
from sharpen.core.stage import RecipeContext, StageContext, StageResult, StageType
from sharpen.data.config import DataConfig, SourceConfig
from sharpen.data.formats import Document, encode_rows, normalize
from sharpen.data.mixing import open_rows
from sharpen.data.readers import locate_rows, readable
from sharpen.data.shards import write_dataset
from sharpen.models.tokenizer import Tokenizer, load_tokenizer

__all__ = ["DATA", "run_data", "sample_texts", "split_rows"]


def split_rows(groups: Sequence[str], share: float, seed: int) -> list[bool]:
    """Which rows are held out: whole groups, in an order given by a hash, until the share is met.

    Args:
        groups: the group of each row.
        share: of the rows, 0 to 1.
        seed: of the order.

    Raises:
        DataError: everything would be held out.
    """
    if share == 0:
        return [False] * len(groups)
    sizes = Counter(groups)

    def rank(group: str) -> bytes:
        text = f"{seed}:{group}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=16).digest()

    held: set[str] = set()
    count = 0
    for group in sorted(sizes, key=rank):
        if count >= share * len(groups):
            break
        held.add(group)
        count += sizes[group]
    if len(held) == len(sizes):
        raise DataError(
            f"{len(sizes)} groups are too few to hold out {share:.0%} of {len(groups)} rows. "
            "Set split.valid to 0, or split by another key."
        )
    return [group in held for group in groups]


def run_data(config: DataConfig, context: StageContext) -> StageResult:
    """Read, clean, split, tokenize, pack, write."""
    assert context.model is not None
    tokenizer = load_tokenizer(context.model)
    dropped: Counter[str] = Counter()
    rows, groups = _read(config, context, dropped)
    if not rows:
        reasons = ", ".join(f"{n} {why}" for why, n in dropped.items()) or "the source is empty"
        raise DataError(f"{context.stage}: no row is left of {_name(config.source)}: {reasons}.")
    held = split_rows(groups, config.split.valid, context.seed)
    splits: dict[str, list[Document]] = {}
    kept_rows: dict[str, list[dict[str, Any]]] = {}
    with context.progress("tokenize", len(rows)) as bar:
        for split, wanted in (("train", False), ("valid", True)):
            part = [row for row, h in zip(rows, held, strict=True) if h == wanted]
            documents: list[Document] = []
            kept: list[dict[str, Any]] = []
            encoded = encode_rows(
                part,
                tokenizer,
                mask_prompt=config.mask_prompt,
                use_template=config.template == "auto",
                on_progress=bar.advance,
            )
            for row, document in zip(part, encoded, strict=True):
                pieces = _fit(document, config, dropped)
                documents += pieces
                if pieces:
                    kept.append(row)
            splits[split], kept_rows[split] = documents, kept
    if config.split.valid == 0:
        del splits["valid"], kept_rows["valid"]
    return _write(config, context, tokenizer, splits, kept_rows, dropped)


def _write(
    config: DataConfig,
    context: StageContext,
    tokenizer: Tokenizer,
    splits: dict[str, list[Document]],
    rows: dict[str, list[dict[str, Any]]],
    dropped: Counter[str],
) -> StageResult:
    reasons = ", ".join(f"{n} {why}" for why, n in sorted(dropped.items())) or "nothing was dropped"
    for split, documents in splits.items():
        if not documents:
            raise DataError(
                f"{context.stage}: the split '{split}' has no example with a label left "
                f"({reasons}). Raise max_tokens={config.max_tokens}, or look at the format."
            )
    manifest = write_dataset(
        context.output,
        splits,
        max_tokens=config.max_tokens,
        packing=config.packing,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id or 0,
        info={"format": config.format, "dropped": dict(sorted(dropped.items()))},
    )
    if "valid" in rows:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows["valid"])
        atomic_write_text(context.output / "valid.jsonl", lines)
    counts = {
        split: {k: entry[k] for k in ("examples", "rows", "tokens", "labels")}
        for split, entry in manifest["splits"].items()
    }
    fill = counts["train"]["tokens"] / (counts["train"]["rows"] * config.max_tokens)
    return StageResult(results={**counts, "fill": fill, "dropped": dict(sorted(dropped.items()))})


def _name(source: SourceConfig) -> str:
    if source.mix:
        return " and ".join(_name(one) for one in source.mix)
    return source.path or f"the asset {source.asset} ({source.view})"


def sample_texts(config: DataConfig, context: RecipeContext, rows: int) -> list[str]:
    """The first texts of a source, for a forecast of what becomes of them.

    Args:
        config: of format ``text``.
        context: resolves paths.
        rows: at most so many, and no more than ``config.limit``.

    Raises:
        MissingFileError: the source does not exist.
        DataError: it cannot be read, or not as text.
    """
    rows = min(rows, config.limit or rows)
    found = itertools.islice(_rows(config, context, Counter()), rows)
    return [normalize(row, "text", where)["text"] for where, row in found]


def _rows(
    config: DataConfig, context: RecipeContext | StageContext, dropped: Counter[str]
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Rows of the source, each with the place it lies at."""
    if config.process and isinstance(context, StageContext):
        return locate_rows(_processed(config, context, dropped))

    def count(_: str) -> None:
        dropped["unreadable"] += 1

    how: Literal["fail", "skip"] = "fail" if config.on_error == "fail" else "skip"
    located = open_rows(config.source, context.folder).located()
    return readable(located, on_error=how, on_skip=count)


def _processed(config: DataConfig, context: StageContext, dropped: Counter[str]) -> Path:
    """A folder of the rows that the recipe's operators leave."""
    from sharpen.data.dataset import Dataset  # needs pyarrow
    from sharpen.data.process import open_source, operators_of

    source = open_source(config.source, context.folder, limit=config.limit)
    with context.progress("process") as bar:
        result = Dataset(source, tuple(operators_of(config.process))).write(
            context.work / "rows",
            on_error=config.on_error,
            order=config.order,
            overwrite=True,
            on_rows=bar.advance,
        )
    for name, tally in result.operators.items():
        if tally.dropped:
            dropped["unreadable" if name == "read" else name] += tally.dropped
    return result.output


def _read(
    config: DataConfig, context: StageContext, dropped: Counter[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Checked, distinct rows, and the group of each."""
    rows: list[dict[str, Any]] = []
    groups: list[str] = []
    seen: set[bytes] = set()
    with context.progress("read") as bar:
        for number, (where, raw) in enumerate(_rows(config, context, dropped), start=1):
            if config.limit is not None and number > config.limit:
                break
            bar.advance()
            try:
                row = normalize(raw, config.format, where)
                by = config.split.by
                group = str(number) if by is None else _group(raw, by, where)
            except DataError as error:
                if config.on_error == "fail":
                    raise DataError(f"{error} To leave such rows out: on_error: skip.") from None
                dropped["malformed"] += 1
                continue
            if config.dedup == "exact":
                key = hashlib.blake2b(json.dumps(row).encode(), digest_size=16).digest()
                if key in seen:
                    dropped["duplicate"] += 1
                    continue
                seen.add(key)
            rows.append(row)
            groups.append(group)
    return rows, groups


def _group(raw: dict[str, Any], by: str, where: str) -> str:
    if by not in raw:
        raise DataError(f"{where}: no key '{by}' to split by; it has: {', '.join(raw)}.")
    return str(raw[by])


def _fit(document: Document, config: DataConfig, dropped: Counter[str]) -> list[Document]:
    """The document in pieces that fit a sequence; none when it cannot be used."""
    limit = config.max_tokens + 1  # the last token is only predicted
    pieces = [document]
    if len(document.ids) > limit:
        if config.format != "text":
            dropped["too long"] += 1
            return []
        # Neighbouring pieces share a token: the last predicted is the next one's first input.
        starts = range(0, len(document.ids) - 1, config.max_tokens)
        pieces = [
            Document(document.ids[s : s + limit], document.learned[s : s + limit]) for s in starts
        ]
    usable = [p for p in pieces if len(p.ids) >= 2 and any(p.learned[1:])]
    if not usable:
        dropped["no label"] += 1
    return usable


def _fingerprint(config: DataConfig, context: RecipeContext) -> Any:
    """The source's own bytes belong in the address, and what operators are."""
    if config.process:
        from sharpen.data.process import open_source, operators_of

        described = [one.describe() for one in operators_of(config.process)]
        return [open_source(config.source, context.folder).fingerprint(), described]
    return open_rows(config.source, context.folder).fingerprint()


def _report(summary: dict[str, Any]) -> list[Section]:
    splits = [s for s in ("train", "valid") if s in summary]
    columns = ["split", "examples", "sequences", "tokens", "labels"]
    rows = [[s, *(summary[s][k] for k in ("examples", "rows", "tokens", "labels"))] for s in splits]
    dropped = summary.get("dropped") or {}
    text = ", ".join(f"{n} {why}" for why, n in dropped.items()) or "none"
    fill = f"Sequences are {summary.get('fill', 0):.1%} full. Rows dropped: {text}."
    return [Section("Data", [Table(columns, rows), Text(fill)])]


DATA = StageType(
    name="data",
    version=1,
    config=DataConfig,
    run=run_data,
    makes="dataset",
    needs_model=True,
    fingerprint=_fingerprint,
    report=_report,
)
