"""Whole numbers."""

from __future__ import annotations

import math
import random
from functools import reduce

LEVELS = {
    "primes_below": (20, 300, 1500, 5000),
    "is_prime": (20, 2000, 50000, 500000),
    "count_divisors": (20, 2000, 50000, 500000),
    "fibonacci_modulo": (10, 1000, 20000, 200000),
    "power_modulo": (10, 1000, 20000, 200000),
    "common_divisor": (20, 500, 5000, 50000),
    "sum_of_digits_below": (20, 500, 5000, 50000),
    "squares_between": (20, 500, 5000, 100000),
    "sum_of_multiples": (20, 500, 5000, 100000),
    "longest_collatz": (10, 100, 800, 3000),
    "zeros_of_factorial": (10, 100, 500, 1500),
    "whole_root": (20, 100_000, 100_000_000, 20_000_000_000),
    "binomial": (6, 10, 14, 18),
    "count_ones": (10, 400, 4000, 40000),
}


def primes_below(n: int) -> list[int]:
    """Return all primes less than n, in order."""
    sieve = bytearray([1]) * max(n, 2)
    sieve[:2] = b"\0\0"
    for i in range(2, math.isqrt(max(n, 2)) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, len(sieve), i)))
    return [i for i in range(2, n) if sieve[i]]


def primes_below_slow(n: int) -> list[int]:
    primes = []
    for i in range(2, n):
        is_prime = True
        for j in range(2, i):
            if i % j == 0:
                is_prime = False
                break
        if is_prime:
            primes.append(i)
    return primes


def primes_below_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(1 + size // 10),)


def is_prime(n: int) -> bool:
    """Return whether n is a prime."""
    if n < 4:
        return n > 1
    if n % 2 == 0 or n % 3 == 0:
        return False
    return all(n % i and n % (i + 2) for i in range(5, math.isqrt(n) + 1, 6))


def is_prime_slow(n: int) -> bool:
    if n < 2:
        return False
    for i in range(2, n):
        if n % i == 0:
            return False
    return True


def is_prime_inputs(size: int, rng: random.Random) -> tuple[int]:
    n = size + rng.randrange(size)
    if rng.random() < 0.8:
        while any(n % i == 0 for i in range(2, math.isqrt(n) + 1)):
            n += 1
    return (n,)


def count_divisors(n: int) -> int:
    """Count the divisors of n, with 1 and n; n is at least 1."""
    root = math.isqrt(n)
    below = sum(n % i == 0 for i in range(1, root + 1))
    return 2 * below - (root * root == n)


def count_divisors_slow(n: int) -> int:
    count = 0
    for i in range(1, n + 1):
        if n % i == 0:
            count += 1
    return count


def count_divisors_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size - rng.randrange(size // 2),)


def fibonacci_modulo(n: int, m: int) -> int:
    """Return the Fibonacci number F(n), with F(0) = 0 and F(1) = 1, modulo m."""
    a, b = 0, 1
    for bit in bin(n)[2:]:
        a, b = a * (2 * b - a) % m, (a * a + b * b) % m
        if bit == "1":
            a, b = b, (a + b) % m
    return a % m


def fibonacci_modulo_slow(n: int, m: int) -> int:
    values = [0, 1]
    for i in range(2, n + 1):
        values.append((values[i - 1] + values[i - 2]) % m)
    return values[n] % m


def fibonacci_modulo_inputs(size: int, rng: random.Random) -> tuple[int, int]:
    return size - rng.randrange(size // 2), rng.randrange(1, 10**6)


def power_modulo(base: int, exponent: int, m: int) -> int:
    """Return base to the power of the exponent, which is not negative, modulo m."""
    return pow(base, exponent, m)


def power_modulo_slow(base: int, exponent: int, m: int) -> int:
    result = 1
    for _ in range(exponent):
        result = result * base % m
    return result % m


def power_modulo_inputs(size: int, rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(10**6), size - rng.randrange(size // 2), rng.randrange(1, 10**9)


def common_divisor(numbers: list[int]) -> int:
    """Return the greatest number that divides all of the positive numbers."""
    return reduce(math.gcd, numbers)


def common_divisor_slow(numbers: list[int]) -> int:
    for candidate in range(min(numbers), 0, -1):
        if all(number % candidate == 0 for number in numbers):
            return candidate
    raise ValueError("there are no positive numbers")


def common_divisor_inputs(size: int, rng: random.Random) -> tuple[list[int]]:
    shared = rng.randint(1, max(1, math.isqrt(size) // 2))
    return ([shared * rng.randint(size // 2 // shared, size // shared) for _ in range(4)],)


def sum_of_digits_below(n: int) -> int:
    """Return the sum of the decimal digits of all numbers from 0 to n - 1."""
    total, place = 0, 1
    while place < n:
        whole, rest = divmod(n, 10 * place)
        total += whole * 45 * place
        digit, below = divmod(rest, place)
        total += digit * (digit - 1) // 2 * place + digit * below
        place *= 10
    return total


def sum_of_digits_below_slow(n: int) -> int:
    total = 0
    for number in range(n):
        for digit in str(number):
            total += int(digit)
    return total


def sum_of_digits_below_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(size // 4),)


def squares_between(low: int, high: int) -> int:
    """Count the square numbers from low to high, both included; 0 <= low <= high."""
    return math.isqrt(high) - (math.isqrt(low - 1) if low > 0 else -1)


def squares_between_slow(low: int, high: int) -> int:
    count = 0
    for number in range(low, high + 1):
        if int(number**0.5) ** 2 == number:
            count += 1
    return count


def squares_between_inputs(size: int, rng: random.Random) -> tuple[int, int]:
    low = rng.randrange(size)
    return low, low + size


def sum_of_multiples(n: int) -> int:
    """Return the sum of all numbers less than n that 3 or 5 divides."""

    def multiples(of: int) -> int:
        count = (n - 1) // of
        return of * count * (count + 1) // 2

    return multiples(3) + multiples(5) - multiples(15)


def sum_of_multiples_slow(n: int) -> int:
    total = 0
    for i in range(1, n):
        if i % 3 == 0 or i % 5 == 0:
            total += i
    return total


def sum_of_multiples_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(size),)


def longest_collatz(n: int) -> int:
    """Return the start below n, from 1, that takes most Collatz steps to 1; of several, the least.

    A step halves an even number and makes 3 x + 1 of an odd one. n is at least 2.
    """
    steps = [0] * n
    best = 1
    for start in range(2, n):
        value, count = start, 0
        while value >= start:
            value = value // 2 if value % 2 == 0 else 3 * value + 1
            count += 1
        steps[start] = count + steps[value]
        if steps[start] > steps[best]:
            best = start
    return best


def longest_collatz_slow(n: int) -> int:
    best = 1
    best_steps = 0
    for start in range(1, n):
        value = start
        count = 0
        while value != 1:
            if value % 2 == 0:
                value = value // 2
            else:
                value = 3 * value + 1
            count += 1
        if count > best_steps:
            best_steps = count
            best = start
    return best


def longest_collatz_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(size // 2),)


def zeros_of_factorial(n: int) -> int:
    """Count the zeros at the end of the factorial of n."""
    zeros = 0
    while n:
        n //= 5
        zeros += n
    return zeros


def zeros_of_factorial_slow(n: int) -> int:
    value = 1
    for i in range(2, n + 1):
        value *= i
    count = 0
    while value % 10 == 0:
        value //= 10
        count += 1
    return count


def zeros_of_factorial_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(size // 2),)


def whole_root(n: int) -> int:
    """Return the greatest whole number whose square is at most n."""
    return math.isqrt(n)


def whole_root_slow(n: int) -> int:
    root = 0
    while (root + 1) * (root + 1) <= n:
        root += 1
    return root


def whole_root_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size - rng.randrange(size // 2),)


def binomial(n: int, k: int) -> int:
    """Return in how many ways k of n things can be chosen; 0 <= k <= n."""
    return math.comb(n, k)


def binomial_slow(n: int, k: int) -> int:
    if k == 0 or k == n:
        return 1
    return binomial_slow(n - 1, k - 1) + binomial_slow(n - 1, k)


def binomial_inputs(size: int, rng: random.Random) -> tuple[int, int]:
    return size, size // 2 + rng.randint(-1, 1)


def count_ones(n: int) -> list[int]:
    """For each number from 0 to n, return how many ones its binary digits have."""
    return [number.bit_count() for number in range(n + 1)]


def count_ones_slow(n: int) -> list[int]:
    result = []
    for number in range(n + 1):
        count = 0
        while number > 0:
            if number % 2 == 1:
                count += 1
            number = number // 2
        result.append(count)
    return result


def count_ones_inputs(size: int, rng: random.Random) -> tuple[int]:
    return (size + rng.randrange(size // 2),)
