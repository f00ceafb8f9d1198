"""A trained network in Python: `alexnet.load("run").predict("cat.jpg")`.

`predict.py` is for thousands of files; this is for one picture at a time, from wherever it comes: a
path, the bytes of a file, Pillow, NumPy. Whatever is wrong with it is raised.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from alexnet import engines
from alexnet.arguments import check_count, check_views
from alexnet.data.image import Unreadable, encode
from alexnet.data.preprocessing import Views
from alexnet.data.sources import read_picture
from alexnet.engines import Classifier
from alexnet.errors import CheckpointError, SourceError
from alexnet.evaluate import probabilities
from alexnet.model import AlexNet
from alexnet.weights import native

Picture = str | Path | bytes | Image.Image | NDArray[np.uint8]
#: Modes of Pillow that PNG cannot hold and that are RGB in other words.
AS_RGB = ("YCbCr", "LAB", "HSV", "RGBX")


@dataclass(frozen=True, repr=False)
class Loaded:
    """A trained network with its class names and its way of preparing pictures, as
    `alexnet.load` returns it.

    Attributes:
        path: the file that was read.
        classes: names in the order of the network's outputs.
        model: the network in PyTorch, ready for testing; None for a file that
            `alexnet export` wrote (.onnx, .xml).

    >>> network = alexnet.load("run")  # doctest: +SKIP
    >>> network.predict("cat.jpg", top=1)  # doctest: +SKIP
    [('cat', 0.97)]
    >>> network.stages("cat.jpg")["conv1"].numpy().shape  # doctest: +SKIP
    (1, 96, 55, 55)
    """

    path: Path
    model: AlexNet | None
    _classifier: Classifier

    def __repr__(self) -> str:
        kind = self.model.variant.name if self.model else "exported"
        return f"<alexnet.Loaded {str(self.path)!r}: {kind}, {len(self.classes)} classes>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the network's outputs."""
        return self._classifier.classes

    @torch.no_grad()
    def predict(self, picture: Picture, top: int = 5, views: Views = 1) -> list[tuple[str, float]]:
        """Classify a picture.

        Args:
            picture: a path, the bytes of a file, a Pillow image, or (H, W, 3), (H, W, 4) or (H, W)
                uint8 of red, green, blue and opacity, or of grey levels.
            top: how many classes to name.
            views: 1 for the centre crop, 10 for the paper's corners, centre and mirrors.

        Returns:
            (class name, probability), the most likely first.

        Raises:
            SourceError: it cannot be read or is not a picture.
            UsageError: `top` or `views` is out of range.
        """
        check_count("top", top)
        check_views(views)
        shares = probabilities(self._classifier.network, self._classifier.preprocessing, self._record(picture), views)[0]
        best = shares.topk(min(top, len(self.classes)))
        return [(self.classes[index], share) for share, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    @torch.no_grad()
    def stages(self, picture: Picture) -> dict[str, Tensor]:
        """Every intermediate result for the centre crop of a picture, by layer name in
        order: conv1, relu1, ..., fc8.

        Args:
            picture: as in `predict`.

        Returns:
            On the CPU, without gradients; the shapes are those of
            `alexnet summary` with a 1 in front.

        Raises:
            SourceError: it cannot be read or is not a picture.
            CheckpointError: the network is an exported one, which shows its logits only.
        """
        if self.model is None:
            raise CheckpointError(
                f"{self.path} is an exported network, whose stages cannot be read: load the run that it was exported from."
            )
        preprocessing = self._classifier.preprocessing
        (view,) = preprocessing.views(1)
        x = preprocessing.view(self._record(picture), *view)
        return {name: stage.cpu() for name, stage in self.model.stages(x).items()}

    def _record(self, picture: Picture) -> Tensor:
        """(1, bytes) uint8, as `alexnet prepare` would store it."""
        preprocessing = self._classifier.preprocessing
        name = picture if isinstance(picture, str | Path) else "the picture"
        try:
            record = encode(_content(picture), preprocessing.stored_size, preprocessing.resize)
        except Unreadable as reason:
            raise SourceError(f"{name} cannot be read: {reason}.") from reason
        return torch.from_numpy(record)[None].to(preprocessing.mean.device)


def load(path: str | Path, device: torch.device | str = "cpu") -> Loaded:
    """See `alexnet.load`."""
    if not isinstance(path, str | Path):
        raise CheckpointError(f"path (={path!r}) must be a run's folder or a file.")
    path = Path(path)
    if path.suffix in engines.EXPORTED and path.is_file():
        return Loaded(path, None, engines.load(path))
    path = native.find(path)
    trained = native.load(path, _usable(device))
    return Loaded(path, trained.model, engines.of(trained, "torch"))


def _usable(device: torch.device | str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, TypeError, AssertionError) as error:  # an unknown name, a PyTorch built without it, no such GPU
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"device (={device!r}) cannot be used here: {reason} Use cpu or cuda.") from error
    return place


def _content(picture: Any) -> bytes:
    """A picture as the bytes of a file; if it is decoded already, of a PNG or TIFF, which keep
    pixels and colour profile.
    """
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | Path):
        try:
            return read_picture(picture)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
    if isinstance(picture, np.ndarray):
        picture = _image(picture)
    if not isinstance(picture, Image.Image):
        raise SourceError(
            f"a picture of type {type(picture).__name__} cannot be read: pass a path, the bytes of a file, a Pillow image "
            "or an (H, W, 3) uint8 array."
        )
    file = io.BytesIO()
    try:
        turned = ImageOps.exif_transpose(picture)
        if turned.mode == "CMYK":
            turned.save(file, "TIFF")
        else:
            (turned.convert("RGB") if turned.mode in AS_RGB else turned).save(file, "PNG", compress_level=0)
    except Exception as error:  # a truncated file that Pillow reads only now, a mode that has no defined white
        raise Unreadable(f"Pillow cannot save it: {error}") from error
    return file.getvalue()


def _image(pixels: NDArray[Any]) -> Image.Image:
    shape, channels = pixels.shape, pixels.shape[2:] or (1,)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels[0] not in (1, 3, 4) or 0 in shape:
        raise SourceError(
            f"an array of shape {shape} and type {pixels.dtype} is not a picture: pass (H, W, 3), (H, W, 4) or (H, W) uint8."
        )
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if shape[2:] == (1,) else pixels))
