import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.domains.programs import (
    FAST,
    MOST_LETTERS,
    cost,
    is_program,
    pessimized,
    python_source,
    run_program,
    run_tests,
)
from sharpen.core.errors import DataError

DIGITS = st.text("0123456789", max_size=9)
PLAIN = {
    "r": lambda s: "".join(reversed(s)),
    "s": lambda s: "".join(sorted(s)),
    "t": lambda s: s[1:],
    "l": lambda s: s[: max(len(s) - 1, 0)],
    "d": lambda s: s * 2,
    "i": lambda s: "".join(str((int(c) + 1) % 10) for c in s),
    "n": lambda s: "".join(str(9 - int(c)) for c in s),
    "c": lambda s: "".join(str(sum(map(int, s[: i + 1])) % 10) for i in range(len(s))),
    "p": lambda s: s[-1] + s[:-1],
}


@given(st.sampled_from(FAST), DIGITS)
def test_both_ways_do_what_the_letter_says(letter: str, text: str) -> None:
    if letter == "p" and not text:
        for program in "pP":
            with pytest.raises(IndexError):
                run_program(program, text)
        return
    assert run_program(letter, text) == run_program(letter.upper(), text) == PLAIN[letter](text)


@given(st.text([*FAST, *FAST.upper()], min_size=1, max_size=MOST_LETTERS), DIGITS)
def test_programs_are_their_letters_in_a_row(program: str, text: str) -> None:
    wanted = text
    try:
        for letter in program:
            wanted = PLAIN[letter.lower()](wanted)
    except IndexError:
        with pytest.raises(IndexError):
            run_program(program, text)
    else:
        assert run_program(program, text) == wanted


@pytest.mark.parametrize("text", ["", "x", "rr1", "r t", "r" * 9, "__import__('os')", "r\n"])
def test_other_texts_are_no_programs(text: str) -> None:
    assert not is_program(text)
    with pytest.raises(DataError, match="no program"):
        python_source(text)


def test_endings() -> None:
    tests = [["12", "21"], ["33", "33"], ["", ""]]
    assert run_tests(" r\n", tests).ending == "correct"
    assert (run_tests("i", tests).ending, run_tests("i", tests).passed) == ("wrong", 1 / 3)
    assert (run_tests("p", tests).ending, run_tests("p", tests).passed) == ("error", 2 / 3)
    assert run_tests("reverse", tests).ending == "compile"


def test_slow_ways_cost_more_and_costs_repeat() -> None:
    inputs = ("1234", "9876")
    for letter in FAST:
        assert cost(letter.upper(), inputs) > cost(letter, inputs)
    cost.cache_clear()
    again = {program: cost(program, inputs) for program in ("rt", "RT")}
    cost.cache_clear()
    assert again == {program: cost(program, inputs) for program in ("rt", "RT")}


@given(st.text(FAST, min_size=1, max_size=3), st.integers(0, 10**6), DIGITS.filter(len))
def test_pessimized_programs_do_the_same_at_a_higher_cost(
    program: str, seed: int, text: str
) -> None:
    slow = pessimized(program, np.random.default_rng(seed))
    assert is_program(slow)
    try:
        wanted = run_program(program, text)
    except IndexError:
        return
    assert run_program(slow, text) == wanted
    assert cost(slow, (text,)) > cost(program, (text,))
