"""Compiling: once, whole, and without a compiler not at all."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sharpen.core.errors import ExecutionError, StorageError
from sharpen.native import build as build_module
from sharpen.native.build import SUBJECTS, build, cache_folder, load
from sharpen.native.info import compiler, supported

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache, and nothing loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build_module, "_loaded", {})
    return tmp_path


def fake_compiler(folder, body):
    path = folder / "cxx"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def files():
    return [path for path in cache_folder().rglob("*") if path.is_file() and path.name != "lock"]


@pytest.mark.parametrize("name", supported())
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_compiles_for_every_variant_without_warnings(
    fresh, monkeypatch, subject, name
):
    # The compiler's own vector functions begin with values that they do not set.
    lenient = ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
    strict = [*build_module._FLAGS, "-Wall", "-Wextra", "-Werror", *lenient]
    monkeypatch.setattr(build_module, "_FLAGS", strict)
    path = build(subject, name)
    assert [path] == files()


def test_a_library_is_compiled_once(fresh, monkeypatch):
    path = build("products", "scalar")
    stamp = path.stat().st_mtime_ns
    monkeypatch.setattr(build_module, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build("products", "scalar") == path
    assert path.stat().st_mtime_ns == stamp


def test_another_source_flag_or_processor_makes_another_library(fresh, monkeypatch):
    paths = {build("products", "scalar"), build("decode", "scalar")}
    monkeypatch.setattr(build_module, "cpu_flags", lambda: frozenset({"other"}))
    paths.add(build("products", "scalar"))
    assert len({path.parent for path in paths}) == 3


def test_another_header_makes_another_library(fresh, monkeypatch):
    folder = fresh / "native"
    folder.mkdir()
    (folder / "one.cpp").write_text('#include "one.h"\nextern "C" int one() { return kOne; }\n')
    (folder / "one.h").write_text("constexpr int kOne = 1;\n")
    monkeypatch.setattr(build_module, "_HERE", folder)
    path = build("one", "scalar")
    (folder / "one.h").write_text("constexpr int kOne = 2;\n")
    assert build("one", "scalar") != path


def test_without_a_compiler_one_warning_and_no_library(fresh, monkeypatch):
    monkeypatch.setenv("CXX", str(fresh / "none"))
    with pytest.warns(RuntimeWarning, match=r"no C\+\+ compiler was found; install g\+\+"):
        assert load("decode") is None
    assert load("decode") is None  # and no second warning, which would be an error


def test_a_compiler_that_fails_is_quoted(fresh, monkeypatch):
    monkeypatch.setenv("CXX", fake_compiler(fresh, "echo 'error: this is no C++' >&2; exit 1"))
    with pytest.raises(ExecutionError, match="this is no C"):
        build("decode", "scalar")
    assert files() == []


def test_a_compiler_that_makes_garbage_is_no_crash(fresh, monkeypatch):
    body = 'while [ "$1" != -o ]; do shift; done; echo no library > "$2"'
    monkeypatch.setenv("CXX", fake_compiler(fresh, body))
    with pytest.warns(RuntimeWarning, match="decode are not available"):
        assert load("decode") is None


def test_a_cache_that_cannot_be_written_is_said(fresh, monkeypatch):
    (fresh / "cache").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        build("decode", "scalar")


def test_native_code_can_be_turned_off(fresh, monkeypatch):
    monkeypatch.setenv("SHARPEN_NATIVE", "0")
    assert load("decode") is None
    assert not cache_folder().exists()


def start(code, **env):
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **env}, stdout=subprocess.PIPE, text=True
    )


BUILD = "from sharpen.native.build import build; print(build('products', 'scalar'))"


def test_processes_that_start_together_compile_once(fresh):
    log = fresh / "log"
    slow = fake_compiler(fresh, f'echo x >> {log}; sleep 0.5; exec {compiler()} "$@"')
    runs = [start(BUILD, CXX=slow) for _ in range(3)]
    outputs = {run.communicate(timeout=60)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(outputs) == 1
    assert log.read_text() == "x\n"


def test_a_kill_while_compiling_leaves_no_library(fresh):
    log = fresh / "log"
    once = f"if [ ! -e {log} ]; then echo $$ > {log}; exec sleep 60; fi"
    slow = fake_compiler(fresh, f'{once}; exec {compiler()} "$@"')
    run = start(BUILD, CXX=slow)
    while not (log.exists() and log.read_text().strip()):
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    os.kill(int(log.read_text()), signal.SIGKILL)
    assert files() == []
    # The lock went with its holder.
    again = start(BUILD, CXX=slow)
    assert again.communicate(timeout=60)[0].strip().endswith("products.so")
    assert [path.name for path in files()] == ["products.so"]
    assert not list(cache_folder().rglob("tmp*"))
