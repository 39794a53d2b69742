"""Data sets of samples: each configuration once, with who tried it, there and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sharpen as sh
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.problems.arch import Dataset, Sample, make

SPACE = sh.Space(
    kind=sh.Categorical("a", "b"),
    n=sh.Int(0, 5),
    x=sh.Float(0, 1).active_if(sh.Eq("kind", "b")),
)


def sample(n: int, value: float, agent: str = "ga") -> Sample:
    return Sample({"kind": "a", "n": n}, {"y": value}, agent, f"study-{agent}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s.db"
    problem = make(workload="cloud-2", requests=100)
    for name in ("random", "ga", "aco"):
        budget = sh.Budget(trials=40)
        sh.Study(problem, optimizer=name, store=path, name=f"dram-{name}", budget=budget).run()
    other = sh.problem(SPACE, lambda config: {"y": config["n"]}, minimize="y", name="other")
    sh.Study(other, optimizer="random", store=path, budget=sh.Budget(trials=5)).run()
    return path


def test_trials_of_studies_become_one_sample_a_configuration(store: Path) -> None:
    found = Dataset.from_studies(store, "dram-*")
    views = [sh.Study.load(store, f"dram-{name}") for name in ("random", "ga", "aco")]
    trials = [t for view in views for t in view.trials()]
    digests = {found.space.digest(t.config) for t in trials}
    assert found.given == len(trials) == 120
    assert len(found) == len(digests) < 120
    assert {found.space.digest(s.config) for s in found} == digests
    assert found.names == ("bandwidth", "energy", "latency", "power", "reward")
    assert set(found.agents) == {"random", "ga", "aco"}
    problem = make(workload="cloud-2", requests=100)
    for one in found[:10]:
        assert one.values == problem.evaluate(one.config)
    first = {found.space.digest(t.config): t.origin for t in reversed(trials)}
    assert all(one.agent == first[found.space.digest(one.config)] for one in found)
    assert found.values("power").shape == (len(found),)
    assert len(found[np.array([3, 1])]) == 2
    assert found[0] in list(found)
    assert "samples of aco, ga, random" in repr(found)
    assert len(Dataset.from_studies(store, ["dram-ga"])) <= 40


def test_equal_configurations_must_have_measured_the_same() -> None:
    twice = [sample(1, 2.0), sample(2, 3.0), sample(1, 2.0, "de")]
    assert [(s.agent, s.values["y"]) for s in Dataset(SPACE, twice)] == [("ga", 2.0), ("ga", 3.0)]
    differ = [sample(1, 2.0), sample(1, 4.0, "de")]
    with pytest.raises(DataError, match="'study-ga' and 'study-de' measured y=2 and 4"):
        Dataset(SPACE, differ)
    [mean] = Dataset(SPACE, differ, conflicts="mean")
    assert mean.values == {"y": 3.0}
    with pytest.raises(DataError, match="has z; others have y"):
        Dataset(SPACE, [sample(1, 2.0), Sample({"kind": "a", "n": 2}, {"z": 1.0}, "a", "b")])


def test_studies_that_do_not_fit_are_an_error(store: Path) -> None:
    with pytest.raises(ConfigError, match="different spaces"):
        Dataset.from_studies(store)
    with pytest.raises(ConfigError, match=r"no study of .* fits 'none-\*'"):
        Dataset.from_studies(store, "none-*")
    with pytest.raises(ConfigError, match=r"no study 'dram-gaa'. Did you mean 'dram-ga'"):
        Dataset.from_studies(store, ["dram-gaa"])
    with pytest.raises(ConfigError, match=r"no 'powr'. Did you mean 'power'"):
        Dataset.from_studies(store, "dram-ga").values("powr")
    with pytest.raises(ConfigError, match="conflicts='last'"):
        Dataset(SPACE, [], conflicts="last")  # type: ignore[arg-type]


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**32),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["ga", "ä/b", ""]),
    ),
    max_size=12,
    unique_by=lambda row: row[0],
)


@given(ROWS, st.sampled_from([".jsonl", ".parquet"]))
def test_files_come_back_as_they_were(rows: list[tuple[int, float, str]], suffix: str) -> None:
    import tempfile

    samples = []
    for seed, value, agent in rows:
        [config] = SPACE.sample(1, seed=seed)
        samples.append(Sample(config, {"y": value, "z": 1.0}, agent, "s"))
    try:
        made = Dataset(SPACE, samples)
    except DataError:  # two seeds drew one configuration
        made = Dataset(SPACE, samples, conflicts="mean")
    with tempfile.TemporaryDirectory() as folder:
        made.save(path := Path(folder) / f"a{suffix}")
        back = Dataset.load(path)
    assert list(back) == list(made)
    assert back.space == SPACE
    assert back.given == made.given


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "ends in .jsonl or .parquet"),
        ("a.jsonl", "", "is no data set of samples"),
        ("a.jsonl", '{"schema": "other"}\n', "is no data set of samples"),
        ("a.jsonl", "{]\n", "a.jsonl:1 is no JSON"),
        ("a.parquet", "PAR1", "cannot be read as a data set"),
    ],
)
def test_damaged_files_say_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    (path := tmp_path / name).write_text(text)
    with pytest.raises(FileFormatError, match=message):
        Dataset.load(path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    Dataset(SPACE, [sample(1, 2.0)]).save(path := tmp_path / "a.jsonl")
    good = path.read_text()
    line: Any
    for line in ('{"config": {"n": 99}}', "3", '{"config": {"kind": "a", "n": 1}, "values": 2}'):
        path.write_text(good + line + "\n")
        with pytest.raises(FileFormatError, match=r"a.jsonl:3: this is no sample"):
            Dataset.load(path)
    with pytest.raises(MissingFileError, match="no data set"):
        Dataset.load(tmp_path / "none.jsonl")
    with pytest.raises(FileFormatError, match="ends in"):
        Dataset(SPACE, []).save(tmp_path / "a.csv")
