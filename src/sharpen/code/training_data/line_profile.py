"""Time and memory by line of a program, taken in the sandbox: words for a model, no evidence."""

from __future__ import annotations

from typing import Any

from sharpen.core.sandbox import Job, Limits, SandboxPool

__all__ = ["profile_by_line"]

_WATCH = """
def watch(source, entry, args):
    import sys
    import time
    import tracemalloc

    names = {"__name__": "program"}
    exec(compile(source, "<program>", "exec", dont_inherit=True), names)
    hits, spent, grown = {}, {}, {}
    state = [None, 0.0]

    def note(line, now):
        before = state[0]
        if before is not None:
            spent[before] = spent.get(before, 0.0) + now - state[1]
        state[0] = line

    def trace(frame, event, arg):
        if frame.f_code.co_filename != "<program>":
            return None
        if event == "line":
            note(frame.f_lineno, time.perf_counter())
            hits[frame.f_lineno] = hits.get(frame.f_lineno, 0) + 1
            state[1] = time.perf_counter()
        elif event == "return":
            note(None, time.perf_counter())
        return trace

    sys.settrace(trace)
    try:
        names[entry](*args)
    finally:
        sys.settrace(None)
    tracemalloc.start()
    kept = names[entry](*args)
    for one in tracemalloc.take_snapshot().statistics("lineno"):
        if one.traceback[0].filename == "<program>":
            grown[one.traceback[0].lineno] = one.size
    tracemalloc.stop()
    del kept
    return [[n, hits[n], spent.get(n, 0.0), grown.get(n, 0)] for n in sorted(hits)]
"""


def profile_by_line(
    program: str, entry: str, args: tuple[Any, ...], pool: SandboxPool, *, cpu_s: float = 10.0
) -> str:
    """A table of each line that ran: how often, its share of the time, what it keeps in memory.

    Args:
        program: the source.
        entry: the function that is called.
        args: its arguments.
        pool: where it runs.
        cpu_s: processor time that this may take.

    Returns:
        Nothing where it fails. What the table says is what the program lets it say.
    """
    limits = Limits(cpu_s=cpu_s, memory_bytes=2 << 30)
    job = Job(source=_WATCH, entry="watch", inputs=[(program, entry, args)], limits=limits)
    result = pool.run(job)
    if not result.ok:
        return ""
    try:
        rows = [(int(n), int(h), float(s), int(b)) for n, h, s, b in result.outputs[0]]
    except (TypeError, ValueError):
        return ""
    lines, total = program.splitlines(), sum(seconds for _, _, seconds, _ in rows) or 1.0
    table = [" line      hits   time    memory"]
    for number, hits, seconds, kept in rows:
        text = lines[number - 1].rstrip() if 0 < number <= len(lines) else ""
        table.append(
            f"{number:>5} {hits:>9} {seconds / total:>6.1%} {kept / 1024:>7.0f}K  {text:.100}"
        )
    return "\n".join(table)
