import json
import sys
from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from sharpen.core.command import CommandProblem
from sharpen.core.errors import ConfigError
from sharpen.core.problem import Constraint, Fidelity, Objective, TrialContext, evaluate

SPACE = sh.Space(
    x=sh.Float(0, 1),
    word=sh.Categorical("plain", "two words", "$(touch harm); 'quoted' \"twice\" {x} *"),
    depth=sh.Int(1, 9).active_if(sh.Eq("word", "plain")),
    on=sh.Bool(),
    pair=sh.Categorical((1, 2), (3, 4)),
)
ECHO = "import json,sys; print('noise'); print(json.dumps({'y': 1.5, 'argv': sys.argv[1:]}))"


def make(command: str, folder: Path | None = None) -> CommandProblem:
    return CommandProblem(command, SPACE, [Objective("y")], folder=folder)


def config(**changes: Any) -> dict[str, Any]:
    return {"x": 0.1, "word": "two words", "on": True, "pair": (1, 2), **changes}


def test_values_are_single_arguments_whatever_characters_they_have(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    problem = make("python echo.py {x} --word={word} {on} {pair} '{x} and {x}'", tmp_path)
    for word in SPACE["word"].choices:  # type: ignore[attr-defined]
        feedback = evaluate(problem, config(word=word))
        assert feedback.status == "ok"
        assert feedback.objectives == {"y": 1.5}
        expected = ["0.1", f"--word={word}", "true", "[1, 2]", "0.1 and 0.1"]
        assert feedback.info["argv"] == expected
    assert not (tmp_path / "harm").exists()


def test_arguments_of_inactive_parameters_are_left_out_and_trial_and_seed_are_known() -> None:
    problem = make("run --depth={depth} {trial} {seed} {x}")
    context = TrialContext(number=4, seed=9)
    assert problem.command_line(config(), context) == ["run", "4", "9", "0.1"]
    assert problem.command_line(config(word="plain", depth=3), context)[1] == "--depth=3"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.stderr.write('no licence'); sys.exit(3)", "exit code 3:\nno licence"),
        ("import os; os.kill(os.getpid(), 9)", "died of signal SIGKILL"),
        ("print('hello')", "printed no line of JSON"),
        ("print('{broken')", "printed no line of JSON"),
        ("print('{\"z\": 1}')", "returned no 'y'"),
    ],
)
def test_a_command_that_fails_says_how(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "c.py").write_text(code)
    feedback = evaluate(make(f"{sys.executable} c.py {{x}}", tmp_path), config())
    assert feedback.status == "failed"
    assert message in str(feedback.error)


def test_the_last_line_of_json_counts(tmp_path: Path) -> None:
    lines = [json.dumps({"y": 1}), json.dumps({"y": 2}), "{not json", "done"]
    (tmp_path / "c.py").write_text(f"print({chr(10).join(lines)!r})")
    assert evaluate(make("python c.py", tmp_path), config()).objectives == {"y": 2.0}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("python a.py {y}", "placeholder {y}, which is no parameter"),
        ("python a.py {wrod}", "Did you mean 'word'"),
        ("python 'a.py", "cannot be split"),
        ("  ", "is empty"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_runs(command: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(command)
    with pytest.raises(ConfigError, match="given twice"):
        CommandProblem("a", SPACE, [Objective("y")], [Constraint("m"), Constraint("m")])


def test_a_program_that_does_not_exist_is_named() -> None:
    feedback = evaluate(make("no-such-program {x}"), config())
    assert "cannot start no-such-program 0.1: No such file" in str(feedback.error)


def test_metrics_come_from_a_file_or_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "w.py").write_text(
        "import sys; open(sys.argv[1], 'w').write('noise\\n{\"y\": 2.5}\\n'); print('y is 3.5')"
    )
    (tmp_path / "out-4").write_text('{"y": 1}')
    context = TrialContext(number=4)
    space, goals = sh.Space(x=sh.Float(0, 1)), [Objective("y")]

    def measured(metrics: str, command: str = "python w.py out-{trial}") -> Any:
        problem = CommandProblem(command, space, goals, folder=tmp_path, metrics=metrics)
        return evaluate(problem, {"x": 0.5}, context)

    assert measured("file:out-{trial}").objectives == {"y": 2.5}
    assert measured(r"regex:y is ([\d.]+)").objectives == {"y": 3.5}
    assert "printed nothing that" in (measured("regex:z is (.)").error or "")
    assert "which is no number" in (measured("regex:y (i)s").error or "")
    stale = measured("file:out-{trial}", "python -c pass")
    assert "wrote no file" in (stale.error or "")
    for wrong, message in (
        ("stderr", "must be stdout, file:PATH or regex:PATTERN"),
        ("regex:(", "cannot be read"),
        ("regex:no group", "must have one group"),
        ("file:{nothing}", "which is no parameter"),
    ):
        with pytest.raises(ConfigError, match=message):
            measured(wrong)


def test_lines_with_a_step_are_a_curve_and_a_hopeless_program_is_ended(tmp_path: Path) -> None:
    (tmp_path / "curve.py").write_text(
        "import json, time\n"
        "for k in range(4): print(json.dumps({'step': k, 'y': 10.0 - k}), flush=True)\n"
        "print(json.dumps({'y': 5.0}), flush=True)\n"
        "time.sleep(0)\n"
    )
    problem = CommandProblem("python curve.py", sh.Space(x=sh.Float(0, 1)), [Objective("y")],
                             folder=tmp_path)  # fmt: skip
    whole = evaluate(problem, {"x": 0.1}, TrialContext())
    assert [(p.step, p.value) for p in whole.trace] == [(0, 10), (1, 9), (2, 8), (3, 7)]
    assert (whole.status, whole.objectives) == ("ok", {"y": 5.0})
    (tmp_path / "curve.py").write_text(
        (tmp_path / "curve.py").read_text().replace("sleep(0)", "sleep(600)")
    )
    hopeless = TrialContext(on_report=lambda point: "stop" if point.step == 2 else "continue")
    ended = evaluate(problem, {"x": 0.1}, hopeless)
    assert (ended.status, ended.objectives) == ("pruned", {"y": 8.0})


def test_a_program_is_told_how_closely_to_measure(tmp_path: Path) -> None:
    (tmp_path / "e.py").write_text("import sys; print('{\"y\": %s}' % sys.argv[1])")
    fidelity = Fidelity("epochs", 1, 27, integer=True)
    problem = CommandProblem(
        "python e.py {epochs}", sh.Space(x=sh.Float(0, 1)), [Objective("y")],
        folder=tmp_path, fidelity=fidelity,
    )  # fmt: skip
    assert problem.command_line({}, TrialContext())[-1] == "27"
    assert evaluate(problem, {"x": 0.1}, TrialContext(fidelity=3.0)).objectives == {"y": 3.0}
    with pytest.raises(ConfigError, match="both a parameter and the fidelity"):
        CommandProblem("run", sh.Space(epochs=sh.Int(1, 2)), [Objective("y")], fidelity=fidelity)
