"""A headless Chromium that is on this machine; it reaches no network, and none is installed for it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def opened(path: Path, **context: Any) -> Iterator[Any]:
    """Open a page from a file; whatever it asks for besides itself, or complains of, is a failure."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium is installed ({', '.join(NAMES)})")
    from playwright.sync_api import sync_playwright

    problems: list[str] = []
    address = path.absolute().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*OPTIONS])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 800}, **context)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text))
            page.on(
                "request",
                lambda request: None if request.url.startswith(("data:", address)) else problems.append(request.url),
            )
            page.goto(address)
            yield page
            assert problems == []
        finally:
            browser.close()
