"""One epoch over as many resident records as ImageNet has, in random order, end to end.

1,281,167 records of 256 x 256 pixels are 117.3 GiB. `train_gpu.py 3` fills them with a store's
photos over and over, or with noise, by copies within the GPU's memory: the photos cross the bus
once, and the host never holds the whole. Each record has its own address, so the permutation reads
all of them, as it would with ImageNet's.

The clock runs over the epoch alone, its loss read every 20 steps as in training; it begins when
kernels are compiled and the step is recorded. Filling is timed by itself.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet import paper
from alexnet.bench import LR, STORED, noise, preprocessing_of
from alexnet.data.augment import Augmentation
from alexnet.data.feed import Resident
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Split, Store
from alexnet.devices import set_precision
from alexnet.errors import RecipeError
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.train.steps.fused import TYPES, FusedStep, build
from alexnet.variants import Variant

IMAGENET = 1_281_167
NOISE = 1024  # different records, where there is no store
COLLECT = 20  # steps
PIECE = 4096  # records copied at a time
FIRST_STEPS = 5  # of which three are not recorded


class FullEpochs:
    """Epochs over one set of resident records, which are filled once.

    Args:
        store: its training photos are repeated; noise if None.
        count: records.
    """

    def __init__(self, variant: Variant, store: Store | None, device: torch.device, count: int = IMAGENET) -> None:
        set_precision("bf16", device)
        self.variant, self.device, self.lr = variant, device, paper.LEARNING_RATE if store else LR
        split, self.augmentation = material(variant, store, device)
        # Its records lie on the device alone.
        self.split = Split("train", split.records, np.resize(split.labels, count), Path())
        start = time.monotonic()
        self.records = filled_with(split.records, count, device)
        filled = f"{count:,} records from {len(split):,}, {self.records.nbytes / 2**30:.2f} GiB"
        print(f"\n{filled}, in {time.monotonic() - start:.1f} s", flush=True)

    def run(self, batch: int) -> dict[str, Any]:
        """An epoch in batches of this size, printed; as plain data."""
        start = Start.on_records(Recipe(), self.variant, self.split, self.augmentation).in_batches_of(batch)
        feed = Resident(start.loader, self.device, self.records)
        fused = build(feed, start.model, start.augmentation, start.optimiser, TYPES["bf16"])
        try:
            found = one_epoch(fused, self.lr)
        finally:
            fused.close()
        print_epoch(batch, len(self.split.labels), found)
        return found


def material(variant: Variant, store: Store | None, device: torch.device) -> tuple[Split, Augmentation]:
    """What to repeat, and what is done to it in training."""
    if store is None:
        split = noise(max(STORED, variant.input_size), NOISE, variant.num_classes)
        return split, Augmentation(preprocessing_of(variant).to(device), True, True, np.eye(3))
    preprocessing = Preprocessing.of(variant, store).to(device)
    return store.train, Augmentation.of(preprocessing, store, True, True, paper.COLOUR_NOISE)


def check_store(variant: Variant, store: Store) -> None:
    """Refuse photos that this network cannot be trained on.

    Raises:
        RecipeError: they are too small, or of too many classes.
    """
    if store.size < variant.input_size:
        raise RecipeError(
            f"The epoch trains on {variant.input_size} pixels, and the photos of {store.folder} have {store.size}: prepare a "
            f"store with --size {STORED}."
        )
    if len(store.classes) > variant.num_classes:
        raise RecipeError(
            f"{store.folder} has {len(store.classes)} classes, and the epoch's network has {variant.num_classes}: leave out "
            "--data."
        )


def filled_with(records: NDArray[np.uint8], count: int, device: torch.device) -> Tensor:
    """(count, bytes) on the device: `records`, copied there once, and then over and over."""
    whole = torch.empty((count, records.shape[1]), dtype=torch.uint8, device=device)
    there = min(count, len(records))
    for start in range(0, there, PIECE):
        end = min(start + PIECE, there)
        whole[start:end] = torch.from_numpy(np.array(records[start:end]))
    for start in range(there, count, there):
        piece = whole[start : start + there]
        piece.copy_(whole[: len(piece)])
    if whole.is_cuda:
        torch.cuda.synchronize(device)
    return whole


def one_epoch(fused: FusedStep, lr: float) -> dict[str, float]:
    """Seconds from an idle device to an idle device; losses are means over the first and
    the last lines of the log.
    """
    steps, losses = fused.feed.loader.steps_per_epoch, []
    for step in range(min(FIRST_STEPS, steps)):
        fused.take(1, step, lr, 1.0)
    fused.collect()
    start = time.monotonic()
    for step in range(steps):
        fused.take(0, step, lr, 1.0)
        if (step + 1) % COLLECT == 0 or step + 1 == steps:
            total, _, taken = fused.collect()
            losses.append(total / taken)
    seconds = time.monotonic() - start
    return {
        "seconds": round(seconds, 2),
        "images_per_second": round(steps * fused.batch_size / seconds, 1),
        "steps_per_second": round(steps / seconds, 2),
        "steps": steps,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def print_epoch(batch: int, count: int, found: dict[str, float]) -> None:
    """One line."""
    print(
        f"batch {batch}: one epoch of {count:,} resident records in {found['seconds']:.1f} s, "
        f"{found['images_per_second']:,.0f} images/s, {found['steps_per_second']:,.1f} steps/s; "
        f"loss {found['first_loss']:.3f} to {found['last_loss']:.3f}",
        flush=True,
    )
