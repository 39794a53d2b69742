import json
from pathlib import Path

import pytest
import torch

from sharpen.core.errors import BusyError, FileFormatError, StorageError
from sharpen.train.checkpoint import CheckpointManager

GROUPS = {"model": {"w": torch.arange(6.0).view(2, 3)}, "optim": {"w.step": torch.tensor(3.0)}}


def _manager(folder: Path, **options: object) -> CheckpointManager:
    return CheckpointManager(folder, **{"background": False, **options})  # type: ignore[arg-type]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    manager = _manager(tmp_path / "c")
    manager.save(7, GROUPS, {"state": {"step": 7}})
    found = manager.load_latest()
    assert found is not None
    assert (found.step, found.trainer) == (7, {"state": {"step": 7}})
    torch.testing.assert_close(found.tensors("model")["w"], GROUPS["model"]["w"])
    assert (tmp_path / "c" / "LATEST").read_text() == "step-00000007\n"


def test_a_background_save_takes_a_copy_and_the_next_one_waits(tmp_path: Path) -> None:
    manager = _manager(tmp_path, background=True)
    w = torch.zeros(1000)
    manager.save(1, {"model": {"w": w}, "optim": {}}, {})
    w.fill_(5.0)
    manager.save(2, {"model": {"w": w}, "optim": {}}, {})
    manager.wait()
    first = manager.load(tmp_path / "step-00000001")
    assert float(first.tensors("model")["w"].sum()) == 0.0
    manager.close()


def test_only_the_latest_are_kept(tmp_path: Path) -> None:
    manager = _manager(tmp_path, keep=2)
    for step in range(1, 6):
        manager.save(step, GROUPS, {})
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000004", "step-00000005"]


@pytest.mark.parametrize(
    "name",
    [
        "model-00000-of-00001.safetensors",
        "optim-00000-of-00001.safetensors",
        "rank-00000.json",
        "trainer.json",
    ],
)
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_a_damaged_checkpoint_is_set_aside(
    tmp_path: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager = _manager(tmp_path)
    manager.save(1, GROUPS, {"a": 1})
    manager.save(2, GROUPS, {"a": 2})
    file = tmp_path / "step-00000002" / name
    data = bytearray(file.read_bytes())
    if harm == "remove":
        file.unlink()
    elif harm == "truncate":
        file.write_bytes(data[:-1])
    else:
        data[-1] ^= 1
        file.write_bytes(bytes(data))
    found = manager.load_latest()
    assert found is not None and found.step == 1
    assert manager.load_latest() == found
    (told,) = caplog.messages  # once, though it was looked for twice
    assert "now damaged-step-00000002" in told and f"step-00000002/{name}" in told
    with pytest.raises(FileFormatError, match=name):
        manager.load(tmp_path / "damaged-step-00000002")


def test_a_damaged_checkpoint_is_not_kept_for_a_whole_one(tmp_path: Path) -> None:
    manager = _manager(tmp_path, keep=1)
    manager.save(9, GROUPS, {})
    (tmp_path / "step-00000009" / "trainer.json").unlink()
    assert manager.load_latest() is None
    manager.save(5, GROUPS, {})  # another checkpoint.every, from an earlier step
    found = manager.load_latest()
    assert found is not None and found.step == 5


def test_a_damaged_checkpoint_that_cannot_be_renamed_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = _manager(tmp_path)
    manager.save(1, GROUPS, {})
    manager.save(2, GROUPS, {})
    (tmp_path / "step-00000002" / "trainer.json").unlink()

    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(f"{path} belongs to another user")

    monkeypatch.setattr(Path, "rename", refuse)
    found = manager.load_latest()
    assert found is not None and found.step == 1
    assert "skipping a damaged checkpoint" in caplog.text and "another user" in caplog.text


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{}", '{"format_version": 9}', '{"format_version": 2, "files": 3}']
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, manifest: str) -> None:
    manager = _manager(tmp_path)
    manager.save(1, GROUPS, {})
    (tmp_path / "step-00000001" / "manifest.json").write_text(manifest)
    with pytest.raises(FileFormatError):
        manager.load(tmp_path / "step-00000001")
    assert manager.load_latest() is None


def test_a_save_that_was_cut_short_is_garbage(tmp_path: Path) -> None:
    torn = tmp_path / "step-00000009.tmp-abc"
    torn.mkdir()
    unsigned = tmp_path / "step-00000008"
    unsigned.mkdir()
    manager = _manager(tmp_path)
    assert not torn.exists()
    assert manager.load_latest() is None
    manager.save(1, GROUPS, {})
    assert not unsigned.exists()


def test_a_second_job_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    manager = _manager(tmp_path)
    with pytest.raises(BusyError, match="in use by pid"):
        _manager(tmp_path)
    manager.close()
    _manager(tmp_path).close()


def test_a_background_save_that_fails_is_raised_later_and_leaves_nothing(tmp_path: Path) -> None:
    manager = _manager(tmp_path, background=True)
    (tmp_path / "step-00000001").write_text("in the way")
    manager.save(1, GROUPS, {})
    with pytest.raises((StorageError, OSError)):
        manager.wait()
    assert list(tmp_path.glob("*.tmp-*")) == []


def test_the_manifest_names_shapes_types_and_hashes(tmp_path: Path) -> None:
    manager = _manager(tmp_path)
    manager.save(1, GROUPS, {})
    manifest = json.loads((tmp_path / "step-00000001" / "manifest.json").read_text())
    assert manifest["tensors"] == {
        "model": {"w": {"shape": [2, 3], "dtype": "float32"}},
        "optim": {"w.step": {"shape": [], "dtype": "float32"}},
    }
    assert all(len(entry["sha256"]) == 64 for entry in manifest["files"].values())
