import json
from collections.abc import Callable
from typing import Any

import pytest

from sharpen.core.catalog import list_systems

Invoke = Callable[..., Any]


def test_all_rows_are_printed_and_filters_narrow_them(invoke: Invoke) -> None:
    rows = json.loads(invoke("systems", "--json").out)
    assert len(rows) == len(list_systems())
    planned = json.loads(invoke("systems", "--status", "planned", "--json").out)
    assert 0 < len(planned) < len(rows)
    assert {row["status"] for row in planned} == {"planned"}
    room = rows[0]["room"]
    found = json.loads(invoke("systems", "--room", room, "--json").out)
    assert found == [row for row in rows if row["room"] == room]
    table = invoke("systems", "--status", "planned").out
    assert table.splitlines()[0].split() == ["#", "system", "room", "status", "gives"]
    assert planned[0]["system"] in table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--status", "plannd"], "Did you mean 'planned'"),
        (["--room", "kitchen"], "--room is one of"),
    ],
)
def test_unknown_filters_are_code_2(invoke: Invoke, words: list[str], message: str) -> None:
    done = invoke("systems", *words, "--json")
    assert done.code == 2
    assert message in json.loads(done.out)["error"]["message"]
