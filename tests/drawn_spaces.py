"""Search spaces drawn by hypothesis, for tests of the formats that they are written to."""

from typing import Any

from hypothesis import strategies as st

from sharpen.core.collections import Permutation, Subset
from sharpen.core.conditions import Condition, Eq, Gt, In, Lt, Ne
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal, Parameter
from sharpen.core.space import Space

words = st.lists(st.text("abcxyz", min_size=1, max_size=3), min_size=2, max_size=5, unique=True)
numbers = st.lists(st.integers(2, 99), min_size=2, max_size=5, unique=True)
KINDS: dict[str, st.SearchStrategy[Parameter]] = {
    "float": st.builds(lambda a, w: Float(a, a + w), st.integers(-9, 9), st.floats(0.01, 1e3)),
    "log float": st.builds(lambda a, r: Float(a, a * r, log=True), st.floats(1e-6, 9), st.just(7)),
    "stepped float": st.builds(
        lambda a, n: Float(a / 10, (a + n) / 10, step=0.1), st.integers(-20, 20), st.integers(1, 9)
    ),
    "int": st.builds(lambda a, w: Int(a, a + w), st.integers(-9, 9), st.integers(1, 99)),
    "log int": st.builds(lambda a, w: Int(a, a + w, log=True), st.integers(1, 9), st.just(40)),
    "stepped int": st.builds(lambda a: Int(a, a + 20, step=3), st.integers(-9, 9)),
    "bool": st.just(Bool()),
    "fixed": st.one_of(st.integers(2, 9), st.text("ab", max_size=2)).map(Fixed),
    "words": words.map(lambda values: Categorical(*values)),
    "numbers": numbers.map(lambda values: Categorical(*values)),
    "weighted": words.map(lambda v: Categorical(*v, weights=range(1, len(v) + 1))),
    "ordinal": numbers.map(Ordinal),
    "permutation": words.map(Permutation),
    "subset": words.map(lambda values: Subset(values, min=1)),
}


@st.composite
def checks(draw: Any, name: str, parameter: Parameter) -> Condition:
    """A comparison with constants."""
    if isinstance(parameter, Float | Int):
        (bound,) = parameter.values_on_grid(1)
        return draw(
            st.sampled_from([Lt(name, bound), Gt(name, bound), Lt(name, bound) | Gt(name, bound)])
        )
    values = parameter.values_on_grid(1)
    if isinstance(parameter, Bool):
        values = [False, True]
    return draw(
        st.sampled_from(
            [Eq(name, values[0]), Ne(name, values[0]), In(name, values[:2]), ~In(name, values[:2])]
        )
    )


@st.composite
def drawn_spaces(draw: Any, kinds: list[str], *, with_clauses: bool = False) -> Space:
    """A space of some kinds of parameters, with conditions and forbidden clauses if wanted."""
    parts = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6))
    found: dict[str, Parameter] = {}
    for i, kind in enumerate(parts):
        parameter = draw(KINDS[kind])
        parents = [n for n, p in found.items() if not isinstance(p, Permutation | Subset)]
        if with_clauses and parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            condition = draw(checks(parent, found[parent]))
            if draw(st.booleans()):
                other = draw(st.sampled_from(parents))
                condition = condition & draw(checks(other, found[other]))
            parameter = parameter.active_if(condition)
        found[f"p{i}"] = parameter
    space = Space(found)
    names = [n for n, p in found.items() if not isinstance(p, Permutation | Subset | Fixed)]
    if with_clauses and len(names) > 1 and draw(st.booleans()):
        a, b = names[:2]
        clause = draw(checks(a, found[a])) & draw(checks(b, found[b]))
        space = space.forbid(~clause if draw(st.booleans()) else clause)
    return space
