"""Stores in a bucket (a loopback server that speaks as much of S3 as reading takes) and in
fsspec's memory.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from alexnet.data import remote
from alexnet.data.prepare import prepare
from alexnet.data.store import Store
from alexnet.errors import StoreError, TrainingError
from alexnet.train import recipes
from alexnet.train.loop import train
from conftest import write_photos
from elsewhere import Elsewhere, elsewhere


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))


@pytest.fixture
def bucket(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    """A public bucket named `photos`, with the store in the folder `store`."""
    with elsewhere(store.folder.parent, prefix="/photos") as server:
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server.url, "anon": True})
        yield server


def same(own: Store, local: Store) -> bool:
    return own.fingerprint == local.fingerprint and all(
        np.array_equal(own.splits[name].take(slice(0, None)), split.take(slice(0, None)))
        for name, split in local.splits.items()
    )


def test_s3(bucket: Elsewhere, store: Store) -> None:
    own = Store("s3://photos/store")
    assert own.address == "s3://photos/store"
    assert same(own, store)
    assert own.verify() == []


@pytest.mark.parametrize("fault", ["cut", "corrupt", "whole as a part"])
def test_a_fault_of_s3_that_passes(bucket: Elsewhere, store: Store, fault: str) -> None:
    bucket.first(2, fault)
    assert same(Store("s3://photos/store"), store)


def test_a_fault_of_s3_that_stays(bucket: Elsewhere) -> None:
    own = Store("s3://photos/store")
    for fault, said in (("503", "could not be read in 3 attempts"), ("403", "may not be read"), ("cut", "could not be read")):
        bucket.fault = lambda _, fault=fault: fault
        with pytest.raises(StoreError, match=rf"^s3://photos/store/train.records, pictures 0 to 59, {said}"):
            own.train.take(np.array([0]))
    bucket.fault = lambda _: "403"
    with pytest.raises(StoreError, match="s3://photos/store/manifest.json may not be read"):
        Store("s3://photos/store")
    bucket.fault = lambda _: None
    with pytest.raises(StoreError, match="s3://photos/nothing/manifest.json does not exist"):
        Store("s3://photos/nothing")


def test_a_bucket_without_credentials(bucket: Elsewhere, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": bucket.url})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="cannot be read without credentials: set AWS_PROFILE .* or FSSPEC_S3_ANON=true"):
        Store("s3://photos/store")


@pytest.mark.parametrize("user", ["AKIA:s3cret@", "AKIA:s3/cret@", "AKIA@"])
def test_credentials_in_the_address_of_a_bucket(bucket: Elsewhere, user: str) -> None:
    """They are refused before anything is asked for, and said where to go."""
    with pytest.raises(
        StoreError, match=r"^s3://photos/store was given with .* leave them out, and set AWS_PROFILE or"
    ) as raised:
        Store(f"s3://{user}photos/store")
    assert "cret" not in str(raised.value) and bucket.asked == []


def test_a_name_that_no_bucket_has_is_not_tried_again(bucket: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoreError, match=r"^s3://my photos/store does not name a bucket: name one as in s3://BUCKET/STORE.$"):
        Store("s3://my photos/store")
    assert bucket.asked == [] and capsys.readouterr().err == ""


def test_in_memory_and_by_a_file_address(store: Store) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(store.folder), "/shelf/store", recursive=True)
    assert same(Store("memory://shelf/store"), store)
    assert same(Store(store.folder.as_uri()), store)
    memory.rm("/shelf", recursive=True)
    with pytest.raises(StoreError, match="memory://shelf/store/manifest.json does not exist"):
        Store("memory://shelf/store")


@pytest.mark.parametrize(("address", "module"), [("https://host/store", "aiohttp"), ("s3://photos/store", "s3fs")])
def test_a_package_that_is_not_installed(address: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})  # of those in use so far
    monkeypatch.setattr(sys.modules["fsspec.registry"], "registry", {})
    with pytest.raises(StoreError, match=rf"^{address} needs a package that is not installed: pip install 'alexnet\[remote\]'"):
        Store(address)


def test_a_path_that_was_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """It is not made a folder `https:`."""
    photos, here = write_photos(tmp_path / "photos", 2), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(StoreError, match="s3://photos/new is an address, but a store is written to a folder"):
        prepare([photos], "s3://photos/new")
    with pytest.raises(TrainingError, match="https://host/run is an address, but a run is written to a folder"):
        train(recipes.get_recipe("laptop"), store, Path("https://host/run"))
    assert list(here.iterdir()) == []
    with pytest.raises(StoreError, match=re.escape("https://host/store is not a folder: pass an address as text")):
        Store(Path("https://host/store"))
