"""What the page looks like and who can use it: no text over another, nothing beyond the sides, one
language at a time, the keyboard alone, axe's rules, light and dark.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import Tab
from pages import Made

pytest_plugins = ["opening"]
Tabs = Callable[..., Tab]
Pages = Callable[[str], Made]
LOOKS = Path(__file__).with_name("looks.js").read_text(encoding="utf-8")
#: Width, height and language: a telephone, a laptop, a screen, a projector's wall.
SCREENS = ((390, 844, "zh"), (1280, 800, "en"), (1920, 1080, "zh"), (3840, 2160, "en"))


def views(made: Made, all_layers: bool) -> Iterator[dict[str, Any]]:
    """States of the page: each view, of each kind of layer or of all layers."""
    yield {"view": "network"}
    kinds: set[str] = set()
    for layer in made.shown.variant.layers():
        if all_layers or layer.kind not in kinds:
            kinds.add(layer.kind)
            yield {"view": "layer", "layer": layer.name}
            yield {"view": "number", "layer": layer.name}
    yield {"view": "number", "layer": "softmax"}
    yield {"view": "unit", "layer": "conv2"}
    for step in (0, 1, 7, 99):
        yield {"view": "tour", "step": step}


def data(made: Made) -> list[str]:
    """What the page shows of the network and the picture, in whatever language that is."""
    network, picture = made.scene.description["network"], made.scene.description["picture"]
    variant = made.shown.variant.name
    return [network["name"], network["label"], picture["name"], variant, *made.shown.classes]


def complaints(one: Tab, made: Made, language: str, states: Iterator[dict[str, Any]]) -> list[str]:
    """What is wrong with the looks of each state."""
    found = []
    for state in states:
        one.goto(**{"step": None, **state})
        found += [f"{state}: {said}" for said in one.page.evaluate(LOOKS, [language, data(made)])]
    return found


@pytest.mark.parametrize(("width", "height", "language"), SCREENS)
def test_every_view(width: int, height: int, language: str, made: Pages, kept: Tabs) -> None:
    page, one = made("full"), kept("full", language, width, height)
    assert complaints(one, page, language, views(page, all_layers=width == 1280)) == []


@pytest.mark.parametrize("name", ["code-2012", "caffe", "caffenet", "owt", "torchvision", "changed", "one tower", "thousand"])
def test_every_network(name: str, made: Pages, kept: Tabs) -> None:
    """Names of classes in every script, wide or narrow, one tower or two, whatever was removed."""
    page = made(name)
    for width, height, language in SCREENS[:2]:
        one = kept(name, language, width, height)
        assert complaints(one, page, language, views(page, all_layers=False)) == []


#: Every view once, as far as rules of accessibility and keys are concerned.
RULED = [
    {"view": "network"},
    *({"view": "layer", "layer": name} for name in ("conv1", "conv3", "fc6")),
    *({"view": "number", "layer": name} for name in ("conv1", "norm1", "relu1", "pool1", "drop6", "fc6", "softmax")),
    {"view": "unit", "layer": "conv5"},
    *({"view": "tour", "step": step} for step in (1, 7, 99)),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: str, made: Pages, tab: Tabs) -> None:
    one, found = tab(color_scheme=scheme).open(made("paper").path), []
    for state in RULED if scheme == "light" else RULED[::3]:
        one.goto(**{"step": None, **state})
        for rule in Axe().run(one.page).response["violations"]:
            found.append((state, rule["id"], rule["help"], [node["html"][:150] for node in rule["nodes"]][:3]))
    assert found == []


REACHABLE = "a[href], button:not(:disabled), input, select, textarea, [tabindex='0']"
#: What is not reached by Tab, and what takes clicks but no keys. Of radio buttons Tab reaches one;
#: the faces of the network have links beside them.
LEFT_OUT = """reached => {
  const shown = element => element.checkVisibility() && !element.closest("[hidden]");
  const wanted = [...document.querySelectorAll(REACHABLE)].filter(shown).filter(one => one.type !== "radio");
  const clicked = [...document.querySelectorAll("#app *")].filter(shown)
    .filter(one => getComputedStyle(one).cursor === "pointer" && !one.closest(`${REACHABLE}, label, option, .face`));
  return [...wanted.filter(one => !one.dataset.reached), ...clicked.filter(one => one.getAttribute("aria-hidden") !== "true")]
    .map(one => one.outerHTML.slice(0, 120));
}""".replace("REACHABLE", f'"{REACHABLE}"', 1).replace("${REACHABLE}", REACHABLE)


def test_keyboard_alone(made: Pages, tab: Tabs) -> None:
    """Tab reaches whatever can be used, shows where it is, and gets out again."""
    one = tab().open(made("one tower").path)
    for state in RULED:
        one.goto(**{"step": None, **state})
        one.page.evaluate("document.activeElement.blur()")
        names = []
        for _ in range(400):
            one.page.keyboard.press("Tab")
            names.append(one.page.evaluate("document.activeElement.dataset.reached = 1, document.activeElement.tagName"))
            if names[-1] == "BODY":
                break
        assert names[-1] == "BODY", f"{state}: no way out"
        assert one.page.evaluate(LEFT_OUT) == [], state
        if state["view"] == "network":
            links = one.page.locator("figure.network a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
            layers = [layer.name for layer in made("one tower").shown.variant.layers()]
            assert [name for name in layers if not any(f"layer={name}" in link for link in links)] == []
    one.goto(view="network", step=None)
    one.page.keyboard.press("Tab")
    one.page.keyboard.press("Tab")
    assert one.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_colours_and_motion(made: Pages, tab: Tabs) -> None:
    """Light and dark as the system has it, or as chosen; nothing moves for who asks for that."""
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = (tab(color_scheme=one).open(made("paper").path).page for one in ("light", "dark"))
    assert light.evaluate(background) != dark.evaluate(background)
    button = light.locator("[data-role=theme]")
    button.click()
    assert light.evaluate(background) != dark.evaluate(background)
    button.click()
    assert light.evaluate(background) == dark.evaluate(background)
    still = tab(reduced_motion="reduce").open(made("paper").path).page
    moving = "[...document.querySelectorAll('*')].filter(one => !/^0s(, 0s)*$/.test(getComputedStyle(one).transitionDuration)).length"
    assert still.evaluate(moving) == 0 and still.evaluate("document.getAnimations().length") == 0


def test_prints(made: Pages, tab: Tabs) -> None:
    """Ink on white, without what only a screen can use."""
    page = tab(color_scheme="dark").open(made("paper").path).page
    page.emulate_media(media="print")
    assert page.locator("[data-role=theme]").is_hidden() and page.locator("main h1").is_visible()
    assert page.pdf()[:5] == b"%PDF-"
