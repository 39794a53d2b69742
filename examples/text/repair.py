"""Repair a function from examples, in a sandbox, without a language model.

    python examples/text/repair.py

The function is a parameter of a program; a study proposes small changes to it. Each is run in a
sandbox, and the feedback is the share of right examples and the line that raised. Run it twice: the
second run finds the study done.
"""

import sharpen as sh
import sharpen.text as st
from sharpen.core.sandbox import Job, Limits, SandboxPool

BROKEN = '''\
def longest_run(values):
    """Length of the longest run of equal neighbours."""
    best = run = 1
    for k in range(len(values)):
        if values[k] == values[k + 1]:
            run += 1
        else:
            run = 1
        best = max(best, run)
    return best
'''
EXAMPLES = [([1, 1, 2], 2), ([3], 1), ([5, 5, 5, 5], 4), ([1, 2, 2, 3, 3, 3], 3)]
HIDDEN = [([7, 7, 1, 7, 7, 7, 7], 4), ([0, 1, 0, 1], 1)]


class Repair(st.Module):
    """Runs its code on an example."""

    def __init__(self, pool: SandboxPool) -> None:
        self.code = st.Parameter(BROKEN, kind="code")
        self.pool = pool

    @st.op
    def run(self, code: str, values: list[int]) -> dict:
        """What the code gives in a sandbox."""
        job = Job(source=code, entry="longest_run", inputs=[(values,)], limits=Limits(cpu_s=0.5))
        result = self.pool.run(job)
        line = result.error.frames[-1][0] if result.error and result.error.frames else None
        return {"gives": result.outputs, "error": str(result.error or ""), "line": line}

    def forward(self, values: list[int]) -> st.Node:
        return self.run(self.code, values)


def guide(values: list[int], response: dict, want: int) -> tuple[float, str]:
    """Whether it is right, and else why not."""
    if response["line"]:
        return 0.0, f"{response['error']}\n> {response['line']} "
    right = response["gives"] == (want,)
    return float(right), "right" if right else f"{values} gives {response['gives']}, not {want}"


with SandboxPool(1) as pool:
    program = Repair(pool)
    study = sh.Study(
        st.TextProblem(program, EXAMPLES, guide=guide),
        optimizer=st.SearchProposer,
        store="sqlite:///repair.db",
        budget=sh.Budget(trials=200, target=1.0),
    ).run()
    program.load_state_dict(study.best.config)
    hidden = st.TextProblem(program, HIDDEN, guide=guide).evaluate(study.best.config)

print(program.code.value)
print(f"{study.best.value:.0%} of the examples are right, after {study.best.number} changes;")
print(f"{hidden.objectives['score']:.0%} of those that it did not see.")
