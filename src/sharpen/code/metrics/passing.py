"""How many of k samples are expected to be right, or how fast the fastest of k.

Chen et al., *Evaluating Large Language Models Trained on Code*, 2021 (arXiv 2107.03374)::

    pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod over j from n - c + 1 to n of (1 - k / j)

Qiu et al., *How Efficient is LLM-Generated Code? A Rigorous and High-Standard Benchmark*, ICLR 2025
(arXiv 2406.06647): the expected efficiency of the best of k samples, over all subsets at once (the
Rao-Blackwell estimator), with ``e_(1) <= ... <= e_(n)``::

    eff@k = sum over r from k to n of  C(r - 1, k - 1) / C(n, k) * e_(r)

Weights are made by a recurrence from the largest down, which never overflows:
``w_n = k / n``, ``w_r = w_(r+1) (1 - (k - 1) / r)``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError

__all__ = ["eff_at_k", "pass_at_k"]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that one of k samples is right, from n samples of which c were.

    Raises:
        ConfigError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ConfigError(f"pass@k needs 0 <= c={c} <= n={n} and 1 <= k={k} <= n.")
    if n - c < k:
        return 1.0
    j = np.arange(n - c + 1, n + 1)
    return float(1.0 - np.prod(1.0 - k / j))


def eff_at_k(efficiencies: npt.ArrayLike, k: int) -> float:
    """Expected efficiency of the best of k samples.

    Args:
        efficiencies: [n] of the samples; 0 of a wrong one.
        k: samples that are drawn.

    Raises:
        ConfigError: not 1 <= k <= n.
        DataError: an efficiency is not finite.
    """
    e = np.sort(np.asarray(efficiencies, np.float64).ravel())
    n = len(e)
    if not 1 <= k <= n:
        raise ConfigError(f"eff@k needs 1 <= k={k} <= n={n} samples.")
    if not np.isfinite(e).all():
        raise DataError("an efficiency is not finite.")
    r = np.arange(n - 1, k - 1, -1)
    steps = np.concatenate([[k / n], 1.0 - (k - 1) / r])
    return float(np.cumprod(steps) @ e[::-1][: n - k + 1])
