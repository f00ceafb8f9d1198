"""Names of any language in pictures: cut to size, in a font that has their
letters, without a warning.
"""

import io
from pathlib import Path

import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from alexnet import lettering
from alexnet.lettering import drawable, fonts, shortened

NAMES = (
    "cat",
    "大熊猫",
    "ねこ",
    "고양이",
    "قطة كبيرة",
    "שלום",
    "हिन्दी",
    "ไทย",
    "👨‍👩‍👧",
    "\U00013000",
    "$x^$",
    "caf\udce9",
    "a\x1b[2Jb",
    "e\u0301",
    "\u202eabc",
    "x" * 300,
)


@pytest.mark.parametrize("name", NAMES)
def test_no_warning(name: str) -> None:
    """Warnings are errors in these tests; a missing letter would raise one."""
    short = drawable(shortened(name, 24))
    figure = Figure(layout="constrained")
    figure.subplots().set_title(short, fontfamily=fonts([short]), parse_math=False)
    figure.savefig(io.BytesIO(), format="png")


def test_a_machine_without_such_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_files", dict)
    lettering._covering.cache_clear()
    try:
        assert drawable("熊 cat") == "\N{REPLACEMENT CHARACTER} cat" and fonts(["熊 cat"]) == ["sans-serif"]
        test_no_warning("大熊猫")
    finally:
        lettering._covering.cache_clear()


def test_a_font_is_found_where_there_is_one() -> None:
    if not any("CJK" in entry.name for entry in font_manager.fontManager.ttflist):
        pytest.skip("this machine has no Chinese font")
    assert drawable("大熊猫 cat") == "大熊猫 cat"
    assert fonts(["大熊猫"])[0] == "sans-serif" and len(fonts(["大熊猫"])) == 2
    assert fonts(["cat"]) == ["sans-serif"]


def test_a_font_file_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Matplotlib's list of fonts may be older than the fonts."""
    monkeypatch.setattr(lettering, "_files", lambda: {"Gone Sans": str(tmp_path / "gone.ttf")})
    lettering._covering.cache_clear()
    try:
        assert drawable("熊") == "\N{REPLACEMENT CHARACTER}"
    finally:
        lettering._covering.cache_clear()


def test_shortened() -> None:
    assert shortened("tabby cat", 9) == "tabby cat"
    assert shortened("Carcharodon carcharias, great white shark", 20) == "Carcharodon c… shark"
    assert shortened("大熊猫大熊猫大熊猫大熊猫", 10) == "大熊猫…猫"  # two columns each
    assert shortened("abcdefghije\u0301fg", 10) == "abcdef…e\u0301fg"
    assert shortened("abcdefghijxe\u0301f", 7)[-1] == "f" and "…\u0301" not in shortened("abcdefghijxe\u0301f", 7)
    assert shortened("a\nb", 9) == r"a\nb"
