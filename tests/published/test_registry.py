"""The list of published files: what it says, and which of them a file is."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from alexnet import variants
from alexnet.errors import CheckpointError, UsageError
from alexnet.published import download, registry
from alexnet.published.registry import Published, TarMember

CONTENT, OTHER = b"one file", b"another"


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def published(content: bytes, **fields: Any) -> Published:
    sha256, sha1 = hashlib.sha256(content).hexdigest(), hashlib.sha1(content).hexdigest()
    return Published(
        name="test",
        file="test.bin",
        url="http://none/test.bin",
        bytes=len(content),
        sha256=sha256,
        sha1=sha1,
        licence="none",
        **fields,
    )


def test_entries_are_sound() -> None:
    assert len(set(registry.names())) == len({entry.file for entry in registry.REGISTRY}) == len(registry.REGISTRY)
    for entry in registry.REGISTRY:
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        assert entry.sha1 is None or re.fullmatch(r"[0-9a-f]{40}", entry.sha1)
        assert entry.url.endswith(f"/{entry.file}") and download._address(entry.url)
        assert entry.companion is None or registry.get_published(entry.companion).member
        if entry.variant:
            assert entry.top1 and entry.top5 and 50 < entry.top1 < entry.top5 < 100 and entry.protocol
            # float32 parameters are nearly all of the file; the rest is names and shapes
            assert 0 < entry.bytes - 4 * variants.get_variant(entry.variant).parameters < 20_000


def test_torchvisions_names_carry_their_hashes() -> None:
    """The eight digits in the name are the first of the SHA-256: torch.hub's own check."""
    for entry in registry.REGISTRY:
        if match := re.search(r"-([0-9a-f]{8})\.pth$", entry.file):
            assert entry.sha256.startswith(match[1])
    assert round(registry.get_published("torchvision").bytes / 2**20, 3) == 233.087  # as torchvision's own table says


def test_get() -> None:
    assert registry.get_published("caffe").file == "bvlc_alexnet.caffemodel"
    with pytest.raises(UsageError, match=r"'cafe'.*did you mean 'caffe'\?.*torchvision-2016"):
        registry.get_published("cafe")
    with pytest.raises(UsageError, match="known are caffe"):
        download.pull("resnet50")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("ALEXNET_CACHE", "/own")
    assert registry.cache_folder() == Path("/own")
    monkeypatch.delenv("ALEXNET_CACHE")
    assert registry.cache_folder() == Path("/x/alexnet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert registry.cache_folder() == Path.home() / ".cache" / "alexnet"


def test_rows(cache: Path) -> None:
    assert [row["name"] for row in registry.rows()] == list(registry.names())
    assert {row["cached"] for row in registry.rows()} == {None}
    cache.mkdir()
    entry = registry.get_published("caffe-mean")
    with open(cache / entry.file, "wb") as file:
        file.truncate(entry.bytes)
    (row,) = (row for row in registry.rows() if row["cached"])
    assert row["name"] == "caffe-mean" and row["cached"] == str(cache / entry.file) and row["mb"] == 17.9


def test_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = published(CONTENT)
    monkeypatch.setattr(registry, "REGISTRY", (registry.REGISTRY[0], entry))
    (tmp_path / "any name").write_bytes(CONTENT)
    found = registry.verify(tmp_path / "any name")
    assert found.entry is entry and (found.bytes, found.sha256, found.sha1) == (len(CONTENT), entry.sha256, entry.sha1)
    (tmp_path / "test.bin").write_bytes(OTHER)
    found = registry.verify(tmp_path / "test.bin")
    assert found.entry is None and found.sha256 == hashlib.sha256(OTHER).hexdigest()
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            registry.verify(path)


def test_verify_knows_the_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = TarMember(file="mean.binaryproto", most=1000, sha1=hashlib.sha1(b"mean").hexdigest())
    entry = published(b"a tar", member=member)
    monkeypatch.setattr(registry, "REGISTRY", (entry,))
    (tmp_path / "x").write_bytes(b"mean")
    assert registry.verify(tmp_path / "x").entry is entry
