"""The operations that AlexNet needs and that frameworks lack or do slowly.

`reference.py` is the executable specification and the CPU's path. `gpu/` has kernels of the same
names, signatures and meaning, one file each. Callers import from here, where the choice is made,
call by call, by the place of the data: the kernels where they run, the reference everywhere else.
"""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from alexnet.errors import TrainingError
from alexnet.kernels import reference
from alexnet.kernels.blocks import picture_blocks, tap_mask, weight_blocks
from alexnet.kernels.reference import dropout, linear, lrn, max_pool, spatial_norm, yuv_to_rgb

__all__ = [
    "augment",
    "bias_relu",
    "cross_entropy_topk",
    "dropout",
    "linear",
    "lrn",
    "max_pool",
    "picture_blocks",
    "relu_dropout",
    "relu_lrn_pool",
    "sgd_step",
    "spatial_norm",
    "tap_mask",
    "weight_blocks",
    "yuv_to_rgb",
]

TRITON = find_spec("triton") is not None
P = ParamSpec("P")
R = TypeVar("R")


def on_kernels(x: Tensor) -> bool:
    """Whether the kernels run on x's device. float64 is left to the reference, because all their
    arithmetic is float32.
    """
    return x.is_cuda and x.dtype != torch.float64 and lacking(x.device) is None


def lacking(device: torch.device) -> str | None:
    """Why a device cannot run the kernels, in a few words; None for an NVIDIA GPU of compute
    capability 8.0 or newer."""
    if torch.device(device).type != "cuda":
        return f"they are for NVIDIA's GPUs, and this is {torch.device(device).type}"
    if torch.version.hip:
        return "they are for NVIDIA's GPUs, and this one is AMD's"
    if not TRITON:
        return "Triton is not installed (pip install triton)"
    major, minor = torch.cuda.get_device_capability(device)
    return None if major >= 8 else f"they need compute capability 8.0, and this GPU has {major}.{minor}"


def failure(device: torch.device, error: Exception, remedy: str) -> str:
    """An error from a kernel in a few words, for code that continues without it.

    A kernel that does not compile fails in many ways.

    Raises:
        TrainingError: as `check_alive`.
    """
    check_alive(device, error, remedy)
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"


def check_alive(device: torch.device, error: Exception, remedy: str) -> None:
    """After an error from a kernel: whether the GPU still answers. After an illegal access it
    does not, in this process.

    Raises:
        TrainingError: it does not.
    """
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            what = f"{type(error).__name__}: {str(error)[:200]}"
            raise TrainingError(
                f"a kernel broke this process's access to the GPU ({what}): {remedy}, and please report it."
            ) from error


def _dispatched(specified: Callable[P, R]) -> Callable[P, R]:
    """`specified`, or the function of its name in gpu/: by the device of the first argument, or of
    the first tensor in it."""

    @wraps(specified)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
        first: Any = args[0]
        first = first if isinstance(first, Tensor) else first[0]
        if not on_kernels(first):
            return specified(*args, **kwargs)
        kernel = import_module(f"alexnet.kernels.gpu.{specified.__name__}")  # now: Triton takes a second to import
        function: Callable[P, R] = getattr(kernel, specified.__name__)
        with torch.cuda.device_of(first):
            return function(*args, **kwargs)

    return chosen


augment = _dispatched(reference.augment)
relu_lrn_pool = _dispatched(reference.relu_lrn_pool)
bias_relu = _dispatched(reference.bias_relu)
relu_dropout = _dispatched(reference.relu_dropout)
cross_entropy_topk = _dispatched(reference.cross_entropy_topk)
sgd_step = _dispatched(reference.sgd_step)
