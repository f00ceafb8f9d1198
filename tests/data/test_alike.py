"""Near-duplicates are found, and different photos are not taken for them."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from alexnet.data import alike
from alexnet.data.image import encode
from alexnet.model import AlexNet
from alexnet.variants import get_variant


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, "JPEG", quality=quality)
        return file.getvalue()


def burst(picture: Image.Image) -> Image.Image:
    """The next photo of a burst: the camera has turned and moved, the light has changed."""
    width, height = picture.size
    cut = picture.rotate(2, Image.Resampling.BILINEAR).crop((9, 12, width - 5, height - 4)).resize(picture.size)
    return ImageEnhance.Brightness(cut).enhance(1.1)


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[Image.Image]:
    """Forty photos of two classes."""
    files = [
        file for name in ("n03394916", "n03888257") for file in sorted((shared / "data/imagenette-mini/train" / name).iterdir())
    ]
    return [Image.open(file).convert("RGB") for file in files[:20] + files[-20:]]


def records(pictures: list[Image.Image], quality: int = 90) -> NDArray[np.uint8]:
    return np.stack([encode(jpeg(picture, quality), 144) for picture in pictures])


@pytest.fixture(scope="module")
def convolutions(shared: Path) -> AlexNet:
    """Caffe's, trained on ImageNet."""
    model = AlexNet(get_variant("caffe"), torch.Generator().manual_seed(0)).eval()
    with np.load(shared / "weights" / "imagenet-conv1-5.npz") as file:
        model.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files}, strict=False)
    return model


@torch.inference_mode()
def pool5(model: AlexNet, pictures: list[Image.Image]) -> torch.Tensor:
    pixels = np.stack([np.asarray(picture.resize((227, 227)))[..., ::-1] for picture in pictures]).astype(np.float32)
    return model.stages(torch.from_numpy(pixels - (104, 117, 123)).float().permute(0, 3, 1, 2))["pool5"]


def test_copies_are_found_by_thumbnails(pictures: list[Image.Image]) -> None:
    """A copy of poor quality and a brighter one join their original; no two photos join."""
    copies = [ImageEnhance.Brightness(picture).enhance(1.2) for picture in pictures[:10]]
    together = np.concatenate([records(pictures), records(pictures[:10], 20), records(copies)])
    group = alike.groups([alike.thumbnails(together)])
    assert group is not None
    assert group[:40].tolist() == list(range(40))
    assert group[40:].tolist() == [*range(10), *range(10)]


def test_a_burst_is_found_by_scenes(pictures: list[Image.Image], convolutions: AlexNet) -> None:
    features = pool5(convolutions, [*pictures, *map(burst, pictures[:10])])
    group = alike.groups([alike.scenes(features)])
    assert group is not None
    assert group[:40].tolist() == list(range(40))
    assert group[40:].tolist() == list(range(10))


def test_kinds_add_up(pictures: list[Image.Image]) -> None:
    """One kind joins 0 and 1, another 1 and 2: all three are one group."""
    eye = torch.eye(4)
    first = alike.Vectors(eye[[0, 0, 1, 2]], 0.9)
    second = alike.Vectors(eye[[0, 1, 1, 2]], 0.9)
    group = alike.groups([first, second])
    assert group is not None and group.tolist() == [0, 0, 0, 3]


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = alike.Vectors(torch.eye(50)[torch.arange(100) % 50], 0.9)
    whole = alike.groups([vectors])
    monkeypatch.setattr(alike, "BLOCK", 7)
    again = alike.groups([vectors])
    assert whole is not None and again is not None and (whole == again).all()
    assert whole.tolist() == [*range(50), *range(50)]


def test_pictures_that_are_all_alike_say_nothing() -> None:
    blind = alike.Vectors(torch.ones(100, 3), 0.9)
    assert alike.groups([blind]) is None
    group = alike.groups([blind, alike.Vectors(torch.eye(50)[torch.arange(100) % 50], 0.9)])
    assert group is not None and group.tolist() == [*range(50), *range(50)]


def test_a_blank_picture_is_no_scene() -> None:
    """Noise of one grey level on two blank walls of different colour does not make them alike."""
    rng = np.random.default_rng(0)
    walls = [np.full((60, 60, 3), colour) + rng.integers(0, 2, (60, 60, 3)) for colour in ((200, 60, 60), (60, 60, 200))]
    grey = np.stack([encode(jpeg(Image.fromarray(wall.astype(np.uint8))), 60) for wall in walls])
    group = alike.groups([alike.thumbnails(grey)])
    assert group is not None and group.tolist() == [0, 1]
