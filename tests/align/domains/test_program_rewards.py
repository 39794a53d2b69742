import math

import pytest

from sharpen.align.domains import ProgramReward
from sharpen.align.domains.programs import cost
from sharpen.align.rewards import RewardPool
from sharpen.core.errors import ConfigError, DataError

TESTS = [["1234", "4321"], ["5566", "6655"], ["7777", "7777"]]
ABOUT = {"tests": TESTS, "solution": "r"}
PROGRAMS = ["r", "Rrr", "i", "lllllp", "9="]


def test_kinds() -> None:
    about = [ABOUT] * 5
    assert ProgramReward()([""] * 5, PROGRAMS, about) == [1.0, 1.0, -0.3, -0.6, -1.0]
    share = ProgramReward(kind="share")([""] * 3, ["r", "s", "??"], about[:3])
    assert share == [1.0, 1 / 3, 0.0]
    inputs = tuple(given for given, _ in TESTS)
    fast, slow, *rest = ProgramReward(kind="speed")([""] * 5, PROGRAMS, about)
    ratio = math.log(cost("r", inputs) / cost("Rrr", inputs)) / math.log(4)
    assert (fast, slow) == (0.5, pytest.approx(0.5 + 0.5 * max(ratio, -1)))
    assert rest == [-0.3, -0.6, -1.0]


def test_the_sandbox_gives_the_same() -> None:
    for kind in ("outcome", "speed"):
        here = ProgramReward(kind=kind)  # type: ignore[arg-type]
        isolated = ProgramReward(kind=kind, isolated=True)  # type: ignore[arg-type]
        values = isolated([""] * 5, PROGRAMS, [ABOUT] * 5)
        isolated.close()
        assert values == pytest.approx(here([""] * 5, PROGRAMS, [ABOUT] * 5), abs=0.03)


def test_it_runs_in_the_pool() -> None:
    with RewardPool("programs", workers=1) as pool:
        assert pool.score([""] * 2, ["r", "s"], [ABOUT] * 2).values == [1.0, -0.3]
        assert pool.score([""], ["r"], [{}]).reasons == ["raised"]


def test_wrong_settings_and_rows_are_named() -> None:
    with pytest.raises(ConfigError, match="kind='best'"):
        ProgramReward(kind="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="isolated=True"):
        ProgramReward(kind="share", isolated=True)
    with pytest.raises(DataError, match="'tests'"):
        ProgramReward()([""], ["r"], [{}])
    with pytest.raises(DataError, match="'solution'"):
        ProgramReward(kind="speed")([""], ["r"], [{"tests": TESTS}])
