"""A run on a store at an address: the bits of one on the local store, and commands that name it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import log, recipe, same_weights

from alexnet.cli import main
from alexnet.data.store import Store
from alexnet.train.history import read_config
from alexnet.train.loop import train
from alexnet.train.result import read_result
from elsewhere import Elsewhere, elsewhere


@pytest.fixture
def server(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    with elsewhere(store.folder.parent) as server:
        yield server


def call(*words: object) -> int:
    try:
        return main(list(map(str, words))) or 0
    except SystemExit as end:
        return int(end.code or 0)


def test_the_same_bits(server: Elsewhere, store: Store, tmp_path: Path) -> None:
    train(recipe(), store, tmp_path / "local")
    train(recipe(), Store(server.url + "/store"), tmp_path / "run")
    assert same_weights(tmp_path / "local", tmp_path / "run")
    assert log(tmp_path / "local") == log(tmp_path / "run")
    config = read_config(tmp_path / "run")
    assert config.store.folder == read_result(tmp_path / "run")["store"]["folder"] == server.url + "/store"
    assert config.store.fingerprint == store.fingerprint


def test_the_commands(server: Elsewhere, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Trained with a password in the address, which no output and no file of the run has."""
    run, address = tmp_path / "run", server.url.replace("http://", "http://ann:s3cret@") + "/store"
    small = ("--width", 0.125, "--epochs", 1, "--batch-size", 10, "--compile", "off", "--device", "cpu")
    assert call("train", "laptop", "--data", address, "--out", run, *small) == 0
    shown = address.replace(":s3cret", "")
    assert f"alexnet evaluate {run} --data {shown}" in capfd.readouterr().err
    for words in (
        ("evaluate", run, "--data", address),
        ("verify", address),
        ("verify", run),
        ("report", run, "--data", address),
    ):
        assert call(*words) == 0
    assert call("train", "--config", run, "--out", tmp_path / "again") == 0
    assert same_weights(run, tmp_path / "again")
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 10 and not any(b"s3cret" in text for text in texts)
    said = capfd.readouterr()
    assert shown in said.out and "s3cret" not in said.out + said.err
