"""Several agents that choose one configuration together, as optimizers."""

from sharpen.core.lazy import exports

__all__ = ["IPPO", "MAPPO", "SequentialMARL"]

__getattr__ = exports(
    "sharpen.search.marl",
    {
        "IPPO": "sharpen.search.marl.ippo",
        "MAPPO": "sharpen.search.marl.mappo",
        "SequentialMARL": "sharpen.search.marl.sequential",
    },
)
