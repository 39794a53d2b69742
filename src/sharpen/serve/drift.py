"""How far apart two samples are: the statistics of monitoring.

Counts r and l of a reference and of live traffic in the same B bins, p and q their shares::

    PSI = sum (q - p) ln(q / p)            with p = (r + 1/2) / (sum r + B/2), q alike
    JS  = H((p + q) / 2) - (H(p) + H(q)) / 2          in bits, 0 to 1, without the halves
    D   = max |F_r(x) - F_l(x)|            of the values themselves, m and n of them
    P(D) ~ 2 sum_k (-1)^(k-1) exp(-2 k^2 t^2),   t = D (sqrt(N) + 0.12 + 0.11 / sqrt(N)),
                                                 N = m n / (m + n)

The population stability index is the symmetric Kullback-Leibler divergence; above 0.2 is commonly
called a large shift. Jensen-Shannon: Lin, *Divergence measures based on the Shannon entropy*, 1991.
The significance of D is Kolmogorov's, with Stephens' correction for small samples (1970); for
values with ties it is conservative.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpen.core.errors import DataError

__all__ = ["jensen_shannon", "kolmogorov_smirnov", "quantile_counts", "stability_index"]

_TERMS = 100


def stability_index(reference: ArrayLike, live: ArrayLike) -> float:
    """Population stability index of counts in the same bins.

    Args:
        reference: [B] counts.
        live: [B] counts.

    Raises:
        DataError: the shapes differ, or one has no counts.

    Examples:
        >>> round(stability_index([50, 50], [75, 25]), 3)
        0.269
    """
    r, q = _counts(reference, live)
    p_r = (r + 0.5) / (r.sum() + r.size / 2)
    p_q = (q + 0.5) / (q.sum() + q.size / 2)
    return float(((p_q - p_r) * np.log(p_q / p_r)).sum())


def jensen_shannon(reference: ArrayLike, live: ArrayLike) -> float:
    """Jensen-Shannon divergence of counts in the same bins, in bits: 0 equal, 1 disjoint.

    Args:
        reference: [B] counts.
        live: [B] counts.

    Raises:
        DataError: the shapes differ, or one has no counts.

    Examples:
        >>> jensen_shannon([1, 0], [0, 3])
        1.0
    """
    r, q = _counts(reference, live)
    return float(_jensen_shannon(r / r.sum(), (q / q.sum())[None])[0])


def _jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of shares ``p`` [B] and each row of ``q`` [N, B]; [N]."""

    def entropy(x: NDArray[np.float64]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = -(x * np.log2(np.where(x > 0, x, 1))).sum(-1)
        return total

    return np.clip(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0, 1)


def resampled_limit(
    reference: NDArray[np.float64],
    requests: NDArray[np.float64],
    count: int,
    *,
    alpha: float,
    resamples: int = 2000,
    seed: int = 0,
) -> float:
    """What Jensen-Shannon reaches by chance, for windows of whole requests.

    The tokens of a request are alike, so windows differ by more than as many independent tokens
    would: whole requests are drawn with replacement.

    Args:
        reference: [B] counts that windows are compared with.
        requests: [N, B] counts of other requests of the same kind.
        count: requests a window.
        alpha: share of windows that may be above.
        resamples: windows drawn.
        seed: of the draw.

    Returns:
        The quantile 1 - ``alpha``, in bits.
    """
    random = np.random.default_rng(seed)
    total = len(requests)
    weights = random.multinomial(count, np.full(total, 1 / total), size=resamples)
    windows = weights @ requests
    shares = windows / np.maximum(windows.sum(1, keepdims=True), 1)
    found = _jensen_shannon(reference / reference.sum(), shares)
    return float(np.quantile(found, 1 - alpha, method="higher"))


def kolmogorov_smirnov(reference: ArrayLike, live: ArrayLike) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov test.

    Args:
        reference: [M] values.
        live: [N] values.

    Returns:
        D, and the probability of one as large when both come from one distribution.

    Raises:
        DataError: one is empty.

    Examples:
        >>> kolmogorov_smirnov([1, 2, 3, 4], [3, 4, 5, 6])[0]
        0.5
    """
    a, b = np.sort(np.asarray(reference, float)), np.sort(np.asarray(live, float))
    if not a.size or not b.size:
        raise DataError("the Kolmogorov-Smirnov test needs at least one value on each side.")
    at = np.concatenate([a, b])
    steps = np.searchsorted(a, at, side="right") / a.size
    others = np.searchsorted(b, at, side="right") / b.size
    distance = float(np.abs(steps - others).max())
    root = math.sqrt(a.size * b.size / (a.size + b.size))
    t = distance * (root + 0.12 + 0.11 / root)
    if t < 0.2:  # the series is 1 to 12 digits there, and converges slowly
        return distance, 1.0
    k = np.arange(1, _TERMS + 1)
    series = 2 * float(((-1.0) ** (k - 1) * np.exp(-2 * (k * t) ** 2)).sum())
    return distance, min(max(series, 0.0), 1.0)


def quantile_counts(
    reference: ArrayLike, live: ArrayLike, bins: int = 10
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts of both in bins that hold about equal shares of the reference.

    Args:
        reference: [M] values; ties may make fewer bins.
        live: [N] values.
        bins: at most.

    Returns:
        Two arrays of equal length.
    """
    a, b = np.asarray(reference, float), np.asarray(live, float)
    edges = np.unique(np.quantile(a, np.linspace(0, 1, bins + 1)[1:-1]))

    def count(values: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.bincount(np.searchsorted(edges, values, side="left"), minlength=edges.size + 1)

    return count(a), count(b)


def _counts(
    reference: ArrayLike, live: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r, q = np.asarray(reference, float), np.asarray(live, float)
    if r.shape != q.shape or r.ndim != 1:
        raise DataError(f"counts of shapes {r.shape} and {q.shape} are not in the same bins.")
    if r.sum() <= 0 or q.sum() <= 0:
        raise DataError("a side without counts cannot be compared.")
    return r, q
