"""Design problems as gymnasium environments by name; importing this module registers them.

::

    gymnasium.make("sharpen.problems.arch.environments:sharpen/Dram-v0", workload="random")
    gymnasium.make("sharpen/Accelerator-v0", workload="bert-base", mode="per-parameter")
    gymnasium.make("sharpen/Soc-v0", designs=16)

A step evaluates a design, or chooses one parameter of it: see
:class:`~sharpen.search.rl.problem_env.ProblemEnv`. Needs the extra ``rl``.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium

from sharpen.problems.arch.problem import make
from sharpen.search.adapters import ProblemEnv

__all__ = ["ENVIRONMENTS", "make_environment"]

ENVIRONMENTS: dict[str, str] = {
    "sharpen/Dram-v0": "dram-v0",
    "sharpen/Accelerator-v0": "accelerator-v0",
    "sharpen/Soc-v0": "soc-v0",
}
"""Problems by the names of their environments."""


def make_environment(
    name: str,
    *,
    mode: Literal["single-step", "per-parameter"] = "single-step",
    designs: int = 1,
    **options: Any,
) -> ProblemEnv:
    """The environment of a design problem.

    Args:
        name: of the problem, such as ``"dram-v0"``.
        mode: what a step chooses.
        designs: configurations of an episode.
        options: of the problem; see :func:`~sharpen.problems.arch.problem.make`.
    """
    return ProblemEnv(make(name, **options), mode, designs=designs)


for _environment, _problem in ENVIRONMENTS.items():
    if _environment not in gymnasium.registry:
        gymnasium.register(
            _environment,
            entry_point="sharpen.problems.arch.environments:make_environment",
            kwargs={"name": _problem},
        )
