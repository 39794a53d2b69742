"""Linear solvers whose parameters are worth learning, and sequences of systems to learn them on."""

from sharpen.problems.solvers.learned import LearnedSolver
from sharpen.problems.solvers.relaxation import Solution, sor, ssor_cg
from sharpen.problems.solvers.sequences import (
    LinearSequence,
    System,
    heat_equation,
    shifted_laplacians,
)

__all__ = [
    "LearnedSolver",
    "LinearSequence",
    "Solution",
    "System",
    "heat_equation",
    "shifted_laplacians",
    "sor",
    "ssor_cg",
]
