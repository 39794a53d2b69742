"""Questions whose answer takes two look-ups in a small collection of sentences.

People live in towns and towns lie in countries; names are drawn from syllables, so that nobody can
know the answer without looking.
"""

from __future__ import annotations

from typing import Any

from sharpen.align.agents.environment import TextWorld
from sharpen.align.agents.tools import Toolbox, read_call
from sharpen.text.rag.bm25 import BM25Index

__all__ = ["RetrievalTask"]

_SYLLABLES = ("ka", "lo", "mi", "ren", "sta", "vo", "tu", "nel", "dor", "pi", "ga", "wes")
_PEOPLE, _TOWNS, _COUNTRIES = 6, 4, 3


class RetrievalTask(TextWorld):
    """``search(words)`` shows the best sentence; the reward is 1 for the right ``answer(name)``."""

    def begin(self) -> tuple[str, str]:
        """Draw the collection and the question."""
        names = self._names(_PEOPLE + _TOWNS + _COUNTRIES)
        people, towns = names[:_PEOPLE], names[_PEOPLE : _PEOPLE + _TOWNS]
        self.countries = names[_PEOPLE + _TOWNS :]
        home = {one: towns[self.np_random.integers(_TOWNS)] for one in people}
        land = {one: self.countries[self.np_random.integers(_COUNTRIES)] for one in towns}
        # Of equal length, so that a town's own sentence, the earlier, is the best for its name.
        sentences = [f"{town} lies in {country}." for town, country in land.items()]
        sentences += [f"{person} lives in {town}." for person, town in home.items()]
        self.index = BM25Index(sentences)
        self.person = people[0]
        self.town = home[self.person]
        self.answer = land[self.town]
        self.seen: list[str] = []
        goal = f"In which country does {self.person} live? Call answer('name') when you know."
        self.tools = Toolbox([self.search])
        return goal, f"Tools: {self.tools.describe()}"

    def _names(self, count: int) -> list[str]:
        found: dict[str, None] = {}
        while len(found) < count:
            parts = self.np_random.choice(len(_SYLLABLES), 3)
            found["".join(_SYLLABLES[i] for i in parts).capitalize()] = None
        return list(found)

    def search(self, words: str) -> str:
        """The sentence that shares the most words."""
        found = self.index.search(str(words), k=1)
        return found[0][0].text if found else "Nothing."

    def possible(self) -> list[str]:
        """Searches for names that were seen, and answers with all countries."""
        names = dict.fromkeys([self.person, *self.seen])
        return [f"search('{name}')" for name in names] + [
            f"answer('{country}')" for country in self.countries
        ]

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Search, or answer."""
        call = read_call(action)
        if call is not None and call[0] == "answer":
            right = call[1:] == ([self.answer], {})
            return "Right." if right else "Wrong.", float(right), True, {"success": right}
        said, good = self.tools.call(action)
        if good and said.endswith("."):
            last = said.rstrip(".").split()[-1]
            if last[0].isupper() and last != "Nothing" and last not in self.seen:
                self.seen.append(last)
        return said, 0.0, False, {"violation": not good}
