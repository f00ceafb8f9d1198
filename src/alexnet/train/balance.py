"""Weights for classes of unequal size.

`balanced` weighs a picture by how rare its class is, N / (K n), N being the pictures of the
training split, n those of the picture's class and K the classes that have any. All classes then
count alike, and a loss keeps its size: the mean weight of the pictures is 1.
"""

import numpy as np
import torch
from torch import Tensor

from alexnet.data.store import Split
from alexnet.train.recipes import Recipe


def class_weights(recipe: Recipe, split: Split, classes: int) -> Tensor | None:
    """What each class's pictures weigh in the loss, (classes,) float32; None if all weigh the
    same.
    """
    if recipe.class_weights is None:
        return None
    counts = np.bincount(split.labels, minlength=classes)
    weights = len(split) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights).float()
