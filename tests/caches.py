"""A cache folder of a test's own."""

from pathlib import Path

import pytest

from sharpen.native.build import cache_folder


def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``folder``, from now on the cache of this process and its children.

    Compiled code stays where it is: it takes longer to make than most tests.
    """
    compiled = cache_folder()
    compiled.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    cache_folder().parent.mkdir(parents=True)
    cache_folder().symlink_to(compiled)
    return folder / "sharpen"
