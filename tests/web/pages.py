"""The networks whose pages the tests look at, and their pages in files."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from alexnet.variants import Variant, get_variant
from alexnet.web import export, sample
from alexnet.web.scene import Scene
from alexnet.web.shown import Shown, fresh

#: With He's initialisation normalisation has something to do.
SMALL: dict[str, Any] = {"init": "he", "width": 0.5, "input_size": 64, "num_classes": 10}
NETWORKS: dict[str, Variant] = {
    "full": get_variant("paper", init="he"),
    "paper": get_variant("paper", **SMALL),
    "code-2012": get_variant("code-2012", **SMALL),
    "caffe": get_variant("caffe", **{**SMALL, "input_size": 67, "num_classes": 5}),
    "caffenet": get_variant("caffenet", **{**SMALL, "input_size": 67}),
    "owt": get_variant("owt", **SMALL),
    "torchvision": get_variant("torchvision", **SMALL),
    "changed": get_variant("code-2012", **SMALL, activation="tanh", pool_size=2, removed=("conv3", "fc7")),
    "one tower": get_variant("paper", init="he", towers=1, width=0.25, input_size=64, num_classes=2),
    "thousand": get_variant("paper", init="he", width=0.125, input_size=96),
}
#: Names of classes that are to be shown as text.
NAMES = ("<img src=x onerror=document.title='hit'>", "سوسن الوادي", "向日葵", "</script><b>bold</b>", "a_very_long_name_" * 6)


@dataclass(frozen=True)
class Made:
    """A page in a file, and what it was made of."""

    path: Path
    shown: Shown
    scene: Scene


def make(name: str, folder: Path) -> Made:
    """The page of one of `NETWORKS`: caffe's has strange names, owt's a grey picture."""
    shown = fresh(NETWORKS[name])
    picture, file = (grey(), "grey.png") if name == "owt" else (sample.picture(), "sunflower.png")
    if name == "caffe":
        shown, file = replace(shown, classes=NAMES), NAMES[0]
    scene = Scene.of(shown, picture, file)
    return Made(export.write(folder / f"{name}.html", scene), shown, scene)


def grey() -> bytes:
    """A picture of one channel."""
    file = io.BytesIO()
    Image.open(io.BytesIO(sample.picture())).convert("L").save(file, "PNG")
    return file.getvalue()
