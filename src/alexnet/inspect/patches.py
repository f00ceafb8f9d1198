"""What a unit likes: the nine pictures of a store in which it answers most, and where in them.

One pass over the pictures keeps, for every kernel of every convolution at once, the best nine
answers found so far: memory does not grow with the store. The result is kept in the cache under a
hash of all that it depends on (weights, operations, preprocessing, store), and found again at once.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.arithmetic import Conv
from alexnet.console import say
from alexnet.data.image import decode
from alexnet.data.loader import in_order
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.resample import resampled
from alexnet.data.store import TRAIN, Split, Store
from alexnet.files import replacing
from alexnet.inspect import windows
from alexnet.inspect.windows import Box
from alexnet.meter import Meter
from alexnet.model import AlexNet
from alexnet.published.registry import cache_folder

BEST = 9
BATCH_SIZE = 64
FIELDS = ("values", "records", "rows", "columns")  # of `Patches`, as in the cache's files


@dataclass(frozen=True)
class Patches:
    """The best answers of every kernel. C kernels; the best comes first. A store of fewer pictures
    gives fewer.

    Attributes:
        layer: the convolution.
        values: (C, 9) float32, answers before the ReLU.
        records: (C, 9) int64, numbers of the pictures in the split, nine different ones.
        rows, columns: (C, 9) int64, cells in the layer's map.
    """

    layer: str
    values: NDArray[np.float32]
    records: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def best_patches(
    model: AlexNet, preprocessing: Preprocessing, store: Store, split: str = TRAIN, last: str | None = None
) -> dict[str, Patches]:
    """The best patches of every kernel, by convolution.

    Args:
        model: the network.
        preprocessing: how it takes pictures; a larger store is shrunk first, once.
        store: where to look.
        split: which of its splits.
        last: the last convolution to look at, such as where the weights end; conv5 by default.

    Raises:
        CheckpointError: the store's pictures are too small or were cut in another way.
        StoreError: no such split, or the store is damaged.
    """
    pictures = fitting(store, preprocessing).split(split)
    names = [op.name for op in model.ops if isinstance(op, Conv)]
    names = names[: names.index(last) + 1] if last else names
    best: dict[str, Patches] = {}
    with Meter(f"looking for patches in {split}", len(pictures), "images") as meter:
        seen = 0
        for batch in in_order(pictures, BATCH_SIZE):
            for name, found in _answers(model, preprocessing, batch.records, names).items():
                best[name] = _merged(best.get(name), found, name, seen)
            seen += len(batch.records)
            meter.add(len(batch.records))
    return best


def kept_patches(
    model: AlexNet, preprocessing: Preprocessing, store: Store, weights: str, split: str = TRAIN, last: str | None = None
) -> dict[str, Patches]:
    """`best_patches`, from the cache if they were looked for before, else put there.

    Args:
        weights: hash of the model's weights.
    """
    path = cache_folder() / "patches" / f"{_key(model, preprocessing, store, weights, split, last)}.npz"
    if (found := _read(path)) is not None:
        return found
    best = best_patches(model, preprocessing, store, split, last)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{f"{one.layer}.{field}": getattr(one, field) for one in best.values() for field in FIELDS})
    except OSError as error:
        say(f"The patches are not kept for the next time, as {path} cannot be written ({error.strerror}).")
    return best


def _key(model: AlexNet, preprocessing: Preprocessing, store: Store, weights: str, split: str, last: str | None) -> str:
    """A hash of everything that the patches depend on."""
    sizes = [getattr(preprocessing, name) for name in ("stored_size", "input_size", "resize", "bgr")]
    digest = hashlib.sha256(repr((weights, store.fingerprint, split, last, model.ops, sizes)).encode())
    for numbers in (preprocessing.mean, preprocessing.scale):
        digest.update(numbers.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def picture(preprocessing: Preprocessing, pictures: Split, record: int, box: Box) -> NDArray[np.uint8]:
    """A patch: (height, width, 3) uint8, RGB.

    Args:
        preprocessing: the network's.
        pictures: the split of a store that `fitting` gives.
        record: number of the picture.
        box: pixels of the network's input, see `windows.seen`.
    """
    ((top, left, _),) = preprocessing.views(1)
    stored = decode(pictures.take(slice(record, record + 1))[0])
    return stored[top + box[1] : top + box[3], left + box[0] : left + box[2]]


def fitting(store: Store, preprocessing: Preprocessing) -> Store:
    """The store in the size that a network takes.

    Raises:
        CheckpointError: its pictures are smaller, or were cut in another way.
    """
    store = resampled(store, preprocessing.stored_size)
    preprocessing.check_fits(store)
    return store


@torch.inference_mode()
def _answers(
    model: AlexNet, preprocessing: Preprocessing, records: Tensor, names: list[str]
) -> dict[str, tuple[Tensor, Tensor, int]]:
    """Each kernel's largest answer in each picture: values and cells, (N, C), and the width of the
    map.
    """
    (view,) = preprocessing.views(1)
    x = preprocessing.view(records.to(model.device), *view).contiguous(memory_format=torch.channels_last)
    found = {}
    for op in model.ops:
        x = model.compute(op, x)
        if op.name in names:
            values, cells = x.flatten(2).max(2)
            found[op.name] = (values.float().cpu(), cells.cpu(), x.shape[3])
        if op.name == names[-1]:
            break
    return found


def _merged(best: Patches | None, found: tuple[Tensor, Tensor, int], layer: str, first: int) -> Patches:
    """The best of what was known and of another batch, whose first picture has number `first`."""
    values, cells, width = (found[0].T.numpy(), found[1].T.numpy(), found[2])  # (C, N)
    numbers = np.broadcast_to(np.arange(first, first + values.shape[1]), values.shape)
    new = Patches(layer, values, numbers, cells // width, cells % width)
    both = [new] if best is None else [best, new]
    joined = [np.concatenate([getattr(one, field) for one in both], axis=1) for field in FIELDS]
    order = np.argsort(-joined[0], axis=1, kind="stable")[:, :BEST]
    return Patches(layer, *(np.take_along_axis(one, order, axis=1) for one in joined))


def _read(path: Path) -> dict[str, Patches] | None:
    """Patches of the cache; None if there are none, or if the file is damaged."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        layers = sorted({name.partition(".")[0] for name in arrays})
        return {layer: Patches(layer, *(arrays[f"{layer}.{field}"] for field in FIELDS)) for layer in layers}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        say(f"{path} is damaged: looking for the patches again.")
        return None


def boxes(model: AlexNet, patches: Patches, channel: int) -> list[Box]:
    """Where a kernel's best patches are, in pixels of the network's input."""
    layers = model.variant.layers()
    cells = zip(patches.rows[channel].tolist(), patches.columns[channel].tolist(), strict=True)
    return [windows.seen(layers, patches.layer, row, column) for row, column in cells]
