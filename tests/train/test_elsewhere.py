"""A run on a store at an address: the bits of one on the local store, and commands that name it."""

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from runs import log, recipe, same_weights

from alexnet import engines
from alexnet.cli import main
from alexnet.data import remote, remote_records
from alexnet.data.prepare import prepare
from alexnet.data.store import Store
from alexnet.ensemble import evaluate_average
from alexnet.errors import Interrupted, StoreError
from alexnet.train.announce import warn_unless_shuffled
from alexnet.train.history import read_config
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.result import read_result
from elsewhere import Elsewhere, Fault, Request, elsewhere
from stopping import stop_after


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


def test_the_same_answers(server: Elsewhere, store: Store, run: Path) -> None:
    """Also where weights of an average are fitted on every second picture."""
    classifiers = [engines.load(run, "torch")] * 2
    results = [evaluate_average(classifiers, one, fit=True).as_json() for one in (store, Store(server.url + "/store"))]
    assert results[0] == results[1]


def test_the_commands(
    server: Elsewhere,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Trained with a password in the address, which no output and no file of the run has. The
    commands that are printed for it run once the password is in ~/.netrc.
    """
    known = f"Basic {b64encode(b'ann:s3cret').decode()}"
    server.fault = lambda request: None if request.authorization == known else "401"
    run, address = tmp_path / "run", server.url.replace("http://", "http://ann:s3cret@") + "/store"
    small = ("--width", 0.125, "--epochs", 1, "--batch-size", 10, "--compile", "off", "--device", "cpu")
    assert call("train", "laptop", "--data", address, "--out", run, *small) == 0
    *_, lacks, following = capfd.readouterr().err.splitlines()
    shown, place = server.url + "/store", "write `machine HOST login USER password PASSWORD` into ~/.netrc"
    assert (
        lacks == f"The address in the next command lacks its user and password, which are not printed: complete it, or {place}."
    )
    assert following == f"Next: alexnet evaluate {run} --data {shown}"
    for words in (("report", run, "--data", address), ("verify", address)):
        assert call(*words) == 0
    said = capfd.readouterr()
    assert shown in said.out and "s3cret" not in said.out + said.err
    assert said.err.splitlines()[-2:] == [lacks, f"Next: alexnet train laptop --data {shown} --out run"]
    netrc = tmp_path_factory.mktemp("home") / ".netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    evaluating = following.split()[2:]
    assert call(*evaluating) == 2
    assert f"(the server answered 401): check the address and the credentials. If they are not given yet, {place}, or put" in (
        capfd.readouterr().err
    )
    netrc.write_text("machine 127.0.0.1 login ann password s3cret\n")
    assert call(*evaluating) == call("verify", run) == 0
    assert call("train", "--config", run, "--out", tmp_path / "again") == 0
    assert same_weights(run, tmp_path / "again")
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 10 and not any(b"s3cret" in text for text in texts)
    said = capfd.readouterr()
    assert "s3cret" not in said.out + said.err


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Ten blocks of 256 pictures, class by class, as folders are."""
    folder = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 2560), ("t10k", 60)):
        labels = np.sort(np.arange(count) % 3).astype(np.uint8)
        images = (rng.integers(0, 100, (count, 8, 8)) + 50 * labels[:, None, None]).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (folder / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
    return prepare([folder], tmp_path_factory.mktemp("www") / "store", size=72, workers=1, shuffle=True)


def faulty() -> Callable[[Request], Fault | None]:
    """Each part fails twice before it comes, in one way after the other."""
    ways, tries = cycle(("cut", "503", "corrupt", "short", "whole as a part")), Counter[Request]()

    def fault(request: Request) -> Fault | None:
        tries[request] += 1
        return next(ways) if request.start is not None and tries[request] % 3 else None

    return fault


def test_a_store_larger_than_its_cache(long: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits of the local store, also of a run that is stopped and goes on, and from a server
    that fails two times in three; each block is fetched about once an epoch.
    """
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_records, "THREADS", 2)
    block = 256 * 72 * 72 * 3 // 2
    monkeypatch.setenv("ALEXNET_CACHE_GB", str(7.5 * block / 1e9))
    asked = recipe(shuffle_blocks=2, batch_size=64, width=1 / 16)
    train(asked, long, tmp_path / "local")
    with elsewhere(long.folder.parent) as server:
        store = Store(server.url + "/store")
        with pytest.raises(
            StoreError, match=r"train.records \(19.9 MB\) does not fit .*--shuffle-blocks 2, or set ALEXNET_CACHE_GB"
        ):
            train(replace(asked, shuffle_blocks=None), store, tmp_path / "refused")
        with pytest.raises(StoreError, match=r"shuffle_blocks \(=3\) would fetch its blocks over and over"):
            train(replace(asked, shuffle_blocks=3), store, tmp_path / "refused")
        server.asked.clear()
        server.fault = faulty()
        with monkeypatch.context() as patch:
            stop_after(patch, SGD, "step", 50)
            with pytest.raises(Interrupted):
                train(asked, store, tmp_path / "run")
        train(asked, Store(server.url + "/store"), tmp_path / "run", resume=True)
        fetched = [one for one in server.asked if one.start is not None and "train" in one.path]
    assert same_weights(tmp_path / "local", tmp_path / "run")
    assert sum(path.stat().st_size for path in (tmp_path / "cache" / "blocks").iterdir()) <= 7.5 * block
    assert 10 < len(fetched) / 3 < 40


def test_pictures_class_by_class_are_told(long: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The store in random order is not; one in the order of its labels is."""
    order = np.argsort(long.train.labels, kind="stable")
    split = replace(long.train, labels=long.train.labels[order])
    for one, told in ((long.train, False), (split, True)):
        warn_unless_shuffled(2, one, long)
        assert ("are not in random order: a block has 1.2 classes instead of 3.0" in capfd.readouterr().err) == told
