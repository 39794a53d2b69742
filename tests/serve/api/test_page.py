"""The chat page, in a real browser, against a real server."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
playwright = pytest.importorskip("playwright.sync_api")

# In the page, as a click from here may come after a quick answer's end.
STOP_AT_ONCE = """() => new MutationObserver((_, self) => {
    if ((document.querySelector(".assistant")?.textContent.length ?? 0) < 5) return;
    self.disconnect();
    document.getElementById("stop").click();
}).observe(document.body, {childList: true, subtree: true, characterData: true})"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "sharpen.cli.main", "serve", "tiny", "--port", "0"]
    command += ["--api-key", "secret", "--ui", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()


@pytest.fixture
def page(url: str) -> Iterator["playwright.Page"]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page()
        failures: list[str] = []
        opened.on("pageerror", lambda error: failures.append(str(error)))
        opened.goto(url)
        yield opened
        browser.close()
        assert failures == []


def give_key(page: "playwright.Page") -> None:
    page.fill("#key", "secret")
    page.press("#key", "Tab")
    playwright.expect(page.locator("#model option")).to_have_count(1)


def test_a_conversation_streams_and_goes_on(page: "playwright.Page") -> None:
    give_key(page)
    assert page.input_value("#model") == "tiny"
    page.fill("#tokens", "12")
    for number, text in enumerate(("Hello <b>there</b>", "And again"), start=1):
        page.fill("#text", text)
        page.press("#text", "Enter")
        playwright.expect(page.locator(".note")).to_have_count(number, timeout=30_000)
        assert page.locator(".user").nth(number - 1).inner_text() == text  # shown, not run
    assert page.locator(".assistant").count() == 2
    assert "tokens" in page.locator(".note").first.inner_text()
    assert page.locator(".error").count() == 0
    page.click("#clear")
    assert page.locator(".turn").count() == 0


def test_an_answer_can_be_stopped(page: "playwright.Page") -> None:
    give_key(page)
    page.fill("#tokens", "1900")
    page.fill("#text", "Tell me a long story")
    page.evaluate(STOP_AT_ONCE)
    page.click("#send")
    playwright.expect(page.locator(".assistant")).to_contain_text(re.compile("....."))
    page.wait_for_selector("#send:enabled")
    assert page.locator(".error").count() == 0


def test_what_the_server_refuses_is_shown(page: "playwright.Page") -> None:
    give_key(page)
    page.fill("#tokens", "999999")
    page.fill("#text", "Hello")
    page.click("#send")
    page.wait_for_selector(".error")
    assert "context" in page.locator(".error").inner_text()


def test_without_a_key_nothing_is_told(page: "playwright.Page") -> None:
    assert page.locator("#model option").count() == 0
