"""Which network is shown: what is named, and the best at hand where nothing is."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.errors import CheckpointError, VariantError
from alexnet.model import AlexNet
from alexnet.published import registry
from alexnet.published.registry import Published
from alexnet.web import shown


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a working folder without a demo."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """A small network as torchvision publishes its own, in the cache."""
    model = AlexNet("torchvision", torch.Generator().manual_seed(0), width=0.125, num_classes=5)
    keys = {"conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8", "conv5": "features.10"}
    keys |= {"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"}
    state = {f"{keys[name.split('.')[0]]}.{name.split('.')[1]}": one for name, one in model.state_dict().items()}
    path = tmp_path / "cache" / registry.TORCHVISION.file
    path.parent.mkdir()
    torch.save(state, path)
    entry = replace(registry.TORCHVISION, bytes=path.stat().st_size)
    monkeypatch.setattr(registry, "REGISTRY", (registry.CAFFE, registry.CAFFE_MEAN, entry))
    return entry


def test_nothing_at_hand() -> None:
    """The paper's network by chance, the same each time; or the variant that is named."""
    first = shown.usual()
    assert (first.source, first.label, first.missing, first.looks_trained) == ("fresh", "paper", (), False)
    assert first.hash == shown.fresh("paper").hash
    assert first.choice.startswith("Showing paper, untrained, as neither the cache of published weights nor demo")
    assert first.choice.endswith("`alexnet weights pull torchvision` downloads trained weights.")
    assert shown.usual("torchvision").variant.name == "torchvision"
    with pytest.raises(VariantError, match="unknown variant 'papr': did you mean 'paper'"):
        shown.usual("papr")
    assert list(shown.offers()) == [
        f"fresh-{name}" for name in ("paper", "code-2012", "caffe", "caffenet", "owt", "torchvision")
    ]


def test_the_demo(run: Path) -> None:
    shutil.copytree(run, "demo/run")
    found = shown.usual()
    assert (found.source, found.name) == ("demo", str(Path("demo/run"))) and found.looks_trained is not None
    assert found.classes == ("blue", "green", "red") and "the demo's run. --run names another" in found.choice
    assert shown.usual("caffe").source == "fresh"
    assert next(iter(shown.offers())) == "demo" and shown.offers()["demo"].load().source == "demo"


def test_published(published: Published, run: Path) -> None:
    """Weights in the cache come before the demo's; what is not there says how to get it."""
    shutil.copytree(run, "demo/run")
    found = shown.usual()
    assert (found.source, found.name, found.variant.num_classes) == ("published", "torchvision", 5)
    assert found.label == "torchvision (torchvision at 0.125 times its width)"
    assert shown.find("torchvision").hash == found.hash
    assert list(shown.offers())[:2] == ["published-torchvision", "demo"]
    assert list(shown.offers([str(run)]))[:2] == ["run-1", "published-torchvision"]
    assert list(shown.offers(["torchvision"]))[:2] == ["run-1", "fresh-paper"]
    with pytest.raises(CheckpointError, match="caffe is not in the cache yet: alexnet weights pull caffe"):
        shown.find("caffe")
    with pytest.raises(CheckpointError, match="caffe-mean is not a network"):
        shown.find("caffe-mean")


def test_a_published_network_needs_its_mean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Path) -> None:
    """Caffe's without the mean picture is as good as absent."""
    cache = tmp_path / "cache"
    cache.mkdir()
    small = shared / "weights" / "tiny" / "alexnet-v2.caffemodel"
    shutil.copy(small, cache / "bvlc_alexnet.caffemodel")
    entry = replace(registry.CAFFE, bytes=small.stat().st_size)
    monkeypatch.setattr(registry, "REGISTRY", (entry, registry.CAFFE_MEAN))
    assert shown.downloaded() == []
    assert registry.CAFFE_MEAN.member
    shutil.copy(shared / "weights" / "tiny" / "imagenet-mean.binaryproto", cache / registry.CAFFE_MEAN.member.file)
    assert shown.downloaded() == [entry]


def test_a_part_of_a_network(shared: Path) -> None:
    """Five convolutions: what they are of is guessed and said, or named."""
    path = shared / "weights" / "imagenet-conv1-5.npz"
    guessed = shown.find(path)
    assert guessed.missing == ("fc6", "fc7", "fc8") and guessed.ops[-1].name == "pool5"
    assert guessed.looks_trained and "taken for paper; --variant names another" in guessed.remarks[-1]
    named = shown.find(path, "caffe")
    assert named.variant.name == "caffe" and named.preprocessing.bgr
    assert not [remark for remark in named.remarks if "--variant" in remark]
    assert named.hash == guessed.hash != shown.fresh("paper").hash


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", **{"fc6.weight": np.zeros((4, 4), np.float32)})
    (tmp_path / "text").write_text("hello")
    for name, reason in (
        ("nothing", "nothing does not exist: name a run's folder, a file of weights, or published weights"),
        (tmp_path, "it is not a run, or training has not saved anything yet"),
        (tmp_path / "text", "not in a known weights format"),
        (tmp_path / "other.npz", "other.npz"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            shown.find(name)
