"""New pairs of slow and fast programs that a model makes itself.

Shypula et al., *Learning Performance-Improving Code Edits*, ICLR 2024, section 3.3: a model invents
programs; those that do something that no program before did are kept; a model makes each faster; a
pair stays where the results are the same and the gain is real.

What a program does is told by its outputs on its own inputs: the model is asked for a function
``inputs()`` beside it, and each program is also run on the inputs of those before it that take as
many arguments. All of it runs in sandboxes.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.code.evaluate.levels import Pools
from sharpen.code.problems import Problem
from sharpen.code.replies import function_in
from sharpen.code.training_data.cost import Bench
from sharpen.code.training_data.prompts import Pair, prompt_instruct
from sharpen.code.training_data.rows import write_rows
from sharpen.core.config import digest
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.sandbox import Job, Limits, SandboxPool, encode

if TYPE_CHECKING:
    from sharpen.core.lm import LM

__all__ = ["self_play"]

_GENERATE = """
def generate(size, level, index, seed):
    found = inputs()[index]
    return found if isinstance(found, tuple) else (found,)
"""


@dataclass(slots=True)
class _Seen:
    """Behaviours of the programs so far."""

    of_inputs: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    digests: set[str] = field(default_factory=set)


def self_play(
    lm: LM,
    out: str | Path,
    *,
    programs: int,
    examples: Sequence[Pair] = (),
    min_gain: float = 1.1,
    cpu_s: float = 10.0,
    seed: int = 0,
    optimizer: LM | None = None,
    on_program: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Let a model invent programs and make them faster; keep the pairs that hold.

    Rows have ``slow``, ``fast``, ``slow_s``, ``fast_s`` and ``speedup``.

    Args:
        lm: invents programs.
        out: a JSONL file; it is written at the end.
        programs: how many are asked for.
        examples: pairs whose slow programs are shown as what to invent, two at a time in turn.
        min_gain: how many times as fast a program must be made.
        cpu_s: processor time of one run.
        seed: of the replies.
        optimizer: makes them faster; ``lm`` without it.
        on_program: called with what came of each.

    Returns:
        ``pairs``, and ``dropped``, how many by reason.

    Raises:
        ConfigError: a number is out of range.
        SandboxUnavailable: this machine has no sandbox.
    """
    if programs < 1 or not min_gain > 1 or not cpu_s > 0:
        raise ConfigError(
            f"programs={programs} must be at least 1, min_gain={min_gain} above 1 and cpu_s={cpu_s}"
            " above 0."
        )
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    seen = _Seen()
    with SandboxPool(1) as ours, SandboxPool(1) as theirs:
        pools = Pools(ours, theirs)
        for number in range(programs):
            shown = [examples[(2 * number + i) % len(examples)] for i in range(2) if examples]
            reply = lm.chat(_ask(shown), seed=seed + number, temperature=1.0).text
            row, why = _one(reply, optimizer or lm, pools, seen, min_gain, cpu_s, seed + number)
            if row is None:
                dropped[why] += 1
            else:
                rows.append(row)
            if on_program is not None:
                on_program(why or "pair")
    write_rows(Path(out), rows)
    return {"pairs": len(rows), "dropped": dict(dropped)}


def _ask(examples: Sequence[Pair]) -> str:
    shown = "\n\n".join(f"```python\n{one.slow.rstrip()}\n```" for one in examples)
    like = f"Programs such as these are wanted:\n\n{shown}\n\n" if shown else ""
    return (
        f"{like}Invent another small task, and write a Python function `solve` for it in the way"
        " that comes to mind first, and a function `inputs()` that gives a list of five tuples of"
        " arguments, the last so large that `solve` takes about a tenth of a second. Nothing may"
        " depend on chance, time or files. Reply with one block of Python."
    )


def _one(
    reply: str, lm: LM, pools: Pools, seen: _Seen, min_gain: float, cpu_s: float, seed: int
) -> tuple[dict[str, Any] | None, str]:
    """A row, or why there is none."""
    program = function_in(reply, "solve")
    if program is None or not _defines(program, "inputs"):
        return None, "no program"
    limits = Limits(cpu_s=cpu_s)
    given = pools.theirs.run(Job(source=program, entry="inputs", inputs=[()], limits=limits))
    made = given.outputs[0] if given.ok else None
    if not isinstance(made, list) or not 1 <= len(made) <= 100:
        return None, "no inputs"
    inputs = [one if isinstance(one, tuple) else (one,) for one in made]
    behaviour = _behaviour(program, inputs, pools, limits)
    if behaviour is None or behaviour != _behaviour(program, inputs, pools, limits):
        return None, "fails or depends on chance"
    if not _is_new(program, inputs, behaviour, seen, pools, limits):
        return None, "does what another does"
    problem = Problem(
        name="invented",
        entry="solve",
        prompt="",
        reference=program,
        generator=program + _GENERATE,
        levels=(1,),
        counts=(len(inputs),),
        hardness=(1.0,),
    )
    faster = function_in(lm.chat(prompt_instruct(program), seed=seed).text, "solve")
    if faster is None:
        return None, "no faster program"
    try:
        bench = Bench(problem, pools, cpu_s=cpu_s, memory_bytes=1 << 30)
    except ExecutionError:
        return None, "fails or depends on chance"
    if bench.wrong(faster):
        return None, "the faster program is wrong"
    before, after = bench.costs([program, faster], repeats=5)
    if before is None or after is None or before.et < min_gain * after.et:
        return None, "not faster"
    pair = Pair(slow=program, fast=faster, fast_s=after.et)
    row = {k: v for k, v in asdict(pair).items() if k != "problem"}
    return {**row, "slow_s": before.et, "speedup": before.et / after.et}, ""


def _defines(program: str, name: str) -> bool:
    kinds = (ast.FunctionDef,)
    return any(isinstance(one, kinds) and one.name == name for one in ast.parse(program).body)


def _behaviour(
    program: str, inputs: Sequence[tuple[Any, ...]], pools: Pools, limits: Limits
) -> str | None:
    """A digest of what it gives; None where it fails."""
    result = pools.theirs.run(Job(source=program, entry="solve", inputs=inputs, limits=limits))
    return digest(encode(list(result.outputs)).hex()) if result.ok else None


def _is_new(
    program: str,
    inputs: Sequence[tuple[Any, ...]],
    behaviour: str,
    seen: _Seen,
    pools: Pools,
    limits: Limits,
) -> bool:
    """Whether no program before gave the same on these inputs, or this one the same on theirs."""
    own = digest(encode(list(inputs)).hex())
    for other, theirs in seen.of_inputs.items():
        if {len(one) for one in theirs} != {len(one) for one in inputs}:
            continue
        found = _behaviour(program, theirs, pools, limits)
        if found is not None and f"{other}:{found}" in seen.digests:
            return False
    seen.of_inputs[own] = list(inputs)
    seen.digests.add(f"{own}:{behaviour}")
    return True
