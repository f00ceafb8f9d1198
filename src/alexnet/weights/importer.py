"""Import weights of any known format into our own file, with their preprocessing.

The format is recognised by content, never by the file's name. What a foreign file does not say
about its pictures is taken from the variant: the published networks were trained on 256 x 256
pictures, Caffe's squashed and BGR, torchvision's scaled by the short side and RGB, and the
mean below was subtracted.
"""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import NamedTuple

import torch
from torch import Tensor

from alexnet import paper
from alexnet.address import DOWNLOAD, not_here, was_address
from alexnet.arguments import as_path, expect_kind
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError
from alexnet.model import AlexNet
from alexnet.published import imagenet
from alexnet.text import read_names
from alexnet.trained import Trained
from alexnet.variants import Variant, named
from alexnet.weights import check, native, trained_part
from alexnet.weights.formats import caffe_read, npy, onnx_read, torchvision
from alexnet.weights.match import PARAMETERS, Foreign, check_finite, fit, missing, whole_layers

#: RGB, 0-255. Caffe's mean image averaged over its pixels; torchvision's
#: transforms.Normalize times 255.
CAFFE_MEAN = (122.67892, 116.66877, 104.00699)
UNIT_MEAN, UNIT_DEVIATION = (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)

HEAD_BYTES = 512


OURS = "alexnet"  # the name of our own format


class Format(NamedTuple):
    """A format, how its files begin or otherwise look, and who reads it.

    `beginning` reads the first layers of a network that is not a whole AlexNet, in formats where
    `read` insists on one.
    """

    name: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Path], Foreign]
    beginning: Callable[[Path], Foreign] | None = None


def _native(path: Path) -> Foreign:
    trained = native.load(path, partial=True)
    return Foreign(
        OURS,
        {**trained.model.state_dict(), **layers_behind(trained)},
        variant=trained.model.variant,
        preprocessing=trained.preprocessing,
        classes=trained.classes,
    )


def _is_npz(path: Path) -> bool:
    """A zip of .npy members; PyTorch's files are zips too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return False


def _is_safe(head: bytes) -> bool:
    """Whether a file begins as safetensors do: eight bytes of length, any first one, then JSON."""
    return head[4:9] == b"\0\0\0\0{"


FORMATS = (
    Format("NumPy .npy", lambda _, head: head.startswith(b"\x93NUMPY"), npy.read, npy.beginning),
    Format("NumPy .npz", lambda path, head: head.startswith(b"PK") and _is_npz(path), npy.read_npz),
    Format("PyTorch .pth", lambda _, head: head.startswith((b"PK", b"\x80")) and not _is_safe(head), torchvision.read),
    Format(OURS, lambda path, head: head[8:9] == b"{" and native.is_ours(path), _native),
    Format("safetensors", lambda _, head: head[8:9] == b"{", torchvision.read_safetensors),
    Format("ONNX", lambda path, _: onnx_read.looks_like(path), onnx_read.read, onnx_read.beginning),
    Format("Caffe .caffemodel", lambda path, _: caffe_read.looks_like(path), caffe_read.read, caffe_read.beginning),
)

#: What people have instead of weights, by how it begins.
MISTAKEN = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"<?xml": "XML; for an OpenVINO model, import the .onnx or .safetensors that it was made from",
    b"<": "a web page, probably the error page of a failed download: open it in a text editor",
    b"\x89HDF": "an HDF5 file; save the weights as .npy or safetensors",
    b"\x1f\x8b": "gzip-compressed: unpack it first",
    b"name:": "a Caffe prototxt, which describes a network without weights: name the .caffemodel",
    b"layer": "a Caffe prototxt, which describes a network without weights: name the .caffemodel",
    b"input": "a Caffe prototxt, which describes a network without weights: name the .caffemodel",
}


def read(path: str | Path) -> Foreign:
    """Translate a file of any known format.

    Raises:
        CheckpointError: missing, empty, foreign, damaged, or with weights that are NaN or infinite.
    """
    path, format = _recognised(path)
    return _checked(path, format.read(path))


def read_beginning(path: str | Path) -> Foreign:
    """As `read`; of a network that is not a whole AlexNet, the first convolutions as conv1 to
    conv5.

    Raises:
        CheckpointError: as `read`; or it has no convolution either.
    """
    path, format = _recognised(path)
    try:
        return _checked(path, format.read(path))
    except CheckpointError as whole:
        if format.beginning is None:
            raise
        try:
            foreign = _checked(path, format.beginning(path))
        except CheckpointError:
            raise whole from None
        reason = str(whole).removesuffix(".")
        return replace(foreign, notes=(*foreign.notes, f"only its first layers were read, because {reason}"))


def _recognised(path: str | Path) -> tuple[Path, Format]:
    """Open the file and recognise its format."""
    path = as_path(path, "path")
    if not was_address(path) and path.is_dir():
        path = native.find(path)
    if was_address(path) or not path.exists():
        raise CheckpointError(not_here(path, "weights", DOWNLOAD))
    if not path.is_file():  # a pipe would be waited for, and cannot be read twice
        raise CheckpointError(f"{path} is not a regular file; save its contents to a file and pass that.")
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    for format in FORMATS:
        if format.matches(path, head):
            return path, format
    what = next((text for start, text in MISTAKEN.items() if head.lstrip().startswith(start)), "not in a known weights format")
    what = "empty" if not head else what
    raise CheckpointError(f"{path} is {what}. Known formats: {', '.join(format.name for format in FORMATS)}.")


def _checked(path: Path, foreign: Foreign) -> Foreign:
    """Every parameter float32, finite, and in one piece. Other tensors are left as they are:
    `fit` says what they are."""
    tensors, widened = dict(foreign.tensors), set()
    for name in PARAMETERS:
        if name not in tensors:
            continue
        if not tensors[name].is_floating_point():
            raise CheckpointError(f"{path}: {name} holds {tensors[name].dtype}; expected floating-point numbers.")
        if tensors[name].dtype != torch.float32:
            widened.add(str(tensors[name].dtype))
        tensors[name] = tensors[name].float().contiguous()  # first: a float64 may be finite and too large for a float32
        check_finite(path, name, tensors[name])
    notes = [f"its weights were converted from {' and '.join(sorted(widened))} to torch.float32"] * bool(widened)
    return replace(foreign, tensors=tensors, notes=(*foreign.notes, *notes))


def import_weights(
    path: str | Path,
    variant: str | Variant | None = None,
    input_size: int | None = None,
    mean: str | Path | None = None,
    classes: str | Path | None = None,
    otherwise: str | None = None,
    partial: bool = False,
) -> tuple[Trained, Foreign]:
    """Read a network with everything that `predict` needs from a file of any known format.

    Args:
        path: the file, or a run's folder.
        variant, input_size: what the file does not say; see `foreign.fit`.
        mean: Caffe's mean.binaryproto; the mean of ImageNet's colours where none is
            given and the file has none.
        classes: text file with a class name a line, in the order of the outputs.
        otherwise: the variant to take for a file that does not say.
        partial: whether layers after conv1 may be missing (`Trained.missing`). What is no layer of
            ours is left out then, and a note says so.

    Returns:
        the network, and the file as it was translated.

    Raises:
        CheckpointError: see `read` and `foreign.fit`; arguments of other types.
        VariantError: an unknown variant.
    """
    expect_kind(variant, "variant", str, Variant, NoneType)
    expect_kind(input_size, "input_size", int, NoneType)
    mean, classes = (None if file is None else as_path(file, name) for file, name in ((mean, "mean"), (classes, "classes")))
    if trained_part.is_one(as_path(path, "path")):
        native.load(path)  # which says what it is and what to do
    foreign = whole_layers(read_beginning(path)) if partial else read(path)
    if variant is None and foreign.variant is None and foreign.ops is None:
        variant = otherwise
    try:
        fitted = fit(foreign, variant, input_size, partial)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    lacking = missing(fitted, foreign.tensors)
    model = AlexNet.beginning(fitted, foreign.tensors) if lacking else AlexNet.holding(fitted, foreign.tensors)
    behind = {name: tensor for name, tensor in foreign.tensors.items() if name not in model.state_dict()}
    published = published_preprocessing(fitted)
    preprocessing = foreign.preprocessing or replace(published, scale=published.scale * foreign.scale)
    if mean:
        preprocessing = _with_mean_image(preprocessing, mean)
    names = _class_names(classes, fitted.num_classes) or foreign.classes or default_classes(fitted)
    return Trained(model.requires_grad_(False).eval(), names, preprocessing, behind, {}, lacking), foreign


def join(path: str | Path, base: str | Path, variant: str | None = None) -> Trained:
    """Trained layers on the weights that they were trained on.

    Args:
        path: what `alexnet export --head-only` wrote.
        base: the weights, in any format.
        variant: which AlexNet they are; where neither it nor their file says, the one that the
            layers were trained in.

    Raises:
        CheckpointError: one of them cannot be read, or these are other weights.
    """
    path, base = as_path(path, "path"), as_path(base, "base")
    if not trained_part.is_one(path):
        raise CheckpointError(f"{path} is not a file of trained layers, as `alexnet export --head-only` writes: drop --base.")
    below, _ = import_weights(base, variant, otherwise=trained_part.variant_of(path), partial=True)
    return trained_part.join(path, {**below.model.state_dict(), **layers_behind(below)}, base)


def layers_behind(trained: Trained) -> dict[str, Tensor]:
    """The layers of a part of a network that come behind the first that is missing."""
    return {name: tensor for name, tensor in trained.extra.items() if name in PARAMETERS} if trained.missing else {}


def _with_mean_image(preprocessing: Preprocessing, path: Path) -> Preprocessing:
    image = caffe_read.read_mean(path)
    check_finite(path, "the mean image", image)
    side, least = image.shape[1], preprocessing.input_size
    if side < least or side % 2:
        raise CheckpointError(f"{path} is {side} pixels wide, but the width must be even and at least the input's {least}.")
    return replace(preprocessing, mean=image, stored_size=side)


def check_file(path: Path) -> check.Check:
    """Check a file's weights; where layers are missing or the variant is
    unknown, without running them."""
    foreign = read(path)
    try:
        fitted = fit(foreign)
    except CheckpointError:
        try:
            return check.tensors(foreign.tensors)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    return check.network(AlexNet.holding(fitted, foreign.tensors))


def describe(trained: Trained, foreign: Foreign) -> list[str]:
    """Describe what was recognised, in lines."""
    variant, preprocessing = trained.model.variant, trained.preprocessing
    size, stored = variant.input_size, preprocessing.stored_size
    mean = "mean image" if preprocessing.mean.shape[1] > 1 else "mean colour"
    values = ", ".join(f"{value:.1f}" for value in preprocessing.mean.mean((1, 2)).tolist())
    order = "BGR" if preprocessing.bgr else "RGB"
    return [
        f"format: {foreign.format}",
        f"variant: {variant.name}, {_widths(variant)}, {variant.towers} towers, {variant.num_classes} classes "
        f"({trained.classes[0]} ... {trained.classes[-1]}), {variant.parameters:,} parameters",
        *[f"missing: {', '.join(trained.missing)}"] * bool(trained.missing),
        f"pictures: {preprocessing.resize} to {stored}, centre {size} x {size}, {order}, minus the {mean} ({values})",
        *(f"note: {note}" for note in foreign.notes),
    ]


def _widths(variant: Variant) -> str:
    known = named().get(variant.name, variant)
    if (variant.kernels, variant.units) == (known.kernels, known.units):
        return f"width {variant.width:g}"
    return f"kernels {', '.join(map(str, variant.kernels))}, units {', '.join(map(str, variant.units))}"


def published_preprocessing(variant: Variant) -> Preprocessing:
    """The preprocessing that the published network of this kind was trained with."""
    whole = named().get(variant.name, variant).input_size
    stored = 2 * round(variant.input_size * paper.STORED_SIZE / whole / 2)
    mean, scale = torch.tensor(CAFFE_MEAN), torch.ones(3)
    if variant.pixels == "unit":
        mean, scale = torch.tensor(UNIT_MEAN), 1 / torch.tensor(UNIT_DEVIATION)
    bgr = variant.channel_order == "BGR"
    return Preprocessing(stored, variant.input_size, variant.resize, bgr, mean.view(3, 1, 1), scale)


def default_classes(variant: Variant) -> tuple[str, ...]:
    """ImageNet's names where the outputs are its thousand classes in sorted
    order; numbers elsewhere."""
    if variant.num_classes == paper.CLASSES and variant.class_order == "wordnet":
        return imagenet.classes()
    return tuple(f"class {number}" for number in range(variant.num_classes))


def _class_names(path: Path | None, count: int) -> tuple[str, ...] | None:
    if path is None:
        return None
    names = read_names(path, CheckpointError)
    if len(names) != count:
        raise CheckpointError(f"{path} has {len(names)} names, but the network has {count} classes: list one name per class.")
    return names
