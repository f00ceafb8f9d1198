"""Check whether labels are related to their pictures, by a small regression on thumbnails."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Split, Store
from alexnet.train.health.signals import LOOK_PICTURES

#: Thumbnails of at most this many pictures of at most so many classes, 8 x 8 pixels.
PROBE_PICTURES, PROBE_CLASSES, THUMBNAIL = 1000, 20, 8
#: Permutations of the labels that make up chance.
PERMUTATIONS = 200
#: Deviations above chance below which labels are suspected. With 200 pictures of ten classes,
#: Imagenette's labels score 7.5 and more in 24 draws, with 400 at least 16; Fashion-MNIST's score
#: more. Shuffled labels score 3.9 at most in 504 draws. Fewer pictures are not asked.
RELATED, PROBE_LEAST = 5.0, 200


@dataclass(frozen=True)
class Labels:
    """What the labels of the training pictures look like.

    Attributes:
        present: classes that occur.
        score: how much better than chance thumbnails tell them, in standard deviations of
            chance; None if not asked.
        pictures: asked of so many.
    """

    present: int
    score: float | None
    pictures: int


def ask(store: Store) -> Labels:
    """Ask the training split's labels."""
    split = store.train
    present = len(np.unique(split.labels))
    chosen = _sample(split)
    if present < 2 or len(chosen) < PROBE_LEAST:
        return Labels(present, None, len(chosen))
    return Labels(present, relation(thumbnails(store, chosen), split.labels[chosen]), len(chosen))


def _sample(split: Split) -> NDArray[np.int64]:
    """Pictures of some classes, equally many of each where there are as many,
    in the order of the store.
    """
    rng = np.random.default_rng(0)
    labels = np.asarray(split.labels)
    counts = np.bincount(labels)
    classes = rng.permutation(np.flatnonzero(counts > 1))[:PROBE_CLASSES]
    each = PROBE_PICTURES // max(len(classes), 1)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:each] for label in classes]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def thumbnails(store: Store, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Records `chosen` of the training split as (N, 192) mean colours of 8 x 8
    fields, RGB in [0, 255].
    """
    size = store.size
    plain = Preprocessing(size, size, store.manifest["resize"], False, torch.zeros(3, 1, 1), torch.ones(3))
    batches = (torch.from_numpy(store.train.take(chosen[i : i + LOOK_PICTURES])) for i in range(0, len(chosen), LOOK_PICTURES))
    small = [F.adaptive_avg_pool2d(plain.view(records, 0, 0, False), THUMBNAIL).flatten(1) for records in batches]
    return torch.cat(small).double().numpy()


def relation(features: NDArray[np.float64], labels: NDArray[np.int32]) -> float | None:
    """How much better than chance features tell labels, in standard deviations of chance; None
    if all features are equal.

    How well a kernel ridge regression fits one-hot labels, against how well it fits the labels
    permuted, `PERMUTATIONS` times, which is chance. (Predicting each picture from all others
    instead tells no more: 7.5 against 7.7 in the weakest draw.)

    Args:
        features: (N, D).
        labels: (N,).
    """
    n = len(features)
    centred = features - features.mean(axis=0)
    squares = (centred**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * centred @ centred.T, 0)  # (N, N)
    if not (scale := float(np.median(distances))):
        return None
    kernel = np.exp(-distances / scale)
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    hat = kernel @ np.linalg.inv(kernel + np.trace(kernel) / n * np.eye(n))
    targets = (labels[:, None] == np.unique(labels)).astype(float)  # (N, K)
    targets -= targets.mean(axis=0)

    def agreement(targets: NDArray[np.float64]) -> float:
        return float((targets * (hat @ targets)).sum())

    rng = np.random.default_rng(0)
    chance = [agreement(rng.permutation(targets)) for _ in range(PERMUTATIONS)]
    return float((agreement(targets) - np.mean(chance)) / np.std(chance))
