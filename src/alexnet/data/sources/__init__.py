"""Sources of photos: `find` recognises what paths hold and returns a `Source`; `read` gives the
bytes of one of its `Item`s.
"""

from alexnet.data.sources.find import find
from alexnet.data.sources.folders import class_name
from alexnet.data.sources.read import read, read_picture
from alexnet.data.sources.source import IMAGE_ENDINGS, TRAIN, Item, Source
from alexnet.data.sources.walk import LeftOut, walk

__all__ = ["IMAGE_ENDINGS", "TRAIN", "Item", "LeftOut", "Source", "class_name", "find", "read", "read_picture", "walk"]
