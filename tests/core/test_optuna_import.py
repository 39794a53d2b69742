"""Studies of the real Optuna, taken over."""

import math
from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.optuna_import import import_optuna

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.peer
SPACE = sh.Space(
    x=sh.Float(-1, 1),
    lr=sh.Float(1e-5, 1e-1, log=True),
    grid=sh.Float(0, 1, step=0.25),
    kind=sh.Categorical("a", "b"),
    depth=sh.Int(1, 9, step=2).active_if(sh.In("kind", ["b"])),
    flag=sh.Bool(),
    one=sh.Fixed(7),
)


def objective(trial: Any) -> float:
    x = trial.suggest_float("x", -1, 1)
    trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    trial.suggest_float("grid", 0, 1, step=0.25)
    if trial.suggest_categorical("kind", ["a", "b"]) == "b":
        trial.suggest_int("depth", 1, 9, step=2)
    trial.suggest_categorical("flag", [False, True])
    trial.suggest_int("one", 7, 7)
    trial.report(x + 1, step=3)
    if trial.number == 3:
        raise optuna.TrialPruned
    if trial.number == 4:
        raise ValueError("broken")
    return float(x**2)


def run(url: str, name: str = "mine", trials: int = 12, **options: Any) -> Any:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(storage=url, study_name=name, sampler=sampler, **options)
    study.optimize(objective, n_trials=trials, catch=[ValueError])
    return study


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def test_trials_space_and_curves_are_taken_over_and_the_study_goes_on(
    url: str, tmp_path: Path
) -> None:
    theirs = run(url)
    ours = import_optuna(url, store=tmp_path / "s.db")
    assert ours.space == SPACE
    assert ours.counts() == {"ok": 10, "pruned": 1, "failed": 1}
    for old, new in zip(theirs.trials, ours.trials(), strict=True):
        assert new.config == old.params
        assert new.values == ({} if old.value is None else {"value": old.value})
        assert new.feedback is not None
        assert [(p.step, p.value) for p in new.feedback.trace] == [*old.intermediate_values.items()]
        assert new.feedback.cost["seconds"] == pytest.approx(old.duration.total_seconds())
        assert new.feedback.info == {"optuna_number": old.number}
    assert ours.best.config == theirs.best_params
    problem = sh.problem(SPACE, lambda c: float(c["x"] ** 2), minimize="value", name="mine")
    more = sh.Study(
        problem, optimizer="random", store=tmp_path / "s.db", budget=sh.Budget(trials=15)
    )
    assert more.run().counts() == {"ok": 13, "pruned": 1, "failed": 1}


def test_directions_and_infinities_are_kept(url: str, tmp_path: Path) -> None:
    study = optuna.create_study(storage=url, study_name="two", directions=["minimize", "maximize"])
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), math.inf), n_trials=2)
    ours = import_optuna(url, "two", store=tmp_path / "s.db", name="pair")
    assert [(o.name, o.direction) for o in ours.objectives] == [("value", "min"), ("value1", "max")]
    assert [t.values["value1"] for t in ours.trials()] == [math.inf, math.inf]
    assert ours.counts() == {"failed": 2}


def test_what_cannot_be_taken_over_is_explained(url: str, tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    with pytest.raises(MissingFileError, match="no such file"):
        import_optuna(url, store=store)
    (tmp_path / "text").write_text("no database at all " * 100)
    with pytest.raises(FileFormatError, match="cannot be read"):
        import_optuna(str(tmp_path / "text"), store=store)
    run(url)
    run(url, "other", trials=1)
    with pytest.raises(ConfigError, match="mine, other; name one"):
        import_optuna(url, store=store)
    with pytest.raises(ConfigError, match="Did you mean 'other'"):
        import_optuna(url, "othr", store=store)
    import_optuna(url, "mine", store=store)
    with pytest.raises(ConfigError, match="has a study 'mine' already"):
        import_optuna(url, "mine", store=store)
    with pytest.raises(FileFormatError, match="no tables of Optuna"):
        import_optuna(f"sqlite:///{store}", store=store)
    study = optuna.create_study(storage=url, study_name="moving")
    study.optimize(lambda t: t.suggest_float("x", 0, t.number + 1), n_trials=2)
    with pytest.raises(ConfigError, match="'x' changes from trial to trial"):
        import_optuna(url, "moving", store=store)
    study = optuna.create_study(storage=url, study_name="odd")
    study.optimize(lambda t: t.suggest_float(f"x{t.number}", 0, 1), n_trials=2)
    with pytest.raises(ConfigError, match="no single parameter decides"):
        import_optuna(url, "odd", store=store)
