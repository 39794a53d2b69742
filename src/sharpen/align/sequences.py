"""Token sequences side by side: checked, cut, joined, moved and saved field by field.

:class:`Sequences` is the base of every batch; :mod:`sharpen.align.batch` has the kinds and says
what their tensors hold. A field's metadata says what there is one number of (a token, a row, an
example) and its kind, so that the work is written once for all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.core.files import atomic_write_text
from sharpen.data.model_file import load_arrays, reading, save_arrays

__all__ = [
    "EXAMPLE_BOOL",
    "EXAMPLE_FLOAT",
    "ROW_FLOAT",
    "ROW_INT",
    "ROW_LIST",
    "TOKEN_BOOL",
    "TOKEN_FLOAT",
    "TOKEN_INT",
    "Sequences",
]


TOKEN_INT, TOKEN_BOOL, TOKEN_FLOAT, ROW_INT, ROW_FLOAT, ROW_LIST, EXAMPLE_BOOL, EXAMPLE_FLOAT = (
    {"per": per, "dtype": dtype}
    for per, dtype in (
        ("token", "int"),
        ("token", "bool"),
        ("token", "float"),
        ("row", "int"),
        ("row", "float"),
        ("row", "list"),
        ("example", "bool"),
        ("example", "float"),
    )
)
"""Metadata of fields: what there is one number of, and its kind; a ``list`` is no tensor."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sequences:
    """The fields that all batches share; see :mod:`sharpen.align.batch`."""

    input_ids: Tensor = field(metadata=TOKEN_INT)
    attention_mask: Tensor = field(metadata=TOKEN_BOOL)
    action_mask: Tensor = field(metadata=TOKEN_BOOL)

    in_halves: ClassVar[bool] = False
    """Whether an example is two rows: i of the first half and i of the second."""

    def __len__(self) -> int:
        """Number of examples."""
        return self.num_rows // 2 if self.in_halves else self.num_rows

    @property
    def num_rows(self) -> int:
        """N."""
        return int(self.input_ids.shape[0])

    @property
    def width(self) -> int:
        """T."""
        return int(self.input_ids.shape[1])

    @property
    def completion_lengths(self) -> Tensor:
        """int64 [N]: action tokens of each row."""
        return self.action_mask.sum(1)

    def rows_of(self, examples: Tensor) -> Tensor:
        """int64: the rows of some examples, in the order that a batch of them has."""
        return torch.cat([examples, examples + len(self)]) if self.in_halves else examples

    def validate(self, vocab_size: int | None = None) -> Self:
        """Check shapes, types, masks, ids and that all numbers are finite.

        Args:
            vocab_size: the number of token ids; None does not check them.

        Returns:
            The batch itself.

        Raises:
            DataError: something is wrong; the message names the field and the row.
        """
        self._check_shapes()
        self._check_examples()
        text, actions = self.attention_mask, self.action_mask
        self._refuse(
            "attention_mask",
            text[:, 1:] & ~text[:, :-1],
            "has text after padding: pad on the right",
        )
        self._refuse("attention_mask", ~text[:, :1], "marks no text")
        self._refuse("action_mask", actions & ~text, "marks padding")
        self._refuse(
            "action_mask",
            actions[:, :1],
            "marks the first token, which nothing predicts: give each row a prompt",
        )
        self._refuse("input_ids", self.input_ids < 0, "has a negative id")
        if vocab_size is not None:
            self._refuse(
                "input_ids",
                self.input_ids >= vocab_size,
                f"has an id outside the vocabulary of {vocab_size}",
            )
        for name, value in self._tensors().items():
            if value.is_floating_point():
                self._refuse(name, ~torch.isfinite(value), "is NaN or infinite")
        return self

    def select(self, examples: Tensor | Sequence[int]) -> Self:
        """A batch of the given examples; columns that only pad them are dropped."""
        chosen = torch.as_tensor(examples, dtype=torch.int64, device=self.input_ids.device)
        rows = self.rows_of(chosen)
        width = max(1, int(self.attention_mask[rows].sum(1).max())) if len(rows) else 1
        changes: dict[str, Any] = {}
        for name, value in self._tensors().items():
            kept = value[chosen if self._per(name) == "example" else rows]
            changes[name] = kept[:, :width] if self._per(name) == "token" else kept
        numbers = rows.tolist()
        for name, values in self._lists().items():
            changes[name] = [values[row] for row in numbers]
        return replace(self, **changes)

    def split(self, parts: int) -> list[Self]:
        """The batch cut into ``parts`` of nearly equal numbers of examples, in order.

        Raises:
            ConfigError: there are fewer examples than parts.
        """
        if not 1 <= parts <= len(self):
            raise ConfigError(
                f"parts={parts} must be from 1 to the batch's {len(self)} examples: take a larger "
                "batch or fewer parts."
            )
        return [self.select(part) for part in torch.arange(len(self)).tensor_split(parts)]

    @classmethod
    def merge(cls, batches: Iterable[Self]) -> Self:
        """One batch of the examples of several, padded to the widest.

        Raises:
            DataError: there is none, or a field is set in only some of them.
        """
        found = list(batches)
        if not found:
            raise DataError(f"{cls.__name__}.merge was given no batch: give at least one.")
        width = max(batch.width for batch in found)
        first, order = found[0], _order(found)
        changes: dict[str, Any] = {}
        for one in fields(first):
            name, per = one.name, one.metadata["per"]
            values = [getattr(batch, name) for batch in found]
            if any((value is None) != (values[0] is None) for value in values):
                raise DataError(f"{name} is set in only some of the {len(found)} batches to merge.")
            if values[0] is None:
                continue
            if not isinstance(values[0], Tensor):
                joined = [entry for value in values for entry in value]
                changes[name] = [joined[row] for row in order.tolist()]
            elif per == "token":
                wide = [F.pad(value, (0, width - value.shape[1])) for value in values]
                changes[name] = torch.cat(wide)[order.to(values[0].device)]
            else:
                together = torch.cat(values)
                changes[name] = together[order.to(together.device)] if per == "row" else together
        return replace(first, **changes)

    def to(self, device: torch.device | str) -> Self:
        """The batch with its tensors on ``device``."""
        moved = {name: value.to(device) for name, value in self._tensors().items()}
        return replace(self, **moved)

    def save(self, path: str | Path) -> None:
        """Write the tensors to ``path`` (``….safetensors``) and what is no tensor beside it.

        What is no tensor goes to the same name with ``.jsonl``, one row a line.

        Raises:
            ConfigError: the path does not end in ``.safetensors``.
            DataError: a row's ``meta`` has no form in JSON.
            StorageError: it cannot be written.
        """
        path = _tensor_path(path)
        lists = self._lists()
        about = {}
        if lists:
            text = "".join(
                _json_line({name: values[row] for name, values in lists.items()}, row)
                for row in range(self.num_rows)
            )
            about["rows_sha256"] = hashlib.sha256(text.encode()).hexdigest()
            atomic_write_text(path.with_suffix(".jsonl"), text)
        arrays = {name: value.detach().cpu().numpy() for name, value in self._tensors().items()}
        save_arrays(path, type(self).__name__, arrays, about)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A batch that :meth:`save` wrote.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: it is damaged, holds another kind of batch, or the two files belong to
                different batches.
        """
        path = _tensor_path(path)
        arrays, about = load_arrays(path, cls.__name__)
        values: dict[str, Any] = {name: torch.from_numpy(one) for name, one in arrays.items()}
        if "rows_sha256" in about:
            beside = path.with_suffix(".jsonl")
            if not beside.is_file():
                raise MissingFileError(f"{beside} is missing; it belongs to {path}.")
            text = beside.read_bytes()
            if hashlib.sha256(text).hexdigest() != about["rows_sha256"]:
                raise FileFormatError(f"{beside} does not belong to {path}: save the batch again.")
            lines = [json.loads(line) for line in text.splitlines()]
            names = [one.name for one in fields(cls) if one.metadata["dtype"] == "list"]
            values |= {name: [line[name] for line in lines] for name in names}
        with reading(path):
            return cls(**values)

    def _per(self, name: str) -> str:
        """What there is one of: ``token``, ``row`` or ``example``."""
        return next(str(one.metadata["per"]) for one in fields(self) if one.name == name)

    def _tensors(self) -> dict[str, Tensor]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _lists(self) -> dict[str, list[Any]]:
        names = [one.name for one in fields(self) if one.metadata["dtype"] == "list"]
        return {name: getattr(self, name) for name in names}

    def _check_examples(self) -> None:
        """What a kind of batch must hold besides."""
        if self.in_halves and self.num_rows % 2:
            raise DataError(
                f"{type(self).__name__} has {self.num_rows} rows, but must have two an example."
            )

    def _check_shapes(self) -> None:
        if self.input_ids.dim() != 2 or self.width < 1:
            raise DataError(
                f"input_ids has shape {list(self.input_ids.shape)}, but must be [rows, tokens]."
            )
        shapes = {"token": [self.num_rows, self.width], "row": [self.num_rows]}
        for one in fields(self):
            value, kind = getattr(self, one.name), one.metadata["dtype"]
            shape = shapes.get(one.metadata["per"], [len(self)])
            if value is None and one.default is None:
                continue
            if kind == "list":
                if len(value) != self.num_rows:
                    raise DataError(
                        f"{one.name} has {len(value)} entries, but the batch {self.num_rows} rows."
                    )
            elif not isinstance(value, Tensor) or list(value.shape) != shape:
                given = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise DataError(f"{one.name} is {given}, but must be a tensor of shape {shape}.")
            elif value.dtype not in _DTYPES[kind]:
                allowed = " or ".join(str(dtype) for dtype in _DTYPES[kind])
                raise DataError(f"{one.name} is {value.dtype}, but must be {allowed}.")

    def _refuse(self, name: str, wrong: Tensor, why: str) -> None:
        """Raise for the first row (of an example's value: example) in which ``wrong`` is true."""
        if not bool(wrong.any()):
            return
        index = int(wrong.reshape(wrong.shape[0], -1).any(1).nonzero()[0])
        what = "example" if self._per(name) == "example" else "row"
        raise DataError(f"{name} of {what} {index} {why}.")


_DTYPES: Mapping[str, tuple[torch.dtype, ...]] = {
    "int": (torch.int64,),
    "bool": (torch.bool,),
    "float": (torch.float32, torch.float64),
}


def _order(batches: Sequence[Sequences]) -> Tensor:
    """Rows of the batches one after the other, in the order of their merged batch."""
    halves: list[list[Tensor]] = [[], []]
    start = 0
    for batch in batches:
        rows = torch.arange(start, start + batch.num_rows)
        middle = len(batch) if batch.in_halves else batch.num_rows
        halves[0].append(rows[:middle])
        halves[1].append(rows[middle:])
        start += batch.num_rows
    return torch.cat([*halves[0], *halves[1]])


def _tensor_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path} must end in .safetensors; the rows' words go beside it.")
    return path


def _json_line(row: Mapping[str, Any], number: int) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"meta of row {number} has no form in JSON: {error}.") from error
