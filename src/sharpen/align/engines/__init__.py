"""Where completions come from: the serving engine, the trained model itself, a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.align.engines.client import ClientEngine
    from sharpen.align.engines.plain import PlainEngine
    from sharpen.align.engines.protocol import Engine, Generated
    from sharpen.align.engines.served import ServedEngine

__all__ = ["ClientEngine", "Engine", "Generated", "PlainEngine", "ServedEngine"]

__getattr__ = exports(
    __name__,
    {
        "ClientEngine": "sharpen.align.engines.client",
        "Engine": "sharpen.align.engines.protocol",
        "Generated": "sharpen.align.engines.protocol",
        "PlainEngine": "sharpen.align.engines.plain",
        "ServedEngine": "sharpen.align.engines.served",
    },
)
