"""AlexNet (Krizhevsky, Sutskever, Hinton, 2012): the network, its variants, its
training and its explanation.

A trained network:

>>> import alexnet
>>> network = alexnet.load("run")  # doctest: +SKIP
>>> network.predict("cat.jpg")  # doctest: +SKIP
[('cat', 0.97), ('dog', 0.03)]
>>> network.stages("cat.jpg")["conv1"].numpy().shape  # doctest: +SKIP
(1, 96, 55, 55)

A fresh one, to train or to look at:

>>> net = alexnet.AlexNet("paper", num_classes=10, width=0.5)
>>> net.conv1
Conv2d(3, 48, kernel_size=(11, 11), stride=(4, 4))

`alexnet` in a shell shows what the command line does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alexnet.errors import AlexNetError
from alexnet.variants import Variant

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from alexnet.loaded import Loaded
    from alexnet.model import AlexNet

__all__ = ["AlexNet", "AlexNetError", "Loaded", "Variant", "__version__", "load"]
__version__ = "0.1.0"

_LAZY = {"AlexNet": "alexnet.model", "Loaded": "alexnet.loaded"}


def load(path: "str | Path", device: "torch.device | str" = "cpu") -> "Loaded":
    """Load a trained network, ready for pictures.

    Args:
        path: a run's folder (the network after its latest epoch,
            latest.safetensors), a .safetensors file such as run/best.safetensors, or
            what `alexnet export` wrote (.onnx, .xml).
        device: where it computes, such as "cuda"; an exported network computes on the CPU.

    Raises:
        CheckpointError: missing, damaged, or not written by alexnet.
    """
    loaded: Loaded = import_module("alexnet.loaded").load(path, device)
    return loaded


def __getattr__(name: str) -> Any:
    # PyTorch takes a second to import; `alexnet summary` and every --help do without it.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'alexnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The front door; submodules are imported by their names."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
