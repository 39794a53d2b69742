import itertools
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search import ASHA
from sharpen.testing import OptimizerConformance

EPOCHS = Fidelity("epochs", 1, 9, integer=True)


def on_a_ladder(
    space: Space,
    objectives: Sequence[Objective] = (Objective("value"),),
    constraints: Sequence[Constraint] = (),
    *,
    seed: int = 0,
) -> ASHA:
    return ASHA(space, objectives, constraints, seed=seed, fidelity=EPOCHS)


class TestASHA(OptimizerConformance):
    optimizer = ASHA


class TestASHAOnALadder(OptimizerConformance):
    optimizer = staticmethod(on_a_ladder)
    regret = 5.0  # half of its trials are cheap ones, of which the best are repeated


@st.composite
def _histories(draw: st.DrawFn) -> list[Trial]:
    """Trials of few configurations on any rung, finished well or not, or running."""
    trials = []
    for number in range(draw(st.integers(0, 40))):
        state = draw(st.sampled_from(["ok", "ok", "ok", "failed", "running"]))
        value = draw(st.integers(0, 6))
        feedback = None
        if state != "running":
            objectives = {"value": float(value)} if state == "ok" else {}
            feedback = Feedback(objectives=objectives, status=state)  # type: ignore[arg-type]
        trials.append(
            Trial(
                number=number,
                config={"n": draw(st.integers(1, 12))},
                state=state,  # type: ignore[arg-type]
                fidelity=draw(st.sampled_from([1.0, 1.0, 1.0, 3.0, 9.0, None, 2.0])),
                feedback=feedback,
            )
        )
    return trials


def _by_the_algorithm(trials: list[Trial], eta: int) -> tuple[dict[str, Any] | None, float]:
    """What algorithm 2 of the paper says, read off the whole history."""
    levels = [1.0, 3.0, 9.0]
    for k in (1, 0):
        on_rung = [t for t in trials if (t.fidelity or 9.0) == levels[k] and t.feedback is not None]
        above = [t.config for t in trials if (t.fidelity or 9.0) == levels[k + 1]]
        on_rung.sort(key=lambda t: (not t.is_ok, t.values.get("value", 0.0), t.number))
        for trial in on_rung[: len(on_rung) // eta]:
            if trial.is_ok and trial.config not in above:
                return trial.config, levels[k + 1]
    return None, levels[0]


@given(_histories(), st.integers(0, 1000))
def test_climbs_as_the_algorithm_says_on_any_history(trials: list[Trial], seed: int) -> None:
    optimizer = ASHA(Space(n=Int(1, 12)), fidelity=EPOCHS)
    shuffled = list(trials)
    random.Random(seed).shuffle(shuffled)
    optimizer.tell(shuffled)
    config, fidelity = _by_the_algorithm(trials, 3)
    [candidate] = optimizer.ask(number=50)
    assert candidate.fidelity == fidelity
    if config is not None:
        assert candidate.config == config


@given(_histories())
def test_a_trial_told_again_takes_its_own_place(trials: list[Trial]) -> None:
    twice, once = (ASHA(Space(n=Int(1, 12)), fidelity=EPOCHS) for _ in range(2))
    for trial in trials:
        fields: dict[str, Any] = {"number": trial.number, "config": {"n": 7}, "fidelity": 1.0}
        other = Feedback(objectives={"value": -1.0})
        twice.tell([Trial(state="ok", feedback=other, **fields)])
    twice.tell(trials)
    once.tell(trials)
    running = {t.number for t in trials if t.feedback is None}
    if not running:
        assert twice.ask(number=50)[0].config == once.ask(number=50)[0].config


def test_rungs_hold_a_third_of_those_below_and_no_worker_waits() -> None:
    space = Space(x=Float(0, 1))
    optimizer = ASHA(space, seed=1, fidelity=Fidelity("epochs", 1, 27))
    rng = random.Random(0)
    running = optimizer.ask(8)
    counts: dict[float | None, int] = {}
    for _ in range(400):
        candidate = running.pop(rng.randrange(8))
        counts[candidate.fidelity] = counts.get(candidate.fidelity, 0) + 1
        optimizer.tell([candidate.result(candidate.config["x"])])
        running += optimizer.ask()
    ladder = [counts[level] for level in (1.0, 3.0, 9.0, 27.0)]
    # Late results may push out some that have climbed, so a rung may hold a few more than a third.
    for below, above in itertools.pairwise(ladder):
        assert below // 3 - 3 <= above <= below / 3 + 12
    top = [t for t in optimizer.history.values() if t.fidelity == 27.0]
    assert max(t.value for t in top) < 0.2
