"""A store at an address: the same bits as the local one whatever the server does, or an error that
names the file.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from alexnet.cli import main
from alexnet.data import remote, remote_records
from alexnet.data.block_cache import BlockCache
from alexnet.data.loader import in_order
from alexnet.data.prepare import prepare
from alexnet.data.resample import origin, resampled
from alexnet.data.store import Store, seal
from alexnet.errors import StoreError
from elsewhere import Elsewhere, Fault, Request, elsewhere

COUNT, SIZE = 700, 16  # in blocks of 256, 256 and 188


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of several blocks. Read only."""
    folder = tmp_path_factory.mktemp("published")
    rng = np.random.default_rng(0)
    for prefix, count in (("train", COUNT), ("t10k", 60)):
        images, labels = rng.integers(0, 256, (count, 6, 6), dtype=np.uint8), (np.arange(count) % 3).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (folder / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
    return prepare([folder], tmp_path_factory.mktemp("www") / "store", size=SIZE, workers=1)


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and no pause between attempts."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))


@pytest.fixture
def server(published: Store) -> Iterator[Elsewhere]:
    with elsewhere(published.folder.parent) as server:
        yield server


def same_records(store: Store, local: Store) -> bool:
    picked = np.random.default_rng(1).permutation(COUNT)[:200]
    return all(
        np.array_equal(store.train.take(which), local.train.take(which))
        for which in (picked, slice(0, COUNT), slice(250, 260), slice(40, 40), np.array([699, 0, 699]))
    )


# --- the same bits --------------------------------------------------------------------------------


def test_it_is_the_local_store(server: Elsewhere, published: Store) -> None:
    store = Store(server.url + "/store/")
    assert store.address == server.url + "/store" == origin(store)
    assert store.fingerprint == published.fingerprint
    assert store.train.files == published.train.files and store.skipped == published.skipped
    assert np.array_equal(store.train.labels, published.train.labels)
    assert np.array_equal(store.mean_image, published.mean_image)
    assert store.train.records.shape == published.train.records.shape
    assert store.train.records.nbytes == published.train.records.nbytes
    assert same_records(store, published)
    for own, local in zip(in_order(store.held_out, 7), in_order(published.held_out, 7), strict=True):
        assert np.array_equal(own.records, local.records) and np.array_equal(own.labels, local.labels)


def test_each_file_and_block_is_fetched_once(server: Elsewhere, published: Store) -> None:
    for _ in range(2):
        assert same_records(Store(server.url + "/store"), published)
    asked = [request for request in server.asked if not request.path.endswith("manifest.json")]
    assert len(asked) == len(set(asked)) == 6 + 3  # mean, skipped, labels and names of two splits; blocks
    assert len(server.asked) - len(asked) == 2


def test_only_what_is_needed_is_fetched(server: Elsewhere) -> None:
    Store(server.url + "/store").train.take(np.array([300, 400]))
    length = SIZE * SIZE * 3 // 2
    assert [(one.start, one.end) for one in server.asked if one.start is not None] == [(256 * length, 512 * length)]


def test_what_comes_soon_and_what_follows_is_fetched_ahead(server: Elsewhere, tmp_path: Path) -> None:
    def here(blocks: int) -> bool:
        folder, until = tmp_path / "cache" / "blocks", time.monotonic() + 20
        while len([path for path in folder.iterdir() if path.name[0] != "."]) < blocks and time.monotonic() < until:
            time.sleep(0.01)
        return len([path for path in folder.iterdir() if path.name[0] != "."]) == blocks

    store = Store(server.url + "/store")
    store.train.records.prefetch(np.array([300]))
    assert here(1)
    store.train.take(slice(0, 10))
    assert here(3)
    asked = len(server.asked)
    store.train.take(slice(0, COUNT))
    assert len(server.asked) == asked


@pytest.mark.parametrize("fault", ["cut", "corrupt", "503", "short", "huge", "whole", "whole as a part"])
@pytest.mark.parametrize("ending", [".records", "manifest.json", ".labels"])
def test_a_fault_that_passes_changes_no_bit(server: Elsewhere, published: Store, fault: Fault, ending: str) -> None:
    server.first(2, fault, ending)
    assert same_records(Store(server.url + "/store"), published)


def test_a_slow_answer_is_given_up(server: Elsewhere, published: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "READ_TIMEOUT", 0.2)
    server.first(1, "stall")
    assert same_records(Store(server.url + "/store"), published)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("cut", "attempts: "),
        ("corrupt", "differ from the manifest's checksum"),
        ("503", "the server answered 503"),
        ("403", r"may not be read \(the server answered 403\)"),
        ("whole", "the server sent the whole file instead of a part; if it always does, serve the store with nginx"),
        ("no ranges", "the server ignores HTTP range requests and sends whole files: serve the store with nginx"),
        ("whole as a part", "the server sent more bytes instead of"),
        ("short", r"the server sent 49,152 bytes instead of 98,304"),
    ],
)
def test_a_fault_that_stays_is_an_error_that_names_the_pictures(server: Elsewhere, fault: Fault, said: str) -> None:
    store = Store(server.url + "/store")
    server.fault = lambda _: fault
    with pytest.raises(StoreError, match=rf"{server.url}/store/train.records, pictures 256 to 511, .*{said}"):
        store.train.take(np.array([300]))
    assert len(server.asked) - 7 == (1 if fault in ("403", "no ranges") else 3)  # attempts


@pytest.mark.parametrize("fault", ["no ranges", "whole", "503", "401"])
def test_a_server_at_fault_is_not_called_damage(server: Elsewhere, fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to restore from a backup; a file that is cut short is."""
    server.fault = lambda request: fault if request.path.endswith(".records") else None
    with pytest.raises(SystemExit) as ended:
        main(["verify", server.url + "/store"])
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == "" and "backup" not in said.err
    assert said.err.count("serve the store with nginx") == {"no ranges": 1, "whole": 3}.get(fault, 0)


def test_a_file_cut_short_at_the_address_is_damage(published: Store, tmp_path: Path) -> None:
    shutil.copytree(published.folder, tmp_path / "www" / "store")
    with elsewhere(tmp_path / "www") as server:
        store = Store(server.url + "/store")
        with open(tmp_path / "www" / "store" / "train.records", "r+b") as records:
            records.truncate(300 * SIZE * SIZE * 3 // 2)
        second, third = store.verify()
    assert "pictures 256 to 511, could not be read in 3 attempts: the server sent 16,896 bytes" in second
    assert "pictures 512 to 699, is not there: the file at the address is shorter" in third


def test_a_block_changed_under_us(published: Store, tmp_path: Path) -> None:
    """What was fetched stays as it was; what was not is refused."""
    shutil.copytree(published.folder, tmp_path / "www" / "store")
    with elsewhere(tmp_path / "www") as server:
        store = Store(server.url + "/store")
        first = store.train.take(np.array([0, 255]))
        path = tmp_path / "www" / "store" / "train.records"
        path.write_bytes(bytes([byte ^ 1 for byte in path.read_bytes()]))
        assert np.array_equal(store.train.take(np.array([0, 255])), first)
        with pytest.raises(StoreError, match="pictures 512 to 699, .*the store has changed"):
            store.train.take(np.array([600]))
        damage = store.verify()
        assert len(damage) == 3 and all("train.records, pictures" in line for line in damage)


def test_verify_reads_what_is_there_and_not_the_cache(published: Store, tmp_path: Path) -> None:
    shutil.copytree(published.folder, tmp_path / "www" / "store")
    with elsewhere(tmp_path / "www") as server:
        store = Store(server.url + "/store")
        assert store.verify() == []
        (tmp_path / "www" / "store" / "train.files").write_bytes(b"other\n")
        assert store.verify() == [f"{server.url}/store/train.files differs from the manifest"]


def test_a_manifest_that_was_changed(published: Store, tmp_path: Path) -> None:
    folder = tmp_path / "www" / "store"
    shutil.copytree(published.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    with elsewhere(tmp_path / "www") as server:
        (folder / "manifest.json").write_text(json.dumps({**manifest, "source": "another"}))
        with pytest.raises(
            StoreError, match=r"store/manifest.json could not be read in 3 attempts: it has changed since it was written"
        ):
            Store(server.url + "/store")
        manifest["files"]["train.labels"] = "0" * 64
        (folder / "manifest.json").write_text(json.dumps(seal(manifest)))
        with pytest.raises(StoreError, match=r"store/train.labels could not be read in 3 attempts: its SHA-256 is"):
            Store(server.url + "/store")
        (folder / "manifest.json").write_text("<html>Not here</html>")
        with pytest.raises(
            StoreError, match=r"store/manifest.json could not be read in 3 attempts: it is damaged: it is not valid JSON"
        ):
            Store(server.url + "/store")


def test_blocks_without_a_record(published: Store, tmp_path: Path) -> None:
    """Of 256 files of which none could be used."""
    folder = tmp_path / "www" / "store"
    shutil.copytree(published.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    first, *others = manifest["splits"]["train"]["blocks"]
    none = [0, hashlib.sha256(b"").hexdigest()]
    manifest["splits"]["train"]["blocks"] = [none, first, none, none, *others, none]
    (folder / "manifest.json").write_text(json.dumps(seal(manifest)))
    with elsewhere(tmp_path / "www") as server:
        store = Store(server.url + "/store")
        assert same_records(store, published)
        assert store.verify() == []


def test_addresses_that_are_none(server: Elsewhere) -> None:
    for address, said in (
        (server.url + "/nothing", "nothing/manifest.json does not exist: check the address"),
        ("nosuch://host/store", "nosuch://host/store cannot be opened"),
        ("http://127.0.0.1:1/store", r"in 3 attempts: no connection to 127.0.0.1:1 \(Connection refused\). Check the address"),
        (server.url.replace("http:", "https:") + "/store", r"attempts: no connection to 127.0.0.1:\d+ \(.*(?i:ssl).*\). Check"),
    ):
        with pytest.raises(StoreError, match=said):
            Store(address)


@pytest.mark.parametrize("fault", ["to a file", "in a circle"])
def test_a_redirect_that_leads_nowhere_is_not_tried_again(server: Elsewhere, fault: Fault) -> None:
    server.fault = lambda _: fault
    with pytest.raises(StoreError, match=r"manifest.json is redirected to .* cannot be read from: check the address"):
        Store(server.url + "/store")
    assert len(server.asked) <= 11, "one attempt: the redirects that aiohttp follows"


# --- secrets --------------------------------------------------------------------------------------


def test_a_password_is_used_and_not_shown(server: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    address = server.url.replace("http://", "http://ann:s3cret@") + "/store"
    store = Store(address)
    assert server.asked[0].authorization is not None
    assert store.address == server.url + "/store"
    for fault in ("403", "503", "cut"):
        server.fault = lambda _, fault=fault: fault
        with pytest.raises(StoreError) as raised:
            store.train.take(np.array([0]))
        assert "s3cret" not in str(raised.value)
    server.fault = lambda request: "403" if "sig=" in request.path else None
    with pytest.raises(StoreError) as raised:
        Store(server.url + "/store?sig=s3cret")
    assert server.asked[-1].path == "/store/manifest.json?sig=s3cret"
    assert "s3cret" not in str(raised.value) + capsys.readouterr().err


# --- the cache ------------------------------------------------------------------------------------


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Elsewhere, published: Store, tmp_path: Path) -> None:
    assert same_records(Store(server.url + "/store"), published)
    for path in (tmp_path / "cache" / "blocks").iterdir():
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert same_records(Store(server.url + "/store"), published)


def test_a_file_in_the_cache_that_is_cut_short_or_gone(server: Elsewhere, published: Store, tmp_path: Path) -> None:
    store = Store(server.url + "/store")
    assert same_records(store, published)
    first, *others = (tmp_path / "cache" / "blocks").iterdir()
    first.unlink()
    for path in others:
        with open(path, "r+b") as file:
            file.truncate(100)
    assert same_records(store, published)


def test_the_cache_keeps_to_its_size(server: Elsewhere, published: Store, tmp_path: Path) -> None:
    """Two blocks of the three fit: nothing changes but what is fetched again."""
    block = 256 * SIZE * SIZE * 3 // 2
    store = Store(server.url + "/store", cache_gb=2.5 * block / 1e9)
    for _ in range(3):
        assert same_records(store, published)
        assert sum(path.stat().st_size for path in (tmp_path / "cache" / "blocks").iterdir()) <= 2.5 * block
    assert sum(one.start is not None for one in server.asked) > 3


def test_threads_that_write_at_once_keep_to_the_size(tmp_path: Path) -> None:
    blocks = [np.random.default_rng(seed).bytes(100_000) for seed in range(8)]
    for attempt in range(10):
        cache = BlockCache(tmp_path / str(attempt), 250_000)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(cache.put, [hashlib.sha256(block).hexdigest() for block in blocks], blocks))
        assert 0 < sum(path.stat().st_size for path in cache.folder.iterdir()) <= 250_000


def test_a_cache_for_nothing(server: Elsewhere, published: Store, tmp_path: Path) -> None:
    """Each block is fetched when it is read, once."""
    assert np.array_equal(
        Store(server.url + "/store", cache_gb=1e-6).train.take(slice(0, COUNT)), published.train.take(slice(0, COUNT))
    )
    assert sum(one.start is not None for one in server.asked) == 3
    assert list((tmp_path / "cache" / "blocks").iterdir()) == []


def test_what_was_used_least_recently_goes_first(server: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_records, "PREFETCH_BLOCKS", 0)
    block = 256 * SIZE * SIZE * 3 // 2
    store = Store(server.url + "/store", cache_gb=2.5 * block / 1e9)
    for picture in (0, 300, 1, 600, 2):  # the second block is the oldest when the third comes
        store.train.take(np.array([picture]))
    assert [one.start // block for one in server.asked if one.start is not None] == [0, 1, 2]


def test_two_that_share_a_cache_fetch_once(server: Elsewhere, published: Store) -> None:
    """As two processes do: locks of two stores in one process are as far apart."""
    stores = [Store(server.url + "/store") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda store: same_records(store, published), stores))
    assert sum(one.start is not None for one in server.asked) == 3


@pytest.mark.parametrize("value", ["0", "many", "-3", "nan"])
def test_a_size_that_is_none(server: Elsewhere, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALEXNET_CACHE_GB", value)
    with pytest.raises(StoreError, match=rf"ALEXNET_CACHE_GB \(={value}\) must be a number of GB above 0"):
        Store(server.url + "/store")


def test_resampled_in_the_cache(server: Elsewhere, published: Store, tmp_path: Path) -> None:
    shutil.copytree(published.folder, tmp_path / "local")
    own, local = resampled(Store(server.url + "/store"), 8), resampled(Store(tmp_path / "local"), 8)
    assert own.fingerprint == local.fingerprint and own.folder.is_relative_to(tmp_path / "cache")
    assert origin(own) == own.address == own.given == server.url + "/store"
    before = len(server.asked)
    assert resampled(Store(server.url + "/store"), 8).fingerprint == local.fingerprint
    assert len(server.asked) == before + 1  # the manifest


def test_a_request_reads_no_more_than_it_asked_for(server: Elsewhere) -> None:
    """A server that sends fifty times as much is not read to the end."""
    store = Store(server.url + "/store")
    server.fault = lambda request: "huge" if request.start is not None else None
    with pytest.raises(StoreError, match="the server sent more bytes instead of 98,304"):
        store.train.take(np.array([0]))


def test_requests_are_told_apart() -> None:
    assert Request("/a") == Request("/a") != Request("/a", 0, 1)
