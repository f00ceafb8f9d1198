"""A scene: all that the page needs to know of one network on one picture.

It is a description (JSON) and arrays in one run of bytes: 8 bytes that name the format, the length
of the JSON (uint32), the JSON, zeros up to a multiple of 16, then the arrays, each beginning at a
multiple of 16. Numbers are little-endian; an array in "planes" has the first bytes of all numbers,
then the second ones and so on. The page computes what it shows from these arrays; what follows
exactly from another stage (ReLU, dropout at test) is left out, and of the fully connected layers
only the units are there that count for the five likeliest classes.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet import explanation
from alexnet.arithmetic import Conv, Dropout, Linear, ReLU
from alexnet.data.image import MAX_PIXELS, Photo, Unreadable, decode, encode, photo
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError, SourceError
from alexnet.inspect import windows
from alexnet.inspect.contributions import contributions
from alexnet.variants import Variant
from alexnet.web.shown import Shown
from alexnet.web.units import Liked, jpeg, units
from alexnet.words import LANGUAGES

MAGIC = b"AXSCENE1"
ALIGNED = 16
TYPES = {"f4": np.dtype("<f4"), "u1": np.dtype("u1"), "i4": np.dtype("<i4")}
#: Classes on the page, and units of the layers before them.
TOP, FC7_UNITS, FC6_UNITS = 5, 32, 16
#: Pixels of the longer side of the photo beside the network's view of it.
SHOWN_SIDE = 640


@dataclass(frozen=True)
class Scene:
    """One network on one picture.

    Attributes:
        description: plain data; `arrays` is added by `to_bytes`.
        arrays: by name: stages, parameters, the picture as the network sees it.
    """

    description: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @classmethod
    @torch.inference_mode()
    def of(
        cls, shown: Shown, picture: bytes, name: str = "", liked: Liked | None = None, max_pixels: int = MAX_PIXELS
    ) -> "Scene":
        """Run a network on a picture.

        Args:
            shown: the network.
            picture: the bytes of a file.
            name: the file's name, to be shown.
            liked: what the network's kernels like, to be shown too.
            max_pixels: see `image.encode`.

        Raises:
            SourceError: the picture cannot be read.
            CheckpointError: the network's numbers are not finite.
        """
        preprocessing = shown.preprocessing
        try:
            record = encode(picture, preprocessing.stored_size, preprocessing.resize, max_pixels)
            whole = photo(picture, SHOWN_SIDE, max_pixels)
        except Unreadable as reason:
            raise SourceError(f"{name or 'the picture'} cannot be read: {reason}.") from reason
        (view,) = preprocessing.views(1)
        x = preprocessing.view(torch.from_numpy(record)[None], *view)
        stages = _stages(shown, x)
        arrays: dict[str, NDArray[Any]] = {
            "input": _array(x),
            "seen": _seen(preprocessing, record),
            **{op.name: _array(stages[op.name]) for op in shown.ops if not isinstance(op, ReLU | Dropout)},
            **_kernels(shown),
            **_connected(shown, stages),
        }
        description = {
            "network": _network(shown),
            "layers": layers_of(shown.variant),
            "learned": {language: explanation.learned(shown.variant, language) for language in LANGUAGES},
            "picture": _picture(preprocessing, whole, name),
            "preprocessing": _preprocessing(preprocessing),
            "classes": _classes(shown, arrays),
            "units": units(shown, stages, liked),
        }
        return cls(description, arrays)

    def to_bytes(self, planes: bool = False) -> bytes:
        """The scene as the page reads it.

        Args:
            planes: numbers byte by byte, as for a file that is compressed: 5 % smaller.
        """
        places, parts, at = {}, list[bytes](), 0
        for name, array in self.arrays.items():
            kind = next(kind for kind, dtype in TYPES.items() if dtype == array.dtype)
            places[name] = {"offset": at, "shape": list(array.shape), "type": kind, "planes": planes}
            data = np.ascontiguousarray(array).tobytes()
            if planes:
                data = np.frombuffer(data, np.uint8).reshape(-1, array.itemsize).T.tobytes()
            parts += [data, bytes(-len(data) % ALIGNED)]
            at += len(data) + len(parts[-1])
        text = json.dumps({**self.description, "arrays": places}, ensure_ascii=False, allow_nan=False).encode()
        head = MAGIC + struct.pack("<I", len(text)) + text
        return b"".join([head, bytes(-len(head) % ALIGNED), *parts])


def layers_of(variant: Variant) -> list[dict[str, Any]]:
    """The layers as plain data: the fields of their operations, where their cells look, and how
    they are written out in each language.
    """
    layers = variant.layers()
    fields = windows.fields(layers)
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "input": (*layer.input, 1, 1)[:3],
            "output": (*layer.output, 1, 1)[:3],
            "parameters": layer.parameters,
            "multiply_adds": layer.multiply_adds,
            "receptive_field": layer.receptive_field,
            "jump": layer.jump,
            "offset": fields[layer.name].offset,
            "field": fields[layer.name].side,
            "towers": 1 if layer.name == "fc8" else variant.towers,
            **asdict(layer.op),
            "lines": {language: explanation.lines(layer, variant, language) for language in LANGUAGES},
        }
        for layer in layers
    ]


def _stages(shown: Shown, x: Tensor) -> dict[str, Tensor]:
    """Every stage before the first missing layer, (1, C, H, W) and (1, units)."""
    stages = {}
    for op in shown.ops:
        stages[op.name] = x = shown.model.compute(op, x)
        if not x.isfinite().all():
            raise CheckpointError(
                f"{shown.name} computes numbers in {op.name} that are too large for float32: its training has diverged, and "
                "there is nothing to show."
            )
    return stages


def _array(x: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(x[0].detach().cpu().float().numpy())


def _seen(preprocessing: Preprocessing, record: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(K, K, 3) uint8, RGB: the part of the record that the network sees."""
    ((top, left, _),) = preprocessing.views(1)
    side = preprocessing.input_size
    return decode(record)[top : top + side, left : left + side]


def _parameter(shown: Shown, name: str) -> NDArray[np.float32]:
    return shown.model.get_parameter(name).detach().cpu().float().contiguous().numpy()


def _kernels(shown: Shown) -> dict[str, NDArray[np.float32]]:
    names = [op.name for op in shown.ops if isinstance(op, Conv)]
    return {f"{name}.{kind}": _parameter(shown, f"{name}.{kind}") for name in names for kind in ("weight", "bias")}


def _connected(shown: Shown, stages: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Rows, weights and biases of the units that count most, from the last layer down: of fc8 the
    likeliest classes; of a layer below, what the rows above read most of.
    """
    found: dict[str, NDArray[Any]] = {}
    names = [op.name for op in shown.ops if isinstance(op, Linear)]
    rows = np.argsort(-_array(stages[names[-1]]), kind="stable")[:TOP] if names else np.zeros(0, np.int64)
    for name in reversed(names):
        terms = contributions(shown.model, stages, name, rows.tolist())
        found |= {
            f"{name}.rows": rows.astype(np.int32),
            f"{name}.weight": _parameter(shown, f"{name}.weight")[rows],
            f"{name}.bias": terms.bias,
        }
        rows = terms.largest(FC7_UNITS if name == "fc8" else FC6_UNITS)
    return found


def _network(shown: Shown) -> dict[str, Any]:
    variant = shown.variant
    trained = shown.looks_trained
    return {
        "name": shown.name,
        "label": shown.label,
        "variant": variant.name,
        "input_size": variant.input_size,
        "width": variant.width,
        "num_classes": variant.num_classes,
        "towers": variant.towers,
        "hash": shown.hash,
        "trained": trained,
        "note": "partial" if shown.missing else "untrained" if trained is False else None,
        "missing": shown.missing,
        "source": shown.source,
    }


def _picture(preprocessing: Preprocessing, whole: Photo, name: str) -> dict[str, Any]:
    """The photo, and the part of it that the network sees."""
    stored, side = preprocessing.stored_size, preprocessing.input_size
    begin = (stored - side) // 2
    if preprocessing.resize == "squash":
        left, top, across, down, how = 0.0, 0.0, whole.width, whole.height, "squash"
    else:
        across = down = min(whole.width, whole.height)
        left, top, how = (whole.width - across) // 2, (whole.height - down) // 2, "centre"
    cut = [left + across * begin / stored, top + down * begin / stored, across * side / stored, down * side / stored]
    return {
        "name": name,
        "width": whole.width,
        "height": whole.height,
        "frames": whole.frames,
        "cut": cut,
        "how": how,
        "jpeg": jpeg(whole.pixels),
    }


def _preprocessing(preprocessing: Preprocessing) -> dict[str, Any]:
    return {
        "order": "BGR" if preprocessing.bgr else "RGB",
        "mean": [round(value, 3) for value in preprocessing.mean.mean((1, 2)).tolist()],
        "mean_image": preprocessing.mean.shape[1] > 1,
        "scale": preprocessing.scale.tolist(),
        "stored_size": preprocessing.stored_size,
        "input_size": preprocessing.input_size,
        "resize": preprocessing.resize,
    }


def _classes(shown: Shown, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """The likeliest classes; adds the array `probabilities`."""
    if "fc8" not in arrays:
        return {"count": shown.variant.num_classes, "top": []}
    logits = arrays["fc8"]
    shares = np.exp(logits.astype(np.float64) - logits.max())
    shares = (shares / shares.sum()).astype(np.float32)
    arrays["probabilities"] = shares
    top = [
        {"index": int(row), "name": shown.classes[row], "probability": float(shares[row]), "logit": float(logits[row])}
        for row in arrays["fc8.rows"]
    ]
    return {"count": shown.variant.num_classes, "top": top}
