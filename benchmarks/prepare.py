"""Preparing photos: pictures a second and core, against plain Pillow loops, timed
alternately in one thread.

    python benchmarks/prepare.py FOLDER_OF_JPEGS

A plain loop is what one writes first: open, convert to RGB, resize the short side, crop the
centre; with Pillow's default filter (bicubic), and with the bilinear one that ours uses. Ours is
what a worker of `alexnet prepare` does to each file: read, decode, shrink, crop, pack to YUV
4:2:0, plus its share of checksum and statistics. Without a folder, ../shared is looked into. The
last line is one JSON object.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from alexnet.data.prepare import encode_block
from alexnet.data.sources import TRAIN, Item
from alexnet.run_folder import environment

ORIGINALS = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet-originals"


def plain(path: Path, size: int, **resample: Image.Resampling) -> Image.Image:
    """What one writes first: decode all, resize, crop."""
    image = Image.open(path).convert("RGB")
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), **resample)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def main() -> None:
    """Time ours against the plain loops and print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ORIGINALS)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=9)
    arguments = parser.parse_args()

    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        parser.error(f"{arguments.folder} holds no JPEGs: name a folder of photos.")
    torch.set_num_threads(1)
    items = [Item(path.name, 0, str(path)) for path in files]
    ways: dict[str, Callable[[], object]] = {
        "plain, bicubic": lambda: [plain(path, arguments.size) for path in files],
        "plain, bilinear": lambda: [plain(path, arguments.size, resample=Image.Resampling.BILINEAR) for path in files],
        "ours": lambda: encode_block((TRAIN, items), arguments.size, "short-side"),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for block in range(arguments.blocks + 1):
        for name, way in ways.items():
            start = time.process_time()  # this thread's share of a shared machine
            way()
            if block:  # the first one warms up
                rates[name].append(len(files) / (time.process_time() - start))

    print(f"{'':18}{'pictures/s':>12}{'ours, times':>14}")
    ratios = {name: [ours / theirs for ours, theirs in zip(rates["ours"], rates[name], strict=True)] for name in ways}
    for name in ways:
        print(f"{name:18}{statistics.median(rates[name]):12.1f}{statistics.median(ratios[name]):14.2f}")
    result = {
        "benchmark": "prepare",
        "pictures": len(files),
        "size": arguments.size,
        "pictures_per_second": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "ratio": round(statistics.median(ratios["plain, bicubic"]), 3),
        "ratio_same_filter": round(statistics.median(ratios["plain, bilinear"]), 3),
        "range_same_filter": [round(f(ratios["plain, bilinear"]), 3) for f in (min, max)],
        "environment": environment(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
