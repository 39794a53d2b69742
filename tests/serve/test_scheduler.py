import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.compress.kv.plan import EvictionConfig
from sharpen.core.errors import ConfigError, DataError
from sharpen.serve.blocks import BlockPool
from sharpen.serve.scheduler import Scheduler, SchedulerConfig, SequenceState, Step


def next_token(tokens: list[int]) -> int:
    return (sum(tokens) + len(tokens)) % 7


def continued(tokens: list[int], length: int) -> list[int]:
    out = list(tokens)
    while len(out) < length:
        out.append(next_token(out))
    return out


class Machine:
    """Computes steps by writing down, for each place of each block, the prefix that it holds."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.places: dict[tuple[int, int], tuple[int, ...]] = {}
        self.computed = 0

    def compute(self, step: Step, guess_right: int = 0) -> None:
        size = self.scheduler.pool.size
        new: list[list[int]] = []
        for source, target in step.copies:
            for i in range(size):
                self.places[target, i] = self.places[source, i]
        for part in step.parts:
            sequence = part.sequence
            known = [*sequence.tokens, *sequence.draft]
            for i in range(part.start):
                held = self.places[sequence.blocks[i // size], i % size]
                assert held == (sequence.extra, *known[: i + 1])
            for i in range(part.start, part.start + part.count):
                place = sequence.blocks[i // size], i % size
                self.places[place] = (sequence.extra, *known[: i + 1])
            self.computed += part.count
            room = sequence.max_tokens - sequence.num_tokens
            right = min(guess_right, len(sequence.draft), room - 1)
            chosen = sequence.draft[:right]
            last = next_token([*sequence.tokens, *chosen])
            new.append([*chosen, last] if part.ends else [])
        self.scheduler.update(step, new)
        for part in step.parts:
            if part.sequence.num_tokens >= part.sequence.max_tokens:
                self.scheduler.remove(part.sequence)

    def check(self, step: Step) -> None:
        scheduler = self.scheduler
        pool, config = scheduler.pool, scheduler.config
        assert step.num_tokens <= config.max_batched_tokens
        assert len(scheduler.running) <= config.max_sequences
        assert scheduler.running == sorted(scheduler.running, key=lambda s: s.key)
        held = [b for s in scheduler.running for b in s.blocks]
        assert sum(pool.holders(b) for b in range(pool.count)) == len(held)
        assert pool.num_free + pool.num_used == pool.count
        served = {part.sequence for part in step.parts}
        for sequence in scheduler.running:
            assert len(set(sequence.blocks)) == len(sequence.blocks)
            if sequence.missing == 1:
                assert sequence in served
        for part in step.parts:
            assert part.sequence.status == "running"
            assert part.count >= 1
            end = part.start + part.count
            assert len(part.sequence.blocks) * pool.size >= end
        if scheduler.busy:
            assert step.parts  # something goes on


def make(blocks: int = 20, size: int = 4, **options: float) -> Machine:
    config = {"max_batched_tokens": 16, "max_sequences": 4, **options}
    return Machine(Scheduler(SchedulerConfig(**config), BlockPool(blocks, size)))  # type: ignore[arg-type]


def run(machine: Machine, sequences: list[SequenceState], limit: int = 2000) -> list[Step]:
    for sequence in sequences:
        machine.scheduler.add(sequence)
    steps = []
    while machine.scheduler.busy:
        step = machine.scheduler.schedule()
        machine.check(step)
        machine.compute(step)
        steps.append(step)
        assert len(steps) < limit
    return steps


def prompt(length: int, start: int = 0) -> list[int]:
    return [(start + i) % 7 for i in range(length)]


def test_a_prompt_comes_in_chunks_and_decodes_are_not_delayed() -> None:
    machine = make(blocks=40, chunk=8)
    first = SequenceState(prompt(3), 20)
    machine.scheduler.add(first)
    machine.compute(machine.scheduler.schedule())
    machine.scheduler.add(SequenceState(prompt(30, 3), 31, arrival=1.0))
    counts = []
    for _ in range(4):
        step = machine.scheduler.schedule()
        machine.check(step)
        counts.append([part.count for part in step.parts])
        machine.compute(step)
    assert counts == [[1, 8], [1, 8], [1, 8], [1, 6]]


def test_a_known_prefix_is_not_computed_again_but_for_its_last_token() -> None:
    machine = make(size=4)
    run(machine, [SequenceState(prompt(12), 13)])
    before = machine.computed
    run(machine, [SequenceState(prompt(12), 13)])
    assert machine.computed - before == 1  # in a copy of the last block of the three
    run(machine, [SequenceState(prompt(12), 13, extra="adapter")])
    assert machine.computed - before == 1 + 12
    run(machine, [SequenceState([*prompt(11), 5], 13)])
    assert machine.computed - before == 1 + 12 + 4  # another last token
    assert machine.scheduler.prefix_hits == 11 + 8


def test_the_copy_of_a_last_block_is_its_own() -> None:
    machine = make(size=4)
    pair = [SequenceState(prompt(8), 15, arrival=float(i)) for i in range(2)]
    for sequence in pair:  # the second one comes while the first one runs
        machine.scheduler.add(sequence)
        step = machine.scheduler.schedule()
        machine.compute(step)
    assert step.copies == [(pair[0].blocks[1], pair[1].blocks[1])]
    assert pair[0].blocks[0] == pair[1].blocks[0]
    assert pair[0].blocks[1] != pair[1].blocks[1]
    run(machine, [])
    assert pair[0].tokens == pair[1].tokens


def test_continuations_of_one_prompt_wait_for_the_first_and_take_its_blocks() -> None:
    machine = make(blocks=40, size=4, max_sequences=6, max_batched_tokens=32)
    first, second, third = (SequenceState(prompt(22), 26, arrival=float(i)) for i in range(3))
    other = SequenceState(prompt(6, 3), 8, arrival=3.0)
    late = SequenceState(prompt(22), 26, arrival=4.0, extra="adapter")  # shares nothing
    for sequence in (first, second, third, other, late):
        machine.scheduler.add(sequence)
    shares = []
    for _ in range(2):
        step = machine.scheduler.schedule()
        machine.check(step)
        assert machine.scheduler.num_waiting == 5 - len(machine.scheduler.running)
        shares.append([(part.sequence, part.start, part.count) for part in step.parts])
        machine.compute(step)
    assert shares[0] == [(first, 0, 22), (other, 0, 6), (late, 0, 4)]
    assert shares[1][:2] == [(first, 22, 1), (other, 6, 1)]
    assert shares[1][2:] == [(late, 4, 18), (second, 20, 2), (third, 20, 2)]
    assert second.blocks[:5] == first.blocks[:5] == third.blocks[:5]
    run(machine, [])
    for sequence in (first, second, third, late):
        assert sequence.tokens == continued(prompt(22), 26)


def test_one_that_waits_for_a_prompt_keeps_its_blocks_and_its_place() -> None:
    machine = make(blocks=9, size=4, max_sequences=3)
    first, second = (SequenceState(prompt(16), 18, arrival=float(i)) for i in range(2))
    other = SequenceState(prompt(15, 3), 17, arrival=2.0)
    for sequence in (first, second, other):
        machine.scheduler.add(sequence)
    machine.compute(machine.scheduler.schedule())
    assert [one.status for one in (first, second, other)] == ["running", "waiting", "waiting"]
    machine.scheduler.remove(first)  # nobody stores the last blocks now
    step = machine.scheduler.schedule()
    assert next(part.sequence for part in step.parts) is second
    machine.compute(step)
    run(machine, [])
    assert second.tokens == continued(prompt(16), 18)


def test_no_sequence_waits_for_one_that_comes_after_it() -> None:
    machine = make(blocks=40, size=4, chunk=4)
    slow = SequenceState(prompt(30), 32, priority=1)
    machine.scheduler.add(slow)
    machine.compute(machine.scheduler.schedule())
    urgent = SequenceState(prompt(30), 32, priority=0, arrival=1.0)
    machine.scheduler.add(urgent)
    step = machine.scheduler.schedule()
    assert {part.sequence for part in step.parts} == {slow, urgent}
    assert urgent.num_cached == 4


def test_priorities_and_arrivals_order_the_waiting() -> None:
    machine = make(max_sequences=1)
    late = SequenceState(prompt(4), 5, priority=0, arrival=3.0)
    early = SequenceState(prompt(4), 5, priority=1, arrival=1.0)
    middle = SequenceState(prompt(4), 5, priority=0, arrival=2.0)
    steps = run(machine, [early, late, middle])
    order = list(dict.fromkeys(id(part.sequence) for step in steps for part in step.parts))
    assert order == [id(middle), id(late), id(early)]


def test_aging_bounds_the_wait_of_a_class() -> None:
    """Under a stream of class 0, none that comes 1 / aging seconds later overtakes class 1."""
    for aging, overtakes in ((0.0, True), (0.5, False)):
        machine = make(max_sequences=1, aging=aging)
        scheduler = machine.scheduler
        patient = SequenceState(prompt(4), 5, priority=1, arrival=1.0)
        scheduler.add(SequenceState(prompt(4), 5, arrival=0.0))
        scheduler.add(patient)
        time, served = 1.0, []
        while patient.status != "finished" and time < 30:
            time += 1.0
            scheduler.add(SequenceState(prompt(4), 5, arrival=time))
            step = scheduler.schedule()
            served += [part.sequence for part in step.parts]
            machine.compute(step)
        late = [s for s in served if s is not patient and s.arrival > 1.0 + 2.0]
        assert bool(late) == overtakes


def test_the_last_in_order_gives_way_and_comes_back_before_later_ones() -> None:
    machine = make(blocks=6, size=2, max_sequences=3)
    first, second = SequenceState(prompt(4), 12), SequenceState(prompt(4, 2), 12, arrival=1.0)
    third = SequenceState(prompt(4, 4), 12, arrival=2.0)
    run(machine, [first, second, third])
    assert first.num_preempted == 0
    assert second.num_preempted > 0
    for sequence in (first, second, third):
        assert sequence.tokens == continued(sequence.tokens[:4], 12)


def test_one_that_could_never_fit_is_refused() -> None:
    machine = make(blocks=4, size=4)
    with pytest.raises(DataError, match=r"needs 5 blocks .* there are 4 for 16 tokens"):
        machine.scheduler.add(SequenceState(prompt(3), 17))
    with pytest.raises(DataError, match="empty"):
        machine.scheduler.add(SequenceState([], 4))
    assert not machine.scheduler.busy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batched_tokens": 0}, "max_batched_tokens=0"),
        ({"max_sequences": 0}, "max_sequences=0"),
        ({"chunk": 0}, "chunk=0"),
        ({"aging": -1.0}, "aging=-1.0"),
        ({"max_sequences": 16, "max_batched_tokens": 16}, "Set it above 16"),
        ({"draft_tokens": 4, "max_sequences": 4, "max_batched_tokens": 20}, "Set it above 20"),
    ],
)
def test_bad_limits_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SchedulerConfig(**options)  # type: ignore[arg-type]


def test_right_guesses_save_steps() -> None:
    machine = make(blocks=30, draft_tokens=3, max_sequences=3)
    sequence = SequenceState(prompt(5), 40)
    machine.scheduler.add(sequence)
    steps = 0
    while machine.scheduler.busy:
        if sequence.missing == 1:
            last = min(sequence.num_tokens + 3, sequence.max_tokens - 1)
            sequence.draft = continued(sequence.tokens, last)[sequence.num_tokens :]
        step = machine.scheduler.schedule()
        machine.check(step)
        machine.compute(step, guess_right=3)
        steps += 1
    assert sequence.num_tokens == 40
    assert steps <= 1 + -(-35 // 4) + 1
    assert sequence.tokens == continued(prompt(5), 40)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    blocks=st.integers(6, 24),
    size=st.sampled_from([1, 2, 4]),
    budget=st.integers(9, 24),
    chunk=st.sampled_from([None, 1, 3, 7]),
    drafts=st.integers(0, 1),
)
def test_random_loads_keep_every_rule(
    seed: int, blocks: int, size: int, budget: int, chunk: int | None, drafts: int
) -> None:
    """Bursts, shared prefixes, cancellations, guesses right and wrong, small pools."""
    chance = random.Random(seed)
    config = SchedulerConfig(
        max_batched_tokens=budget, max_sequences=4, chunk=chunk, draft_tokens=drafts, aging=0.1
    )
    machine = Machine(Scheduler(config, BlockPool(blocks, size)))
    scheduler = machine.scheduler
    longest = blocks * size - drafts
    made: list[tuple[SequenceState, int]] = []
    for tick in range(120):
        if tick < 60 and chance.random() < 0.4:
            length = chance.randint(1, max(longest - 1, 1))
            total = min(length + chance.randint(1, 12), longest)
            if total > length:
                start, extra = chance.choice([0, 0, 3]), chance.choice(["", "", "b"])
                sequence = SequenceState(
                    *(prompt(length, start), total),
                    priority=chance.choice([0, 1]),
                    arrival=float(tick),
                    extra=extra,
                )
                scheduler.add(sequence)
                made.append((sequence, length))
        going = [s for s, _ in made if s.status != "finished"]
        if going and chance.random() < 0.05:
            scheduler.remove(chance.choice(going))
        if not scheduler.busy:
            continue
        for sequence in scheduler.running:
            if drafts and sequence.missing == 1 and sequence.max_tokens > sequence.num_tokens + 1:
                right = next_token(sequence.tokens)
                sequence.draft = [chance.choice([right, (right + 1) % 7])]
        step = scheduler.schedule()
        machine.check(step)
        right_ones = int(
            all(p.sequence.draft in ([], [next_token(p.sequence.tokens)]) for p in step.parts)
        )
        machine.compute(step, guess_right=right_ones)
    while scheduler.busy:
        step = scheduler.schedule()
        machine.check(step)
        machine.compute(step)
    assert scheduler.pool.num_used == 0
    for sequence, length in made:
        assert sequence.status == "finished"
        assert sequence.tokens == continued(sequence.tokens[:length], sequence.num_tokens)


@settings(max_examples=60)
@given(
    loads=st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=7
    ),
    blocks=st.integers(10, 16),
    batched=st.integers(5, 40),
)
def test_sequences_that_drop_units_hold_what_they_store(
    loads: list[tuple[int, int, int]], blocks: int, batched: int
) -> None:
    pool = BlockPool(blocks, 4)
    scheduler = Scheduler(SchedulerConfig(max_batched_tokens=batched, max_sequences=4), pool)
    config = EvictionConfig(budget=12, chunk=8, stabilizers=2, local=3)
    sequences = []
    for number, (prompt, new, moment) in enumerate(loads):
        plan = config.plan(prompt)
        sequences.append(
            SequenceState(
                tokens=[5] * prompt,
                max_tokens=prompt + new,
                arrival=moment,
                plan=plan if plan.evicts else None,
                extra=str(number),
            )
        )
        scheduler.add(sequences[-1])
    for _ in range(3000):
        if not scheduler.busy:
            break
        step = scheduler.schedule()
        assert step.num_tokens <= batched
        held = [block for one in scheduler.running for block in one.blocks]
        assert len(held) == len(set(held)) == pool.num_used
        for part in step.parts:
            sequence = part.sequence
            stored = part.start - sequence.dropped + part.count
            assert stored <= 4 * len(sequence.blocks)
            if sequence.plan is not None:
                border = sequence.plan.next_border(part.start)
                assert border is None or part.start + part.count <= border
                assert stored <= 12 + 8 + 12
        scheduler.update(step, [[7] if part.ends else [] for part in step.parts])
        for part in step.parts:
            sequence = part.sequence
            if sequence.status == "running" and sequence.plan is not None:
                stored = sequence.num_computed - sequence.dropped
                if sequence.num_computed >= sequence.plan.last_border:
                    assert len(sequence.blocks) <= -(-(stored + sequence.missing) // 4)
            if sequence.num_tokens >= sequence.max_tokens:
                scheduler.remove(sequence)
    assert not scheduler.busy
    assert pool.num_used == 0
    assert all(s.num_tokens == s.max_tokens for s in sequences)


def test_a_long_prompt_that_drops_units_fits_a_small_pool() -> None:
    scheduler = Scheduler(SchedulerConfig(max_batched_tokens=64), BlockPool(6, 4))
    plan = EvictionConfig(budget=8, chunk=8, stabilizers=2, local=4).plan(500)
    with pytest.raises(DataError, match="500 tokens needs 125"):
        scheduler.check(500)
    scheduler.check(500, plan)


def test_no_torch_is_loaded() -> None:
    code = "import sys, sharpen.serve.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_reserved_sequence_holds_its_blocks_and_goes_on_where_another_stopped() -> None:
    config = SchedulerConfig(max_batched_tokens=8, max_sequences=2)
    scheduler = Scheduler(config, BlockPool(4, 2))
    coming = SequenceState(tokens=[1, 2, 3], max_tokens=6)
    assert scheduler.reserve(coming)
    assert (scheduler.num_reserved, scheduler.pool.num_used, coming.status) == (1, 2, "reserved")
    assert not scheduler.busy
    other = SequenceState(tokens=[5, 6], max_tokens=4)
    late = SequenceState(tokens=[7], max_tokens=3)
    scheduler.add(other)
    scheduler.add(late)
    step = scheduler.schedule()
    assert [part.sequence for part in step.parts] == [other]  # two places, one is reserved
    scheduler.update(step, [[8]])
    scheduler.adopt(coming, 4)
    step = scheduler.schedule()
    assert [(part.sequence, part.start, part.count) for part in step.parts] == [
        (coming, 3, 1),
        (other, 2, 1),
    ]
    scheduler.update(step, [[9], [9]])
    for one in (coming, other, late):
        scheduler.remove(one)
    assert (scheduler.pool.num_used, scheduler.num_reserved, scheduler.busy) == (0, 0, False)


def test_reserving_is_refused_without_room_and_undone_by_removing() -> None:
    scheduler = Scheduler(SchedulerConfig(max_batched_tokens=8, max_sequences=3), BlockPool(3, 2))
    first = SequenceState(tokens=[1, 2, 3], max_tokens=4)
    second = SequenceState(tokens=[1, 2, 3], max_tokens=4)
    assert scheduler.reserve(first)
    assert not scheduler.reserve(second)
    assert second.status == "waiting" and scheduler.pool.num_used == 2
    scheduler.remove(first)
    scheduler.adopt(first, 4)  # too late: nothing happens
    assert (first.status, scheduler.pool.num_used, scheduler.running) == ("finished", 0, [])
    assert scheduler.reserve(second)
    with pytest.raises(DataError, match="needs tokens and no plan"):
        scheduler.reserve(SequenceState(tokens=[], max_tokens=4))


def test_what_came_from_elsewhere_is_found_as_a_prefix() -> None:
    scheduler = Scheduler(SchedulerConfig(max_batched_tokens=8, max_sequences=3), BlockPool(8, 2))
    coming = SequenceState(tokens=[1, 2, 3, 4], max_tokens=8)
    assert scheduler.reserve(coming)
    scheduler.adopt(coming, 5)
    same = SequenceState(tokens=[1, 2, 3, 4, 6], max_tokens=8)
    scheduler.add(same)
    step = scheduler.schedule()
    assert same.num_cached == 4
    assert same.blocks[:2] == coming.blocks[:2]
    assert step.num_tokens == 2
