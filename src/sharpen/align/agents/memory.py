"""Reflection memory: a lesson after a failure, found again where the situation is alike.

After Shinn et al., *Reflexion: language agents with verbal reinforcement learning*, NeurIPS 2023
(arXiv 2303.11366). An entry is kept as long as it helps: after five uses it is dropped where less
than three of ten episodes with it succeed. Differs from the paper: lessons serve other tasks too,
by similarity (BM25), and their number is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sharpen.align.agents.trajectory import Trajectory
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.files import atomic_write_text
from sharpen.text.rag.bm25 import BM25Index

__all__ = ["Entry", "ReflectionMemory", "lesson_of"]


@dataclass(slots=True, kw_only=True)
class Entry:
    """A lesson."""

    signature: str
    """The goal and what was seen when it was learned."""

    mistake: str
    lesson: str
    evidence: int
    """The task in which it was learned."""

    uses: int = 0
    wins: int = 0


def lesson_of(trajectory: Trajectory) -> list[tuple[str, str]]:
    """Mistakes and lessons of a failed trajectory by a rule: what changed nothing.

    An action after which the agent sees what it saw before did not help there. A language model may
    take this function's place.
    """
    found: dict[tuple[str, str], None] = {}
    for now, after in zip(trajectory.steps, trajectory.steps[1:], strict=False):
        if now.observation == after.observation:
            found[now.action, now.observation] = None
    return [
        (f"'{action}' changed nothing", f"Do not '{action}' when you see: {seen}")
        for action, seen in found
    ]


class ReflectionMemory:
    """Lessons, bounded, with their use counted.

    Args:
        reflect: mistakes and lessons of a failed trajectory.
        most: entries; the least useful go first.
        given: lessons an episode.
        min_uses: uses before an entry is judged.
        min_share: of its episodes that must succeed, from then on.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        *,
        reflect: Callable[[Trajectory], Sequence[tuple[str, str]]] = lesson_of,
        most: int = 200,
        given: int = 8,
        min_uses: int = 5,
        min_share: float = 0.3,
    ) -> None:
        if most < 1 or given < 1 or min_uses < 1 or not 0 <= min_share <= 1:
            raise ConfigError(
                f"most={most}, given={given} and min_uses={min_uses} must be at least 1 and"
                f" min_share={min_share} from 0 to 1."
            )
        self._reflect = reflect
        self.most, self.given = most, given
        self.min_uses, self.min_share = min_uses, min_share
        self.entries: list[Entry] = []
        self._index: BM25Index | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def learn(self, trajectories: Iterable[Trajectory]) -> int:
        """Count how the lessons that trajectories were given served, and store those of failures.

        Returns:
            How many lessons are new.
        """
        known = {entry.lesson: entry for entry in self.entries}
        before = len(known)
        for one in trajectories:
            for lesson in one.lessons:
                if lesson in known:
                    known[lesson].uses += 1
                    known[lesson].wins += one.success
            for mistake, lesson in () if one.success else self._reflect(one):
                signature = f"{one.goal} {lesson}"
                entry = Entry(
                    signature=signature, mistake=mistake, lesson=lesson, evidence=one.task
                )
                known.setdefault(lesson, entry)
        new = len(known) - before
        self.entries = list(known.values())
        self._prune()
        return new

    def recall(self, goal: str, observation: str) -> tuple[Entry, ...]:
        """The lessons whose situations are most like this one."""
        if not self.entries:
            return ()
        if self._index is None:
            self._index = BM25Index([entry.signature for entry in self.entries])
        found = self._index.search(f"{goal} {observation}", k=self.given)
        return tuple(self.entries[int(chunk.id)] for chunk, _ in found)

    def _prune(self) -> None:
        kept = [
            entry
            for entry in self.entries
            if entry.uses < self.min_uses or entry.wins / entry.uses >= self.min_share
        ]
        if len(kept) > self.most:
            useful = sorted(kept, key=lambda one: (one.wins + 1) / (one.uses + 2), reverse=True)
            chosen = {id(one) for one in useful[: self.most]}
            kept = [one for one in kept if id(one) in chosen]
        self.entries = kept
        self._index = None

    def save(self, path: str | Path) -> None:
        """Write entries as JSONL.

        Raises:
            StorageError: it cannot be written.
        """
        lines = [json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in self.entries]
        atomic_write_text(Path(path), "".join(lines))

    def load(self, path: str | Path) -> None:
        """Read entries in place of those that are there.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: a line is no entry.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise MissingFileError(f"there is no file {path}.") from None
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(Entry(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise FileFormatError(f"{path}:{number}: no lesson: {error}.") from None
        self.entries = found
        self._index = None
