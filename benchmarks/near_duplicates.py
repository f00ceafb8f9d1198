"""Which copies of a photo are found, and which different photos are taken for copies
(`data/alike.py`)?

    python benchmarks/near_duplicates.py PHOTOS --from WEIGHTS --variant caffe

3,000 photos take 67 s of one core and 600 take 48 s.

Different photos are drawn from a source, and the first of them are copied: turned, cut, brightened,
made smaller, encoded again. For each kind of vectors the share of the copies that are
found, and the pairs of different photos that are found too. Look at those: some are what is looked
for. The last line is one JSON object.
"""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor

from alexnet.data import alike, sources
from alexnet.data.image import encode
from alexnet.data.store import Split
from alexnet.plan import Plan

SMOOTH = Image.Resampling.BILINEAR
Copy = Callable[[Image.Image], Image.Image]


def cut(picture: Image.Image, share: float, left: float = 0.5, top: float = 0.5) -> Image.Image:
    """A part of the picture, as large as the whole."""
    width, height = picture.size
    x, y = (1 - share) * width * left, (1 - share) * height * top
    return picture.crop((int(x), int(y), int(x + share * width), int(y + share * height))).resize(picture.size, SMOOTH)


def bright(picture: Image.Image, factor: float) -> Image.Image:
    """The picture brighter or darker."""
    return ImageEnhance.Brightness(picture).enhance(factor)


def again(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after another JPEG."""
    with io.BytesIO() as file:
        picture.save(file, "JPEG", quality=quality)
        return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


COPIES: dict[str, Copy] = {
    "burst: turned 2 degrees, cut to 92 %, moved, 10 % brighter": lambda one: again(
        bright(cut(one.rotate(2, SMOOTH), 0.92, 0.2, 0.8), 1.1), 80
    ),
    "burst: turned 4 degrees, cut to 86 %, moved, 10 % darker": lambda one: again(
        bright(cut(one.rotate(-4, SMOOTH), 0.86, 0.9, 0.3), 0.9), 80
    ),
    "cut to 80 %": lambda one: cut(one, 0.8),
    "cut to 95 %": lambda one: cut(one, 0.95),
    "JPEG of quality 20": lambda one: again(one, 20),
    "30 % brighter": lambda one: again(bright(one, 1.3), 85),
    "30 % darker": lambda one: again(bright(one, 0.7), 85),
    "half the pixels": lambda one: again(one.resize((one.width // 2, one.height // 2), SMOOTH).resize(one.size, SMOOTH), 85),
    "without colour": lambda one: one.convert("L").convert("RGB"),
    "mirrored": lambda one: one.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def main() -> None:
    """Print a table, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="+")
    parser.add_argument("--from", dest="weights", required=True)
    parser.add_argument("--variant")
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("--copied", type=int, default=300)
    asked = parser.parse_args()
    source, plan = sources.find(asked.source), Plan.of(asked.weights, asked.variant)
    items = [item for items in source.splits.values() for item in items]
    chosen = np.random.default_rng(0).permutation(len(items))[: asked.photos].tolist()
    photos = [Image.open(io.BytesIO(sources.read(items[number]))).convert("RGB") for number in chosen]  # type: ignore[arg-type]
    whole = vectors(plan, photos)
    result: dict[str, dict[str, float]] = {}
    for kind, one in whole.items():
        unit = F.normalize(one.values, dim=1)
        result[kind] = {"pairs of different photos": len(alike._pairs(one, len(photos) ** 2) or ())}
        result[kind]["largest cosine"] = round(float((unit @ unit.T).triu(1).max()), 3)
    for name, copy in COPIES.items():
        copies = vectors(plan, [copy(photo) for photo in photos[: asked.copied]])
        for kind, one in whole.items():
            near = F.cosine_similarity(one.values[: asked.copied], copies[kind].values) >= one.least
            result[kind][name] = round(float(near.float().mean()), 3)
    for name in result["scenes"]:
        print(f"{name:60}  {result['scenes'][name]:8}  {result['thumbnails'][name]:8}")
    print(json.dumps({"photos": len(photos), "copied": asked.copied, **result}))


def vectors(plan: Plan, photos: list[Image.Image]) -> dict[str, alike.Vectors]:
    """Both kinds, of records as the weights want them."""
    size, resize = plan.stored_as
    records = np.stack([encode(_png(photo), size, resize) for photo in photos])
    split = Split("train", records, np.zeros(len(records), np.int32), Path())
    features: Tensor = plan.pool5(split)
    return {"scenes": alike.scenes(features), "thumbnails": alike.thumbnails(records)}


def _png(photo: Image.Image) -> bytes:
    with io.BytesIO() as file:
        photo.save(file, "PNG", compress_level=1)
        return file.getvalue()


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
