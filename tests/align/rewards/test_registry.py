import pickle
from pathlib import Path

import pytest

import sample_rewards
from sharpen.align.rewards import find_reward, reward, reward_names
from sharpen.align.rewards.registry import BUILT_IN
from sharpen.align.rewards.text import Length
from sharpen.core.errors import ConfigError, MissingFileError


def test_rewards_are_found_by_name_place_and_file(tmp_path: Path) -> None:
    assert find_reward("sample") is sample_rewards.sample
    assert find_reward("sample_rewards:sample") is sample_rewards.sample
    assert find_reward(sample_rewards.sample) is sample_rewards.sample
    file = tmp_path / "mine.py"
    file.write_text("def half(prompts, completions, meta):\n    return [0.5] * len(prompts)\n")
    found = find_reward(f"{file}:half")
    assert found(["a", "b"], ["", ""], [{}, {}]) == [0.5, 0.5]
    assert pickle.loads(pickle.dumps(found))(["a"], [""], [{}]) == [0.5]


def test_settings_are_checked(tmp_path: Path) -> None:
    assert find_reward("length", ["target=20"]) == Length(target=20)
    assert find_reward("length", {"target": 20}) == Length(target=20)
    with pytest.raises(ConfigError, match="Did you mean 'target'"):
        find_reward("length", ["tarket=20"])
    with pytest.raises(ConfigError, match="takes no options, got x"):
        find_reward("sample", ["x=1"])
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Same:\n"
        "    value: float\n"
        "    def __call__(self, prompts, completions, meta):\n"
        "        return [self.value] * len(prompts)\n"
        "    def cache_key(self, prompt, completion, meta):\n"
        "        return completion\n"
    )
    found = pickle.loads(pickle.dumps(find_reward(f"{file}:Same", ["value=3"])))
    assert found(["a"], ["b"], [{}]) == [3.0]
    assert found.cache_key("a", "b", {}) == "b"


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("lenght", "Did you mean 'length'"),
        ("nowhere.at.all:x", "no 'nowhere'"),
        ("sample_rewards:none", "has no 'none'"),
        ("sample_rewards:WORD", "has no 'WORD'"),
        ("sharpen.align.rewards.registry:BUILT_IN", "cannot be called"),
    ],
)
def test_what_is_not_there_is_named(ref: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find_reward(ref)


def test_files_that_are_missing_or_broken_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"rules\.py"):
        find_reward(f"{tmp_path / 'rules.py'}:f")
    (tmp_path / "rules.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        find_reward(f"{tmp_path / 'rules.py'}:f")


def test_names_are_taken_once() -> None:
    for name in ("length", "sample", "", "a:b"):
        with pytest.raises(ConfigError):
            reward(name)(lambda prompts, completions, meta: [])
    assert set(BUILT_IN) <= set(reward_names())


NEEDED = {
    "length": {"target": 3},
    "pattern": {"pattern": "a+"},
    "score_model": {"path": "judge"},
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_reward_of_the_package_loads(name: str) -> None:
    assert callable(find_reward(name, NEEDED.get(name, {})))
