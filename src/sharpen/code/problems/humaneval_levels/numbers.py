"""Fast solutions and inputs for functions of HumanEval on numbers."""

import math
import random

LEVELS = {
    "largest_divisor": (20, 2000, 200000, 3000000),
    "factorize": (20, 10000, 1000000, 100000000),
    "is_prime": (20, 2000, 200000, 2000000),
    "fizz_buzz": (50, 1000, 10000, 100000),
    "fib4": (5, 100, 1000, 10000),
    "modp": (5, 1000, 20000, 200000),
    "fib": (5, 10, 16, 22),
    "fibfib": (5, 10, 15, 20),
    "largest_prime_factor": (20, 500, 3000, 20000),
    "prime_length": (5, 1000, 30000, 300000),
    "is_multiply_prime": (20, 60, 80, 99),
    "count_up_to": (10, 200, 1000, 4000),
    "special_factorial": (4, 30, 80, 200),
    "x_or_y": (20, 2000, 200000, 2000000),
}


def _sieve(n: int) -> bytearray:
    """Marks of the primes below n."""
    marks = bytearray([1]) * max(n, 2)
    marks[:2] = b"\0\0"
    for i in range(2, math.isqrt(max(n, 2)) + 1):
        if marks[i]:
            marks[i * i :: i] = bytes(len(range(i * i, len(marks), i)))
    return marks


def _prime(n: int) -> bool:
    if n < 4:
        return n > 1
    if n % 2 == 0 or n % 3 == 0:
        return False
    return all(n % i and n % (i + 2) for i in range(5, math.isqrt(n) + 1, 6))


def _near_prime(size: int, rng: random.Random) -> int:
    """A number of some size, most often a prime."""
    n = size + rng.randrange(size)
    while rng.random() < 0.95 and not _prime(n):
        n += 1
    return n


def largest_divisor(n: int) -> int:
    for i in range(2, math.isqrt(n) + 1):
        if n % i == 0:
            return n // i
    return 1


def largest_divisor_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (_near_prime(size, rng),)


def factorize(n: int) -> list[int]:
    factors = []
    while n % 2 == 0:
        factors.append(2)
        n //= 2
    i = 3
    while i * i <= n:
        while n % i == 0:
            factors.append(i)
            n //= i
        i += 2
    if n > 1:
        factors.append(n)
    return factors


def factorize_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (_near_prime(size, rng),)


def is_prime(n: int) -> bool:
    return _prime(n)


def is_prime_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (_near_prime(size, rng),)


def fizz_buzz(n: int) -> int:
    return sum(str(i).count("7") for i in {*range(0, n, 11), *range(0, n, 13)})


def fizz_buzz_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(size),)


def fib4(n: int) -> int:
    a, b, c, d = 0, 0, 2, 0
    for _ in range(n):
        a, b, c, d = b, c, d, a + b + c + d
    return a


def fib4_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(1 + size // 4),)


def modp(n: int, p: int) -> int:
    return pow(2, n, p)


def modp_inputs(size: int, rng: random.Random) -> tuple[int, int]:
    return size + rng.randrange(size), rng.randrange(2, 10**6)


def fib(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def fib_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randint(-1, 1),)


def fibfib(n: int) -> int:
    a, b, c = 0, 0, 1
    for _ in range(n):
        a, b, c = b, c, a + b + c
    return a


def fibfib_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randint(-1, 1),)


def largest_prime_factor(n: int) -> int:
    largest = 1
    while n % 2 == 0:
        largest, n = 2, n // 2
    i = 3
    while i * i <= n:
        while n % i == 0:
            largest, n = i, n // i
        i += 2
    return max(largest, n)


def largest_prime_factor_inputs(size: int, rng: random.Random) -> tuple[int]:
    small = size // 4 + rng.randrange(size // 4)
    while not _prime(small):
        small += 1
    return (small * rng.randint(2, 4),)


def prime_length(string: str) -> bool:
    return _prime(len(string))


def prime_length_inputs(size: int, rng: random.Random) -> tuple[str]:
    return ("x" * _near_prime(size, rng),)


def is_multiply_prime(a: int) -> bool:
    count, i = 0, 2
    while i * i <= a:
        while a % i == 0:
            count += 1
            a //= i
        i += 1
    return count + (a > 1) == 3


def is_multiply_prime_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (rng.randrange(size // 2, size),)


def count_up_to(n: int) -> list[int]:
    marks = _sieve(n)
    return [i for i in range(2, n) if marks[i]]


def count_up_to_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(size // 4),)


def special_factorial(n: int) -> int:
    factorial = total = 1
    for i in range(2, n + 1):
        factorial *= i
        total *= factorial
    return total


def special_factorial_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(1 + size // 8),)


def x_or_y(n: int, x: int, y: int) -> int:
    return x if _prime(n) else y


def x_or_y_inputs(size: int, rng: random.Random) -> tuple[int, int, int]:
    return _near_prime(size, rng), rng.randrange(100), rng.randrange(100)
