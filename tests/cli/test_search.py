import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sharpen.cli.main import build_app


def call(*arguments: str, code: int = 0) -> Any:
    """Run a command with ``--json`` in this process; returns its document."""
    result = CliRunner().invoke(build_app(list(arguments)), [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def text(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(build_app(list(arguments)), list(arguments))
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def study(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example study with few trials, run in a folder of its own."""
    for name in ("study.yaml", "objective.py"):
        shutil.copy(repository / "examples" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    call("search", "run", "study.yaml", "budget.trials=5", "workers=2")
    return tmp_path


def test_a_study_file_is_run_resumed_and_inspected(study: Path) -> None:
    store = ["--store", "sqlite:///s.db"]
    first = call("search", "show", "chaos", *store)
    assert first["trials"] == {"ok": 5}
    more = call("search", "run", "study.yaml", "budget.trials=8")
    assert more["trials"] == {"ok": 8}
    trials = call("search", "trials", "chaos", *store)
    assert [t["number"] for t in trials] == list(range(8))
    best = min(trials, key=lambda t: t["values"]["y"])
    assert call("search", "best", "chaos", *store) == best == more["best"]
    assert call("search", "pareto", "chaos", *store) == [best]
    assert call("search", "trials", "chaos", *store, "--state", "failed") == []
    (listed,) = call("search", "list", *store)
    assert (listed["name"], listed["trials"]) == ("chaos", {"ok": 8})
    assert listed["objectives"] == {"y": "min"}
    exported = call("search", "export", *store, "chaos", "trials.jsonl")
    assert exported == {"study": "chaos", "trials": 8, "output": "trials.jsonl"}
    rows = [json.loads(line) for line in (study / "trials.jsonl").read_text().splitlines()]
    assert rows == trials
    assert call("search", "report", *store, "chaos", "r.html")["report"] == "r.html"
    assert "Study chaos" in (study / "r.html").read_text()


def test_people_read_tables(study: Path) -> None:
    store = ["--store", "s.db"]
    shown = text("search", "show", "chaos", *store)
    assert "trials: 5 ok" in shown
    assert "best:" in shown
    for command in (["list"], ["best", "chaos"], ["pareto", "chaos"], ["trials", "chaos"]):
        assert "ok" in text("search", *command, *store)
    assert "5 trials: t.csv" in text("search", "export", "chaos", "t.csv", *store)
    assert "r.html" in text("search", "report", "chaos", "r.html", *store)
    ran = text("search", "run", "study.yaml", "budget.trials=6")
    assert "trial 5: y" in ran


def test_deleting_needs_force(study: Path) -> None:
    refused = call("search", "delete", "chaos", "--store", "s.db", code=2)
    assert "its 5 trials. Add --force" in refused["error"]["message"]
    assert call("search", "delete", "chaos", "--store", "s.db", "--force")["trials"] == 5
    assert call("search", "list", "--store", "s.db") == []


def test_errors_name_what_there_is(study: Path) -> None:
    missing = call("search", "show", "chao", "--store", "s.db", code=2)
    assert "Did you mean 'chaos'" in missing["error"]["message"]
    nowhere = call("search", "list", "--store", "none.db", code=2)
    assert nowhere["error"]["type"] == "MissingFileError"
    (study / "bad.yaml").write_text("command: x\nspace: {}\nbudget: {trials: 1}\nminimize: y\n")
    assert "bad.yaml:2" in call("search", "run", "bad.yaml", code=2)["error"]["message"]


def test_several_objectives_show_the_pareto_set_and_a_study_without_results_says_so(
    study: Path,
) -> None:
    (study / "two.py").write_text('import sys; print(\'{"a": %s, "b": 1}\' % sys.argv[1])')
    common = "store: t.db\nspace: {x: {type: float, low: 0, high: 1}}\nbudget: {trials: 3}\n"
    (study / "two.yaml").write_text(common + "command: python two.py {x}\nminimize: [a, b]\n")
    assert "Pareto set:" in text("search", "run", "two.yaml")
    (study / "none.yaml").write_text(common + "command: python none.py {x}\nminimize: a\n")
    output = text("search", "run", "none.yaml", code=1)
    assert "no trial ended well" in output
    assert "trial 0: failed: " in output
    document = call("search", "show", "none", "--store", "t.db")
    assert document["best"] is None
    assert document["trials"] == {"failed": 3}


def test_help_loads_neither_torch_nor_the_store() -> None:
    code = (
        "import sys; sys.argv = ['sharpen', *sys.argv[1:]]\n"
        "from sharpen.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'sqlalchemy', 'numpy', 'plotly') if m in sys.modules])"
    )
    for arguments in (["--help"], ["search", "--help"], ["tune", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_a_study_is_joined_and_resumed_from_its_store_alone(study: Path) -> None:
    store = ["--store", "sqlite:///s.db"]
    before = call("search", "trials", "chaos", *store)
    (study / "study.yaml").unlink()
    assert call("search", "work", "chaos", *store)["trials"] == {"ok": 5}
    more = call("search", "resume", "chaos", *store, "--trials", "7")
    assert more["trials"] == {"ok": 7}
    assert call("search", "trials", "chaos", *store)[:5] == before
    elsewhere = study / "elsewhere"
    elsewhere.mkdir()
    (study / "objective.py").rename(elsewhere / "objective.py")
    moved = call("search", "resume", "chaos", *store, "--trials", "8")
    assert moved["trials"] == {"ok": 7, "failed": 1}
    there = call("search", "work", "chaos", *store, "--folder", str(elsewhere), "--workers", "1")
    assert there["trials"] == {"ok": 7, "failed": 1}
    assert "which is not here" in text(
        "search", "work", "chaos", *store, "--folder", str(study / "no"), code=2
    )


def test_studies_are_compared(study: Path) -> None:
    call("search", "run", "study.yaml", "name=even", "optimizer=sobol", "budget.trials=8")
    found = call("search", "compare", "chaos", "even", "--store", "sqlite:///s.db")
    assert found["objectives"] == {"y": "min"}
    first, second = found["studies"]
    assert (first["name"], first["optimizers"], first["trials"]) == ("chaos", ["random"], 5)
    assert list(second["best_after"]) == ["5", "8"]
    assert second["best_after"]["8"] == second["best"] <= second["best_after"]["5"]
    shown = text("search", "compare", "chaos", "even", "--store", "sqlite:///s.db")
    assert "@5" in shown
    assert "two studies or more" in text(
        "search", "compare", "chaos", "--store", "sqlite:///s.db", code=2
    )


def test_algorithms_are_listed_with_what_they_can() -> None:
    rows = {row["name"]: row for row in call("search", "algorithms")}
    assert rows["random"]["can"]["multi_objective"] is True
    assert rows["auto"]["can"] is None
    assert "21,201 dimensions" in text("search", "algorithms")


def test_problems_are_listed_and_run_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = {row["name"]: row for row in call("search", "problems")}
    assert rows["synthetic"]["about"] == "A function with a known minimum."
    assert "function" in rows["synthetic"]["arguments"]
    (tmp_path / "b.yaml").write_text(
        "name: b\nproblem: {name: synthetic, function: branin}\noptimizer: sobol\n"
        "budget: {trials: 3}\n"
    )
    assert call("search", "run", "b.yaml")["trials"] == {"ok": 3}
    assert "synthetic" in text("search", "problems")


def test_a_store_is_checked(study: Path) -> None:
    store = ["--store", "sqlite:///s.db"]
    found = call("search", "doctor", *store)
    assert found["whole"]
    assert found["studies"] == [{"name": "chaos", "trials": {"ok": 5}, "lost": []}]
    code = (
        "import os, sharpen as sh\n"
        "from sharpen.core.study_file import load_study_file\n"
        "study = load_study_file('study.yaml', ['budget.trials=8'])\n"
        "study.ask()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert call("search", "doctor", *store)["studies"][0]["lost"] == [5]
    assert "1 of lost workers, begun again by the next" in text("search", "doctor", *store)
    with closing(sqlite3.connect("s.db")) as connection:
        connection.execute("vacuum into 'copy.db'")
    whole = (study / "copy.db").read_bytes()
    codes = set()
    for page in range(1, len(whole) // 4096):
        damaged = whole[: page * 4096] + b"\xa5" * 4096 + whole[(page + 1) * 4096 :]
        (study / f"{page}.db").write_bytes(damaged)
        line = ["search", "doctor", "--store", f"{page}.db"]
        result = CliRunner().invoke(build_app(line), line)
        assert "damaged" in result.output
        codes.add(result.exit_code)
    assert codes <= {1, 2}  # 2 where the store cannot even be opened


def test_optimizers_are_compared_on_a_study_and_on_known_functions(study: Path) -> None:
    line = ["search", "bench", "study.yaml", "--optimizers", "sobol,random", "--quick"]
    found = call(*line)
    (problem,) = found["problems"]
    assert problem["objective"] == {"name": "y", "direction": "min"}
    assert {row["optimizer"] for row in problem["rows"]} == {"sobol", "random"}
    assert "mean place" in text(*line)  # from what is in the store
    known = call("search", "bench", "--optimizers", "sobol", "--quick", "--store", "k.db")
    assert [one["name"] for one in known["problems"]][:2] == ["branin", "hartmann6"]
    assert all(one["rows"][0]["regret"] > 0 for one in known["problems"])
