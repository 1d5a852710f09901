"""The book as its readers see it: opened page by page in a browser, from a server of its own."""

from playwright.sync_api import Browser
from test_book import toc_pages


def test_every_page_opens_without_a_fault_and_asks_nobody_else(browser: Browser, site: str):
    for name in toc_pages():
        page, faults = browser.new_page(), []
        page.on("console", lambda m, f=faults: f.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error, f=faults: f.append(str(error)))
        page.on("requestfailed", lambda request, f=faults: f.append(request.url))
        page.on(
            "request",
            lambda request, f=faults: (
                None if request.url.startswith((site, "data:", "blob:")) else f.append(request.url)
            ),
        )
        page.goto(f"{site}/{name}.html", wait_until="networkidle")
        page.close()
        assert faults == [], name
