"""The page's server: every answer, and what it refuses."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from demo import make, make_aligned
from fastapi.testclient import TestClient

from sharpen.core.files import FileLock
from sharpen.core.study_view import load_study
from sharpen.ui.app import make_app


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make(tmp_path_factory.mktemp("ui"))


@pytest.fixture
def client(made: tuple[Path, Path]) -> Any:
    store, runs = made
    return TestClient(make_app([str(store)], runs), base_url="http://127.0.0.1")


def test_every_answer_about_studies(client: TestClient, made: tuple[Path, Path]) -> None:
    rows = client.get("/api/studies").json()
    assert {row["name"] for row in rows} == {"one", "other", "two goals"}
    assert client.get("/api/studies/0/one").json()["counts"] == {"ok": 36, "failed": 4}
    view = load_study(made[0], "one")
    history = client.get("/api/studies/0/one/history").json()["loss"]
    assert history["best"][-1] == view.best.value
    assert len(client.get("/api/studies/0/one/sample?points=20").json()) <= 21
    assert len(client.get("/api/studies/0/one/timeline").json()) == 40
    shares = client.get("/api/studies/0/one/importance").json()
    assert next(iter(shares["parameters"])) == "width"
    assert "needs 8 trials" not in str(shares)
    page = client.get("/api/studies/0/one/trials?limit=3&state=failed").json()
    assert [row["state"] for row in page] == ["failed"] * 3
    assert len(client.get("/api/studies/0/one/trials/0").json()["trace"]) == 3
    compared = client.get("/api/compare", params={"of": ["0/one", "0/other"]}).json()
    assert [row["name"] for row in compared["studies"]] == ["one", "other"]
    assert [curve["name"] for curve in compared["curves"]] == ["one", "other"]


def test_runs_and_the_studies_among_them(client: TestClient, made: tuple[Path, Path]) -> None:
    assert [row["id"] for row in client.get("/api/runs").json()] == ["demo"]
    run = client.get("/api/runs/demo").json()
    assert run["series"]["train/loss"]["value"][:2] == [1.0, 0.5]
    assert run["summary"] == {"eval": {"accuracy": 0.9}}
    assert {a["name"] for a in run["artifacts"]} == {"metrics.jsonl", "summary.json"}
    client = TestClient(make_app([], made[0].parent), base_url="http://localhost")
    assert client.get("/api/studies").json() == []
    (made[1] / "tuned").mkdir()
    with (
        contextlib.closing(sqlite3.connect(made[0])) as old,
        contextlib.closing(sqlite3.connect(made[1] / "tuned" / "study.db")) as new,
    ):
        old.backup(new)
    client = TestClient(make_app([], made[1]), base_url="http://localhost")
    assert len(client.get("/api/studies").json()) == 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/studies/0/none", 409),
        ("/api/studies/9/one", 404),
        ("/api/studies/x/one", 422),
        ("/api/studies/0/one/trials/999", 404),
        ("/api/studies/0/one/trials?limit=0", 422),
        ("/api/studies/0/one/importance?objective=none", 404),
        ("/api/compare?of=0/one", 422),
        ("/api/compare?of=0/one&of=nonsense", 422),
        ("/api/compare?of=0/one&of=0/two%20goals", 409),
        ("/api/runs/none", 404),
        ("/api/runs/..%2f..%2fetc", 404),
        ("/api/runs/../s.db", 404),
        ("/secret.js", 404),
    ],
)
def test_what_is_not_there_is_said(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.json()


def test_nothing_comes_from_elsewhere_and_strangers_get_nothing(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("/app.js", "/charts.js", "/style.css", "/plotly.js"):
        assert client.get(name).status_code == 200
    for name in ("/", "/app.js", "/charts.js", "/style.css"):
        assert "http" not in client.get(name).text.replace("http-equiv", "")
    assert client.get("/api/studies", headers={"host": "evil.example"}).status_code == 400
    assert client.post("/api/studies").status_code == 405
    assert client.delete("/api/studies/0/one").status_code == 405


def test_a_store_that_is_not_there_yet_is_shown_once_it_is(tmp_path: Path) -> None:
    client = TestClient(make_app([str(tmp_path / "later" / "s.db")]), base_url="http://127.0.0.1")
    assert client.get("/api/studies").json() == []
    assert client.get("/api/studies/0/one").status_code == 404
    assert not (tmp_path / "later").exists()
    (tmp_path / "later").mkdir()
    make(tmp_path / "later")
    assert len(client.get("/api/studies").json()) == 3


def test_a_run_that_aligns_has_panels_remarks_and_samples(tmp_path: Path) -> None:
    make_aligned(tmp_path / "runs" / "sick")
    client = TestClient(make_app([], tmp_path / "runs"), base_url="http://127.0.0.1")
    run = client.get("/api/runs/sick").json()
    assert list(run["stages"]) == ["rl"]
    panels = {one["title"]: one for one in run["stages"]["rl"]["panels"]}
    assert panels["Reward"]["lines"] == {"reward": "mean", "reward_std": "standard deviation"}
    assert panels["KL divergence from the reference"]["unit"] == "nats a token"
    assert "Critic: error" not in panels  # nothing of it is logged
    remarks = {one["signal"]: one["text"] for one in run["stages"]["rl"]["remarks"]}
    assert list(remarks) == ["truncated", "kl_k3", "engine_gap"]
    assert "sampling.max_tokens" in remarks["truncated"]
    assert run["samples"] == {"rl": list(range(1, 13))}
    told = client.get("/api/samples?run=sick&stage=rl&step=1").json()
    (row,) = told
    assert row["completion"].startswith(r"<i>no</i> ␛[31m␀ \u202ex")
    assert len(row["completion"]) < 20_100
    assert "[… 10," in row["completion"]
    assert client.get("/api/samples?run=sick&stage=rl&step=2").json()[0]["reward"] is None
    assert client.get("/api/samples?run=sick&stage=rl&step=99").json() == []
    for wrong in ("run=none&stage=rl", "run=sick&stage=none", "run=..&stage=rl"):
        assert client.get(f"/api/samples?{wrong}&step=1").status_code == 404
    assert client.get("/api/samples?run=sick&stage=rl&step=x").status_code == 422


def test_half_written_samples_and_recipes_are_no_trouble(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "torn"
    make_aligned(run)
    (run / "samples-rl.jsonl").write_bytes(
        b'[1]\n\xff\xfe\n{"step": "x"}\n{"prompt": "later", "step": 7, "reward": NaN}\n'
        b'{"step": 8, "prompt": "a{"step": 9, "prompt": "b"}\n'
    )
    client = TestClient(make_app([], tmp_path / "runs"), base_url="http://127.0.0.1")
    assert client.get("/api/runs/torn").json()["samples"]["rl"][0] == 7
    (row,) = client.get("/api/samples?run=torn&stage=rl&step=7").json()
    assert row == {"prompt": "later", "completion": "", "reward": None, "version": None}
    assert client.get("/api/samples?run=torn&stage=rl&step=8").json() == []
    for text in ("rl: [", "- 1", "rl: 3"):
        (run / "resolved.yaml").write_text(text)
        assert client.get("/api/runs/torn").json()["stages"] == {}


def test_a_run_is_under_way_while_a_process_holds_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "two"
    make_aligned(run)
    client = TestClient(make_app([], tmp_path / "runs"), base_url="http://127.0.0.1")

    def told() -> tuple[bool, bool]:
        return client.get("/api/runs").json()[0]["done"], client.get("/api/runs/two").json()["done"]

    assert told() == (False, False)
    (run / "summary.json").write_text('{"rl": {}}')
    assert told() == (True, True)
    with FileLock(run / ".lock"):  # a later stage goes on
        assert told() == (False, False)
    assert told() == (True, True)
