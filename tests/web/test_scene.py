"""A scene's numbers are the network's, for every kind of network and picture."""

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from reading import read

from alexnet import summary
from alexnet.arithmetic import Conv, Dropout, Linear, ReLU
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.errors import CheckpointError, SourceError
from alexnet.model import AlexNet
from alexnet.variants import named
from alexnet.web import shown
from alexnet.web.scene import Scene, layers_of
from alexnet.web.shown import Shown
from alexnet.web.units import Liked, as_bytes
from alexnet.weights import importer

WIDTH = 0.125
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in named()),
    ("paper", {"input_size": 64}),
    ("paper", {"towers": 1}),
    ("paper", {"removed": ("conv4", "fc7")}),
    ("paper", {"activation": "tanh"}),
    ("paper", {"num_classes": 2}),
]
#: EXIF that says: turn it by 90 degrees.
TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def network(name: str, **changes: Any) -> Shown:
    model = AlexNet(name, torch.Generator().manual_seed(5), **{"width": WIDTH, "num_classes": 10, **changes})
    classes = tuple(f"class {number}" for number in range(model.variant.num_classes))
    preprocessing = importer.published_preprocessing(model.variant)
    return Shown(model.requires_grad_(False).eval(), classes, preprocessing, "net", "run")


def photo(width: int = 90, height: int = 61, kind: str = "PNG", **options: Any) -> bytes:
    """A gradient with noise."""
    rng = np.random.default_rng(width)
    pixels = np.linspace(0, 200, width)[None, :, None] + rng.uniform(0, 55, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind, **options)
    return file.getvalue()


def pixels_of(jpeg: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(jpeg))) as image:
        return np.asarray(image)


@pytest.mark.parametrize(("name", "changes"), NETWORKS, ids=[f"{name} {changes}" for name, changes in NETWORKS])
def test_its_numbers_are_the_networks(name: str, changes: dict[str, Any]) -> None:
    one = network(name, **changes)
    description, arrays = read(Scene.of(one, photo(), "a.png").to_bytes())
    with torch.inference_mode():
        stages = one.model.stages(torch.from_numpy(arrays["input"].copy())[None])
    for op in one.model.ops:
        if isinstance(op, ReLU | Dropout):  # the page derives them
            assert op.name not in arrays
            continue
        expected = stages[op.name][0].numpy()
        assert np.abs(arrays[op.name] - expected).max() <= 1e-5 * np.abs(expected).max(), op.name
        if isinstance(op, Conv):
            for kind in ("weight", "bias"):
                assert (arrays[f"{op.name}.{kind}"] == one.model.get_parameter(f"{op.name}.{kind}").numpy()).all()
    _check_connected(one, arrays)
    top = description["classes"]["top"]
    order = arrays["fc8"].argsort()[::-1]
    assert [entry["index"] for entry in top] == order[:5].tolist() and len(top) == min(5, one.variant.num_classes)
    assert [entry["probability"] for entry in top] == pytest.approx(arrays["probabilities"][order[:5]].tolist())
    assert [entry["name"] for entry in top] == [one.classes[entry["index"]] for entry in top]
    assert description["network"]["note"] in (None, "untrained") and description["network"]["missing"] == []


def _check_connected(one: Shown, arrays: dict[str, Any]) -> None:
    """The page can compute the units that it has, and has all that count for the classes."""
    names = [op.name for op in one.model.ops]
    for op in one.model.ops:
        if not isinstance(op, Linear):
            continue
        rows, weight = arrays[f"{op.name}.rows"], one.model.get_parameter(f"{op.name}.weight").numpy()
        assert len(set(rows.tolist())) == len(rows) and (arrays[f"{op.name}.weight"] == weight[rows]).all()
        if f"{names[names.index(op.name) - 1]}" == "pool5":
            computed = arrays[f"{op.name}.weight"] @ arrays["pool5"].reshape(-1) + arrays[f"{op.name}.bias"]
            assert np.allclose(computed, arrays[op.name][rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", named())
def test_layers_are_those_of_the_summary(name: str) -> None:
    """And each has what its operation is made of, where its cells look, and its lines."""
    variant = named()[name]
    layers = json.loads(json.dumps(layers_of(variant)))
    listed = json.loads(summary.as_json(variant))["layers"]
    for layer, line in zip(layers, listed, strict=True):
        assert all(layer[key] == line[key] for key in line if key != "activation_bytes")
        assert layer["field"] >= layer["receptive_field"] and set(layer["lines"]) == {"en", "zh"} and layer["lines"]["zh"]
    kinds = {layer["kind"]: layer for layer in layers}
    assert {"kernels", "size", "stride", "padding", "groups", "offset", "field"} <= set(kinds["conv"])
    assert {"units"} <= set(kinds["linear"]) and {"rate", "inverted"} <= set(kinds["dropout"])
    if "lrn" in kinds:
        assert {"size", "coefficient", "beta", "k", "towers"} <= set(kinds["lrn"])
    assert layers[0]["offset"] == -variant.conv1_padding[0] and layers[-1]["towers"] == 1


@pytest.mark.parametrize(
    ("picture", "width", "height", "cut"),
    [
        (photo(90, 61), 90, 61, [14, 0, 61, 61]),
        (photo(61, 90), 61, 90, [0, 14, 61, 61]),
        (photo(2000, 1000, "JPEG"), 2000, 1000, [500, 0, 1000, 1000]),  # its decoder gives a smaller picture
        (photo(2000, 1000, "JPEG", exif=TURNED), 1000, 2000, [0, 500, 1000, 1000]),
        (photo(1, 1), 1, 1, [0, 0, 1, 1]),
        (photo(3000, 2), 3000, 2, [1499, 0, 2, 2]),
    ],
    ids=["landscape", "portrait", "large", "turned", "one pixel", "a line"],
)
def test_where_the_square_is(picture: bytes, width: int, height: int, cut: list[float]) -> None:
    """In pixels of the upright original: the centre of the square that `prepare` would store."""
    one = network("paper")
    found = Scene.of(one, picture).description["picture"]
    assert (found["width"], found["height"], found["how"], found["frames"]) == (width, height, "centre", 1)
    margin = (256 - 224) / 2 / 256 * cut[2]
    assert found["cut"] == pytest.approx([cut[0] + margin, cut[1] + margin, cut[2] * 224 / 256, cut[3] * 224 / 256])
    with Image.open(io.BytesIO(base64.b64decode(found["jpeg"]))) as small:
        assert (
            max(small.size) <= 640 and small.width / small.height == pytest.approx(width / height, rel=0.1)
        ) or 1 in small.size


def test_squashed_and_animated() -> None:
    frames = [Image.fromarray(np.full((40, 80, 3), level, np.uint8)) for level in (200, 20)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    one = network("caffe")
    scene = Scene.of(one, file.getvalue(), "moving.gif")
    found = scene.description["picture"]
    assert found["how"] == "squash" and found["frames"] == 2
    assert found["cut"] == pytest.approx([80 * 14 / 256, 40 * 14 / 256, 80 * 227 / 256, 40 * 227 / 256])
    assert abs(int(scene.arrays["seen"].mean()) - 200) <= 1  # the first picture is shown


def test_what_the_network_sees() -> None:
    """The square before preprocessing, in the colours of the photo whatever the network's order."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[..., 0] = 200
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    for name in ("paper", "caffe"):
        one = network(name)
        scene = Scene.of(one, file.getvalue())
        seen, x = scene.arrays["seen"].astype(float), scene.arrays["input"]
        order = [2, 1, 0] if name == "caffe" else [0, 1, 2]
        mean = one.preprocessing.mean[:, 0, 0].numpy()
        assert np.abs(seen - mean - x[order].transpose(1, 2, 0)).max() < 2
        assert scene.description["preprocessing"]["order"] == ("BGR" if name == "caffe" else "RGB")
        assert scene.description["preprocessing"]["mean"] == pytest.approx(mean.tolist(), abs=1e-3)


def test_units(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The strongest kernels on this picture, what they saw, and what they like in the store."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    one = network("paper", input_size=64)
    one = replace(one, preprocessing=Preprocessing.of(one.variant, store))
    scene = Scene.of(one, photo(), liked=Liked.of(one, store))
    for name, units in scene.description["units"].items():
        best = scene.arrays[name].reshape(len(scene.arrays[name]), -1).max(1)
        assert [unit["channel"] for unit in units] == np.argsort(-best, kind="stable")[:6].tolist()
        for unit in units:
            row, column = unit["cell"]
            assert scene.arrays[name][unit["channel"], row, column] == pytest.approx(unit["value"])
            left, top, right, bottom = unit["deconv_box"]
            drawn = pixels_of(unit["deconv"])
            assert drawn.shape == (bottom - top, right - left, 3)
            assert min(int(drawn.min()) - 1, 255 - int(drawn.max())) < 40  # but for JPEG's losses
            values = [patch["value"] for patch in unit["patches"]]
            assert len(values) == 9 and values == sorted(values, reverse=True)
            assert max(pixels_of(unit["patches"][0]["jpeg"]).shape) <= 72
    assert set(scene.description["units"]) == {"conv1", "conv2", "conv3", "conv4", "conv5"}
    assert all(not unit["patches"] for unit in Scene.of(one, photo()).description["units"]["conv3"])
    assert (as_bytes(np.zeros((2, 2, 3), np.float32)) == 128).all()


def test_a_part_of_a_network(shared: Any) -> None:
    """It is shown as far as it goes, and says what is missing."""
    one = shown.find(shared / "weights" / "imagenet-conv1-5.npz", "caffe")
    description, arrays = read(Scene.of(one, photo()).to_bytes())
    assert description["network"]["note"] == "partial" and description["network"]["missing"] == ["fc6", "fc7", "fc8"]
    assert description["network"]["trained"] is True
    assert description["classes"] == {"count": 1000, "top": []}
    assert "pool5" in arrays and not {"fc6", "fc6.rows", "fc8", "probabilities"} & set(arrays)
    assert [layer["name"] for layer in description["layers"]][-1] == "fc8"


@pytest.mark.parametrize(
    ("picture", "reason"), [(b"", "empty file"), (b"hello", "not an image"), (photo()[:200], "truncated or damaged")]
)
def test_not_a_picture(picture: bytes, reason: str) -> None:
    with pytest.raises(SourceError, match=rf"^a\.png cannot be read: .*{reason}"):
        Scene.of(network("paper"), picture, "a.png")
    with pytest.raises(SourceError, match="more than 100 pixels"):
        Scene.of(network("paper"), photo(), "a.png", max_pixels=100)


def test_a_network_that_has_diverged() -> None:
    """Numbers that no JSON and no page can hold are an error, not a page of NaN."""
    one = network("paper", input_size=64)
    one.model.conv3.weight.mul_(1e30)
    one.model.conv4.weight.mul_(1e30)
    with pytest.raises(CheckpointError, match=r"^net computes numbers in conv4 that are too large for float32"):
        Scene.of(one, photo())
