"""What studies measured, as one data set: each configuration once, with who tried it.

Srivatsan Krishnan et al., "ArchGym: An Open-Source Gymnasium for Machine Learning Assisted
Architecture Design", ISCA 2023, arXiv:2306.08888, pools the samples of all search algorithms.

Configurations are told apart by the hash that studies keep of them. Of equal ones the first stays;
later ones must have measured the same, or the studies are of different problems.

A file is JSONL, whose first line describes it, or Parquet with the same columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import (
    ConfigError,
    DataError,
    DependencyNotInstalled,
    FileFormatError,
    MissingFileError,
    did_you_mean,
)
from sharpen.core.feedback import Trial
from sharpen.core.files import atomic_write_bytes
from sharpen.core.space import Space
from sharpen.core.store import Store, open_store
from sharpen.core.study_view import StudyView

__all__ = ["Dataset", "Sample"]

Conflicts = Literal["error", "mean"]
_SCHEMA = "sharpen.samples/1"
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Sample:
    """One configuration and what it measured."""

    config: dict[str, Any]
    values: dict[str, float]
    """By name: objectives, and whatever numbers were kept beside them."""

    agent: str
    """Who proposed it first: an optimizer's name."""

    study: str
    """In which study."""


class Dataset(Sequence[Sample]):
    """Samples of one space, each configuration once.

    Args:
        space: of the configurations.
        samples: any number; equal configurations become one.
        conflicts: what happens when equal configurations measured differently: an error, or their
            mean.

    Raises:
        DataError: a sample lacks a value that others have, or equal ones differ.
    """

    def __init__(
        self, space: Space, samples: Iterable[Sample], *, conflicts: Conflicts = "error"
    ) -> None:
        if conflicts not in ("error", "mean"):
            raise ConfigError(f"conflicts={conflicts!r} must be error or mean.")
        self.space = space
        self.names: tuple[str, ...] = ()
        found: dict[str, list[Sample]] = {}
        self.given = 0
        """Samples before equal ones became one."""
        for sample in samples:
            self.given += 1
            self.names = self.names or tuple(sorted(sample.values))
            if tuple(sorted(sample.values)) != self.names:
                raise DataError(
                    f"a sample of '{sample.study}' has {', '.join(sorted(sample.values))}; others "
                    f"have {', '.join(self.names)}. Choose studies that measure the same."
                )
            found.setdefault(space.digest(sample.config), []).append(sample)
        self._samples = [_merged(same, conflicts) for same in found.values()]

    @classmethod
    def from_studies(
        cls,
        store: str | Path | Store,
        studies: str | Sequence[str] = "*",
        *,
        conflicts: Conflicts = "error",
    ) -> Dataset:
        """Every trial that ended well at the highest fidelity and kept its constraints.

        Args:
            store: its URL or file.
            studies: names, or a pattern such as ``"dram-stream-*"``.
            conflicts: see the class.

        Raises:
            ConfigError: no study fits, or their spaces differ.
            DataError: see the class.
        """
        opened = open_store(store, create=False)
        records = {record.name: record for record in opened.studies()}
        known = list(records)
        if isinstance(studies, str):
            chosen = [name for name in known if fnmatch(name, studies)]
        else:
            chosen = list(studies)
            for name in chosen:
                if name not in known:
                    raise ConfigError(
                        f"the store {opened.url} has no study '{name}'.{did_you_mean(name, known)}"
                    )
        if not chosen:
            raise ConfigError(
                f"no study of {opened.url} fits '{studies}'. It has: {', '.join(known) or 'none'}."
            )
        views = [StudyView(opened, records[name]) for name in chosen]
        for view in views[1:]:
            if view.space != views[0].space:
                raise ConfigError(
                    f"the studies '{views[0].name}' and '{view.name}' have different spaces; "
                    "choose those of one problem."
                )
        samples = (
            _sample(trial, view.name)
            for view in views
            for trial in view.trials()
            if trial.is_ok
            and trial.feasible
            and (view.fidelity is None or trial.fidelity in (None, view.fidelity.high))
        )
        return cls(views[0].space, samples, conflicts=conflicts)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        """A sample; or, of a slice or an array of numbers, a data set."""
        if isinstance(index, (int, np.integer)):
            return self._samples[index]
        if isinstance(index, slice):
            return Dataset(self.space, self._samples[index])
        return Dataset(self.space, (self._samples[int(i)] for i in index))

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    def __repr__(self) -> str:
        return f"Dataset({len(self)} samples of {', '.join(self.agents) or 'nobody'})"

    @property
    def agents(self) -> list[str]:
        """Who proposed samples, sorted."""
        return sorted({sample.agent for sample in self._samples})

    def values(self, name: str) -> npt.NDArray[np.float64]:
        """[n] of one measured value.

        Raises:
            ConfigError: there is no such value.
        """
        if name not in self.names:
            raise ConfigError(
                f"the samples have no '{name}'.{did_you_mean(name, self.names)} "
                f"They have: {', '.join(self.names) or 'none'}."
            )
        return np.array([sample.values[name] for sample in self._samples])

    # -- files ----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write ``.jsonl`` or ``.parquet``.

        Raises:
            FileFormatError: another suffix.
            DependencyNotInstalled: Parquet without pyarrow.
        """
        path = Path(path)
        head = {"schema": _SCHEMA, "space": self.space.to_dict(), "given": self.given}
        rows = [
            {"config": s.config, "values": s.values, "agent": s.agent, "study": s.study}
            for s in self._samples
        ]
        if path.suffix == ".jsonl":
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (head, *rows))
            atomic_write_bytes(path, text.encode())
        elif path.suffix == ".parquet":
            atomic_write_bytes(path, _to_parquet(head, rows, self.names))
        else:
            raise FileFormatError(f"{path}: a data set ends in .jsonl or .parquet.")

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Read what :meth:`save` wrote.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: it is no data set, or damaged; with the line.
            DependencyNotInstalled: Parquet without pyarrow.
        """
        path = Path(path)
        if path.suffix not in (".jsonl", ".parquet"):
            raise FileFormatError(f"{path}: a data set ends in .jsonl or .parquet.")
        if not path.is_file():
            raise MissingFileError(f"there is no data set {path}.")
        read = _read_jsonl if path.suffix == ".jsonl" else _read_parquet
        head, rows = read(path)
        if not isinstance(head, dict) or head.get("schema") != _SCHEMA:
            raise FileFormatError(f"{path} is no data set of samples: it lacks {_SCHEMA}.")
        space = Space.from_dict(head["space"])
        samples = []
        for number, row in rows:
            try:
                config = space.validate(row["config"])
                values = {str(k): float(v) for k, v in row["values"].items()}
                samples.append(Sample(config, values, str(row["agent"]), str(row["study"])))
            except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise FileFormatError(f"{path}:{number}: this is no sample: {error}") from None
        found = cls(space, samples)
        found.given = int(head.get("given", found.given))
        return found


def _sample(trial: Trial, study: str) -> Sample:
    assert trial.feedback is not None
    kept = {
        name: float(value)
        for name, value in trial.feedback.info.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "same_as"
    }
    values = {**kept, **trial.feedback.constraints, **trial.feedback.objectives}
    values = {name: value for name, value in values.items() if math.isfinite(value)}
    return Sample(trial.config, values, trial.origin, study)


def _merged(same: Sequence[Sample], conflicts: Conflicts) -> Sample:
    first = same[0]
    if conflicts == "mean":
        mean = {name: float(np.mean([s.values[name] for s in same])) for name in first.values}
        return Sample(first.config, mean, first.agent, first.study)
    for other in same[1:]:
        for name, value in first.values.items():
            if not math.isclose(value, other.values[name], rel_tol=_SAME, abs_tol=1e-300):
                raise DataError(
                    f"'{first.study}' and '{other.study}' measured {name}={value:g} and "
                    f"{other.values[name]:g} of one configuration. Choose studies of one problem, "
                    "or take conflicts='mean' where it is noisy."
                )
    return first


Rows = Iterable[tuple[int, Mapping[str, Any]]]


def _read_jsonl(path: Path) -> tuple[Any, Rows]:
    found: list[tuple[int, Any]] = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found.append((number, json.loads(line)))
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is no text: {error}.") from None
    except json.JSONDecodeError as error:
        raise FileFormatError(f"{path}:{len(found) + 1} is no JSON: {error}.") from None
    return (found[0][1] if found else None), found[1:]


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("Parquet", "data") from None
    return pyarrow


def _to_parquet(
    head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> bytes:
    pyarrow = _pyarrow()
    columns = {
        "config": pyarrow.array([json.dumps(row["config"]) for row in rows], pyarrow.string()),
        "agent": pyarrow.array([row["agent"] for row in rows], pyarrow.string()),
        "study": pyarrow.array([row["study"] for row in rows], pyarrow.string()),
    }
    for name in names:
        numbers = [row["values"][name] for row in rows]
        columns[f"value.{name}"] = pyarrow.array(numbers, pyarrow.float64())
    table = pyarrow.table(columns).replace_schema_metadata({"sharpen": json.dumps(head)})
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def _read_parquet(path: Path) -> tuple[Any, Rows]:
    pyarrow = _pyarrow()
    try:
        table = pyarrow.parquet.read_table(path)
        head = json.loads((table.schema.metadata or {}).get(b"sharpen", b"null"))
        rows = []
        for number, row in enumerate(table.to_pylist(), start=1):
            values = {k[6:]: v for k, v in row.items() if k.startswith("value.")}
            kept = {"agent": row["agent"], "study": row["study"], "values": values}
            rows.append((number, {"config": json.loads(row["config"]), **kept}))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path} cannot be read as a data set: {error}.") from None
    return head, rows
