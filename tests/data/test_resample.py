"""A store in smaller pictures: as good as one that was prepared so, and never in the way of
the one it was made from.
"""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet import files
from alexnet.data import resample
from alexnet.data.image import decode, encode, planes
from alexnet.data.prepare import prepare
from alexnet.data.resample import origin, resampled, shrink
from alexnet.data.store import Store
from alexnet.errors import StoreError


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 256 pixels from photographs with noise, edges and a slope."""
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name in ("round", "square"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                y, x = np.mgrid[:300, :400] / 300
                inside = (x - 0.6) ** 2 + (y - 0.5) ** 2 < 0.1 if name == "round" else abs(x - 0.6) + abs(y - 0.5) < 0.4
                pixels = np.stack([200 * x, 120 * y + 80 * inside, 255 * inside * x], -1) + rng.normal(0, 12, (300, 400, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / name / f"{index}.png")
    prepare([folder], folder.parent / f"{folder.name}-store", size=256)
    return folder


@pytest.fixture
def store(large: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(large.parent / f"{large.name}-store", tmp_path / "store"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_it_is_a_store_like_any_other(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    before, fingerprint = contents(store.folder), store.fingerprint
    small = resampled(store, 144)
    folder = store.folder / "144px"
    assert f"{store.folder} are resampled from 256 to 144 pixels, once: {folder}, 0.4 MB." in capfd.readouterr().err
    assert (small.folder, small.size, small.classes) == (folder, 144, store.classes)
    assert small.verify() == []
    assert np.array_equal(small.train.labels, store.train.labels) and small.held_out.files == store.held_out.files
    assert small.mean_image.shape == (3, 144, 144)
    assert contents(store.folder) == before and Store(store.folder).fingerprint == fingerprint and store.verify() == []
    assert [path.name for path in store.folder.iterdir() if path.is_dir()] == ["144px"]  # nothing half is left


def test_against_a_store_prepared_at_that_size(large: Path, store: Store, tmp_path: Path) -> None:
    """Shrinking 300 to 256 to 144 pixels beside 300 to 144. Measured: 1.03 grey levels in the mean
    and at most 6 in 99 % of the values (noise of 12 levels, which the second filter smooths), 0.48
    in the mean image, 0.08 in the mean colour, 0.24 in its deviation. Bounds are 1.5 times that."""
    direct, small = prepare([large], tmp_path / "direct", size=144), resampled(store, 144)
    pairs = zip(direct.train.records, small.train.records, strict=True)
    difference = np.concatenate([np.abs(decode(a).astype(int) - decode(b)).ravel() for a, b in pairs])
    assert difference.mean() < 1.6
    assert np.quantile(difference, 0.99) <= 9
    assert np.abs(direct.mean_image - small.mean_image).mean() < 0.72
    assert np.abs(direct.statistics.mean_colour - small.statistics.mean_colour).max() < 0.13
    assert np.abs(direct.statistics.deviation - small.statistics.deviation).max() < 0.36


def test_against_photographs(shared: Path) -> None:
    """96 ImageNet photos, decoded at 256 and shrunk to 144 beside 144 at once: 2.65 grey levels in
    the mean, brightness kept.
    """
    differences = []
    for path in sorted((shared / "data" / "imagenet-originals").glob("*.JPEG"))[::4]:
        once = encode(path.read_bytes(), 144)
        twice = shrink(encode(path.read_bytes(), 256)[None], 144)[0]
        differences.append(decode(twice).astype(int) - decode(once))
    difference = np.stack(differences)
    assert np.abs(difference).mean() < 3
    assert abs(difference.mean()) < 0.1


def test_a_constant_picture_stays_what_it_is() -> None:
    """To the bit: the filter's weights sum to one."""
    records = np.repeat(np.array([[0], [1], [128], [255]], np.uint8), 3 * 96 * 96 // 2, axis=1)
    assert (shrink(records, 70) == np.array([[0], [1], [128], [255]])).all()


def test_no_larger_than_it_is(store: Store) -> None:
    assert resampled(store, 256) is store
    assert resampled(store, 143) is store  # no store has an odd size
    larger = resampled(store, 300)
    assert larger.size == 300 and larger.verify() == []
    back = planes(shrink(larger.train.records, 256))[0].astype(int)
    assert np.abs(back - planes(store.train.records)[0]).mean() < 3  # enlarging loses no more than shrinking does


def test_it_is_used_again_and_made_anew_when_the_store_changes(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    first = resampled(store, 64)
    stamp = (first.folder / "train.records").stat().st_mtime_ns
    again = resampled(store, 64)
    assert (again.folder / "train.records").stat().st_mtime_ns == stamp
    assert "resampled earlier from 256 to 64 pixels" in capfd.readouterr().err
    assert origin(again) == str(store.folder) == origin(store)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    manifest["classes"][0] = "oval"
    (store.folder / "manifest.json").write_text(json.dumps(manifest))
    changed = resampled(Store(store.folder), 64)
    assert changed.classes[0] == "oval" and changed.fingerprint != first.fingerprint
    (changed.folder / "train.records").write_bytes(b"short")
    assert resampled(Store(store.folder), 64).verify() == []
    (changed.folder / "origin.json").write_text("[1]")
    assert resampled(Store(store.folder), 64).verify() == []


def test_of_a_store_of_an_earlier_version(store: Store) -> None:
    """Whose manifest is not sealed, and whose mean is not clipped: the copy's are."""
    path = store.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["seal"], manifest["clipped"], manifest["files"]["skipped.jsonl"]
    path.write_text(json.dumps(manifest))
    assert resampled(Store(store.folder), 64).verify() == []


def test_damage_is_not_made_whole(store: Store) -> None:
    with open(store.folder / "val.records", "r+b") as file:
        file.write(b"damage")
    with pytest.raises(StoreError, match=r"val.records: records 0 to 3 are damaged"):
        resampled(Store(store.folder), 64)
    assert not (store.folder / "64px").exists() and not (store.folder / ".64px.tmp").exists()


def test_a_folder_of_somebody_else_is_left_alone(store: Store) -> None:
    (store.folder / "64px").mkdir()
    (store.folder / "64px" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"64px is where the resampled copy of .* goes, and holds something else"):
        resampled(store, 64)
    assert (store.folder / "64px" / "notes.txt").read_text() == "mine"


RESAMPLE = """
import resource, sys
from alexnet.data.resample import resampled
from alexnet.data.store import Store
from alexnet.errors import StoreError
if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    print(resampled(Store(sys.argv[1]), int(sys.argv[2])).fingerprint)
except StoreError as error:
    sys.exit(str(error))
"""


def start(store: Store, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", RESAMPLE, str(store.folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once(store: Store) -> None:
    processes = [start(store, "64") for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert answers[0][0] == answers[1][0] == f"{Store(store.folder / '64px').fingerprint}\n"
    assert sum("to 64 pixels, once" in text for _, text in answers) == 1


def test_one_waits_for_the_other(store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever has the lock makes the copy; who waited for it makes none of its own."""
    made: list[str] = []

    def say(text: str) -> None:
        print(text, file=sys.stderr)
        if text.startswith("Another process"):
            assert not (store.folder / "64px").exists()
            resample._make(store, 64, store.folder / "64px")
            made.append("by the other")
            files.unlock(held)

    monkeypatch.setattr(resample, "say", say)
    held = files.lock(store.folder)
    assert held
    assert resampled(store, 64).verify() == [] and made == ["by the other"]
    said = capfd.readouterr().err
    assert "Another process is resampling" in said and said.count("to 64 pixels, once") == 1


def test_a_full_disk(store: Store) -> None:
    """No file may have more than 10,000 bytes, as on a disk that has no more."""
    _, text = (process := start(store, "64", "10000")).communicate(timeout=60)
    assert process.returncode == 1
    last = text.splitlines()[-1]
    assert "64px could not be written (File too large)" in last and "alexnet prepare PHOTOS STORE --size 64" in last
    assert not [path for path in store.folder.iterdir() if path.is_dir()]


def test_a_place_that_cannot_be_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        StoreError, match=r"64px could not be written \(Permission denied\).*make the folder writable, or prepare"
    ):
        resampled(store, 64)


def test_what_a_killed_process_left_is_no_obstacle(store: Store) -> None:
    (store.folder / ".64px.tmp").mkdir()
    (store.folder / ".64px.tmp" / "train.records").write_bytes(b"half")
    assert resampled(store, 64).verify() == []
    assert not (store.folder / ".64px.tmp").exists()
