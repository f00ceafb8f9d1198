"""The Python of docs/inspect.md runs, from its first block to its last."""

import re
from pathlib import Path

import pytest

from alexnet.data.store import Store
from conftest import draw

GUIDE = Path(__file__).parents[2] / "docs/inspect.md"


def test_the_guide(run: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 5
    (tmp_path / "run").symlink_to(run)
    (tmp_path / "store").symlink_to(store.folder)
    draw((200, 50, 40), 77, (90, 61)).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert {"model", "projection", "best", "box", "terms"} <= set(names)
