from dataclasses import dataclass

from sharpen.serve.simulate.policies import MixedPool, make_policy


@dataclass(eq=False)
class Fake:
    number: int
    home: str
    pending_tokens: int = 0
    reserved_tokens: int = 0
    capacity: int = 10_000
    foreign: int = 0
    waiting: bool = False
    num_jobs: int = 0


def pool():
    p0, p1, t0, t1 = (
        Fake(i, home) for i, home in enumerate(("prompt", "prompt", "token", "token"))
    )
    return p0, p1, t0, t1, MixedPool([p0, p1, t0, t1], max_pending=1000)


def test_the_least_loaded_pair_is_taken():
    p0, p1, t0, t1, policy = pool()
    p0.pending_tokens, t0.reserved_tokens = 10, 10
    assert policy.place(100, 10) == (p1, t1)
    p1.pending_tokens, t1.reserved_tokens = 10, 10
    assert policy.place(100, 10) == (p0, t0)  # ties: the first in the pool


def test_a_long_queue_borrows_a_token_machine_and_gives_it_back():
    p0, p1, t0, t1, policy = pool()
    p0.pending_tokens = p1.pending_tokens = 950
    assert policy.place(100, 10)[0] is p0  # long, but nothing waits: one is being computed
    p0.waiting = p1.waiting = True
    t0.pending_tokens = 3
    assert policy.place(50, 10)[0] is p0  # still fits 1000
    first, second = policy.place(100, 10)
    assert (first, second) == (t1, t0)
    assert policy.mixed == [t1] and policy.token == [t0]
    assert policy.place(100, 10)[0] is t1  # from the mixed pool
    policy.freed(t1)
    assert policy.mixed == [] and policy.token == [t0, t1]


def test_full_memory_borrows_a_prompt_machine():
    p0, p1, t0, t1, policy = pool()
    t0.reserved_tokens = t1.reserved_tokens = 9_900
    p0.reserved_tokens = 5
    first, second = policy.place(90, 9)
    assert (first, second) == (p0, p1)  # 9900 + 90 + 1 + 9 is not below the capacity
    assert policy.mixed == [p1]
    t1.reserved_tokens = 9_899
    assert policy.place(90, 9)[1] is t1
    policy.freed(p1)
    assert policy.prompt == [p0, p1]


def test_with_nothing_left_both_phases_go_to_the_least_pending():
    p0, p1, t0, t1, policy = pool()
    policy.prompt, policy.token, policy.mixed = [], [], [p0, p1, t0, t1]
    for one, pending in zip((p0, p1, t0, t1), (9_000, 8_000, 7_000, 9_000), strict=True):
        one.pending_tokens, one.waiting, one.reserved_tokens = pending, True, 10_000
    assert policy.place(100, 10) == (t0, t0)


def test_simple_policies():
    machines = [Fake(i, home) for i, home in enumerate(("prompt", "token", "token"))]
    machines[0].num_jobs, machines[1].num_jobs = 4, 2
    machines[2].num_jobs, machines[2].pending_tokens = 3, 1
    machines[0].pending_tokens, machines[1].pending_tokens = 5, 9
    pick = {name: make_policy(name, machines, seed=1) for name in ("jsq", "token_jsq")}
    assert pick["jsq"].place(1, 1)[0].number == 1
    assert pick["token_jsq"].place(1, 1)[0].number == 2
    turn = make_policy("round_robin", machines)
    assert [turn.place(1, 1)[0].number for _ in range(4)] == [0, 1, 2, 0]
    pairs = make_policy("kv_round_robin", machines)
    placed = [pairs.place(1, 1) for _ in range(3)]
    assert [(a.number, b.number) for a, b in placed] == [(0, 1), (0, 2), (0, 1)]
    assert [m.number for m in make_policy("kv_jsq", machines).place(1, 1)] == [0, 1]
    assert [m.number for m in make_policy("kv_token_jsq", machines).place(1, 1)] == [0, 2]
    some = make_policy("random", machines, seed=1)
    again = make_policy("random", machines, seed=1)
    chosen = [some.place(1, 1)[0].number for _ in range(20)]
    assert chosen == [again.place(1, 1)[0].number for _ in range(20)]
    assert set(chosen) == {0, 1, 2}
