"""What this version writes, as an archive for the tests of later ones: python make.py 0.1.0.tar.xz

A store of twelve drawn pictures, a run of two epochs on it, and the probabilities that its network
gives. Made again only for a new format, beside the archives that are there.
"""

import json
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from alexnet import engines
from alexnet.data.prepare import prepare
from alexnet.evaluate import probabilities
from alexnet.train import recipes
from alexnet.train.loop import train

COLOURS = {"red": (200, 40, 40), "blue": (40, 40, 200)}


def make(folder: Path) -> None:
    """Write store, run and expected.json into a folder."""
    rng = np.random.default_rng(2012)
    for split, count in (("train", 4), ("val", 2)):
        for name, colour in COLOURS.items():
            (folder / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.array(colour) + rng.integers(-30, 31, (2, 2, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).resize((80, 70), 0).save(folder / "photos" / split / name / f"{number}.png")
    store = prepare([folder / "photos"], folder / "store", size=64)
    recipe = recipes.get_recipe(
        "laptop", variant="torchvision", width=1 / 32, removed=("fc7",), input_size=64, epochs=2, batch_size=4, lr=0.02,
        compile="off", device="cpu",
    )  # fmt: skip
    trained = train(recipe, store, folder / "run")
    classifier = engines.of(trained, "torch")
    records = torch.from_numpy(np.array(store.held_out.records))
    given = probabilities(classifier.network, classifier.preprocessing, records, 1)
    (folder / "expected.json").write_text(json.dumps({"fingerprint": store.fingerprint, "probabilities": given.tolist()}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(sys.argv[1], "w:xz", preset=9) as archive:
        make(Path(temporary))
        for part in ("store", "run", "expected.json"):
            archive.add(Path(temporary) / part, part, filter=lambda member: None if "tensorboard" in member.name else member)
