"""The best patches, compared with a search that keeps every answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.data.image import decode
from alexnet.data.prepare import prepare
from alexnet.data.store import Store
from alexnet.errors import CheckpointError
from alexnet.inspect import patches
from alexnet.inspect.patches import best_patches, boxes, fitting, kept_patches, picture
from alexnet.trained import Trained
from alexnet.weights import native
from conftest import write_photos


@pytest.fixture
def trained(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    return native.load(run)


def test_they_are_the_best(trained: Trained, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches that do not divide the store, of every convolution."""
    monkeypatch.setattr(patches, "BATCH_SIZE", 7)
    found = best_patches(trained.model, trained.preprocessing, store)
    records = torch.from_numpy(store.train.take(slice(0, len(store.train))))
    with torch.inference_mode():
        stages = trained.model.stages(trained.preprocessing.view(records, *trained.preprocessing.views(1)[0]))
    assert sorted(found) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    for name, best in found.items():
        answers = stages[name].flatten(2).max(2).values.T.numpy()  # (C, N)
        expected = np.sort(answers, axis=1)[:, ::-1][:, :9]
        assert best.values == pytest.approx(expected, rel=1e-3, abs=1e-4)
        for channel in (0, len(answers) - 1):
            assert len(set(best.records[channel])) == 9
            for place in range(9):
                record, row, column = (getattr(best, field)[channel, place] for field in ("records", "rows", "columns"))
                cell = float(stages[name][record, channel, row, column])
                assert cell == pytest.approx(best.values[channel, place], rel=1e-3, abs=1e-4)


def test_a_patch_is_what_the_kernel_saw(trained: Trained, store: Store) -> None:
    found = best_patches(trained.model, trained.preprocessing, store, last="conv1")
    assert list(found) == ["conv1"]
    (left, top, right, bottom), *_ = boxes(trained.model, found["conv1"], 3)
    record = int(found["conv1"].records[3, 0])
    patch = picture(trained.preprocessing, store.train, record, (left, top, right, bottom))
    whole = decode(store.train.records[record])
    margin = (store.size - trained.preprocessing.input_size) // 2
    assert patch.shape == (bottom - top, right - left, 3)
    assert (patch == whole[margin + top : margin + bottom, margin + left : margin + right]).all()


def test_they_are_kept(
    trained: Trained, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second time no picture is read; a damaged file is made anew; it works without a place."""
    arguments = (trained.model, trained.preprocessing, store, "0" * 64)
    first = kept_patches(*arguments)
    (kept,) = (tmp_path / "cache" / "patches").iterdir()
    with monkeypatch.context() as context:
        context.setattr(patches, "in_order", None)
        again = kept_patches(*arguments)
    for name, best in first.items():
        assert all((getattr(best, field) == getattr(again[name], field)).all() for field in patches.FIELDS)
    kept.write_bytes(kept.read_bytes()[:-100])
    assert kept_patches(*arguments).keys() == first.keys()
    assert "is damaged: looking for the patches again" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "file"))
    assert kept_patches(*arguments).keys() == first.keys()
    assert "cannot be written" in capsys.readouterr().err


def test_few_pictures(trained: Trained, tmp_path: Path) -> None:
    """Of a store with fewer than nine there are fewer patches."""
    small = prepare([write_photos(tmp_path / "few", 2)], tmp_path / "few_store", size=72)
    count = len(small.train)
    assert count < 9
    assert best_patches(trained.model, trained.preprocessing, small)["conv2"].values.shape[1] == count


def test_a_store_that_does_not_fit(trained: Trained, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    tiny = prepare([tmp_path / "photos"], tmp_path / "tiny", size=48)
    assert fitting(tiny, trained.preprocessing).size == 72  # enlarged
    squashed = replace(trained.preprocessing, resize="squash")
    with pytest.raises(CheckpointError, match="resize rule short-side, but the network was trained with squash"):
        fitting(tiny, squashed)
