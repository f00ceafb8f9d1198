"""Where photos come from: `find` looks at paths and returns a `Source`, `read` gives the bytes of one of its `Item`s."""

from alexnet.data.sources.find import find
from alexnet.data.sources.read import read
from alexnet.data.sources.source import IMAGE_ENDINGS, TRAIN, Item, Source

__all__ = ["IMAGE_ENDINGS", "TRAIN", "Item", "Source", "find", "read"]
