"""``sharpen doctor``: check this machine and this installation."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, default_command, new_app
from sharpen.core.errors import NotInstalledError

__all__ = ["app"]

# Package imported by each extra's main job.
_EXTRAS = {
    "models": ("torch", "safetensors", "tokenizers", "jinja2", "gguf"),
    "data": ("pyarrow",),
    "search": ("scipy", "pandas"),
    "postgres": ("pg8000",),
    "ui": ("fastapi", "uvicorn", "plotly"),
    "serve": ("fastapi", "uvicorn", "pydantic"),
    "report": ("plotly",),
    "quickstart": ("openai",),
}
_TIERS = {
    1: "limits, a filter of system calls, rules for files and signals",
    2: "namespaces: processes, network, files of its own; and tier 1",
    3: "a control group for memory and processes; and tier 2",
}


app = new_app("Check this machine and this installation.")
app.info.no_args_is_help = False  # alone it checks all


@default_command(app, example="sharpen doctor --probe")
def doctor(
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure the machine again (a few seconds).")
    ] = False,
) -> Output:
    """Check versions, extras, assets, devices and folders; exit code 1 if something is wrong.

    A missing extra or asset is no error: the line says how to install it.
    """
    checks = [_python(), _torch(), _native(), _sandbox(), *_extras(), *_assets(), *_folders()]
    if probe:
        checks.append(_device())
    bad = [check for check in checks if check["status"] == "bad"]

    def render(console: Any) -> None:
        from rich.table import Table

        marks = {"ok": "[green]ok[/]", "missing": "[yellow]missing[/]", "bad": "[red]bad[/]"}
        table = Table("check", "", "found", "to do", box=None, header_style="bold")
        for check in checks:
            table.add_row(check["name"], marks[check["status"]], check["found"], check["todo"])
        console.print(table)

    return Output({"ok": not bad, "checks": checks}, render, 1 if bad else 0)


@command(app, "sandbox", example="sharpen doctor sandbox")
def sandbox() -> Output:
    """Tell how far code that nobody trusts is kept in here; exit code 3 if it is not at all."""
    from sharpen.core.sandbox import detect_tiers

    tiers = detect_tiers()
    document = {"format": 1, **tiers.to_json()}

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table("tier", "", "made of", "to do", box=None, header_style="bold")
        for tier, parts in _TIERS.items():
            there = tier <= tiers.best
            mark = "[green]ok[/]" if there else "[yellow]missing[/]"
            table.add_row(str(tier), mark, parts, "" if there else tiers.missing[tier])
        console.print(table)
        groups = f"version {tiers.cgroup.version}" if tiers.cgroup else "–"
        console.print(f"Landlock {tiers.landlock or '–'}, bubblewrap {tiers.bubblewrap or '–'},")
        console.print(f"control groups {groups}, kernel {tiers.kernel}")

    return Output(document, render, 0 if tiers.best >= 1 else NotInstalledError.exit_code)


def _check(name: str, status: str, found: str, todo: str = "") -> dict[str, str]:
    return {"name": name, "status": status, "found": found, "todo": todo}


def _python() -> dict[str, str]:
    version = platform.python_version()
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return _check("python", "ok" if good else "bad", version, "" if good else "use 3.11 or 3.12")


def _torch() -> dict[str, str]:
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError:
        return _check("torch", "missing", "–", "pip install torch")
    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    good = release >= (2, 11)
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    found = f"{torch.__version__}, {device}, {torch.get_num_threads()} threads"
    return _check("torch", "ok" if good else "bad", found, "" if good else "install torch >= 2.11")


def _native() -> dict[str, str]:
    import warnings

    from sharpen.core.errors import ConfigError
    from sharpen.native.build import SUBJECTS, load
    from sharpen.native.info import compiler, variant

    try:
        name = variant()
        if name is None:
            return _check("native kernels", "ok", "off, by SHARPEN_NATIVE=0")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded = [subject for subject in SUBJECTS if load(subject) is not None]
    except ConfigError as error:
        return _check("native kernels", "bad", os.environ["SHARPEN_NATIVE"], str(error))
    if len(loaded) == len(SUBJECTS):
        return _check("native kernels", "ok", f"{name}: {', '.join(loaded)}, by {compiler()}")
    todo = str(caught[-1].message) if caught else "install g++"
    return _check("native kernels", "missing", "torch does the work", todo)


def _sandbox() -> dict[str, str]:
    from sharpen.core.sandbox import detect_tiers

    tiers = detect_tiers()
    todo = tiers.missing.get(tiers.best + 1, "")
    status = "ok" if tiers.best >= 1 else "missing"
    return _check("sandbox", status, f"tier {tiers.best} of 3", todo)


def _extras() -> list[dict[str, str]]:
    checks = []
    for extra, packages in _EXTRAS.items():
        missing, found = [], []
        for package in packages:
            try:
                found.append(f"{package} {metadata.version(package)}")
            except metadata.PackageNotFoundError:
                missing.append(package)
        todo = f"pip install 'sharpen[{extra}]'" if missing else ""
        status = "missing" if missing else "ok"
        checks.append(_check(f"extra {extra}", status, ", ".join(found) or "–", todo))
    return checks


def _assets() -> list[dict[str, str]]:
    from sharpen.core.assets import ASSETS, check_asset

    checks = []
    for name in ASSETS:
        status = check_asset(name)
        word = "ok" if status.installed else "missing"
        if status.sha256_ok is False:
            word = "bad"
        found = f"version {status.version}" if status.installed else "–"
        todo = "" if word == "ok" else status.install or "reinstall sharpen"
        checks.append(_check(f"asset {name}", word, found, todo))
    return checks


def _folders() -> list[dict[str, str]]:
    from sharpen.core.files import cache_home

    checks = []
    for name, folder in (("cache folder", cache_home()), ("working folder", Path.cwd())):
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        writable = os.access(existing, os.W_OK)
        found = f"{folder}, {free / 2**30:.1f} GiB free"
        todo = "" if writable else "choose a folder you may write to"
        checks.append(_check(name, "ok" if writable else "bad", found, todo))
    return checks


def _device() -> dict[str, str]:
    from sharpen.plan.device import cache_file, load_profile

    cache_file().unlink(missing_ok=True)
    profile = load_profile()
    rates = ", ".join(f"{k} {t.peak:,.0f} GFLOP/s" for k, t in profile.matmul.items())
    return _check("device", "ok", f"{profile.name}: {rates}, copy {profile.copy_gbps:.0f} GB/s")
