"""The page in a real browser, against a real server."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo import make, make_aligned, one

import sharpen as sh
from sharpen.core.metrics import MetricsLog

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
playwright = pytest.importorskip("playwright.sync_api")
playwright.expect.set_options(timeout=60_000)  # machines that test are busy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    found = make(tmp_path_factory.mktemp("page"))
    make_aligned(found[1] / "sick")
    return found


@pytest.fixture(scope="module")
def url(made: tuple[Path, Path]) -> Iterator[str]:
    command = [sys.executable, "-m", "sharpen.cli.main", "ui", "--port", "0", "--json"]
    command += ["--store", str(made[0]), "--runs", str(made[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()


@pytest.fixture
def page(url: str) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        failures: list[str] = []
        opened.on("pageerror", lambda error: failures.append(str(error)))
        opened.on(
            "console", lambda note: failures.append(note.text) if note.type == "error" else None
        )
        opened.goto(url)
        yield opened
        browser.close()
        assert failures == []


def test_a_study_is_shown_from_every_side(page: Any) -> None:
    page.get_by_role("link", name="one", exact=True).click()
    playwright.expect(page.locator("h1", has_text="one")).to_be_visible()
    playwright.expect(page.locator("#history-0 .scatterlayer")).to_be_visible()
    assert "36 ok" in page.inner_text("#cards")
    for tab, node in (
        ("Parameters", ".grid .chart"),
        ("Parallel", "#parallel .scatterlayer"),
        ("Importance", "#importance-0 .barlayer"),
        ("Timeline", "#timeline .barlayer"),
    ):
        page.click(f"role=tab[name='{tab}']")
        playwright.expect(page.locator(node).first).to_be_visible()
    page.click("role=tab[name='Parameters']")
    playwright.expect(page.locator("#slice-kind .xtick").first).to_contain_text("<b>bold</b>")
    page.click("role=tab[name='Trials']")
    playwright.expect(page.locator("tbody tr")).to_have_count(40)
    page.select_option("#state", "failed")
    playwright.expect(page.locator("tbody tr")).to_have_count(4)
    page.click("tbody tr >> nth=0 >> button")
    playwright.expect(page.locator("#detail .error")).to_contain_text("no <i>luck</i>")
    playwright.expect(page.locator("#trace .scatterlayer")).to_be_visible()
    assert page.locator("#detail i, td b").count() == 0  # values are text, never markup


def test_several_goals_have_a_pareto_set(page: Any) -> None:
    page.get_by_role("link", name="two goals", exact=True).click()
    page.click("role=tab[name='Pareto']")
    playwright.expect(page.locator("#pareto .scatterlayer")).to_be_visible()
    assert page.locator("tbody tr").count() >= 1


def test_studies_are_compared_and_runs_are_shown(page: Any) -> None:
    page.check("input[aria-label='compare one']")
    page.check("input[aria-label='compare other']")
    page.click("#compare")
    playwright.expect(page.locator("#compare .scatterlayer")).to_be_visible()
    playwright.expect(page.locator("tbody tr")).to_have_count(2)
    page.click("#home")
    page.get_by_role("link", name="demo", exact=True).click()
    playwright.expect(page.locator(".grid .scatterlayer")).to_be_visible()
    playwright.expect(page.locator("pre").first).to_contain_text("accuracy")


def test_an_alignment_shows_its_health_and_its_samples(page: Any, made: tuple[Path, Path]) -> None:
    page.get_by_role("link", name="sick", exact=True).click()
    reward = page.locator("figure", has_text="Reward")
    playwright.expect(reward.locator(".scatterlayer .trace")).to_have_count(2)
    playwright.expect(reward.locator(".ytitle")).to_have_text("reward")
    captions = page.locator("#panels figcaption").all_inner_texts()
    assert "Critic: error" not in captions
    remarks = page.locator("#remarks p")
    playwright.expect(remarks).to_have_count(3)
    playwright.expect(remarks.first).to_contain_text("75% of the completions were cut off")
    samples = page.locator("#samples")
    playwright.expect(samples.locator("output")).to_have_text("step 12: 12 of 12")
    playwright.expect(samples.locator("tbody tr")).to_contain_text("say 12")
    slider = samples.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    playwright.expect(samples.locator("output")).to_have_text("step 1: 1 of 12")
    playwright.expect(samples.locator("tbody tr")).to_contain_text("<i>no</i> ␛[31m␀")
    assert samples.locator("td b, td i").count() == 0  # texts of a model are never markup
    page.keyboard.press("ArrowRight")
    playwright.expect(samples.locator("tbody tr")).to_contain_text("none")
    playwright.expect(page.locator("#live")).to_have_text("live")
    with page.expect_response(lambda answer: answer.url.endswith("/api/runs/sick")):
        MetricsLog(made[1] / "sick" / "metrics.jsonl").append("rl", "clip_high", 0.5, 12)
    playwright.expect(remarks).to_have_count(4)  # what is new is drawn, and the slider stays
    playwright.expect(page.locator("figure", has_text="Clipped")).to_be_visible()
    playwright.expect(samples.locator("output")).to_have_text("step 2: 2 of 12")


def test_a_study_under_way_is_followed(page: Any, made: tuple[Path, Path]) -> None:
    page.get_by_role("link", name="other", exact=True).click()
    playwright.expect(page.locator("#cards")).to_contain_text("36 ok")
    more = sh.Study(
        one, optimizer="random", store=made[0], name="other", budget=sh.Budget(trials=42)
    )
    more.run()
    playwright.expect(page.locator("#cards")).to_contain_text("38 ok")


def test_what_is_not_there_is_said(page: Any, url: str) -> None:
    # The browser itself tells of the answer 409, which is no failure of the page.
    page.goto(f"{url}/#/")
    page.evaluate("location.hash = '#/study/0/one/Nonsense'")
    playwright.expect(page.locator("#history-0 .scatterlayer")).to_be_visible()
