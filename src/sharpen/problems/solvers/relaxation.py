"""SOR, and conjugate gradients with an SSOR preconditioner, that count their iterations.

David M. Young, "Iterative Solution of Large Linear Systems", Academic Press, 1971, chapters 3, 15.

::

    SOR       x <- x + (D / omega + L)^-1 (b - A x)
    SSOR-CG   conjugate gradients with M = (D + omega L) D^-1 (D + omega L)^T / (omega (2 - omega))

A is split into its diagonal D, what is below it in the order of relaxation, L, and what is above.
Both end when ``||b - A x|| < tolerance ||b - A x_0||``, with the true residual.

Time O(nonzeros) an iteration. The work is native code where there is a compiler, else NumPy.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg

from sharpen.core.errors import ConfigError, DataError
from sharpen.native.build import function, load

__all__ = ["Order", "Solution", "sor", "ssor_cg"]

Order = Literal["lexicographic", "red-black"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Solution:
    """Where a solver ended."""

    x: Floats
    """[n] the solution."""

    iterations: int
    """Iterations carried out."""

    residual: float
    """Norm of the last residual over that of the first; not finite where it diverged."""

    converged: bool
    """Whether the tolerance was reached."""


def sor(
    matrix: Any,
    b: npt.ArrayLike,
    omega: float,
    *,
    x0: npt.ArrayLike | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 10_000,
    order: Order = "lexicographic",
) -> Solution:
    """Solve ``A x = b`` by successive over-relaxation; ``omega = 1`` is Gauss-Seidel.

    Args:
        matrix: [n, n] sparse or dense, without zeros on its diagonal.
        b: [n] right-hand side.
        omega: relaxation, between 0 and 2.
        x0: [n] where to begin; default zeros.
        tolerance: of the residual, relative to the first.
        max_iterations: when to give up.
        order: ``"red-black"`` relaxes one colour of a two-colourable matrix, then the other.

    Raises:
        ConfigError: ``omega`` is not between 0 and 2, or the matrix has no two colours.
        DataError: shapes do not fit, a zero on the diagonal, or numbers that are not finite.
    """
    return _solve("sor", _sor, matrix, b, omega, x0, tolerance, max_iterations, order)


def ssor_cg(
    matrix: Any,
    b: npt.ArrayLike,
    omega: float,
    *,
    x0: npt.ArrayLike | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 10_000,
    order: Order = "lexicographic",
) -> Solution:
    """Solve ``A x = b`` for a symmetric positive definite matrix; see :func:`sor` for the rest.

    A matrix that is not positive definite gives a solution that has not converged.
    """
    return _solve("ssor_cg", _ssor_cg, matrix, b, omega, x0, tolerance, max_iterations, order)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A matrix as the loops take it."""

    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    values: Floats
    diagonal: Floats
    order: npt.NDArray[np.int64]


def _solve(
    name: str,
    twin: Callable[..., tuple[int, float]],
    matrix: Any,
    b: npt.ArrayLike,
    omega: float,
    x0: npt.ArrayLike | None,
    tolerance: float,
    max_iterations: int,
    order: Order,
) -> Solution:
    if not 0 < omega < 2:
        raise ConfigError(f"omega={omega} must be between 0 and 2.")
    if not tolerance > 0 or max_iterations < 0:
        raise ConfigError(
            f"tolerance={tolerance} must be positive, max_iterations={max_iterations} at least 0."
        )
    prepared = _prepare(matrix, order)
    n = len(prepared.diagonal)
    right = np.ascontiguousarray(b, dtype=np.float64)
    x = np.zeros(n) if x0 is None else np.array(x0, dtype=np.float64)
    if right.shape != (n,) or x.shape != (n,):
        raise DataError(f"b {right.shape} and x0 {x.shape} must have the shape ({n},).")
    if not (np.isfinite(right).all() and np.isfinite(x).all()):
        raise DataError("b or x0 holds numbers that are not finite.")
    library = load("relaxation")
    run = twin if library is None else _native(library, name)
    with np.errstate(over="ignore", invalid="ignore"):  # what diverges is told by the residual
        iterations, ratio = run(prepared, right, x, omega, tolerance, max_iterations)
    return Solution(x, iterations, ratio, bool(ratio < tolerance))


def _prepare(matrix: Any, order: Order) -> _Prepared:
    found = scipy.sparse.csr_array(matrix, dtype=np.float64)
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not found.shape[0]:
        raise DataError(f"the matrix has the shape {found.shape}; it must be square.")
    if not np.isfinite(found.data).all():
        raise DataError("the matrix holds numbers that are not finite.")
    diagonal = np.ascontiguousarray(found.diagonal())
    if not diagonal.all():
        row = int(np.flatnonzero(diagonal == 0)[0])
        raise DataError(f"the matrix has a zero on its diagonal, in row {row}.")
    if order == "lexicographic":
        rows = np.arange(len(diagonal), dtype=np.int64)
    elif order == "red-black":
        rows = _red_black(found)
    else:
        raise ConfigError(f"order={order!r} must be lexicographic or red-black.")
    return _Prepared(
        found.indptr.astype(np.int64), found.indices.astype(np.int64), found.data, diagonal, rows
    )


def _red_black(matrix: Any) -> npt.NDArray[np.int64]:
    """Rows of one colour, then of the other; no row depends on one of its own colour."""
    colour = np.full(matrix.shape[0], -1)
    starts, columns = matrix.indptr, matrix.indices
    for first in range(len(colour)):
        if colour[first] >= 0:
            continue
        colour[first], left = 0, [first]
        while left:
            row = left.pop()
            for column in columns[starts[row] : starts[row + 1]]:
                if column == row:
                    continue
                if colour[column] < 0:
                    colour[column] = 1 - colour[row]
                    left.append(int(column))
                elif colour[column] == colour[row]:
                    raise ConfigError("the matrix has no two colours; use order='lexicographic'.")
    return np.argsort(colour, kind="stable").astype(np.int64)


@functools.cache
def _native(library: ctypes.CDLL, name: str) -> Callable[..., tuple[int, float]]:
    pointer, size, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    call = function(library, name, size, *[pointer] * 7, real, real, size, pointer, pointer)

    def run(
        a: _Prepared, b: Floats, x: Floats, omega: float, tolerance: float, most: int
    ) -> tuple[int, float]:
        iterations, ratio = ctypes.c_int64(), ctypes.c_double()
        arrays = (a.starts, a.columns, a.values, a.diagonal, a.order, b, x)
        call(
            len(b),
            *(array.ctypes.data for array in arrays),
            omega,
            tolerance,
            most,
            ctypes.byref(iterations),
            ctypes.byref(ratio),
        )
        return iterations.value, ratio.value

    return run


# -- twins ----------------------------------------------------------------------------------------


def _sor(
    a: _Prepared, b: Floats, x: Floats, omega: float, tolerance: float, most: int
) -> tuple[int, float]:
    matrix = scipy.sparse.csr_array((a.values, a.columns, a.starts), shape=(len(b), len(b)))
    first = float(np.linalg.norm(b - matrix @ x))
    iterations, ratio = 0, 1.0 if first > 0 else 0.0
    while iterations < most and ratio >= tolerance:
        for i in a.order:
            part = slice(a.starts[i], a.starts[i + 1])
            x[i] += omega * (b[i] - a.values[part] @ x[a.columns[part]]) / a.diagonal[i]
        iterations += 1
        ratio = float(np.linalg.norm(b - matrix @ x)) / first
        if not np.isfinite(ratio):
            break
    return iterations, ratio


def _ssor_cg(
    a: _Prepared, b: Floats, x: Floats, omega: float, tolerance: float, most: int
) -> tuple[int, float]:
    n = len(b)
    matrix = scipy.sparse.csr_array((a.values, a.columns, a.starts), shape=(n, n))
    ordered = matrix[a.order][:, a.order]
    lower = scipy.sparse.csr_array(
        omega * scipy.sparse.tril(ordered, -1) + scipy.sparse.diags_array(a.diagonal[a.order])
    )
    upper = scipy.sparse.csr_array(
        omega * scipy.sparse.triu(ordered, 1) + scipy.sparse.diags_array(a.diagonal[a.order])
    )
    r = b - matrix @ x
    first = float(np.linalg.norm(r))
    iterations, ratio, energy, d = 0, 1.0 if first > 0 else 0.0, 0.0, np.zeros(n)
    while iterations < most and ratio >= tolerance:
        y = scipy.sparse.linalg.spsolve_triangular(lower, r[a.order], lower=True)
        y = scipy.sparse.linalg.spsolve_triangular(upper, a.diagonal[a.order] * y, lower=False)
        z = np.empty(n)
        z[a.order] = omega * (2 - omega) * y
        last, energy = energy, float(r @ z)
        d = z + (energy / last) * d if iterations else z
        q = matrix @ d
        curvature = float(d @ q)
        iterations += 1
        if not (curvature > 0 and energy > 0):
            return iterations, float("nan")
        x += energy / curvature * d
        r = r - energy / curvature * q
        ratio = float(np.linalg.norm(b - matrix @ x)) / first
    return iterations, ratio
