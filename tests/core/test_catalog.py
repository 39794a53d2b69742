from importlib import import_module
from pathlib import Path

import pytest

from sharpen.core.catalog import System, list_systems, markdown
from sharpen.core.errors import ConfigError


def test_the_catalog_has_sixty_rows_in_order() -> None:
    assert [row.number for row in list_systems()] == list(range(1, 61))


def test_rows_that_claim_something_have_their_evidence(repository: Path) -> None:
    claimed = [row for row in list_systems() if row.status != "planned"]
    assert claimed
    for row in claimed:
        assert row.module is not None
        import_module(row.module)
        for path in (f"docs/{row.page}", row.example, row.benchmark):
            assert (repository / str(path)).exists(), path


def test_the_papers_page_is_generated_from_the_catalog(repository: Path) -> None:
    assert (repository / "docs" / "papers.md").read_text() == markdown()


def test_a_claim_without_evidence_is_refused() -> None:
    row = {"number": 1, "system": "s", "paper": "p", "year": 2020, "room": "r", "gives": "g"}
    with pytest.raises(ConfigError, match="must be named"):
        System(**row, status="working")  # type: ignore[arg-type]
