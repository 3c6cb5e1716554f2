"""Pages in a real browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright


@contextmanager
def open_page(address: str, chromium: str) -> Iterator[Page]:
    """The page at `address`. Fails if it asked for anything beside itself, or if a script of it broke."""
    requests: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        yield page
        browser.close()
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert errors == []


def check_plots(page: Page, names: Sequence[str]) -> None:
    """Fail unless each of these plots is there, and large enough to be read."""
    for name in names:
        box = page.locator(f"#plot-{name} svg").bounding_box()
        assert box is not None, name
        assert box["width"] > 300, name
        assert box["height"] > 150, name
