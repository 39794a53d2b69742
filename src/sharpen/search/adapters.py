"""Between problems and environments: gymnasium and pettingzoo, loaded on first use (extra ``rl``).

::

    ProblemEnv(problem)                       a gymnasium environment of one agent
    ProblemParallelEnv(problem)               a pettingzoo environment, one agent a parameter
    problem_from_gymnasium(env, policy)       an environment as a problem
    space_from_gymnasium(space)               a search space of a gymnasium space
    space_to_gymnasium(space)                 and back
"""

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.search.gymnasium_spaces import space_from_gymnasium, space_to_gymnasium
    from sharpen.search.marl.parallel_env import ProblemParallelEnv
    from sharpen.search.rl.env_problem import GymnasiumProblem, problem_from_gymnasium
    from sharpen.search.rl.problem_env import ProblemEnv

__all__ = [
    "GymnasiumProblem",
    "ProblemEnv",
    "ProblemParallelEnv",
    "problem_from_gymnasium",
    "space_from_gymnasium",
    "space_to_gymnasium",
]

__getattr__ = exports(
    "sharpen.search.adapters",
    {
        "GymnasiumProblem": "sharpen.search.rl.env_problem",
        "ProblemEnv": "sharpen.search.rl.problem_env",
        "ProblemParallelEnv": "sharpen.search.marl.parallel_env",
        "problem_from_gymnasium": "sharpen.search.rl.env_problem",
        "space_from_gymnasium": "sharpen.search.gymnasium_spaces",
        "space_to_gymnasium": "sharpen.search.gymnasium_spaces",
    },
)
