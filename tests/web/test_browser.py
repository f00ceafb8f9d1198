"""The page in a real browser: it asks for nothing, shows names as text, says what is wrong."""

import threading
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from browser import Tab
from pages import NAMES, Made

from alexnet.web import server
from alexnet.web.shown import Offer
from alexnet.words import word

pytest_plugins = ["opening"]
Tabs = Callable[..., Tab]
Pages = Callable[[str], Made]
LANGUAGES = (("en", "en-GB"), ("zh", "zh-CN"))
LIMIT = 1_000_000  # bytes of a picture that the server takes


@pytest.fixture(scope="module")
def address(made: Pages) -> Iterator[str]:
    """A server of the page with a small network."""
    shown = made("paper").shown
    studio = server.Studio({"small": Offer(shown.label, shown.source, lambda: shown)}, max_pixels=1_000_000, max_bytes=LIMIT)
    listening = server.listen(0)
    serving = uvicorn.Server(server.configured(server.create_app(studio)))
    thread = threading.Thread(target=serving.run, args=([listening],))
    thread.start()
    yield server.address(listening)
    serving.should_exit = True
    thread.join(30)
    listening.close()


@pytest.mark.parametrize("name", ["full", "paper"])
def test_opens_from_a_file(name: str, made: Pages, tab: Tabs) -> None:
    """Without a request, which the fixture holds, in the language of the browser."""
    for language, locale in LANGUAGES if name == "paper" else LANGUAGES[:1]:
        page = tab(locale=locale).open(made(name).path).page
        assert page.locator("html").get_attribute("lang") == {"en": "en", "zh": "zh-Hans"}[language]
        assert made(name).shown.variant.name in page.locator("main").inner_text()


def test_names_are_text(made: Pages, tab: Tabs) -> None:
    """Those of classes and files: markup in them is shown, not obeyed."""
    one = tab().open(made("caffe").path)
    views = (
        {"view": "network"},
        {"view": "number", "layer": "fc8"},
        {"view": "number", "layer": "softmax"},
        {"view": "unit", "layer": "fc8"},
    )
    for view in views:
        one.goto(**view)
        text = one.page.locator("main").inner_text()
        assert one.page.locator("main img[onerror], main b").count() == 0
        if view["view"] == "network":
            assert all(name in text for name in NAMES)  # of all five classes, the first being the file's name too
    assert one.page.title() != "hit"


@pytest.mark.parametrize(("language", "locale"), LANGUAGES)
def test_an_old_browser(language: str, locale: str, made: Pages, tab: Tabs) -> None:
    """One sentence, in the reader's language."""
    page = tab(locale=locale).page
    page.add_init_script("delete window.DecompressionStream")
    page.goto(made("paper").path.as_uri())
    said = page.locator("[role=alert]")
    said.wait_for()
    assert "DecompressionStream" in said.inner_text()
    assert ("浏览器" in said.inner_text()) == (language == "zh")


def test_served(address: str, tab: Tabs) -> None:
    """Under its policy the page opens, and nothing but its own origin is asked for anything."""
    one = tab()
    answers: list[str] = []
    one.page.on("response", lambda answer: answers.append(answer.headers.get("content-security-policy", "")))
    one.open(address)
    assert "default-src 'none'" in answers[0] and "unsafe" not in answers[0]
    assert len(one.asked) > 5 and one.page.locator("main h1").count() == 1
    evaluated = "new Promise(done => setTimeout(() => { try { done(eval('1')) } catch { done('refused') } }))"
    assert one.page.evaluate(evaluated) == "refused"
    one.faults.clear()  # what the browser says of that


@pytest.mark.parametrize(("language", "locale"), LANGUAGES)
@pytest.mark.parametrize(
    ("picture", "key"),
    [
        (b"no picture at all", "error_not_a_picture"),
        (b"\x89PNG\r\n\x1a\nand no more", "error_damaged"),
        (b"\xff\xd8\xff" + bytes(LIMIT), "error_bytes"),
    ],
    ids=["text", "damaged", "large"],
)
def test_bad_pictures(picture: bytes, key: str, language: str, locale: str, address: str, tab: Tabs) -> None:
    """The server's sentence is on the page, in the reader's language, and the page goes on."""
    one = tab(locale=locale).open(address)
    one.page.locator("input[type=file]").first.set_input_files({"name": "x.jpg", "mimeType": "image/jpeg", "buffer": picture})
    start = word(key, language, limit=LIMIT // 1_000_000).split("{")[0][:12]
    one.page.get_by_text(start).first.wait_for(timeout=5000)
    one.faults.clear()  # a browser writes each 4xx to its console
    one.goto(view="network")
