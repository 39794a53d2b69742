"""The number of threads follows what is fast, whatever that is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.models.thread_choice import ThreadChoice


def run(choice, seconds, steps, rows=1):
    """Time of so many steps, and the threads of each."""
    spent, used = 0.0, []
    for _ in range(steps):
        used.append(choice.next(rows))
        took = seconds(used[-1])
        choice.took(took)
        spent += took
    return spent, used


def test_one_thread_is_one_thread():
    assert set(run(ThreadChoice(1), lambda n: 1.0, 500)[1]) == {1}


@given(seed=st.integers(0, 1000), most=st.sampled_from([2, 3, 8, 16]))
def test_on_an_idle_machine_nearly_all_steps_take_all_threads(seed, most):
    chance = random.Random(seed)
    spent, used = run(ThreadChoice(most), lambda n: chance.uniform(0.95, 1.05) / n, 2000)
    assert used.count(most) > 0.9 * 2000
    assert spent < 1.15 * 2000 / most


@pytest.mark.parametrize("most", [2, 4, 16])
def test_where_threads_wait_for_each_other_one_is_taken(most):
    spent = 0.0
    for seed in range(40):
        chance = random.Random(seed)
        # Half of the steps of more threads wait for one that another job holds back.
        took, used = run(
            ThreadChoice(most),
            lambda n, chance=chance: 1.0 if n == 1 else chance.choice([1 / n, 6.0]),
            2000,
        )
        assert used.count(1) > 0.6 * 2000
        spent += took
    assert spent < 40 * 2000 / 0.8


def test_it_finds_back_when_the_other_job_ends():
    choice = ThreadChoice(4)
    run(choice, lambda n: float(n), 1000)
    assert choice.next(1) == 1
    _, used = run(choice, lambda n: 1.0 / n, 2000)
    assert set(used[-100:]) <= {4, 2}
    assert used[-1000:].count(4) > 900


def test_steps_of_other_sizes_are_not_compared():
    choice = ThreadChoice(2)
    for i in range(2000):  # large steps in between cut every window off
        rows = 64 if i % 5 == 0 else 1
        assert choice.next(rows) == 2
        choice.took(rows * 1.0)
