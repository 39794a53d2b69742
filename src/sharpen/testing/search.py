"""What every :class:`~sharpen.core.optimizer.Optimizer` must keep, as a class of tests.

Subclass it in a test file and name the optimizer; pytest runs every ``test_`` method::

    class TestMine(OptimizerConformance):
        optimizer = Mine
"""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from sharpen.core.collections import Permutation, Subset
from sharpen.core.conditions import Eq, Gt, P
from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.optimizer import Candidate, Optimizer
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space

__all__ = ["OptimizerConformance", "branin", "mixed_space"]


def branin(x: float, y: float) -> float:
    """The Branin function on [-5, 10] x [0, 15]; its three minima are 0.397887."""
    b, c, t = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    return (y - b * x**2 + c * x - 6) ** 2 + 10 * (1 - t) * math.cos(x) + 10


def mixed_space() -> Space:
    """Every kind of parameter, conditions two deep, and a forbidden combination."""
    return Space(
        x=Float(-1, 1),
        lr=Float(1e-5, 1e-1, log=True),
        grid=Float(0, 1, step=0.25),
        kind=Categorical("a", "b", "c", weights=[1, 2, 1]),
        depth=Int(1, 8).active_if(Eq("kind", "b")),
        width=Int(1, 1024, log=True).active_if(Eq("kind", "b") & Gt("depth", 4)),
        size=Ordinal([16, 32, 64]),
        flag=Bool(),
        version=Fixed("v1"),
        order=Permutation(["a", "b", "c", "d"]),
        chosen=Subset(5, min=1, max=3),
    ).forbid(P("x") + P("grid") > 1.5)


class OptimizerConformance:
    """Tests of one optimizer; set :attr:`optimizer`, and :attr:`evaluations` if it is costly."""

    optimizer: ClassVar[Callable[..., Optimizer]]
    """Its class, or a function of ``(space, objectives, constraints, seed=...)``."""

    evaluations: ClassVar[int] = 100
    """Trials given to find the optimum of Branin."""

    proposals: ClassVar[int] = 60
    """Configurations that are asked for in a space with conditions."""

    regret: ClassVar[float] = 3.0
    """Largest allowed distance to that optimum."""

    def mixed_space(self) -> Space:
        """A space with ``kind``, ``x``, ``grid`` and ``lr``; smaller for what enumerates it."""
        return mixed_space()

    def make(
        self,
        space: Space | None = None,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        seed: int = 0,
    ) -> Optimizer:
        """A new optimizer; the space defaults to the Branin function's."""
        space = space or Space(x=Float(-5, 10), y=Float(0, 15))
        return type(self).optimizer(space, objectives, constraints, seed=seed)

    @staticmethod
    def score(candidate: Candidate) -> float:
        """A value for any configuration of :func:`mixed_space` or of Branin's space."""
        config = candidate.config
        if "kind" in config:
            return float(config["x"] ** 2 + config["grid"] + math.log10(config["lr"]) ** 2)
        return branin(config["x"], config["y"])

    def play(self, optimizer: Optimizer, trials: int) -> list[dict[str, Any]]:
        """Ask, score and tell ``trials`` times; returns the configurations."""
        configs = []
        for _ in range(trials):
            candidate = optimizer.ask()[0]
            configs.append(candidate.config)
            optimizer.tell([candidate.result(self.score(candidate))])
        return configs

    def test_finds_a_known_optimum(self) -> None:
        """The best of some Branin trials is near the minimum, for most of five seeds."""
        found = []
        for seed in range(5):
            optimizer = self.make(seed=seed)
            self.play(optimizer, self.evaluations)
            found.append(optimizer.recommend().predicted["value"] - 0.397887)
            near = sum(one <= self.regret for one in found)
            if near == 3:  # most are, whatever the others would find
                break
        assert near >= 3, f"the best are {sorted(found)} from the minimum"
        assert min(found) >= -1e-5

    def test_same_seed_gives_the_same_proposals_and_another_seed_others(self) -> None:
        """Proposals are a function of seed and history."""
        first, again, other = (
            self.play(self.make(self.mixed_space(), seed=seed), 12) for seed in (3, 3, 4)
        )
        assert first == again
        assert first != other

    def test_proposals_are_valid_in_a_conditional_space(self) -> None:
        """Inactive parameters are absent and nothing forbidden is proposed."""
        space = self.mixed_space()
        optimizer = self.make(space)
        if optimizer.capabilities.conditional:
            for config in self.play(optimizer, self.proposals):
                assert space.validate(config) == config

    def test_a_batch_is_diverse_and_numbered(self) -> None:
        """``ask(8)`` gives eight different configurations, numbered in order."""
        candidates = self.make().ask(8)
        assert [c.number for c in candidates] == list(range(8))
        assert len({json.dumps(c.config) for c in candidates}) == 8

    def test_goes_on_from_a_state_dict_and_a_pickle(self) -> None:
        """Saved mid-run and restored, it proposes what it would have proposed."""
        whole = self.play(self.make(self.mixed_space(), seed=5), 14)
        started = self.make(self.mixed_space(), seed=5)
        assert self.play(started, 7) == whole[:7]
        state = json.loads(json.dumps(started.state_dict(), allow_nan=False))
        restored = self.make(self.mixed_space(), seed=5)
        restored.load_state_dict(state)
        pickled = pickle.loads(pickle.dumps(started))
        assert self.play(restored, 7) == whole[7:]
        assert self.play(pickled, 7) == whole[7:]

    def test_history_alone_determines_the_next_proposal(self) -> None:
        """A new instance that is told the history proposes the same for the same number."""
        optimizer = self.make(seed=2)
        told = []
        for _ in range(6):
            candidate = optimizer.ask()[0]
            told.append(candidate.result(self.score(candidate)))
            optimizer.tell(told[-1:])
        rebuilt = self.make(seed=2)
        rebuilt.tell(told)
        assert rebuilt.ask(number=6)[0].config == optimizer.ask(number=6)[0].config

    def test_survives_failures_and_values_that_are_not_finite(self) -> None:
        """Failed, pruned and NaN trials are taken and never recommended."""
        optimizer = self.make()
        good = optimizer.ask()[0]
        optimizer.tell([good.result(self.score(good))])
        for outcome in (
            Feedback(status="failed", error="boom"),
            Feedback(objectives={"value": -1e9}, status="pruned"),
            Feedback(status="timeout"),
            float("nan"),
            float("-inf"),
        ):
            candidate = optimizer.ask()[0]
            optimizer.tell([candidate.result(outcome)])
        assert optimizer.recommend().config == good.config
        assert optimizer.ask(3)[2].config

    def test_takes_losses_of_any_size(self) -> None:
        """Squares of losses may be beyond what a float64 holds."""
        for scale in (1e300, 1e-300):
            optimizer = self.make(seed=1)
            for _ in range(24):
                candidate = optimizer.ask()[0]
                assert optimizer.space.validate(candidate.config) == candidate.config
                optimizer.tell([candidate.result(scale * self.score(candidate))])
            json.dumps(optimizer.state_dict(), allow_nan=False)
            assert math.isfinite(optimizer.recommend().predicted["value"])

    def test_takes_tells_in_any_order_and_from_elsewhere(self) -> None:
        """Tells may be late, out of order, or of trials it never asked for."""
        optimizer = self.make()
        first, second, third = optimizer.ask(3)
        optimizer.tell([third.result(3.0), first.result(2.0)])
        foreign = Trial(
            number=-1,
            config={"x": 1.0, "y": 1.0},
            state="ok",
            feedback=Feedback(objectives={"value": 1.0}),
        )
        optimizer.tell([foreign])
        optimizer.abandon([second.number])
        assert optimizer.recommend().config == foreign.config
        assert optimizer.ask()[0].number == 3

    def test_does_not_change_what_it_is_given(self) -> None:
        """Inputs stay as they were, and outputs may be changed by the caller."""
        optimizer = self.make()
        candidate = optimizer.ask()[0]
        trial = candidate.result(1.0)
        before = copy.deepcopy(trial)
        optimizer.tell([trial])
        optimizer.ask(2)[0].config.clear()
        assert trial == before
        assert optimizer.recommend().config == before.config

    def test_several_objectives_are_handled_or_refused(self) -> None:
        """With the capability it goes on; without, the error names optimizers that can."""
        objectives = (Objective("a"), Objective("b", "max"))
        if self._accepts(objectives, ()):
            optimizer = self.make(objectives=objectives)
            for candidate in optimizer.ask(5):
                optimizer.tell([candidate.result({"a": 1.0, "b": 2.0})])
            assert optimizer.ask()[0].config

    def test_constraints_are_handled_or_refused(self) -> None:
        """An infeasible trial is never recommended."""
        constraint = Constraint("memory", "<=", 1.0)
        if self._accepts((Objective("value"),), (constraint,)):
            optimizer = self.make(constraints=(constraint,))
            first, second = optimizer.ask(2)
            optimizer.tell([first.result({"value": 0.0, "memory": 2.0})])
            optimizer.tell([second.result({"value": 5.0, "memory": 0.5})])
            assert optimizer.recommend().config == second.config

    def _accepts(self, objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> bool:
        able = self.make().capabilities
        claimed = (len(objectives) == 1 or able.multi_objective) and (
            not constraints or able.constraints
        )
        refusal = ""
        try:
            self.make(objectives=objectives, constraints=constraints)
        except ConfigError as error:
            refusal = str(error)
        assert claimed == (not refusal), "what it takes is not what its capabilities say"
        assert claimed or "Able to" in refusal
        return claimed
