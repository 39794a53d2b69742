"""Engines by an address: ``SCHEME:REST``, each scheme an entry point of the group ``sharpen.lm``.

An entry point is a function of the rest and of options, and gives an
:class:`~sharpen.core.lm.messages.Engine`. It is loaded when an address with its scheme is first
used, so that nothing is imported for those that are not.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, DependencyNotInstalled, did_you_mean
from sharpen.core.lm.messages import Engine
from sharpen.core.lm.scripted import Scripted, load_script

__all__ = ["open_engine", "scheme_names", "scripted"]

_GROUP = "sharpen.lm"


def scheme_names() -> list[str]:
    """Schemes that are installed, sorted."""
    return sorted({point.name for point in metadata.entry_points(group=_GROUP)})


def open_engine(address: str, **options: Any) -> Engine:
    """The engine of an address.

    Args:
        address: ``local:NAME``, ``http://HOST:PORT/v1``, ``https://...``, ``scripted:FILE``, or
            another scheme that a package registers.
        options: what the scheme's engine takes.

    Raises:
        ConfigError: there is no such scheme, or an option that it does not know.
        DependencyNotInstalled: it needs a package that is not installed.
    """
    scheme, colon, rest = address.partition(":")
    names = scheme_names()
    if not colon or scheme not in names:
        raise ConfigError(
            f"{address!r:.200} is no address of a language model.{did_you_mean(scheme, names)} It "
            f"begins with one of: {', '.join(name + ':' for name in names)}"
        )
    point = next(p for p in metadata.entry_points(group=_GROUP) if p.name == scheme)
    try:
        make = point.load()
    except ModuleNotFoundError as error:
        raise DependencyNotInstalled(
            f"{scheme}: needs the package '{error.name}'. "
            f"Install it: pip install 'sharpen[{_EXTRAS.get(scheme, 'lm')}]'"
        ) from error
    try:
        engine: Engine = make(rest, **options)
    except TypeError as error:
        wrong = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if wrong is None:
            raise
        raise ConfigError(f"{scheme}: takes no option '{wrong[1]}'.") from None
    return engine


_EXTRAS = {"local": "serve"}


def scripted(rest: str, **options: Any) -> Scripted:
    """``scripted:FILE``: see :mod:`sharpen.core.lm.scripted`."""
    return load_script(Path(rest), **options)
