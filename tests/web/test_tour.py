"""The tour: chapters with the network's own numbers, by keys and by link, and its questions."""

from collections.abc import Callable

import pytest
from browser import Tab
from pages import Made

pytest_plugins = ["opening"]
Tabs = Callable[..., Tab]
Pages = Callable[[str], Made]
#: The chapters on the network that the study notes describe, and a number of each.
NOTES = {
    "The whole network": "60,965,224 parameters",
    "How large is the output?": "W = 224 pixels in steps of S = 4",
    "conv1: a sum of products": "48·2 = 96 kernels of 11 × 11 × 3",
    "pool1: only the largest stays": "55 × 55 × 96 becomes 27 × 27 × 96",
    "conv2: each tower for itself": "only the 48 maps of its own tower, not all 96",
    "pool2: who wins?": "27 × 27 × 256 becomes 13 × 13 × 256",
    "conv3: the towers meet": "192·2 = 384 kernels of 3 × 3 × 256",
    "conv3: one number, many products": "2,304 products",
    "conv4: apart again": "663,936 parameters, and conv3 needed 885,120",
    "conv4: one number from one tower": "1,728 products",
    "conv5: the last convolution": "128·2 = 256 kernels of 3 × 3 × 192",
    "pool5: the notes' Maxpool3": "it is 6 × 6 × 256",
}
BEYOND = {
    "ReLU: zero or itself": "conv1 pass",
    "Local response normalisation": "Map 47 is the last of tower 1. Its neighbours in tower 2 count too.",
    "Fully connected": "37,752,832 parameters: 61.9%",
    "Dropout: not every unit, every time": "multiplied by 0.5",
    "Softmax: from scores to probabilities": "1,000 scores become 1,000 probabilities",
    "Questions": "0 of 6 solved",
}


def told(one: Tab) -> tuple[str, str]:
    """Title and words of the chapter that is open."""
    one.settle()
    tour = one.page.locator("#tour")
    return tour.locator("h2").inner_text(), tour.inner_text().replace("\xa0", " ")


def test_by_arrow_keys(kept: Tabs) -> None:
    """From the first chapter to the last and back, in the order of the notes."""
    one = kept("full")
    one.goto(view="tour", step=0)
    for number, (title, words) in enumerate((NOTES | BEYOND).items()):
        assert told(one)[0] == title
        text = told(one)[1]
        assert words in text and f"{number + 1} of 18" in text and "{" not in text and "tour." not in text
        one.page.keyboard.press("ArrowRight")
    assert told(one)[0] == title and one.page.locator("#tour [data-role=next]").is_disabled()
    one.page.keyboard.press("ArrowLeft")
    assert told(one)[0] == [*BEYOND][-2]
    one.page.keyboard.press("Escape")
    assert one.page.locator("#tour").is_hidden()


def test_links(made: Pages, tab: Tabs) -> None:
    """A chapter has an address, which brings its view with it; one beyond the end is the last."""
    one = tab(locale="zh-CN").open(made("full").path, "#view=tour&step=11")
    assert told(one)[0] == "pool5：笔记里的 Maxpool3" and one.page.locator("main h1").inner_text().startswith("pool5")
    assert one.page.evaluate("alexnet.state.view") == "layer"
    one.goto(view="tour", step=7)
    assert one.page.locator("main h1").inner_text().startswith("conv3") and one.page.evaluate("alexnet.state.view") == "number"
    one.page.locator("main .stages a", has_text="conv5").click()  # looking around leaves the chapter open
    assert told(one)[0] == "conv3：一个数，许多乘积"
    one.goto(view="tour", step=99)
    assert told(one)[0] == "练习题"
    one.page.locator("[data-role=language]").click()
    assert told(one)[0] == "Questions"


@pytest.mark.parametrize("name", ["code-2012", "caffe", "owt", "torchvision", "changed", "one tower"])
def test_other_networks(name: str, made: Pages, kept: Tabs) -> None:
    """Numbers follow the network; a chapter whose layer is not there is left out."""
    one = kept(name)
    one.goto(view="tour", step=0)
    variant, seen = made(name).shown.variant, []
    while True:
        title, text = told(one)
        seen.append(title.split(":")[0])
        assert "{" not in text and "undefined" not in text and "NaN" not in text
        if one.page.locator("#tour [data-role=next]").is_disabled():
            break
        one.page.locator("#tour [data-role=next]").click()
    for layer in ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"):
        assert (layer in seen) == (layer in [op.name for op in variant.ops()])
    assert ("tanh" in seen) == (variant.activation == "tanh")
    assert ("Local response normalisation" in seen) == ("norm" in variant.block1)


def test_questions(kept: Tabs) -> None:
    """Known mistakes are named, answers taken as people write them, solutions worked out."""
    one = kept("full")
    one.goto(view="tour", step=17)

    def answer(question: str, words: str) -> str:
        item = one.page.locator(f"[data-question={question}]")
        if item.locator("input[type=radio]").count():
            item.locator(f"input[value={words}]").check()
        else:
            item.locator("input").fill(words)
        item.locator("button[type=submit]").click()
        return item.locator(".reply").inner_text()

    assert "the padding in it, 1 + 2, and the + 1" in answer("places_first", "54")
    assert "Right!" in answer("places_first", "55")
    assert "the first place counts too" in answer("places_pool", "26")
    assert "(55 − 3 + 0) / 2 + 1 = 27" in answer("places_pool", " 27 ")
    assert "each of the 96 kernels also has a bias" in answer("weights_first", "34848")
    assert "Right!" in answer("weights_first", "34,944")
    assert "reads only the 48 of its own tower" in answer("weights_own", "614,656")
    assert "a whole number" in answer("weights_own", "many")
    assert "256 × (5 × 5 × 48) + 256 = 307,456" in answer("weights_own", "307 456")
    assert "Not yet" in answer("meeting", "conv2")
    assert "Right!" in answer("meeting", "conv3")
    assert "Not yet" in answer("slip_notes", "input_size")
    assert "(13 − 3) / 2 + 1 = 6, so it is 6 × 6 × 256" in answer("slip_notes", "output_size")
    assert "All 6 solved" in one.page.locator(".quiz .score").inner_text()
    one.page.locator("[data-question=meeting] button[type=button]").click()
    assert "the maps of both towers" in one.page.locator("[data-question=meeting] .reply").inner_text()
    one.page.locator("[data-role=language]").click()  # answers stay
    assert one.page.locator("[data-question=weights_first] input").input_value() == "34,944"
    assert "6 道题全部答对" in one.page.locator(".quiz .score").inner_text()


def test_projector(made: Pages, tab: Tabs) -> None:
    """Everything is larger, until it is switched off or the tour ends."""
    one = tab(1280).open(made("paper").path, "#view=tour&step=2")
    size = "parseFloat(getComputedStyle(document.querySelector('#tour .said')).fontSize)"
    before = one.page.evaluate(size)
    one.page.locator("[data-role=projector]").click()
    assert one.page.evaluate(size) > 1.4 * before
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert one.page.locator("[data-role=projector]").get_attribute("aria-pressed") == "true"
    one.page.locator("#tour [data-role=close]").click()
    one.goto(view="tour", step=2)
    assert one.page.evaluate(size) == before
