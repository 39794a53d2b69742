"""The DRAM channel against JEDEC's constraints, closed forms, cases by hand, and its twin."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems.arch.jedec import KINDS, Jedec
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.native.build import load
from sharpen.problems.arch import (
    SPECS,
    DramController,
    DramPolicy,
    DramTimings,
    Trace,
    dram_space,
    workload,
)
from sharpen.problems.arch import dram as dram_module
from sharpen.problems.arch.dram_twin import COMMANDS

DDR3 = SPECS["DDR3-1600"]
LINE, ROW = 64, 8192  # bytes; a row of a rank
NONE = {"refresh_policy": "NoRefresh"}


@pytest.fixture(params=["1", "0"], ids=["native", "twin"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "0":
        monkeypatch.setenv("SHARPEN_NATIVE", "0")
    return str(request.param)


def requests(*rows: tuple[int, int] | tuple[int, int, int], **parts: Any) -> Trace:
    """Rows of cycle, address and, for a write, 1."""
    at, address, writes = zip(*((r[0], r[1], r[2] if len(r) > 2 else 0) for r in rows), strict=True)
    return Trace(np.array(at), np.array(address), np.array(writes), **parts)


def simulate(trace: Trace, spec: Any = "DDR3-1600", **policy: Any) -> Any:
    options = {k: policy.pop(k) for k in ("ranks", "interleave") if k in policy}
    chosen = DramPolicy(**policy)
    return DramController(trace, spec, chosen, allow_no_refresh=True, **options).run(commands=True)


def shown(result: Any) -> list[str]:
    return [f"{c['cycle']} {KINDS[c['kind']]}" for c in result.commands]


# -- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_a_lone_read_takes_an_activate_a_read_and_its_data(path: str, name: str) -> None:
    t = SPECS[name].timings
    result = simulate(requests((7, 0)), name)
    assert result.finish[0] - result.begin[0] == t.rcd + t.cl + t.burst
    assert shown(result)[-2:] == ["7 ACT", f"{7 + t.rcd} RD"]


def test_published_cycles_of_ddr3() -> None:
    t = DDR3.timings
    assert (t.cl, t.cwl, t.rcd, t.rp, t.ras, t.rc) == (11, 8, 11, 11, 28, 39)
    assert (t.rrd_s, t.faw, t.ccd_s, t.wr, t.wtr_s, t.rtp) == (5, 24, 4, 12, 6, 6)
    assert (t.refi, t.rfc, t.burst) == (6240, 208, 4)
    assert t.refi * t.clock_ns == 7800
    assert t.peak_bytes_s == pytest.approx(12.8e9)


@pytest.mark.parametrize("name", SPECS)
def test_row_hits_of_all_groups_stream_at_one_burst_a_ccd(path: str, name: str) -> None:
    t = SPECS[name].timings
    n = 50
    result = simulate(requests(*((0, LINE * i) for i in range(n))), name, **NONE)
    data = [int(c["cycle"]) for c in result.commands if KINDS[c["kind"]] == "RD"]
    steady = np.diff(data)[-30:]
    assert steady.mean() == t.ccd_s
    assert result.counts["row_hits"] == n - t.groups


def test_row_hits_of_one_group_stream_at_one_burst_a_long_ccd(path: str) -> None:
    t = SPECS["DDR4-2400"].timings
    result = simulate(requests(*((0, 4 * LINE * i) for i in range(40))), "DDR4-2400", **NONE)
    data = [int(c["cycle"]) for c in result.commands if KINDS[c["kind"]] == "RD"]
    assert set(np.diff(data)) == {t.ccd_l}


@pytest.mark.parametrize("name", SPECS)
def test_conflicts_in_one_bank_go_at_one_a_row_cycle(path: str, name: str) -> None:
    spec = SPECS[name]
    t = spec.timings
    row = t.lines * t.groups * t.banks * LINE
    result = simulate(requests(*((0, row * i) for i in range(20))), name, **NONE)
    acts = [int(c["cycle"]) for c in result.commands if KINDS[c["kind"]] == "ACT"]
    assert set(np.diff(acts)) == {t.rc}
    assert result.counts["row_hits"] == 0


def test_refreshes_take_their_share_of_a_saturated_stream() -> None:
    t, n = DDR3.timings, 100_000
    i = np.arange(n)
    trace = Trace(0 * i, LINE * i, 0 * i)
    free, kept = (
        simulate(trace, refresh_policy=p, refresh_max_postponed=1) for p in ("NoRefresh", "AllBank")
    )
    lost = kept.counts["cycles"] - free.counts["cycles"]
    # tRFC each, and closing and opening rows around it: at most tRTP + tRP + tRCD + tRAS cycles.
    assert t.rfc <= lost / kept.counts["refreshes"] <= t.rfc + 6 + 11 + 11 + 28
    due = kept.counts["cycles"] // t.refi
    assert due - 1 <= kept.counts["refreshes"] <= due
    assert lost / kept.counts["cycles"] == pytest.approx(t.rfc / t.refi, rel=0.1)


# -- cases by hand --------------------------------------------------------------------------------


def test_fifo_opens_rows_in_order_and_fr_fcfs_serves_the_hit_first(path: str) -> None:
    # One bank; row 0, row 1, row 0 again. A row of the bank is 8 banks further.
    trace = requests((0, 0), (1, 8 * ROW), (2, LINE))
    fifo = simulate(trace, scheduler="Fifo", **NONE)
    assert shown(fifo) == [
        "0 ACT", "11 RD", "28 PRE", "39 ACT", "50 RD", "67 PRE", "78 ACT", "89 RD",
    ]  # fmt: skip
    assert fifo.finish.tolist() == [26, 65, 104]
    first = simulate(trace, scheduler="FrFcfs", **NONE)
    assert shown(first) == ["0 ACT", "11 RD", "15 RD", "28 PRE", "39 ACT", "50 RD"]
    assert first.finish.tolist() == [26, 65, 30]


def test_grouping_serves_the_kind_of_the_last_transfer_first(path: str) -> None:
    # Row hits: read, write, read. Grouped, the write waits for the second read.
    trace = requests((0, 0), (1, LINE, 1), (2, 2 * LINE))
    plain = simulate(trace, scheduler="FrFcfs", **NONE)
    # to write: CL + 4 + 2 - CWL = 9; to read: CWL + 4 + tWTR = 18
    assert shown(plain) == ["0 ACT", "11 RD", "20 WR", "38 RD"]
    grouped = simulate(trace, scheduler="FrFcfsGrp", **NONE)
    assert shown(grouped) == ["0 ACT", "11 RD", "15 RD", "24 WR"]


def test_page_policies_on_two_rows_of_a_bank(path: str) -> None:
    near, far = requests((0, 0), (100, LINE)), requests((0, 0), (5, 8 * ROW))
    kinds = {
        policy: [[s.split()[1] for s in shown(simulate(t, page_policy=policy, **NONE))] for t in
                 (near, far)]
        for policy in ("Open", "OpenAdaptive", "Closed", "ClosedAdaptive")
    }  # fmt: skip
    conflict = ["ACT", "RDA", "ACT"]
    assert kinds["Open"] == [["ACT", "RD", "RD"], ["ACT", "RD", "PRE", "ACT", "RD"]]
    assert kinds["OpenAdaptive"] == [["ACT", "RD", "RD"], [*conflict, "RD"]]
    assert kinds["Closed"] == [[*conflict, "RDA"]] * 2
    assert kinds["ClosedAdaptive"] == [[*conflict, "RDA"]] * 2
    together = requests((0, 0), (5, LINE))
    closed = simulate(together, page_policy="ClosedAdaptive", **NONE)
    assert [s.split()[1] for s in shown(closed)] == ["ACT", "RD", "RDA"]


def test_answers_come_back_in_order_where_they_must(path: str) -> None:
    # The third request hits an open row while the second waits for one of another bank.
    trace = requests((0, ROW), (40, 2 * ROW), (41, ROW + LINE))
    free = simulate(trace, scheduler="FrFcfs", **NONE).finish
    assert free[2] < free[1]
    for policy in ({"resp_queue": "Reorder"}, {"arbiter": "Reorder"}):
        ordered = simulate(trace, scheduler="FrFcfs", **NONE, **policy).finish
        assert (np.diff(ordered) >= 0).all()
        assert ordered[2] == free[1]
    by_source = requests((0, ROW), (40, 2 * ROW), (41, ROW + LINE), source=np.array([0, 1, 0]))
    apart = simulate(by_source, arbiter="Reorder", **NONE).finish
    assert apart[2] < apart[1]


def test_few_active_transactions_make_requests_wait(path: str) -> None:
    trace = requests(*((0, LINE * i) for i in range(4)))
    one = simulate(trace, max_active_transactions=1, **NONE)
    # 26 for the first, then CL + 4 each, entering in the cycle of the answer before.
    assert one.finish.tolist() == [26, 41, 56, 71]
    assert simulate(trace, **NONE).finish.tolist() == [26, 30, 34, 38]


def test_a_full_buffer_holds_back_those_behind_with_a_simple_arbiter_alone(path: str) -> None:
    # Two requests for one bank that has room for one, then one of another source for a free bank.
    rows = [(0, 0), (0, 8 * ROW), (0, 16 * ROW), (0, ROW)]
    trace = requests(*rows, source=np.array([0, 0, 0, 1]))
    simple = simulate(trace, request_buffer_size=1, **NONE)
    fair = simulate(trace, request_buffer_size=1, arbiter="Fifo", **NONE)
    assert fair.finish[3] < simple.finish[3]
    assert fair.finish[2] == simple.finish[2]


def test_writes_wait_until_they_fill_three_quarters_of_their_buffer(path: str) -> None:
    reads = [(4 * i, LINE * i) for i in range(40)]
    writes = [(20 + i, LINE * (60 + i), 1) for i in range(6)]
    rows = sorted([*reads, *writes])
    for size, first in ((16, "after"), (8, "before")):
        result = simulate(
            requests(*rows), scheduler_buffer="ReadWrite", request_buffer_size=size, **NONE
        )
        kinds = [s.split()[1] for s in shown(result)]
        position = kinds.index("WR")
        assert (kinds[position:].count("RD") == 0) is (first == "after")


def test_a_pointer_chase_waits_for_each_answer(path: str) -> None:
    trace = requests((0, 0), (20, LINE), (20, 2 * LINE), after=np.array([-1, 0, 1]))
    result = simulate(trace, **NONE)
    assert result.begin.tolist() == [0, 46, 81]
    assert result.finish.tolist() == [26, 61, 96]
    assert result.latency_ns == pytest.approx((26 + 15 + 15) / 3 * 1.25)


def test_idle_time_is_used_for_refreshes_in_advance(path: str) -> None:
    trace = requests((100_000, 0))
    for pulled_in in (1, 8):
        result = simulate(trace, refresh_max_pulledin=pulled_in)
        # 16 are due by then
        assert result.counts["refreshes"] == 100_000 // 6240 + pulled_in


# -- every constraint -----------------------------------------------------------------------------

POLICIES = dram_space(allow_no_refresh=True)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    n = draw(st.integers(1, 60))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 3, 9, 40, 700, 20_000]), min_size=n, max_size=n))
    place = st.tuples(st.integers(0, 3), st.integers(0, 15), st.integers(0, 9))
    places = draw(st.lists(place, min_size=n, max_size=n))
    address = [((row * 16 + bank) * 128 + line) * LINE for row, bank, line in places]
    is_write = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    source = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    after = [-1] * n
    for i in range(1, n):
        if draw(st.integers(0, 5)) == 0:
            after[i] = draw(st.integers(0, i - 1))
    return Trace(np.cumsum(gaps), *map(np.array, (address, is_write, source, after)))


@settings(max_examples=150)
@given(
    traces(),
    st.integers(0, 10**6),
    st.sampled_from(sorted(SPECS)),
    st.integers(1, 2),
    st.booleans(),
)
def test_commands_keep_every_constraint_and_the_twin_is_equal(
    trace: Trace, seed: int, name: str, ranks: int, interleave: bool
) -> None:
    [config] = POLICIES.sample(1, seed=seed)
    spec = SPECS[name]
    if seed % 2:  # refreshes come often
        short = dataclasses.replace(spec.timings, refi=spec.timings.rfc * 2 + 400)
        spec = dataclasses.replace(spec, timings=short)
    policy = DramPolicy(**config)
    controller = DramController(
        trace, spec, policy, ranks=ranks, interleave=interleave, allow_no_refresh=True
    )
    result = controller.run(commands=True)
    checker = Jedec(spec.timings, ranks)
    checker.check(result.commands)
    if policy.refresh_policy == "AllBank":
        late, early = policy.refresh_max_postponed, policy.refresh_max_pulledin
        checker.check_refreshes(result.commands, late, early)
    check_served(trace, result, spec.timings)
    setup = dram_module._setup(spec, policy, ranks, trace.sources)
    twin = dram_module._twin(setup, controller._streams, True)
    np.testing.assert_array_equal(twin[0], result.begin)
    np.testing.assert_array_equal(twin[1], result.finish)
    assert dict(zip(dram_module.COUNTS, twin[2], strict=True)) == result.counts
    np.testing.assert_array_equal(twin[3], result.commands)


def check_served(trace: Trace, result: Any, t: DramTimings) -> None:
    """Each request has one transfer of its kind; answers come no sooner; lines keep their order."""
    moved: dict[int, int] = {}
    for c in result.commands:
        kind = KINDS[c["kind"]]
        if kind in ("RD", "RDA", "WR", "WRA"):
            i = int(c["request"])
            assert i not in moved
            assert (kind in ("WR", "WRA")) == bool(trace.is_write[i])
            moved[i] = int(c["cycle"])
            done = moved[i] + (t.cwl if trace.is_write[i] else t.cl) + t.burst
            assert result.finish[i] >= done
            assert moved[i] >= result.begin[i]
    assert sorted(moved) == list(range(len(trace)))
    for i in range(len(trace)):
        for k in range(i):
            same = trace.address[i] == trace.address[k] and trace.source[i] == trace.source[k]
            if same and (trace.is_write[i] or trace.is_write[k]):
                assert moved[k] < moved[i], "a request overtook another of its line"


def test_the_checker_finds_each_violation() -> None:
    result = simulate(workload("random", requests=300), ranks=1)
    checker = Jedec(DDR3.timings, 1)
    checker.check(result.commands)
    caught = 0
    for k in range(5, 250):
        hurried = result.commands.copy()
        hurried["cycle"][k:] -= 1
        try:
            checker.check(hurried)
        except AssertionError:
            caught += 1
    # Each command that waited for a constraint is caught when it comes a cycle early; those that
    # waited for their request are not.
    assert caught > 120


@pytest.mark.parametrize(
    ("name", "constraints"),
    [
        *(
            ("DDR3-1600", c)
            for c in ("rcd", "rp rp_all rc", "ras rc", "rrd_s rrd_l", "faw", "wr", "wtr_s wtr_l")
        ),
        *(("DDR3-1600", c) for c in ("rtp", "rfc", "rtrs", "turnaround")),
        *(("DDR4-2400", c) for c in ("rrd_s", "rrd_l", "ccd_l", "wtr_s", "wtr_l")),
        *(("LPDDR4-3200", c) for c in ("rp_all", "ppd", "rrd_s rrd_l faw")),
    ],
)
def test_the_checker_finds_a_simulator_that_is_a_cycle_short(name: str, constraints: str) -> None:
    spec = SPECS[name]
    changes = {c: getattr(spec.timings, c) - 1 for c in constraints.split()}
    short = dataclasses.replace(spec, timings=dataclasses.replace(spec.timings, **changes))
    checker = Jedec(spec.timings, 2)
    found = 0
    for seed, kind in enumerate(("random", "cloud-2", "strided", "cloud-1", "stream")):
        for page in ("Open", "ClosedAdaptive"):
            trace = workload(kind, requests=1500, seed=seed)
            result = simulate(trace, short, page_policy=page, refresh_max_postponed=1, ranks=2)
            try:
                checker.check(result.commands)
            except AssertionError:
                found += 1
    assert found > 0


# -- energy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_energy_is_the_sum_over_commands_and_standby(name: str) -> None:
    spec = SPECS[name]
    t = spec.timings
    result = simulate(workload("cloud-2", requests=400), name, page_policy="OpenAdaptive")
    picojoules = dict.fromkeys(("activate", "read", "write", "refresh", "standby"), 0.0)
    opened: dict[int, int] = {}
    spans = []
    end = result.counts["cycles"]
    last: dict[int, int] = {}
    for c in result.commands:
        kind, now, bank = KINDS[c["kind"]], int(c["cycle"]), int(c["bank"])
        for rail in spec.rails:
            unit = rail.volts * t.clock_ns * spec.devices
            if kind == "ACT":
                rest = rail.idd3n * t.ras + rail.idd2n * (t.rc - t.ras)
                picojoules["activate"] += unit * (rail.idd0 * t.rc - rest)
            elif kind in ("RD", "RDA"):
                picojoules["read"] += unit * (rail.idd4r - rail.idd3n) * t.burst
            elif kind in ("WR", "WRA"):
                picojoules["write"] += unit * (rail.idd4w - rail.idd3n) * t.burst
            elif kind == "REF":
                picojoules["refresh"] += unit * (rail.idd5 - rail.idd2n) * t.rfc
        if kind == "ACT":
            opened[bank] = last[bank] = now
        elif kind[:2] in ("RD", "WR"):
            wait = t.rtp if kind[0] == "R" else t.cwl + t.burst + t.wr
            last[bank] = max(last[bank], now + wait)
            if kind[2:] == "A":
                spans.append((opened[bank], max(opened.pop(bank) + t.ras, last[bank])))
        elif kind == "PRE":
            spans.append((opened.pop(bank), now))
        elif kind == "PREA":
            spans += [(start, now) for start in opened.values()]
            opened.clear()
    spans += [(start, end) for start in opened.values()]
    busy = np.zeros(end, dtype=bool)
    for start, to in spans:
        busy[start:to] = True
    for rail in spec.rails:
        unit = rail.volts * t.clock_ns * spec.devices
        picojoules["standby"] += unit * (rail.idd3n * busy.sum() + rail.idd2n * (~busy).sum())
    assert result.counts["active"] == busy.sum()
    for part, value in picojoules.items():
        assert result.energy_parts_uj[part] == pytest.approx(value * 1e-6, rel=1e-12)
    assert result.power_w == pytest.approx(sum(picojoules.values()) * 1e-3 / result.time_ns)


def test_a_stream_of_reads_draws_the_current_of_reading() -> None:
    n = 20_000
    result = simulate(requests(*((0, LINE * i) for i in range(n))), **NONE)
    [rail] = DDR3.rails
    assert result.power_w == pytest.approx(8 * 1.35 * rail.idd4r * 1e-3, rel=0.03)
    assert result.bandwidth_bytes_s == pytest.approx(12.8e9, rel=0.01)


# -- use ------------------------------------------------------------------------------------------


def test_results_tell_what_happened() -> None:
    result = simulate(workload("cloud-1", requests=200))
    counts, edges = result.histogram(5)
    assert counts.sum() == 200
    assert edges[0] == result.latencies_ns.min()
    assert "GB/s" in result.summary()
    assert COMMANDS == KINDS
    assert DramController(workload("stream", requests=5)).run().commands is None


def test_an_unknown_memory_policy_or_size_is_an_error() -> None:
    trace = requests((0, 0))
    with pytest.raises(ConfigError, match=r"no memory 'DDR3-1601'. Did you mean 'DDR3-1600'"):
        DramController(trace, "DDR3-1601")
    with pytest.raises(ConfigError, match="1 to 64 in all"):
        DramController(trace, ranks=9)
    with pytest.raises(ConfigError, match="page_policy='Shut' must be one of Open"):
        DramPolicy(page_policy="Shut")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="from 1 to 8"):
        DramPolicy(refresh_max_postponed=9)
    with pytest.raises(ConfigError, match="at least 1"):
        DramPolicy(request_buffer_size=0)
    with pytest.raises(ConfigError, match="loses the data"):
        DramController(trace, policy=DramPolicy(refresh_policy="NoRefresh"))
    with pytest.raises(ConfigError, match="ccd_s=3 must be at least burst=4"):
        dataclasses.replace(DDR3.timings, ccd_s=3)
    with pytest.raises(ConfigError, match="leaves no time"):
        dataclasses.replace(DDR3.timings, refi=200)
    with pytest.raises(ConfigError, match="rcd=0 must be at least 1"):
        dataclasses.replace(DDR3.timings, rcd=0)
    with pytest.raises(ConfigError, match="four numbers"):
        dataclasses.replace(DDR3.timings, command_cycles=(1, 1))
    with pytest.raises(ConfigError, match="clock_ns"):
        dataclasses.replace(DDR3.timings, clock_ns=0.0)


def test_requests_without_an_answer_are_told() -> None:
    with pytest.raises(ExecutionError, match="never comes"):
        dram_module._check_done(False)


@pytest.mark.skipif(load("dram") is None, reason="no native code")
def test_ten_thousand_requests_take_milliseconds() -> None:
    import time

    controller = DramController(workload("cloud-1", requests=10_000))
    controller.run()
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        result = controller.run()
        seconds.append(time.process_time() - begin)
    # Of the processor; measured 1 ms.
    assert min(seconds) < 0.010
    assert result.counts["commands"] / min(seconds) > 1e6
