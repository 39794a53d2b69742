from dataclasses import replace
from pathlib import Path

import pytest

from sharpen.align.agents import ReflectionMemory, Step, Trajectory, lesson_of
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError


def failed(task: int, *seen: str) -> Trajectory:
    steps = tuple(Step(observation=one, action=f"act {i}") for i, one in enumerate(seen))
    return Trajectory(goal="Go out.", steps=steps, success=False, reward=0.0, task=task)


def test_what_changed_nothing_is_a_mistake() -> None:
    assert lesson_of(failed(0, "a hall", "a hall", "a yard")) == [
        ("'act 0' changed nothing", "Do not 'act 0' when you see: a hall")
    ]


def test_lessons_come_from_failures_once() -> None:
    memory = ReflectionMemory()
    one = failed(3, "a hall", "a hall")
    assert memory.learn([one, one, replace(one, success=True)]) == 1
    assert memory.learn([one]) == 0
    assert memory.entries[0].evidence == 3


def test_lessons_are_found_where_it_is_alike() -> None:
    memory = ReflectionMemory(given=1)
    assert memory.recall("Go out.", "a hall") == ()
    memory.learn([failed(0, "a red hall", "a red hall"), failed(1, "a blue yard", "a blue yard")])
    assert "blue yard" in memory.recall("Go out.", "some blue yard")[0].lesson
    assert "red hall" in memory.recall("Go out.", "the red hall")[0].lesson


def test_lessons_that_do_not_help_are_dropped() -> None:
    memory = ReflectionMemory()
    memory.learn([failed(0, "a", "a"), failed(1, "b", "b")])
    helps, harms = (entry.lesson for entry in memory.entries)
    won = Trajectory(goal="g", steps=(), success=True, reward=1.0, lessons=(helps,))
    lost = replace(won, success=False, reward=0.0, lessons=(helps, harms))
    memory.learn([won, won, lost, lost, lost, lost])
    assert {entry.lesson: (entry.uses, entry.wins) for entry in memory.entries} == {
        helps: (6, 2),
        harms: (4, 0),
    }
    memory.learn([lost])
    assert memory.entries == []  # 2 of 7, 0 of 5


def test_the_least_useful_go_first() -> None:
    memory = ReflectionMemory(most=2)
    memory.learn([failed(0, "a", "a"), failed(1, "b", "b")])
    good = memory.entries[1].lesson
    won = Trajectory(goal="g", steps=(), success=True, reward=1.0, lessons=(good,))
    lost = replace(won, success=False, lessons=(memory.entries[0].lesson,))
    memory.learn([won, lost, failed(2, "c", "c")])
    kept = [entry.lesson for entry in memory.entries]
    assert len(kept) == 2
    assert good in kept
    assert "see: a" not in " ".join(kept)


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    memory, other = ReflectionMemory(), ReflectionMemory()
    memory.learn([failed(0, "a", "a")])
    memory.save(tmp_path / "m.jsonl")
    other.load(tmp_path / "m.jsonl")
    assert other.entries == memory.entries
    (tmp_path / "m.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(FileFormatError, match=r"m\.jsonl:1"):
        other.load(tmp_path / "m.jsonl")
    with pytest.raises(MissingFileError):
        other.load(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="most=0"):
        ReflectionMemory(most=0)
