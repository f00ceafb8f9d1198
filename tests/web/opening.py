"""Fixtures of the tests in a browser: pages made once, and tabs to open them in."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from browser import Tab, installed, launch
from pages import Made, make
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """`made(name)` is the page of one of the networks of `pages.py`."""
    folder = tmp_path_factory.mktemp("explained")
    return cache(lambda name: make(name, folder))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. It ends with a file's tests: its event loop would be in the way of others."""
    installed()
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """`tab(width, height, locale, ...)` opens an empty tab. At the end nothing was asked of another
    place, and nothing went wrong in one.
    """
    opened: list[Tab] = []

    def new(width: int = 1280, height: int = 800, locale: str = "en-GB", **options: Any) -> Tab:
        context = browser.new_context(viewport={"width": width, "height": height}, locale=locale, **options)
        opened.append(Tab(context.new_page()))
        return opened[-1]

    yield new
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def kept(browser: Browser, made: Callable[[str], Made]) -> Iterator[Callable[..., Tab]]:
    """`kept(name, language, width, height)` is a tab with the page of one of the networks, at its
    first view. It is opened once for a file's tests, as a full page takes seconds.
    """
    opened: dict[str, Tab] = {}

    def get(name: str, language: str = "en", width: int = 1280, height: int = 800) -> Tab:
        if name not in opened:
            opened[name] = Tab(browser.new_page(locale="en-GB")).open(made(name).path)
        one = opened[name]
        one.page.set_viewport_size({"width": width, "height": height})
        one.page.evaluate("language => { document.activeElement.blur(); alexnet.speak(language) }", language)
        one.goto(view="network", step=None)
        return one

    yield get
    for one in opened.values():
        one.close()
