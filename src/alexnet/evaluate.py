"""Evaluate a network: top-1 and top-5 error, error per class, confusion matrix.

One view is the centre crop; ten are the paper's (section 4.1): four corners and centre and their
mirrors, probabilities averaged.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet import intervals
from alexnet.arguments import check_views
from alexnet.data.loader import Batch, in_order
from alexnet.data.preprocessing import Preprocessing, Views
from alexnet.data.resample import resampled
from alexnet.data.store import Split, Store
from alexnet.engines import Classifier, Network
from alexnet.errors import CheckpointError, StoreError
from alexnet.meter import Meter
from alexnet.phrases import quoted
from alexnet.published import imagenet

BATCH_SIZE = 128


@dataclass(frozen=True)
class Evaluation:
    """The result on one split.

    Attributes:
        confusion: (K, K) counts, row: true class, column: class predicted.
        in_top5: (K,) pictures of each class whose class was among the five most likely.
    """

    classes: tuple[str, ...]
    views: int
    confusion: NDArray[np.int64]
    in_top5: NDArray[np.int64]

    @property
    def images(self) -> int:
        """Pictures tested."""
        return int(self.confusion.sum())

    @property
    def wrong(self) -> int:
        """Pictures whose most likely class is wrong."""
        return self.images - int(self.confusion.trace())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `top1_error`, by Wilson."""
        return intervals.wilson(self.wrong, self.images)

    @property
    def chance(self) -> float:
        """The top-1 error of always naming the most frequent class, in [0, 1]."""
        return intervals.chance(self.confusion.sum(axis=1).tolist())

    @property
    def has_top5(self) -> bool:
        """Whether the top-5 error says anything: with five classes or fewer it is always 0."""
        return len(self.classes) > 5

    @property
    def top1_error(self) -> float:
        """Share of pictures whose most likely class is wrong, in [0, 1]."""
        return 1 - float(self.confusion.trace()) / self.images

    @property
    def top5_error(self) -> float:
        """Share of pictures whose class is not among the five most likely, in [0, 1]."""
        return 1 - float(self.in_top5.sum()) / self.images

    @property
    def used(self) -> NDArray[np.int64]:
        """Numbers of the classes that have test pictures or were predicted for some; rising."""
        return np.flatnonzero(self.confusion.sum(axis=0) + self.confusion.sum(axis=1))

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """(K, K) `confusion` as shares of each row, in [0, 1]; 0 for a class without pictures."""
        return self.confusion / np.maximum(self.confusion.sum(axis=1, keepdims=True), 1)

    def __add__(self, other: "Evaluation") -> "Evaluation":
        """The evaluation of both sets of pictures together, which must be disjoint."""
        return replace(self, confusion=self.confusion + other.confusion, in_top5=self.in_top5 + other.in_top5)

    def as_json(self) -> dict[str, Any]:
        """Plain data; errors and intervals are shares in [0, 1], null for a class without pictures.

        `top1_interval` is the 95 % interval, `chance` the error of always naming the most frequent
        class. `top5_error` is there for any number of classes; up to five of them it is 0.
        """
        counts = self.confusion.sum(axis=1)
        per_class = [
            {
                "class": name,
                "images": int(count),
                "top1_error": 1 - float(self.confusion[label, label]) / int(count) if count else None,
                "top1_interval": intervals.wilson(int(count - self.confusion[label, label]), int(count)) if count else None,
                "top5_error": 1 - float(self.in_top5[label]) / int(count) if count else None,
            }
            for label, (name, count) in enumerate(zip(self.classes, counts, strict=True))
        ]
        return {
            "images": self.images,
            "views": self.views,
            "top1_error": self.top1_error,
            "top5_error": self.top5_error,
            "top1_interval": self.interval,
            "chance": self.chance,
            "per_class": per_class,
        }


class Counts:
    """What an `Evaluation` counts, batch by batch."""

    def __init__(self, classes: int, device: torch.device) -> None:
        """`device`: of the probabilities; an NVIDIA GPU counts itself, and is not
        waited for before the end.
        """
        self.classes = classes
        self.device = device if device.type == "cuda" else torch.device("cpu")
        self.confusion = torch.zeros(classes * classes, dtype=torch.int64, device=self.device)
        self.in_top5 = torch.zeros(classes, dtype=torch.int64, device=self.device)

    def add(self, probabilities: Tensor, labels: Tensor) -> None:
        """Count a batch: (N, K) probabilities, (N,) int64 true classes."""
        labels = labels.to(self.device)
        top = probabilities.topk(min(5, self.classes)).indices.to(self.device)
        self.confusion.index_add_(0, labels * self.classes + top[:, 0], torch.ones_like(labels))
        self.in_top5.index_add_(0, labels, (top == labels[:, None]).any(1).long())

    def evaluation(self, classes: tuple[str, ...], views: int) -> Evaluation:
        """The result; `classes` are the names."""
        confusion = self.confusion.view(self.classes, self.classes)
        return Evaluation(classes, views, confusion.cpu().numpy(), self.in_top5.cpu().numpy())


@torch.inference_mode()
def probabilities(network: Network, preprocessing: Preprocessing, records: Tensor, views: Views) -> Tensor:
    """Class probabilities averaged over the views: (N, bytes) uint8 to (N, K) float32."""
    placed = preprocessing.views(views)
    total = sum(network(preprocessing.view(records, *view)).softmax(1) for view in placed)
    assert isinstance(total, Tensor)
    return total / len(placed)


def evaluate(
    network: Network,
    preprocessing: Preprocessing,
    split: Split,
    classes: tuple[str, ...],
    views: Views = 1,
    meter: Meter | None = None,
    outputs: Tensor | None = None,
    batches: Iterable[Batch] | None = None,
) -> Evaluation:
    """Test a network on every record of a split, on the device of the preprocessing.

    Args:
        classes: the network's.
        outputs: the network's number of each of the split's classes, (classes of the split,)
            int64; the same if None.
        batches: the split's records and labels, if they are in memory; read from the store if None.
    """
    device = preprocessing.mean.device
    counts = Counts(len(classes), device)
    for records, labels in in_order(split, BATCH_SIZE) if batches is None else batches:
        labels = labels if outputs is None else outputs[labels]
        counts.add(probabilities(network, preprocessing, records.to(device), views), labels)
        if meter:
            meter.add(len(labels))
    return counts.evaluation(classes, views)


def evaluate_classifier(classifier: Classifier, store: Store, split: str | None = None, views: Views = 1) -> Evaluation:
    """Test a classifier on a store's held-out pictures, or on the split named.

    A store of larger or smaller pictures than the network was trained on is resampled first
    (`data/resample.py`).

    Raises:
        CheckpointError: the store has other classes, or records of another kind, than the network
            was trained on; or an argument is of another type.
        StoreError: `store` is not one, or has no such split.
        UsageError: `views` is neither 1 nor 10.
    """
    check_arguments([classifier], store, views)
    store, outputs = fitting([classifier], store)
    chosen = store.split(split) if split else store.held_out
    with Meter(f"evaluating {chosen.name}", len(chosen), "images") as meter:
        return evaluate(classifier.network, classifier.preprocessing, chosen, classifier.classes, views, meter, outputs)


def check_arguments(networks: Sequence[Classifier], store: Store, views: Views) -> None:
    """Refuse arguments of other types, at the functions that notebooks call."""
    if wrong := [one for one in networks if not isinstance(one, Classifier)]:
        raise CheckpointError(f"classifier (={wrong[0]!r}) must be a Classifier: engines.load(RUN) gives one.")
    if not isinstance(store, Store):
        raise StoreError(f"store (={store!r}) must be a Store: Store(PATH) opens one.")
    check_views(views)


def fitting(networks: Sequence[Classifier], store: Store) -> tuple[Store, Tensor]:
    """A store in the size that networks of the same classes take. The classes are compared first,
    as resampling reads and writes all pictures.

    Returns:
        the store, and the networks' number of each of its classes, see `outputs_of`.

    Raises:
        CheckpointError: the store has other classes, or records of another kind, than a
            network was trained on.
        StoreError: it cannot be resampled.
    """
    outputs = outputs_of(networks[0].classes, store)
    store = resampled(store, networks[0].preprocessing.stored_size)
    for one in networks:
        one.preprocessing.check_fits(store)
    return store, outputs


def outputs_of(classes: tuple[str, ...], store: Store) -> Tensor:
    """The network's number of each of the store's classes, (classes of the store,) int64.

    A class is its number: equal lists are matched by position, whatever names occur in them twice.
    Other lists are matched by name, and a store may hold some of the network's classes only.

    Args:
        classes: the network's, in the order of its outputs.

    Raises:
        CheckpointError: the network does not have a class of the store, or its name is not unique.
    """
    wanted, has = same_form(classes), same_form(store.classes)
    if wanted == has:
        return torch.arange(len(has))
    known = {name: number for number, name in enumerate(wanted)}
    differing = [name for name in has if name not in known]
    if differing:
        raise CheckpointError(
            f"{store.address} has other classes than the network was trained on ({len(has)} and {len(wanted)}; differing: "
            f"{quoted(differing)}). Prepare the store from the same folders."
        )
    times = Counter(wanted), Counter(has)
    if repeated := [name for name in dict.fromkeys(has) if max(counts[name] for counts in times) > 1]:
        raise CheckpointError(
            f"{store.address} has the network's classes in another order or number, and several "
            f"have the name {repeated[0]!r}, so they cannot be matched by name. Prepare the store "
            "from the folders that the network was trained on."
        )
    return torch.tensor([known[name] for name in has])


def same_form(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Names as they compare: an accented letter is the same in one character or in two (macOS's
    folders), and a WordNet id, ImageNet's name of a folder, is the same as what it means.
    """
    return imagenet.readable([unicodedata.normalize("NFC", name) for name in classes])
