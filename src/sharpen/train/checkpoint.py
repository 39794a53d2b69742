"""Training checkpoints that are whole or absent: committed by rename, verified, pruned.

::

    DIR/
        .lock                                   held by the job that writes here
        LATEST                                  name of the newest checkpoint
        step-00000500/
            model-00000-of-00002.safetensors    trained parameters that rank 0 keeps, by name
            optim-00000-of-00002.safetensors    optimizer state: <parameter>.<slot>
            rank-00000.json                     what rank 0 wrote, and its random states
            trainer.json                        step, counters, data position
            manifest.json                       format, shapes, size and sha256 of each file; last

Each rank writes the rows it keeps, at the same time as the others. Every tensor is described by its
whole shape, and a piece by its first row, so another number of ranks, cut differently, reads what
it needs: a checkpoint belongs to no layout. A save goes to ``step-….tmp-<job>``, is flushed, and
takes its name by rename when all ranks are done; then ``LATEST`` follows. A folder without a
manifest, or whose files differ from it, is never resumed from: where it is found it is set aside as
``damaged-step-…`` and counts as no checkpoint any more. Tensors are safetensors and the rest is
JSON, so that loading runs no code from the file.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sharpen._version import __version__
from sharpen.core.errors import (
    ExecutionError,
    FileFormatError,
    SharpenError,
    StorageError,
    storage_errors,
)
from sharpen.core.files import (
    FileLock,
    atomic_write_text,
    fsync_dir,
    fsync_file,
    fsync_tree,
    sha256_file,
)
from sharpen.models.hf import save_tensors

__all__ = ["Checkpoint", "CheckpointManager", "Piece", "read_trained"]

_log = logging.getLogger(__name__)
_FORMAT = 2
_GROUPS = ("model", "optim")
_OTHERS_S = 600  # how long rank 0 waits for the other ranks' files


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a tensor, along its first dimension."""

    tensor: Tensor
    """The rows."""

    start: int
    """Index of the first of them in the whole tensor."""

    shape: tuple[int, ...]
    """Of the whole tensor."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint; tensors are read when asked for."""

    path: Path
    step: int
    trainer: dict[str, Any]
    """Plain data of the trainer."""
    manifest: dict[str, Any]

    @property
    def world_size(self) -> int:
        """Ranks that wrote it."""
        return int(self.manifest["world_size"])

    def names(self, group: str) -> list[str]:
        """Names of a group's tensors, sorted."""
        return sorted(self.manifest["tensors"][group])

    def shape(self, group: str, name: str) -> tuple[int, ...]:
        """Shape of a whole tensor."""
        return tuple(self.manifest["tensors"][group][name]["shape"])

    def read(self, group: str, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows ``start`` to ``stop`` of a tensor (all of a scalar), whoever wrote them.

        Raises:
            FileFormatError: no file holds some of the rows.
        """
        shape = self.shape(group, name)
        if not shape:
            return next(self._rows(group, name, 0, 1))
        stop = shape[0] if stop is None else stop
        parts = list(self._rows(group, name, start, stop))
        if sum(part.shape[0] for part in parts) != stop - start:
            raise FileFormatError(f"{self.path} does not hold rows {start} to {stop} of {name}.")
        if not parts:
            dtype = getattr(torch, self.manifest["tensors"][group][name]["dtype"])
            return torch.empty((0, *shape[1:]), dtype=dtype)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _rows(self, group: str, name: str, start: int, stop: int) -> Iterator[Tensor]:
        pieces = []
        for file, entries in self.manifest["pieces"].items():
            if file.startswith(group) and name in entries:
                first, rows = entries[name]
                if first < stop and start < first + rows:
                    pieces.append((first, rows, file))
        at = start
        for first, rows, file in sorted(pieces):
            if first > at:
                return
            with safe_open(self.path / file, "pt") as opened:
                if not self.shape(group, name):
                    yield opened.get_tensor(name)
                    return
                end = min(stop, first + rows)
                if end > at:
                    yield opened.get_slice(name)[at - first : end - first]
                    at = end

    def tensors(self, group: str) -> dict[str, Tensor]:
        """All of a group, whole."""
        return {name: self.read(group, name) for name in self.names(group)}

    def rank_state(self, rank: int) -> Any:
        """What a rank stored for itself."""
        return json.loads((self.path / _rank_file(rank)).read_text())["state"]


class CheckpointManager:
    """Writes and reads the checkpoints of one training job.

    Args:
        folder: where they lie; rank 0 locks it against a second job until :meth:`close`.
        keep: how many of the latest to keep.
        background: write in a thread; at most one save is in flight.
        rank: which of the job's ranks this is.
        world_size: number of ranks; each calls :meth:`save` for every checkpoint.
        job: a name that the job's ranks share and no other job has; needed with several ranks.

    Raises:
        BusyError: another job writes here; the message names it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 3,
        background: bool = True,
        rank: int = 0,
        world_size: int = 1,
        job: str = "",
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.background = background
        self.rank = rank
        self.world_size = world_size
        self._job = job or uuid.uuid4().hex
        self._lock = FileLock(folder / ".lock", f"the checkpoint folder {folder}")
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        if rank == 0:
            self._lock.acquire()
            for leftover in folder.glob("step-*.tmp-*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def save(
        self,
        step: int,
        groups: Mapping[str, Mapping[str, Tensor | Piece]],
        trainer: Mapping[str, Any],
        state: Any = None,
    ) -> None:
        """Save a checkpoint; with ``background`` only the copy of the tensors is waited for.

        Args:
            step: optimizer steps done.
            groups: ``model`` and ``optim``: what this rank keeps, by name; together the ranks give
                every row once. They may change after the call.
            trainer: plain data, alike on all ranks.
            state: plain data of this rank.

        Raises:
            StorageError: this save (or, in the background, the one before) could not be written.
        """
        self.wait()
        copies = {
            group: {name: _snapshot(tensor) for name, tensor in tensors.items()}
            for group, tensors in groups.items()
        }
        texts = json.dumps(trainer), json.dumps(state)
        if not self.background:
            self._write(step, copies, *texts)
            return

        def work() -> None:
            try:
                self._write(step, copies, *texts)
            except BaseException as error:
                self._failure = error

        self._thread = threading.Thread(target=work, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the save in flight and raise what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def close(self) -> None:
        """Finish the save in flight and let go of the folder."""
        try:
            self.wait()
        finally:
            self._lock.release()

    def load_latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are set aside, each with a warning.

        Only the rank that holds the folder's lock may call it.
        """
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            if path.suffix.startswith(".tmp"):
                continue
            try:
                return self.load(path)
            except SharpenError as error:
                _set_aside(path, error)
        return None

    def load(self, path: Path, *, verify: bool = True) -> Checkpoint:
        """Open one checkpoint.

        Args:
            path: its folder.
            verify: compare every file with its sha256 first; one rank of a job is enough.

        Raises:
            FileFormatError: no manifest, another format, or a file that differs from it.
        """
        manifest = _read_manifest(path)
        for name, entry in manifest["files"].items() if verify else ():
            file = path / name
            if not file.is_file() or file.stat().st_size != entry["bytes"]:
                raise FileFormatError(f"{file} is missing or not {entry['bytes']} bytes long.")
            if sha256_file(file) != entry["sha256"]:
                raise FileFormatError(f"{file} does not have the sha256 of its manifest.")
        trainer = json.loads((path / "trainer.json").read_text())
        return Checkpoint(path=path, step=manifest["step"], trainer=trainer, manifest=manifest)

    def _write(
        self, step: int, groups: Mapping[str, dict[str, Piece]], trainer: str, state: str
    ) -> None:
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f"{final.name}.tmp-{self._job}"
        with storage_errors(final):
            try:
                temporary.mkdir(parents=True, exist_ok=True)
                self._write_own(temporary, groups, state)
                if self.rank == 0:
                    self._commit(temporary, final, step, trainer)
            except BaseException as error:
                if self.rank == 0:
                    shutil.rmtree(temporary, ignore_errors=True)
                else:
                    _leave_word(temporary / _rank_file(self.rank), error)
                raise

    def _write_own(self, folder: Path, groups: Mapping[str, dict[str, Piece]], state: str) -> None:
        """This rank's files, and last the list of them."""
        written: dict[str, Any] = {"tensors": {}, "pieces": {}, "files": {}}
        for group in _GROUPS:
            file = f"{group}-{self.rank:05d}-of-{self.world_size:05d}.safetensors"
            pieces = groups[group]
            save_tensors({name: piece.tensor for name, piece in pieces.items()}, folder / file)
            written["tensors"][group] = {
                name: {
                    "shape": list(piece.shape),
                    "dtype": str(piece.tensor.dtype).removeprefix("torch."),
                }
                for name, piece in pieces.items()
            }
            written["pieces"][file] = {
                name: [piece.start, piece.tensor.shape[0] if piece.shape else 1]
                for name, piece in pieces.items()
            }
            written["files"][file] = _described(folder / file)
            fsync_file(folder / file)
        written["state"] = json.loads(state)
        atomic_write_text(folder / _rank_file(self.rank), json.dumps(written))

    def _commit(self, temporary: Path, final: Path, step: int, trainer: str) -> None:
        """Wait for all ranks, then write the manifest and give the folder its name."""
        ranks = [self._others(temporary / _rank_file(rank)) for rank in range(self.world_size)]
        (temporary / "trainer.json").write_text(trainer)
        files = {name: entry for one in ranks for name, entry in one["files"].items()}
        for name in ("trainer.json", *(_rank_file(rank) for rank in range(self.world_size))):
            files[name] = _described(temporary / name)
        manifest = {
            "format_version": _FORMAT,
            "step": step,
            "world_size": self.world_size,
            "sharpen": __version__,
            "torch": torch.__version__,
            "tensors": {
                group: {name: t for one in ranks for name, t in one["tensors"][group].items()}
                for group in _GROUPS
            },
            "pieces": {file: pieces for one in ranks for file, pieces in one["pieces"].items()},
            "files": files,
        }
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        fsync_tree(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.replace(final)
        fsync_dir(self.folder)
        atomic_write_text(self.folder / "LATEST", final.name + "\n")
        self._prune()

    def _others(self, path: Path) -> dict[str, Any]:
        deadline = time.monotonic() + _OTHERS_S
        while not path.exists():
            if time.monotonic() > deadline:
                raise StorageError(f"{path.stem} did not write its part within {_OTHERS_S} s.")
            time.sleep(0.01)
        written: dict[str, Any] = json.loads(path.read_text())
        if "error" in written:
            raise StorageError(f"{path.stem} could not write its part: {written['error']}")
        return written

    def _prune(self) -> None:
        """Keep the latest whole checkpoints; a folder without a manifest is garbage."""
        whole = []
        for path in sorted(self.folder.glob("step-*")):
            if path.name.endswith(f".tmp-{self._job}"):
                continue  # other ranks have begun the next one
            if path.suffix.startswith(".tmp") or not (path / "manifest.json").exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                whole.append(path)
        for path in whole[: -self.keep]:
            shutil.rmtree(path, ignore_errors=True)


def _set_aside(path: Path, error: SharpenError) -> None:
    """Take its name from a damaged checkpoint, lest it be found again or kept for a whole one."""
    aside = path.with_name(f"damaged-{path.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        _log.warning("a damaged checkpoint is now %s: %s", aside.name, error)
    except OSError as failure:
        _log.warning("skipping a damaged checkpoint: %s (%s)", error, failure)


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def _described(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _leave_word(path: Path, error: BaseException) -> None:
    """Tell rank 0 that this rank failed; on a full disk it finds out by waiting."""
    try:
        path.write_text(json.dumps({"error": str(error)}))
    except OSError:
        _log.warning("could not tell rank 0 that its checkpoint is incomplete")


def _snapshot(tensor: Tensor | Piece) -> Piece:
    piece = tensor if isinstance(tensor, Piece) else Piece(tensor, 0, tuple(tensor.shape))
    copy = piece.tensor.detach().to("cpu", copy=True).contiguous()
    return Piece(copy, piece.start, piece.shape)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        if manifest["format_version"] != _FORMAT:
            raise FileFormatError(
                f"{path} has checkpoint format {manifest['format_version']!r}; this version reads "
                f"{_FORMAT}."
            )
        files, world_size = manifest["files"], manifest["world_size"]
        expected = {"trainer.json", *manifest["pieces"], *map(_rank_file, range(world_size))}
        if set(files) != expected or not isinstance(manifest["step"], int):
            raise FileFormatError(f"{path}/manifest.json does not name the files of a checkpoint.")
        if any("/" in name for name in files):
            raise FileFormatError(f"{path}/manifest.json names a file outside the checkpoint.")
        for entry in files.values():
            if not isinstance(entry["bytes"], int) or not isinstance(entry["sha256"], str):
                raise TypeError("bytes or sha256")
        for group in _GROUPS:
            for described in manifest["tensors"][group].values():
                if not all(isinstance(size, int) for size in described["shape"]):
                    raise TypeError("shape")
    except FileNotFoundError:
        raise FileFormatError(f"{path} has no manifest.json: its save was cut short.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, SharpenError):
            raise
        raise FileFormatError(f"{path}/manifest.json is damaged: {error}") from None
    result: dict[str, Any] = manifest
    return result


def read_trained(model: nn.Module, folder: Path, steps: int) -> None:
    """Copy what trains of a model from the last checkpoint of a training that has ended.

    Args:
        model: its parameters that require gradients change.
        folder: of the checkpoints.
        steps: that the training did.

    Raises:
        ExecutionError: that checkpoint is gone or damaged.
    """
    manager = CheckpointManager(folder)
    try:
        found = manager.load_latest()
    finally:
        manager.close()
    if found is None or found.step != steps:
        raise ExecutionError(f"the last checkpoint in {folder} is gone or damaged.")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(found.read("model", name))
