"""Training checkpoints that are whole or absent: committed by rename, verified, pruned.

::

    DIR/
        .lock                     held by the job that writes here
        LATEST                    name of the newest checkpoint
        step-00000500/
            model.safetensors     trained parameters, by fully qualified name
            optim.safetensors     optimizer state: <parameter>.<slot>
            trainer.json          step, counters, data position, random states
            manifest.json         format, shapes, dtypes, size and sha256 of each file; written last

A save goes to ``step-….tmp-<uuid>``, is flushed, and takes its name by rename; then ``LATEST``
follows. A folder without a manifest, or whose files differ from it, is never resumed from.
Tensors are safetensors and the rest is JSON, so that loading runs no code from the file.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sharpen._version import __version__
from sharpen.core.errors import FileFormatError, SharpenError, storage_errors
from sharpen.core.files import FileLock, atomic_write_text, fsync_dir, fsync_tree, sha256_file
from sharpen.models.hf import save_tensors

__all__ = ["Checkpoint", "CheckpointManager"]

_log = logging.getLogger(__name__)
_FORMAT = 1
_GROUPS = ("model", "optim")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint, read and verified."""

    step: int
    groups: dict[str, dict[str, Tensor]]
    """``model`` and ``optim``: tensors by name."""
    trainer: dict[str, Any]
    """Plain data of the trainer."""


class CheckpointManager:
    """Writes and reads the checkpoints of one training job.

    Args:
        folder: where they lie; locked against a second job until :meth:`close`.
        keep: how many of the latest to keep.
        background: write in a thread; at most one save is in flight.

    Raises:
        BusyError: another job writes here; the message names it.
    """

    def __init__(self, folder: Path, *, keep: int = 3, background: bool = True) -> None:
        self.folder = folder
        self.keep = keep
        self.background = background
        self._lock = FileLock(folder / ".lock", f"the checkpoint folder {folder}")
        self._lock.acquire()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        for leftover in folder.glob("step-*.tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def save(
        self, step: int, groups: Mapping[str, Mapping[str, Tensor]], trainer: Mapping[str, Any]
    ) -> None:
        """Save a checkpoint; with ``background`` only the copy of the tensors is waited for.

        Args:
            step: optimizer steps done.
            groups: ``model`` and ``optim``, tensors by name; they may change after the call.
            trainer: plain data.

        Raises:
            StorageError: this save (or, in the background, the one before) could not be written.
        """
        self.wait()
        copies = {
            group: {name: _snapshot(tensor) for name, tensor in tensors.items()}
            for group, tensors in groups.items()
        }
        text = json.dumps(trainer)
        if not self.background:
            self._write(step, copies, text)
            return

        def work() -> None:
            try:
                self._write(step, copies, text)
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
        """The newest checkpoint that is whole; damaged ones are skipped with a warning."""
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            if path.suffix.startswith(".tmp"):
                continue
            try:
                return self.load(path)
            except SharpenError as error:
                _log.warning("skipping a damaged checkpoint: %s", error)
        return None

    def load(self, path: Path) -> Checkpoint:
        """Read one checkpoint, verifying every file first.

        Raises:
            FileFormatError: no manifest, another format, or a file that differs from it.
        """
        manifest = _read_manifest(path)
        for name, entry in manifest["files"].items():
            file = path / name
            if not file.is_file() or file.stat().st_size != entry["bytes"]:
                raise FileFormatError(f"{file} is missing or not {entry['bytes']} bytes long.")
            if sha256_file(file) != entry["sha256"]:
                raise FileFormatError(f"{file} does not have the sha256 of its manifest.")
        groups = {group: load_file(path / f"{group}.safetensors") for group in _GROUPS}
        trainer = json.loads((path / "trainer.json").read_text())
        return Checkpoint(step=manifest["step"], groups=groups, trainer=trainer)

    def _write(self, step: int, groups: Mapping[str, dict[str, Tensor]], trainer: str) -> None:
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f"{final.name}.tmp-{uuid.uuid4().hex}"
        with storage_errors(final):
            try:
                temporary.mkdir(parents=True)
                for group in _GROUPS:
                    save_tensors(groups[group], temporary / f"{group}.safetensors")
                (temporary / "trainer.json").write_text(trainer)
                manifest = {
                    "format_version": _FORMAT,
                    "step": step,
                    "sharpen": __version__,
                    "torch": torch.__version__,
                    "tensors": {
                        name: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")}
                        for name, t in groups["model"].items()
                    },
                    "files": {
                        p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
                        for p in sorted(temporary.iterdir())
                    },
                }
                (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
                fsync_tree(temporary)
                if final.exists():
                    shutil.rmtree(final)
                temporary.replace(final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            fsync_dir(self.folder)
        atomic_write_text(self.folder / "LATEST", final.name + "\n")
        self._prune()

    def _prune(self) -> None:
        """Keep the latest whole checkpoints; a folder without a manifest is garbage."""
        whole = []
        for path in sorted(self.folder.glob("step-*")):
            if path.suffix.startswith(".tmp") or not (path / "manifest.json").exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                whole.append(path)
        for path in whole[: -self.keep]:
            shutil.rmtree(path, ignore_errors=True)


def _snapshot(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        if manifest["format_version"] != _FORMAT:
            raise FileFormatError(
                f"{path} has checkpoint format {manifest['format_version']!r}; this version reads "
                f"{_FORMAT}."
            )
        files = manifest["files"]
        expected = {"model.safetensors", "optim.safetensors", "trainer.json"}
        if set(files) != expected or not isinstance(manifest["step"], int):
            raise FileFormatError(f"{path}/manifest.json does not name the files of a checkpoint.")
        for entry in files.values():
            if not isinstance(entry["bytes"], int) or not isinstance(entry["sha256"], str):
                raise TypeError("bytes or sha256")
    except FileNotFoundError:
        raise FileFormatError(f"{path} has no manifest.json: its save was cut short.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, SharpenError):
            raise
        raise FileFormatError(f"{path}/manifest.json is damaged: {error}") from None
    result: dict[str, Any] = manifest
    return result
