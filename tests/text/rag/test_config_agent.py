"""The agent that predicts settings: what it learns, its files, wrong input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sharpen.core.errors import ConfigError, DataError, FileFormatError
from sharpen.text.rag import Chunk, ConfigAgent, LexicalCoverage
from sharpen.text.rag.config_agent import Settings, measure

SETTINGS = [
    Settings(name, c, n, lam)
    for name in ("words", "meaning")
    for c, n, lam in ((0.5, 20, 0.0), (2.0, 200, 0.4))
]


class Topics:
    """Two kinds of questions, told apart by a noisy direction."""

    def encode(self, texts: list[str]) -> np.ndarray:
        found = []
        for text in texts:
            kind, number = text.split()
            rng = np.random.default_rng(int(number))
            centre = np.zeros(24)
            centre[0] = 3.0 if kind == "name" else -3.0
            centre[1] = 3.0 if int(number) % 2 else -3.0
            found.append(centre + rng.normal(size=24))
        return np.array(found)


def _judged(questions: list[str]) -> np.ndarray:
    """``name`` is best by words, others by meaning; odd ones with the second settings."""
    best = [2 * (not q.startswith("name")) + int(q.split()[1]) % 2 for q in questions]
    return np.eye(4)[best]


def test_it_predicts_what_suits_questions_it_has_not_seen() -> None:
    questions = [f"{('name', 'idea')[i % 3 == 0]} {i}" for i in range(160)]
    agent = ConfigAgent(Topics(), seed=1)
    losses = agent.fit(questions[:120], SETTINGS, _judged(questions[:120]), epochs=40)
    assert losses[-1] < 0.3 * losses[0]
    assert agent.single is None
    assert agent.gain > 0.5
    right = near = 0
    for question, row in zip(questions[120:], _judged(questions[120:]), strict=True):
        want, got = SETTINGS[int(row.argmax())], agent.predict(question)
        right += got.reranker == want.reranker
        near += abs(np.log(got.iterations / want.iterations)) < 1 and abs(got.lam - want.lam) < 0.2
    assert right >= 38
    assert near >= 34


def test_the_same_seed_learns_the_same_and_a_file_keeps_it(tmp_path: Path) -> None:
    questions = [f"name {i}" for i in range(20)]
    one, two = ConfigAgent(Topics(), seed=3), ConfigAgent(Topics(), seed=3)
    assert one.fit(questions, SETTINGS, _judged(questions), epochs=3) == two.fit(
        questions, SETTINGS, _judged(questions), epochs=3
    )
    one.save(tmp_path / "agent.npz")
    loaded = ConfigAgent.load(tmp_path / "agent.npz", Topics())
    for question in ("name 77", "idea 50"):
        assert one.predict(question) == two.predict(question) == loaded.predict(question)
    data = (tmp_path / "agent.npz").read_bytes()
    (tmp_path / "agent.npz").write_bytes(data[:-100])
    with pytest.raises(FileFormatError, match="no configuration agent"):
        ConfigAgent.load(tmp_path / "agent.npz", Topics())
    with pytest.raises(FileFormatError, match="no configuration agent"):
        ConfigAgent.load(tmp_path / "none.npz", Topics())


def test_predictions_stay_within_what_was_measured() -> None:
    questions = [f"name {i}" for i in range(12)]
    agent = ConfigAgent(Topics())
    agent.fit(questions, SETTINGS, _judged(questions), epochs=1)
    agent.single = None
    for i in range(40):
        got = agent.predict(f"idea {i}")
        assert 0.5 <= got.c <= 2.0 + 1e-9
        assert 20 <= got.iterations <= 200
        assert 0 <= got.lam <= 0.4


def test_where_questions_tell_nothing_the_best_single_settings_are_predicted(
    tmp_path: Path,
) -> None:
    questions = [f"name {i}" for i in range(100)]
    rng = np.random.default_rng(0)
    judged = rng.normal(size=(100, 4)) * 0.1 + [0, 0, 0.3, 0]
    agent = ConfigAgent(Topics())
    agent.fit(questions, SETTINGS, judged)
    assert agent.single == SETTINGS[2] == agent.predict("idea 1")
    assert agent.gain <= 0
    agent.save(tmp_path / "agent.npz")
    assert ConfigAgent.load(tmp_path / "agent.npz", Topics()).predict("idea 1") == SETTINGS[2]


def test_settings_are_measured_on_real_choices() -> None:
    chunks = [Chunk(str(i), text, 5) for i, text in enumerate(["a b", "c", "a", "b c"])]
    judged = measure(
        ["a b c", "c"],
        [chunks, chunks],
        {"words": LexicalCoverage()},
        [Settings("words", iterations=1), Settings("words", iterations=50)],
        50,
        lambda i, found: found.score - i,
    )
    assert judged.shape == (2, 2)
    assert judged[0, 1] > judged[0, 0]
    assert judged[1, 0] == judged[1, 1]


def test_wrong_input_is_told() -> None:
    agent = ConfigAgent(Topics())
    with pytest.raises(ConfigError, match="fit the agent first"):
        agent.predict("name 1")
    with pytest.raises(ConfigError, match="at least two questions"):
        agent.fit(["name 1"], SETTINGS, np.zeros((1, 4)))
    with pytest.raises(DataError, match="not finite"):
        agent.fit(["name 1", "name 2"], SETTINGS, np.full((2, 4), np.nan))
    with pytest.raises(ConfigError, match="c must be above 0"):
        agent.fit(["name 1", "name 2"], [Settings("words", c=0.0)], np.zeros((2, 1)))
