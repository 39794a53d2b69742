"""A task as a YAML file: data, template, metric, and how to search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sharpen.core.config import from_dict, load_yaml
from sharpen.core.errors import ConfigError, DataError, MissingFileError
from sharpen.text.prompts.metrics import Metric, make_metric
from sharpen.text.prompts.parsers import make_parser
from sharpen.text.prompts.task import Example, PromptProgram, read_examples

__all__ = ["DataConfig", "SearchConfig", "Task", "TaskConfig", "load_task", "read_jsonl"]

_SHARE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where the examples come from: one file that is split, or a file each."""

    file: str | None = None
    """JSONL with ``input`` and ``output``, split into the three parts."""

    train: str | None = None
    val: str | None = None
    test: str | None = None

    split: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.3, "val": 0.3, "test": 0.4}
    )
    """Parts of ``file``; they add up to 1."""

    limit: int | None = None
    """Most examples of a part."""

    seed: int = 0
    """Of the split."""

    def __post_init__(self) -> None:
        if (self.file is None) == (self.val is None):
            raise ConfigError("data needs 'file', or 'val' with 'train' and 'test' (DataConfig).")
        wrong = set(self.split) - {"train", "val", "test"}
        total = sum(self.split.values())
        if wrong or abs(total - 1) > _SHARE_TOLERANCE or self.split.get("val", 0) <= 0:
            raise ConfigError(
                "data.split must give shares of train, val and test that add up to 1, with some for"
                f" val; got {dict(self.split)}."
            )
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"data.limit={self.limit} must be at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """How to search; see :func:`~sharpen.text.prompts.optimize.optimize_prompt`."""

    io: str = "none"
    """How instructions are written."""

    eo: str = "mutation"
    """How exemplars are chosen."""

    budget: int = 32
    """Full evaluations on the validation examples."""

    io_share: float = 0.5
    """Part of them for instructions, where both are searched for."""

    rounds: int = 1
    """How often the two stages alternate."""

    k: int = 3
    """Exemplars in a prompt."""

    seed: int = 0
    """Of all randomness."""

    concurrency: int = 8
    """Calls at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """A task file."""

    data: DataConfig
    """The examples."""

    template: str
    """With ``{{instruction}}``, ``{{exemplars}}`` and fields of the input."""

    instruction: str
    """The first instruction."""

    instructions: list[str] = field(default_factory=list)
    """Others to choose from, for ``search.io: select``."""

    exemplar: str = "{{input}}\n{{output}}"
    """One exemplar."""

    separator: str = "\n\n"
    """Between exemplars."""

    system: str = ""
    """Template of the system message."""

    parser: str = "text"
    """How a prediction is read out of a reply."""

    labels: list[str] = field(default_factory=list)
    """For the parser ``label``, and for decisions by scores."""

    decision: Literal["reply", "scores", "calibrated"] = "reply"
    """How a prediction is made: by the reply, or by the probabilities of the labels."""

    metric: str = "exact"
    """How predictions are judged."""

    lm: str | None = None
    """The model's address, such as ``local:smollm2``."""

    proposer: str | None = None
    """The address of the model that writes instructions."""

    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the requests, such as ``max_tokens``."""

    search: SearchConfig = field(default_factory=SearchConfig)
    """How to search."""

    name: str = ""
    """For people; the file's name without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task that was read."""

    config: TaskConfig
    program: PromptProgram
    metric: Metric
    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example] | None


def load_task(path: str | Path) -> Task:
    """Read a task file and its examples; paths in it are relative to it.

    Raises:
        MissingFileError: it or one of its files is missing.
        ConfigError: a key or value is wrong, with file and line.
        DataError: a row is no example.
    """
    path = Path(path)
    document = load_yaml(path)
    config = from_dict(TaskConfig, document.data, marks=document.marks)
    folder = path.parent
    program = PromptProgram(
        template=config.template,
        exemplar=config.exemplar,
        separator=config.separator,
        system=config.system,
        parser=make_parser(config.parser, config.labels),
        decision=config.decision,
        labels=config.labels,
    )
    train, val, test = _parts(config.data, folder)
    return Task(
        config=config,
        program=program,
        metric=make_metric(config.metric, folder),
        train=train,
        val=val,
        test=test,
    )


def _parts(
    data: DataConfig, folder: Path
) -> tuple[Sequence[Example], Sequence[Example], Sequence[Example] | None]:
    limit = data.limit
    if data.file is None:
        assert data.val is not None
        val = _read(folder / data.val)[:limit]
        train = _read(folder / data.train)[:limit] if data.train else val
        return train, val, _read(folder / data.test)[:limit] if data.test else None
    rows = _read(folder / data.file)
    order = np.random.default_rng(data.seed).permutation(len(rows))
    shares = [data.split.get(name, 0.0) for name in ("train", "val", "test")]
    ends = [round(sum(shares[: k + 1]) * len(rows)) for k in range(3)]
    train, val, test = (
        [rows[int(i)] for i in order[start:end]][:limit]
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    )
    if not val:
        raise DataError(f"{data.file}: {len(rows)} examples leave none for validation.")
    return train or val, val, test or None


def _read(path: Path) -> list[Example]:
    return read_examples(read_jsonl(path), str(path))


def read_jsonl(path: Path) -> list[Any]:
    """Rows of a JSONL file.

    Raises:
        MissingFileError: there is no such file.
        DataError: a line is no JSON, with its number.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"no such file: {path}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}: no JSON: {error}") from None
    return rows
