"""`alexnet fit` from photos to report, on photos drawn anew each time: how good, and how long?

    python benchmarks/finetune.py SOURCE --from WEIGHTS --train 40 --test 20 --pool --draws 5
    python benchmarks/finetune.py SOURCE --from WEIGHTS --train 20 --classes 2 --draws 5
    python benchmarks/finetune.py SOURCE --from WEIGHTS --train all --draws 3

For each draw, photos of the source are written into a folder (`train/CLASS/`, `val/CLASS/`), as a
user has them; then one process runs `alexnet fit` on it, and its seconds are those from the command
to the page, the start of Python and the test included. `--train` and `--test` are photos of each
class. Photos to train on come from the source's training split, those to test on from its other
one, or from what is left of the first if it has no other, or with `--pool`. Without `--test`, `fit`
holds out a tenth itself. `--train all` takes all, in the source's own split.

The last line is one JSON object: the errors and seconds of each draw, their mean and deviation.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from PIL import Image

from alexnet import intervals
from alexnet.data import sources
from alexnet.data.sources import TRAIN, Item, Source
from alexnet.published import data
from alexnet.run_folder import environment


def main() -> None:
    """Print a line for each draw, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="+")
    parser.add_argument("--from", dest="weights")
    parser.add_argument("--variant")
    parser.add_argument("--train", default="40", help="photos of each class, or all")
    parser.add_argument("--test", help="photos of each class, or all; by default a tenth is held out")
    parser.add_argument("--pool", action="store_true", help="draw from all splits of the source together")
    parser.add_argument("--classes", type=int, help="so many, drawn; by default all")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw")
    asked = parser.parse_args()
    source = sources.find([data.source_of(path) for path in asked.source])
    rows = [measure(source, asked, seed) for seed in range(asked.first, asked.first + asked.draws)]
    print(json.dumps(summary(asked, rows)))


def measure(source: Source, asked: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One draw: its error, and the seconds that `alexnet fit` took."""
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder, "photos"), Path(folder, "run")
        write(drawn(source, asked, seed), source.classes, photos)
        words = [sys.executable, "-m", "alexnet", "fit", str(photos), "--out", str(out)]
        words += ["--from", asked.weights] if asked.weights else []
        words += ["--variant", asked.variant] if asked.variant else []
        begun = time.monotonic()
        answer = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - begun
        if answer.returncode:
            raise SystemExit(answer.stderr)
        row: dict[str, Any] = json.loads(answer.stdout) | {"seed": seed, "photos_to_report_seconds": round(seconds, 1)}
    low, high = row["top1_interval"]
    print(
        f"draw {seed}: top-1 error {intervals.percent(row['top1_error'])} of {row['images']:,} photos "
        f"({low:.1%} to {high:.1%}), {row['views']} views, {seconds:.1f} s from photos to report",
        flush=True,
    )
    return {name: row[name] for name in ("seed", "images", "views", "top1_error", "top1_interval", "photos_to_report_seconds")}


def drawn(source: Source, asked: argparse.Namespace, seed: int) -> dict[str, list[Item]]:
    """Photos by split, as asked for."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(len(source.classes))[: asked.classes].tolist()
    splits = {name: [item for item in items if item.label in classes] for name, items in source.splits.items()}
    if asked.pool:
        splits = {TRAIN: [item for items in splits.values() for item in items]}
    shuffled = {name: [items[number] for number in rng.permutation(len(items))] for name, items in splits.items()}
    own = next((name for name in shuffled if name != TRAIN), None)
    train, left = taken(shuffled[TRAIN], asked.train)
    if asked.test is None and (asked.train != "all" or own is None):
        return {"": train}
    test, _ = taken(shuffled[own] if own else left, asked.test or "all")
    return {"train/": train, "val/": test}


def taken(items: Sequence[Item], per_class: str) -> tuple[list[Item], list[Item]]:
    """So many of each class, and what is left."""
    if per_class == "all":
        return list(items), []
    counts: dict[int, int] = {}
    chosen: list[Item] = []
    left: list[Item] = []
    for item in items:
        counts[item.label] = counts.get(item.label, 0) + 1
        (chosen if counts[item.label] <= int(per_class) else left).append(item)
    return chosen, left


def write(splits: dict[str, list[Item]], classes: Sequence[str], folder: Path) -> None:
    """A file for each photo, in a folder for each class."""
    for split, items in splits.items():
        for number, item in enumerate(items):
            place = folder / f"{split}{classes[item.label].replace('/', ' or ')}"
            place.mkdir(parents=True, exist_ok=True)
            content = sources.read(item)
            if isinstance(content, bytes):
                (place / f"{number:06}.jpg").write_bytes(content)
            else:
                Image.fromarray(content).save(place / f"{number:06}.png")


def summary(asked: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation over the draws; errors are shares."""
    errors, seconds = ([row[name] for row in rows] for name in ("top1_error", "photos_to_report_seconds"))
    return {
        "source": [path.name for path in asked.source],
        "weights": Path(asked.weights).name if asked.weights else None,
        "train_per_class": asked.train,
        "test_per_class": asked.test,
        "pooled": asked.pool,
        "classes": asked.classes,
        "n": len(rows),
        "mean_top1_error": round(mean(errors), 5),
        "deviation_top1_error": round(stdev(errors), 5) if len(errors) > 1 else None,
        "mean_seconds": round(mean(seconds), 1),
        "most_seconds": max(seconds),
        "draws": list(rows),
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
