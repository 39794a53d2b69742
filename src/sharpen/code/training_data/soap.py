"""Fast solutions as training data, by self-optimization with overhead profiles.

Huang et al., *Effi-Code: Unleashing Code Efficiency in Language Models*, 2024 (arXiv 2410.10209).
For each problem a model writes a program; one that is wrong comes back with what is wrong, one that
is right with its time and memory by line and the question for a faster one, a few rounds long; the
version that is right and takes least is kept. Problems that cannot be checked, that nobody solves,
or that are over too quickly to be measured give no row.

Differs from the paper: a version counts as faster by processor time in runs in turns with the best
before it, not by one run's wall time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.code.evaluate.journal import Journal
from sharpen.code.evaluate.levels import Pools
from sharpen.code.problems import Problem
from sharpen.code.replies import function_in
from sharpen.code.training_data.cost import Bench, Cost
from sharpen.code.training_data.line_profile import profile_by_line
from sharpen.code.training_data.rows import write_rows
from sharpen.core.config import digest
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.sandbox import SandboxPool

if TYPE_CHECKING:
    from sharpen.core.lm import LM

__all__ = ["SoapConfig", "make_dataset"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SoapConfig:
    """Settings of the loop."""

    rounds: int = 5
    """Replies asked for a problem, the first included."""

    min_s: float = 0.002
    """Processor time that the first right version must take for times to mean something."""

    min_gain: float = 1.05
    """How many times as fast as the best before it a version must be to take its place."""

    only_faster: bool = False
    """Leave out problems of which no later version was faster than the first."""

    cpu_s: float = 20.0
    """Processor time of one run of a program."""

    memory_bytes: int = 1 << 30
    """Memory of one run."""

    seed: int = 0
    """Of the replies."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"rounds={self.rounds} must be at least 1 (SoapConfig).")
        if not self.min_gain >= 1 or not self.min_s >= 0 or not self.cpu_s > 0:
            raise ConfigError(
                f"min_gain={self.min_gain} must be at least 1, min_s={self.min_s} not below 0 and"
                f" cpu_s={self.cpu_s} above 0 (SoapConfig)."
            )


def make_dataset(
    problems: Sequence[Problem],
    lm: LM,
    out: str | Path,
    config: SoapConfig | None = None,
    *,
    packages: Sequence[str] = (),
    on_problem: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    r"""Let a model write programs for problems and make them faster; keep the best as rows.

    Each row has ``prompt``, ``completion`` (the whole program), ``et_before``, ``et_after``
    (seconds), ``tmu_before``, ``tmu_after`` (MiB s), ``rounds`` and ``task``.

    Args:
        problems: what programs are written for.
        lm: the model.
        out: a JSONL file; it is written at the end. What was done before an end is kept beside it.
        config: settings.
        packages: installed packages that programs may import.
        on_problem: called with the name of each problem that is done.

    Returns:
        ``rows``, ``dropped`` (how many, by reason), ``speedup`` (median of first by best).

    Raises:
        ConfigError: there are no problems.
        StorageError: the file cannot be written.
        SandboxUnavailable: this machine has no sandbox.
    """
    config = config or SoapConfig()
    if not problems:
        raise ConfigError("there are no problems to write programs for.")
    target = Path(out)
    journal = Journal(target.with_name(target.name + ".journal"))
    found: list[dict[str, Any]] = []
    try:
        with SandboxPool(1) as ours, SandboxPool(1, packages=packages) as theirs:
            pools = Pools(ours, theirs)
            for problem in problems:
                key = digest([problem.to_dict(), asdict(config), lm.engine.model])
                known = journal.get(key)
                if known is None:
                    known = _Task(problem, lm, config, pools).run()
                    journal.add(key, known)
                found.append(known)
                if on_problem is not None:
                    on_problem(problem.name)
    except BaseException:
        journal.close(done=False)
        raise
    rows = [one["row"] for one in found if one["row"] is not None]
    write_rows(target, rows)
    journal.close(done=True)
    gains = sorted(row["et_before"] / row["et_after"] for row in rows)
    return {
        "rows": len(rows),
        "dropped": dict(Counter(one["why"] for one in found if one["row"] is None)),
        "faster": sum(row["rounds"] > 0 for row in rows),
        "speedup": gains[len(gains) // 2] if gains else None,
    }


class _Task:
    """One problem."""

    def __init__(self, problem: Problem, lm: LM, config: SoapConfig, pools: Pools) -> None:
        self.problem, self.lm, self.config, self.pools = problem, lm, config, pools

    def run(self) -> dict[str, Any]:
        """Its ``row``, or None and ``why``; ``versions``: what came of each."""
        config, problem = self.config, self.problem
        versions: list[dict[str, Any]] = []
        if not problem.levels and problem.tests is None:
            return {"row": None, "why": "cannot be checked", "versions": versions}
        try:
            bench = Bench(problem, self.pools, cpu_s=config.cpu_s, memory_bytes=config.memory_bytes)
        except ExecutionError as error:
            return {"row": None, "why": "its own solution fails", "versions": [{"why": str(error)}]}
        first: Cost | None = None
        best: tuple[str, Cost, int] | None = None
        prompt = _first(problem)
        for turn in range(config.rounds):
            reply = self.lm.chat(prompt, seed=config.seed + turn).text
            program = function_in(reply, problem.entry) or ""
            wrong = bench.wrong(program) if program else "there is no program in the reply"
            versions.append({"program": program, "wrong": wrong})
            if wrong:
                prompt = _repair(problem, program, wrong) if best is None else prompt
                continue
            costs = bench.costs([program] if best is None else [best[0], program])
            cost = costs[-1]
            if cost is None or costs[0] is None:
                versions[-1]["wrong"] = "its times could not be taken"
                continue
            versions[-1] |= asdict(cost)
            if best is None:
                first, best = cost, (program, cost, turn)
                if cost.et < config.min_s:
                    return {"row": None, "why": "over too quickly", "versions": versions}
            elif costs[0].et >= config.min_gain * cost.et:
                # Both were measured now, in turns: the ratio holds, whatever the machine does.
                scale = best[1].et / costs[0].et
                best = (program, Cost(et=cost.et * scale, mu=cost.mu, tmu=cost.tmu), turn)
            prompt = self._faster(bench, *best[:2])
        if best is None or first is None:
            return {"row": None, "why": "not solved", "versions": versions}
        if config.only_faster and best[1].et >= first.et:
            return {"row": None, "why": "not made faster", "versions": versions}
        row = {
            "task": problem.name,
            "prompt": problem.prompt,
            "completion": best[0],
            "et_before": first.et,
            "et_after": best[1].et,
            "tmu_before": first.tmu,
            "tmu_after": best[1].tmu,
            "rounds": best[2],
        }
        return {"row": row, "why": "", "versions": versions}

    def _faster(self, bench: Bench, program: str, cost: Cost) -> str:
        parts = [
            f"Task:\n{self.problem.prompt}",
            f"This program is right:\n```python\n{program}```",
            f"It takes {cost.et:.4g} s and {cost.mu:.3g} MiB on its largest inputs.",
        ]
        args = bench.smallest_input()
        if args is not None:
            table = profile_by_line(program, self.problem.entry, args, self.pools.theirs)
            if table:
                parts.append(f"Time and memory by line:\n```text\n{table}\n```")
        parts.append(
            "Write a program that gives the same results in less time. Look at the lines that take"
            " most, and think of a better algorithm. Reply with one block of Python."
        )
        return "\n\n".join(parts)


def _first(problem: Problem) -> str:
    return (
        f"Write this Python function so that it is fast.\n```python\n{problem.prompt}\n```\n"
        "Reply with one block of Python that has the whole function and its imports."
    )


def _repair(problem: Problem, program: str, wrong: str) -> str:
    return (
        f"Task:\n{problem.prompt}\n\nThis program is wrong:\n```python\n{program}```\n"
        f"{wrong}\n\nReply with one block of Python that is right."
    )
