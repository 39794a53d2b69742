"""Recipes of operators: the ``data`` stage of a recipe as a :class:`~sharpen.data.Dataset`.

::

    sharpen: 1
    name: web-text
    data:
      source: {path: corpus/*.jsonl.gz}
      process:
        - fix_unicode
        - text_length: {min: 50}
        - minhash_dedup: {threshold: 0.7}
      output: {path: clean}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sharpen.core.config import Document, Marks, apply_overrides, from_dict, load_yaml
from sharpen.core.errors import ConfigError
from sharpen.data.config import DataConfig, SourceConfig
from sharpen.data.dataset import Dataset, Result
from sharpen.data.mixing import open_rows, resolve_source
from sharpen.data.ops.base import Operator, operator_type
from sharpen.data.remote import upload
from sharpen.data.sources import FileSource, RowSource, Source

__all__ = ["DataRecipe", "load_data_recipe", "open_source", "operators_of"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """A recipe's ``data`` stage, checked."""

    name: str
    config: DataConfig
    dataset: Dataset

    @property
    def output(self) -> Path:
        """The folder of the result."""
        return Path(self.config.output.path or Path("clean") / self.name)

    def run(
        self,
        output: str | Path | None = None,
        *,
        executor: Literal["threads", "ray"] = "threads",
        workers: int | None = None,
        cache: str | Path | None = None,
        overwrite: bool = False,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> Result:
        """Carry it out, and copy the result to ``output.upload``.

        See :meth:`Dataset.write` for what is raised, and :func:`~sharpen.data.remote.upload`.

        Args:
            output: another folder than the recipe's.
            executor: ``threads`` or ``ray``.
            workers: threads, default one for each core; or tasks at once.
            cache: a folder in which what operators came to is kept for other recipes.
            overwrite: replace a folder that holds something else.
            on_rows: is told of rows that are done.
        """
        wanted = self.config.output
        result = self.dataset.write(
            output or self.output,
            format=wanted.format,
            trace=wanted.trace,
            excerpts=wanted.excerpts,
            keep_statistics=wanted.keep_statistics,
            shard_bytes=wanted.shard_bytes,
            on_error=self.config.on_error,
            order=self.config.order,
            executor=executor,
            workers=workers,
            cache=cache,
            overwrite=overwrite,
            on_rows=on_rows,
        )
        if wanted.upload is not None:
            upload(result.output, wanted.upload)
        return result


def load_data_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    stage: str = "data",
) -> DataRecipe:
    """Read and check a recipe's stage of data; other stages are not looked at.

    Args:
        source: a YAML file, or the same as plain data.
        overrides: ``["data.limit=100"]`` or ``{"data.limit": 100}``.
        stage: its name, if the recipe has several.

    Raises:
        ConfigError: anything wrong in it, with file and line.
        MissingFileError: the file, or one that it names, does not exist.
    """
    folder: Path | None = None
    if isinstance(source, Mapping):
        document = Document(dict(source), Marks())
    else:
        document = load_yaml(source)
        folder = Path(source).absolute().parent
    document = apply_overrides(document, overrides)
    data, marks = document.data, document.marks
    if not isinstance(data, dict) or data.get("sharpen") != _FORMAT:
        raise ConfigError(f"{marks.file or 'a recipe'} must begin with 'sharpen: {_FORMAT}'.")
    name = data.get("name", Path(marks.file).stem if marks.file else "recipe")
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise ConfigError(f"{marks.at(('name',))}: name must be a word, got {name!r}.")
    if stage not in data:
        found = ", ".join(key for key in data if key not in ("sharpen", "name", "seed", "model"))
        raise ConfigError(
            f"{marks.file or 'the recipe'} has no stage '{stage}'; it has: {found or 'none'}."
        )
    fields = data[stage]
    if isinstance(fields, dict):
        fields = {k: v for k, v in fields.items() if k not in ("uses", "after", "seed")}
        operators_of(fields.get("process") or [], path=(stage, "process"), marks=marks)
    config = from_dict(DataConfig, fields, path=(stage,), marks=marks)
    rows = open_source(config.source, folder, limit=config.limit)
    return DataRecipe(name, config, Dataset(rows, tuple(operators_of(config.process))))


def open_source(config: SourceConfig, folder: Path | None, *, limit: int | None = None) -> Source:
    """The rows of a recipe's source.

    Args:
        config: a path, an asset or a mix.
        folder: of the recipe; paths start at the working folder, else there.
        limit: at most so many rows.

    Raises:
        MissingFileError: nothing is there.
        AssetNotInstalled: the asset is not there.
    """
    if config.path is not None and config.max_samples is None:  # keeps columns of Parquet
        return FileSource(
            resolve_source(config.path, folder), text_key=config.text_key, limit=limit
        )
    return RowSource(open_rows(config, folder), text_key=config.text_key, limit=limit)


def operators_of(
    process: Sequence[Any],
    *,
    path: tuple[str | int, ...] = ("process",),
    marks: Marks | None = None,
) -> list[Operator]:
    """Operators from a recipe's words.

    Args:
        process: names, or mappings of one name to its arguments.
        path: where the list stands in its document.
        marks: the document's, for file and line in messages.

    Raises:
        ConfigError: an unknown name or argument, or a value out of range.
    """
    marks = marks or Marks()

    def fail(i: int, message: str) -> ConfigError:
        where = marks.at((*path, i))
        return ConfigError(f"{where + ': ' if where else ''}process[{i}]: {message}")

    if not isinstance(process, list | tuple):
        raise ConfigError(f"{marks.at(path)}: process must be a list, got {process!r}.")
    found = []
    for i, one in enumerate(process):
        name: Any = one
        arguments: Any = {}
        if isinstance(one, Mapping) and len(one) == 1:
            name, arguments = next(iter(one.items()))
        if not isinstance(name, str):
            raise fail(i, f"it must be a name, or one name with its arguments, got {one!r:.80}.")
        try:
            kind = operator_type(name)
        except ConfigError as error:
            raise fail(i, str(error)) from None
        found.append(from_dict(kind, arguments, path=(*path, i, name), marks=marks))
    return found
