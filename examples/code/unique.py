"""A problem to evaluate programs on.

sharpen code eval examples/code/unique.py --samples examples/code/unique_samples.jsonl --k 1,3
"""

LEVELS = (10, 100, 400, 1000)


def unique(xs):
    """Return each value of the list once, in the order in which it comes first."""
    return list(dict.fromkeys(xs))


def unique_slow(xs):
    found = []
    for x in xs:
        if x not in found:
            found.append(x)
    return found


def unique_inputs(size, rng):
    return ([rng.randrange(size) for _ in range(size)],)
