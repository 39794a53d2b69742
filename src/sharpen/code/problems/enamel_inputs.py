"""Functions that the input generators of ENAMEL's ``enamel.csv`` call by name.

They draw from the module ``random`` in the order in which the package ``enam`` 0.2.0 draws, so that
the same seed gives the same inputs as there. This text runs in a sandbox, before a generator.
"""

from __future__ import annotations

import random

__all__ = ["miller_rabin", "rand_parens", "rand_primality", "rand_probably_prime"]


def rand_parens(
    size: int, valid: bool = True, par: str = "()", sep: str | None = ""
) -> str | list[str]:
    """Random brackets.

    Args:
        size: characters; an odd one is made even.
        valid: whether they pair up; else one pair in the middle is the wrong way round.
        par: the opening and the closing bracket.
        sep: between the groups; with None they come as a list.
    """
    opening, closing = par[0], par[1]
    if not valid:
        half = (size + 1) // 2 - 1
        parts = [rand_parens(half, par=par) for _ in range(2)]
        return str(parts[0]) + closing + opening + str(parts[1])
    groups: list[str] = []
    depth = 0
    for left in range(size + size % 2, 0, -1):
        if depth == 0:
            groups.append(opening)
            depth = 1
        elif depth < left and random.randint(0, 1):
            groups[-1] += opening
            depth += 1
        else:
            groups[-1] += closing
            depth -= 1
    return groups if sep is None else sep.join(groups)


def miller_rabin(n: int, k: int = 5) -> bool:
    """Whether a number above 0 is probably a prime, by k random witnesses.

    Rabin, *Probabilistic Algorithm for Testing Primality*, 1980.
    """
    if n in (2, 3):
        return True
    if n == 1 or n % 2 == 0:
        return False
    twos = ((n - 1) & (1 - n)).bit_length() - 1
    odd = (n - 1) >> twos
    for _ in range(k):
        power = pow(random.randint(2, n - 2), odd, n)
        if power in (1, n - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % n
            if power == n - 1:
                break
        else:
            return False
    return True


def rand_probably_prime(lb: int, ub: int | None = None) -> int:
    """A random prime from ``lb`` to ``ub``; without ``ub`` one from half of ``lb`` to ``lb``."""
    if ub is None:
        most = max(lb, 3)
        low, high = most // 2, most  # there is one between, by Bertrand
    else:
        low = max(lb, 0)
        high = max(2 * low, ub, 3)
    while True:
        candidate = random.randint(low, high)
        if miller_rabin(candidate):
            return candidate


def rand_primality(size: int, lid: int, cid: int) -> int:
    """A number of about some size for a test of primes.

    On the first level the numbers that naive tests get wrong come first: a composite Euclid number,
    a Carmichael number, two, and a power. Then primes, squares of primes and products of two take
    turns.
    """
    size = max(size, 4)
    special = (30031, 561, 2, 125)
    if lid == 0 and cid < len(special):
        return special[cid]
    if cid % 3 == 0:
        return rand_probably_prime(size)
    root = int(size**0.5 + 1)
    if cid % 3 == 1:
        return rand_probably_prime(root) ** 2
    return rand_probably_prime(root) * rand_probably_prime(root)
