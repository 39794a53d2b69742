"""Studies: the loop that asks an optimizer, evaluates, and tells, over a budget.

Any number of processes may run the same study in one store; a study that was killed goes on where
it stopped when it is run again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from sharpen.core.config import digest
from sharpen.core.errors import ConfigError, ExecutionError, Interrupted, SharpenError
from sharpen.core.executor import Executor, Inline, Job, Local
from sharpen.core.feedback import Feedback, TracePoint, Trial
from sharpen.core.optimizer import Candidate, Optimizer, is_true, make_optimizer
from sharpen.core.problem import Answer, Problem, as_feedback, contexts_of, fidelity_of
from sharpen.core.pruner import Curve, Pruner
from sharpen.core.pruners import make_pruner
from sharpen.core.space import random_stream
from sharpen.core.store import Claim, Store, open_store
from sharpen.core.study_view import StudyView, as_plain, last_line, load_study, trial_seed

__all__ = ["Budget", "Retry", "Study"]

Retry = Literal["killed", "failed", "timeout"]

_log = logging.getLogger(__name__)
_LEASE_S = 60.0
_FOREVER_S = 1e9  # for trials carried out by hand; a dead process is noticed all the same
_TRACE_EVERY_S = 1.0
_FIRST_FAILURES = 5
_POLL_S = 1.0
_MAX_TRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a study ends: at the first of its limits."""

    trials: int | None = None
    """Trials in the whole study, over all runs and processes; failed ones count."""

    seconds: float | None = None
    """Wall time of one call of ``run``; running trials are asked to stop then."""

    target: float | None = None
    """Stop once the (only) objective is this good."""

    patience: int | None = None
    """Stop after so many trials in a row without a better value."""

    cost: Mapping[str, float] = field(default_factory=dict)
    """Stop once the trials together cost so much, by what they count: ``{"usd": 5}``."""

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in ("trials", "seconds", "patience")}
        for name, value in (*limits.items(), *self.cost.items()):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be positive, got {value} (Budget).")
        if not self.cost and self.trials is None and self.seconds is None and self.target is None:
            raise ConfigError("a Budget needs trials, seconds, cost or target.")


class Study(StudyView):
    """A problem, an optimizer and a store.

    Args:
        problem: what to optimize: a function decorated with :func:`sharpen.problem`, or any object
            of the :class:`~sharpen.core.problem.Problem` protocol.
        optimizer: a name (``"auto"``, ``"random"``, ``"sobol"`` ...), a mapping of ``name`` and
            options, an optimizer, or a function that makes one from ``(space, objectives,
            constraints, seed=...)``.
        store: ``sqlite:///FILE``, a file's path, or ``sqlite://`` for memory.
        name: the study's name in the store; default the problem's.
        budget: when to stop; default 100 trials.
        workers: trials at once, in processes of their own; None runs them in this process.
        executor: where trials run, instead of ``workers``.
        pruner: stops bad trials early by what they report: a name (``"median"``, ``"asha"`` ...;
            ``"none"`` stops none), a mapping of ``name`` and options, or a pruner.
        seed: of the optimizer and, with its number, of each trial.
        dedup: ``"reuse"`` takes the result of an equal earlier trial; ``"reevaluate"`` measures
            again; ``"forbid"`` tries another configuration, and ends when there is none.
        callbacks: called as ``callback(study, trial)`` after each trial of this process.
        max_attempts: how often a trial is begun before it is given up.
        retry: what a trial is begun again for, beside the death of the process that runs the study:
            ``"killed"`` (its worker or program was killed from outside, or for want of memory),
            ``"failed"`` (it raised, or crashed) and ``"timeout"``.
        source: what the study was made from, as plain data, kept in the store for those who join.

    Raises:
        ConfigError: no problem, an unknown optimizer or one that cannot handle the problem, or the
            store has a study of this name with another space or other objectives.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        optimizer: str | Mapping[str, Any] | Optimizer | Callable[..., Optimizer] = "auto",
        store: str | Path | Store = "sqlite:///study.db",
        name: str | None = None,
        budget: Budget | None = None,
        workers: int | None = None,
        executor: Executor | None = None,
        pruner: str | Mapping[str, Any] | Pruner | None = None,
        seed: int = 0,
        dedup: Literal["reuse", "reevaluate", "forbid"] = "reuse",
        callbacks: Sequence[Callable[[Study, Trial], None]] = (),
        max_attempts: int = 3,
        retry: Sequence[Retry] = ("killed",),
        source: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(problem, Problem):
            raise ConfigError(
                f"{problem!r} is no problem. Decorate the function: "
                "@sharpen.problem(space, minimize='loss')."
            )
        if workers is not None and executor is not None:
            raise ConfigError("give workers or executor, not both.")
        if dedup not in ("reuse", "reevaluate", "forbid"):
            raise ConfigError(f"dedup must be reuse, reevaluate or forbid, got {dedup!r}.")
        wrong = set(retry) - set(get_args(Retry))
        if wrong:
            raise ConfigError(f"retry takes killed, failed and timeout, got {min(wrong)!r}.")
        if seed < 0 or max_attempts < 1:
            raise ConfigError(f"seed={seed} must be at least 0, max_attempts={max_attempts} 1.")
        self.problem = problem
        self.budget = budget or Budget(trials=100)
        self.optimizer = _make_optimizer(optimizer, problem, seed, self.budget.trials)
        self.executor: Executor = executor or (Inline() if workers is None else Local(workers))
        self.pruner = make_pruner(pruner)
        self.dedup = dedup
        self.callbacks = tuple(callbacks)
        self.max_attempts = max_attempts
        self.retry = frozenset(retry)
        if self.budget.target is not None and len(problem.objectives) > 1:
            raise ConfigError("target (Budget) needs a single objective.")
        opened = open_store(store)
        record = opened.create_study(
            name or problem.name,
            space=problem.space.to_dict(),
            objectives=as_plain(problem.objectives),
            constraints=as_plain(problem.constraints),
            seed=self.optimizer.seed,
            spec=_spec(self.optimizer.name, problem, source),
        )
        super().__init__(opened, record)
        self._check_same()
        self._claims: dict[int, Claim] = {}
        self._curves: dict[int, list[TracePoint]] = {}
        self._live: dict[int, Curve] = {}
        self._past: dict[int, Curve] = {}
        self._compared = 0
        self._flushed: dict[int, tuple[int, float]] = {}
        self._deadline: float | None = None
        self._told = 0
        self._is_exhausted = False

    @staticmethod
    def load(store: str | Path | Store, name: str) -> StudyView:
        """A study for reading; see :func:`sharpen.core.study_view.load_study`."""
        return load_study(store, name)

    def _check_same(self) -> None:
        """What is stored under this name must be this study."""
        for what, stored, given in (
            ("space", self.space, self.problem.space),
            ("objectives", self.objectives, tuple(self.problem.objectives)),
            ("constraints", self.constraints, tuple(self.problem.constraints)),
            ("fidelity", self.fidelity, fidelity_of(self.problem)),
            ("space of contexts", self.contexts, contexts_of(self.problem)),
            ("seed", self.seed, self.optimizer.seed),
        ):
            if stored != given:
                change = "" if "space" in what else f" (stored {stored}, now {given})"
                raise ConfigError(
                    f"the store {self.store.url} has a study '{self.name}' with another {what}"
                    f"{change}. Choose another name, or delete that study."
                )

    # -- by hand --------------------------------------------------------------------------------

    def enqueue(self, configs: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[int]:
        """Put configurations in the queue; they are tried first.

        Returns:
            Their trial numbers.

        Raises:
            ConfigError: a configuration is wrong; then none is queued.
        """
        given = [configs] if isinstance(configs, Mapping) else list(configs)
        checked = [self.space.validate(config) for config in given]
        pairs = [(config, self._digest(config, None, {})) for config in checked]
        return self.store.enqueue(self.id, pairs)

    def ask(self, *, context: Mapping[str, Any] | None = None) -> Trial | None:
        """The next trial, to be carried out by the caller; None when the trial budget is used up.

        :meth:`tell` ends it. If this process dies first, the trial is queued again.

        Args:
            context: the conditions of the trial, of a problem with contexts, where the caller
                observes them; else the optimizer chooses.
        """
        return self._take(_FOREVER_S, context)

    def tell(self, trial: Trial | int, outcome: Any) -> Trial:
        """End a trial that :meth:`ask` gave.

        Args:
            trial: the trial or its number.
            outcome: a number, a mapping of values by name, or a
                :class:`~sharpen.core.feedback.Feedback`.

        Returns:
            The finished trial.

        Raises:
            ConfigError: this study object did not ask for it, or it was told already.
            DataError: an objective or constraint is missing from the outcome.
        """
        number = trial if isinstance(trial, int) else trial.number
        if number not in self._claims:
            raise ConfigError(
                f"trial {number} waits for no result here; ask() gives one that does."
            )
        feedback = as_feedback(outcome, self.problem.objectives, self.problem.constraints)
        self._end(number, feedback)
        return self._ended[number]

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> Study:
        """Carry out trials until the budget is used up; a killed study goes on where it stopped.

        Returns:
            This study.

        Raises:
            ExecutionError: the first five trials all failed, or workers cannot be started.
            Interrupted: the user pressed Ctrl-C; the same call resumes.
            StorageError: the store cannot be written.
        """
        seconds = self.budget.seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        mine: set[int] = set()
        self.executor.open(self.problem)
        try:
            with self._heartbeat():
                while True:
                    self._fill(mine)
                    if not mine:
                        break
                    for number, feedback in self.executor.poll(_POLL_S, self._on_report):
                        mine.discard(number)
                        self._end(number, feedback)
                        self._check_first_failures()
                    if not self.executor.blocking:
                        self._beat()
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; the study '{self.name}' keeps its {len(self._ended)} finished "
                "trials. Run it again to resume."
            ) from None
        finally:
            self.executor.close()
            self.store.release([self._claims.pop(n) for n in sorted(mine) if n in self._claims])
            self._deadline = None
        return self

    def _fill(self, mine: set[int]) -> None:
        """Begin trials until every worker has one or the budget forbids more."""
        while len(mine) < self.executor.slots and not self._is_over():
            trial = self._take(_LEASE_S)
            if trial is None:
                return
            reused = self._reused(trial)
            if reused is not None:
                self._end(trial.number, reused)
                continue
            mine.add(trial.number)
            self.executor.submit(
                Job(
                    number=trial.number,
                    config=trial.config,
                    seed=trial.seed,
                    attempt=trial.attempt,
                    fidelity=trial.fidelity,
                    context=trial.context,
                )
            )

    def _is_over(self) -> bool:
        """Whether a limit other than the number of trials is reached."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return True
        if self._is_exhausted or any(self._spent(k) >= v for k, v in self.budget.cost.items()):
            return True
        if self.budget.target is None and self.budget.patience is None:
            return False
        objective = self.objectives[0]
        losses = [objective.loss(trial.values[objective.name]) for trial in self._good()]
        if not losses:
            return False
        if self.budget.target is not None and min(losses) <= objective.loss(self.budget.target):
            return True
        patience = self.budget.patience
        return patience is not None and len(losses) - 1 - losses.index(min(losses)) >= patience

    def _spent(self, kind: str) -> float:
        """What all ended trials cost."""
        self.refresh()
        feedback = (trial.feedback for trial in self._ended.values())
        return sum(found.cost.get(kind, 0.0) for found in feedback if found is not None)

    def _take(self, lease_s: float, context: Mapping[str, Any] | None = None) -> Trial | None:
        """Claim the next trial and, if it has no configuration yet, ask the optimizer."""
        claim = self.store.claim(
            self.id,
            limit=self.budget.trials,
            lease_s=lease_s,
            max_attempts=self.max_attempts,
        )
        if claim is None:
            return None
        if claim.config is not None:
            candidate: Candidate | None = Candidate(
                number=claim.number,
                config={name: self.space[name].check(v) for name, v in claim.config.items()},
                origin=claim.origin,
                fidelity=claim.fidelity,
                context=claim.context,
            )
        else:
            try:
                candidate = self._asked(claim.number, context)
            except BaseException:
                self.store.release([claim])
                raise
            if candidate is None:
                self.store.cancel(claim)
                return None
            self.store.start(
                claim,
                candidate.config,
                self._digest(candidate.config, candidate.fidelity, candidate.context),
                candidate.origin,
                fidelity=candidate.fidelity,
                context=candidate.context,
            )
        assert candidate is not None
        self._claims[claim.number] = claim
        return replace(
            candidate.begun(), seed=trial_seed(self.seed, claim.number), attempt=claim.attempt
        )

    def _asked(self, number: int, context: Mapping[str, Any] | None) -> Candidate | None:
        """What the optimizer proposes for a number; None when nothing new is left to try."""
        self._learn()
        observe = getattr(self.problem, "observe", None)
        if context is None and observe is not None:
            context = observe(number, trial_seed(self.seed, number))
        [candidate] = self.optimizer.ask(1, number=number, context=context)
        candidate = replace(candidate, config=self.space.validate(candidate.config))
        if self.fidelity is not None and candidate.fidelity is not None:
            candidate = replace(candidate, fidelity=self.fidelity.check(candidate.fidelity))
        if self.dedup != "forbid":
            return candidate
        rng, tries = random_stream(self.seed, number), 0
        while self.store.knows(
            self.id, self._digest(candidate.config, candidate.fidelity, candidate.context)
        ):
            if tries == _MAX_TRIES:
                self._is_exhausted = True
                return None
            candidate = replace(candidate, config=self.space.draw(rng), origin="random")
            tries += 1
        return candidate

    def _digest(
        self, config: Mapping[str, Any], fidelity: float | None, context: Mapping[str, Any]
    ) -> str:
        """Tells equal measurements."""
        if is_true(fidelity, self.fidelity) and not context:
            return self.space.digest(config)
        parts: dict[str, Any] = {"config": self.space.digest(config), "fidelity": fidelity}
        if self.contexts is not None:
            parts["context"] = self.contexts.digest(context)
        return digest(parts)

    def _learn(self) -> None:
        """Tell the optimizer what ended since it was last told, and what runs."""
        self.refresh()
        self.optimizer.tell([*self._log[self._told :], *self._running.values()])
        self._told = len(self._log)

    def _reused(self, trial: Trial) -> Feedback | None:
        """The feedback of an earlier trial that measured the same."""
        if self.dedup != "reuse":
            return None
        found = self.store.same_config(
            self.id, self._digest(trial.config, trial.fidelity, trial.context)
        )
        if found is None or found.feedback is None:
            return None
        info = {**found.feedback.info, "same_as": found.number}
        return replace(found.feedback, cost={"seconds": 0.0}, info=info)

    def _end(self, number: int, feedback: Feedback) -> None:
        claim = self._claims.pop(number)
        self._curves.pop(number, None)
        self._live.pop(number, None)
        self._flushed.pop(number, None)
        cause = "killed" if feedback.info.get("killed") else feedback.status
        if cause in self.retry and claim.attempt < self.max_attempts:
            _log.warning("trial %d is tried again: %s", number, last_line(feedback.error))
            self.store.retry(claim)
            return
        if not self.store.finish(claim, feedback):
            _log.warning("trial %d was ended by another process; its result is kept beside", number)
        self.refresh()
        trial = self._ended.get(number)
        if trial is not None:
            _log.info("trial %d %s %s", number, trial.state, trial.values)
            for callback in self.callbacks:
                callback(self, trial)

    def _check_first_failures(self) -> None:
        """A study whose first trials all fail is set up wrongly: stop before more time goes by."""
        first = self._log[:_FIRST_FAILURES]
        if len(first) < _FIRST_FAILURES:
            return
        last = self._log[-1]
        failed = all(trial.state == "failed" for trial in (*first, last))
        if failed and not self._good():
            error = last.feedback.error if last.feedback is not None else ""
            raise ExecutionError(
                f"the first {len(self._log)} trials of the study '{self.name}' all failed; "
                f"the last with:\n{error}\nMend the cause, delete the study and run it again."
            )

    # -- while trials run -----------------------------------------------------------------------

    def _on_report(self, number: int, point: TracePoint) -> Answer:
        """Keep a point of a curve, and say whether the trial goes on."""
        reported = self._curves.setdefault(number, [])
        reported.append(point)
        done, at = self._flushed.get(number, (0, time.monotonic()))
        if time.monotonic() - at >= _TRACE_EVERY_S:
            self.store.add_trace(self._claims[number], reported[done:])
            done, at = len(reported), time.monotonic()
        self._flushed[number] = (done, at)
        if not self.executor.blocking:
            self._beat()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "stop"
        if self.pruner is None:
            return "continue"
        is_max = self.objectives[0].direction == "max"
        for trial in self._log[self._compared :]:
            if trial.state in ("ok", "pruned") and trial.feedback and trial.feedback.trace:
                points = ((p.step, p.value) for p in trial.feedback.trace)
                past = Curve(trial.number, points, is_max=is_max, is_finished=trial.is_ok)
                self._past[trial.number] = past
        self._compared = len(self._log)
        if number not in self._live:
            self._live[number] = Curve(number, (), is_max=is_max, is_finished=False)
        self._live[number].add(point.step, point.value)
        running = [curve for k, curve in self._live.items() if k != number]
        stops = self.pruner.should_stop(self._live[number], [*self._past.values(), *running])
        return "stop" if stops else "continue"

    def _beat(self) -> None:
        """Renew leases when a quarter of their time is gone."""
        now = time.monotonic()
        if now - self._beaten >= _LEASE_S / 4:
            self._beaten = now
            self.store.renew(list(self._claims.values()), lease_s=_LEASE_S)

    _beaten = 0.0

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Keep leases alive: from a thread when the trial runs in this one."""
        self._beaten = time.monotonic()
        if not self.executor.blocking:
            yield
            return
        done = threading.Event()

        def beat() -> None:
            while not done.wait(_LEASE_S / 4):
                try:
                    self._beat()
                except SharpenError as error:  # the trial goes on; a late result still counts
                    _log.warning("leases could not be renewed: %s", error)

        thread = threading.Thread(target=beat, name="sharpen-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _make_optimizer(
    given: str | Mapping[str, Any] | Optimizer | Callable[..., Optimizer],
    problem: Problem,
    seed: int,
    budget: int | None,
) -> Optimizer:
    if isinstance(given, Optimizer):
        if given.space != problem.space:
            raise ConfigError(f"the optimizer '{given.name}' was made for another space.")
        return given
    return make_optimizer(
        given,
        problem.space,
        problem.objectives,
        problem.constraints,
        seed=seed,
        budget=budget,
        fidelity=fidelity_of(problem),
        contexts=contexts_of(problem),
    )


def _spec(optimizer: str, problem: Problem, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a study is beside its space and objectives, as plain data."""
    spec: dict[str, Any] = {"optimizer": optimizer}
    if source is not None:
        spec["source"] = source
    fidelity, contexts = fidelity_of(problem), contexts_of(problem)
    if fidelity is not None:
        spec["fidelity"] = asdict(fidelity)
    if contexts is not None:
        spec["contexts"] = contexts.to_dict()
    return spec
