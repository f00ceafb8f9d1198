"""AlexNet (Krizhevsky, Sutskever, Hinton, 2012): the network, its variants, its training and its explanation.

>>> from alexnet import AlexNet
>>> net = AlexNet("caffe")
>>> sorted(net.state_dict())[:2]
['conv1.bias', 'conv1.weight']

`alexnet --help` lists what the command line does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alexnet.errors import AlexNetError
from alexnet.variants import Variant

if TYPE_CHECKING:
    from alexnet.model import AlexNet

__all__ = ["AlexNet", "AlexNetError", "Variant", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # PyTorch takes a second to import; `alexnet summary` and every --help do without it.
    if name == "AlexNet":
        return import_module("alexnet.model").AlexNet
    raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
