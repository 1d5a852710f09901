"""The book as its readers see it: every page in a browser, wide and narrow, light and dark."""

from pathlib import Path
from statistics import median

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page
from test_book import Page as Html
from test_book import toc_pages

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Without "preload", which asks for style sheets at places where they are not.
AXE = {"resultTypes": ["violations"], "preload": False}
BYTES = 2_000_000


@pytest.fixture
def context(browser: Browser):
    with browser.new_context(
        viewport=WIDE, color_scheme="light", reduced_motion="reduce"
    ) as context:
        yield context


def listen(page: Page, site: str) -> list[str]:
    """What goes wrong while a page is open, and whom it asks besides its own site."""
    faults: list[str] = []
    own = (f"{site}/", "data:", "blob:")
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on("response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status > 399 else None)
    page.on("request", lambda r: None if r.url.startswith(own) else faults.append(r.url))
    return faults


def violations(page: Page) -> list[str]:
    """What axe finds to be serious or critical."""
    found = Axe().run(page, options=AXE).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found
        for node in rule["nodes"]
        if rule["impact"] in ("serious", "critical")
    ]


def switch_to(page: Page, mode: str) -> None:
    """Press the switch of the theme until its mode is this one: auto, light or dark."""
    for _ in range(3):
        if page.locator("html").get_attribute("data-mode") == mode:
            break
        page.locator("button.theme-switch-button:visible").first.click()
    assert page.locator("html").get_attribute("data-theme") == mode


@pytest.mark.parametrize("name", toc_pages())
def test_a_page_is_sound_for_all_its_readers(context: BrowserContext, site: str, name: str):
    page = context.new_page()
    faults = listen(page, site)
    page.goto(f"{site}/{name}.html", wait_until="networkidle")
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    switch_to(page, "light")
    assert violations(page) == []
    switch_to(page, "dark")
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(600)  # the theme waits for the end of resizing: what scrolls gets focus
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert faults == []


def test_a_fault_is_noticed(context: BrowserContext, site: str):
    page = context.new_page()
    faults = listen(page, site)
    page.goto(f"{site}/book/notation.html", wait_until="networkidle")
    page.set_content(
        "<html lang='en'><title>t</title><img src='/absent.png'><p style='width: 2000px'>x</p>"
        "<script>console.error('said'); throw new Error('thrown')</script></html>"
    )
    page.wait_for_load_state("networkidle")
    assert {"said", "thrown"} <= set(faults)
    assert any("absent.png" in fault for fault in faults)
    assert any(fault.startswith("image-alt") for fault in violations(page))
    assert page.evaluate("document.documentElement.scrollWidth") > WIDE["width"]


def test_pages_are_light(html: Path):
    """HTML and images of a page; what all pages share, and the browser keeps, is left out."""
    sizes = []
    for name in toc_pages():
        path = html / f"{name}.html"
        images = [image["src"] for image in Html(path).images()]
        own = {path.parent / image for image in images if not image.startswith("data:")}
        sizes.append(path.stat().st_size + sum(file.stat().st_size for file in own))
    assert median(sizes) < BYTES


def test_dark_figures_are_light_cards(context: BrowserContext, site: str):
    page = context.new_page()
    page.goto(f"{site}/notebooks/metrics.html")
    switch_to(page, "dark")
    image = page.locator("div.cell_output img").first
    assert image.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
    body = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    assert body != "rgb(255, 255, 255)"


def test_paper_shows_the_text_and_no_buttons(context: BrowserContext, site: str):
    page = context.new_page()
    page.goto(f"{site}/notebooks/metrics.html")
    page.emulate_media(media="print")
    assert page.locator("h1:visible").count() == 1
    assert page.locator("article img").first.is_visible()
    for hidden in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer", ".copybtn"):
        assert not page.locator(hidden).first.is_visible(), hidden
    cut = page.locator("article img").first.evaluate("e => getComputedStyle(e).breakInside")
    assert cut == "avoid"
