"""torchvision's `state_dict` and its relatives: .pth files that PyTorch wrote, and safetensors without our header.

torchvision numbers its layers by their places in two `nn.Sequential`s: features.0, .3, .6, .8, .10 and classifier.1, .4, .6.
Keys may carry `module.` (from `DataParallel`, which PyTorch's own examples wrap around `features`) or `_orig_mod.` (from
`torch.compile`), and may lie under `state_dict` or `model`, beside an optimiser's. Files are read with `weights_only=True`, so
nothing in them is executed.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet.errors import CheckpointError
from alexnet.files import writing_weights
from alexnet.variants import LAYER_NAMES, Variant
from alexnet.weights.foreign import Foreign, same_structure

PLACES = (
    "features.0", "features.3", "features.6", "features.8", "features.10", "classifier.1", "classifier.4", "classifier.6",
)  # fmt: skip
TO_OURS = dict(zip(PLACES, LAYER_NAMES, strict=True))
TO_THEIRS = dict(zip(LAYER_NAMES, PLACES, strict=True))
WRAPPERS = ("module", "_orig_mod")  # DataParallel, torch.compile
NESTED = ("state_dict", "model", "model_state_dict", "net")


def read(path: Path) -> Foreign:
    """Read a file that `torch.save` wrote.

    Raises:
        CheckpointError: it is damaged, wants to execute code, or holds no AlexNet.
    """
    _refuse_bomb(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        wants = str(error).partition("GLOBAL ")[2].split(" ")[0]
        reason = f"it wants to execute {wants}" if wants else "its pickle is damaged or no plain tensors"
        raise CheckpointError(
            f"{path} is refused: {reason}. Save the state_dict alone, torch.save(model.state_dict(), ...), and import that."
        ) from error
    except Exception as error:  # a damaged file shows as RuntimeError, EOFError, KeyError, ValueError, OverflowError ...
        raise CheckpointError(f"{path} is damaged: PyTorch cannot read it ({_first_line(error)}).") from error
    return _named(_tensors(path, content), "PyTorch")


def read_safetensors(path: Path) -> Foreign:
    """Read safetensors that are not ours: torchvision's keys, or our own names without a header.

    Raises:
        CheckpointError: damaged, or no AlexNet.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}).") from error
    return _named(tensors, "safetensors")


def write(path: Path, variant: Variant, tensors: Mapping[str, Tensor]) -> None:
    """Write a `state_dict` that torchvision's `alexnet(num_classes=...)` loads.

    Raises:
        CheckpointError: the network is none that torchvision has, or the file cannot be written.
    """
    same_structure(variant, "torchvision", ("width", "kernels", "units"), "torchvision's alexnet")
    renamed = {f"{TO_THEIRS[layer]}.{kind}": tensors[f"{layer}.{kind}"] for layer in TO_THEIRS for kind in ("weight", "bias")}
    with writing_weights(path) as temporary:
        torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in renamed.items()}, temporary)


def _refuse_bomb(path: Path) -> None:
    """PyTorch stores its records uncompressed; a compressed one could unpack to anything."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is damaged: no whole zip archive ({error}).") from error
    size = path.stat().st_size
    if unpacked > size:
        raise CheckpointError(
            f"{path} is refused: its {size:,} bytes would unpack to {unpacked:,}, and PyTorch never compresses. "
            "Write it again with torch.save."
        )


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a state_dict, names and tensors.")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    left = path.stat().st_size
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_nested or value.device.type != "cpu":
            raise CheckpointError(f"{path}: {name} is no plain tensor of numbers ({value.layout}, {value.device}).")
        left -= value.numel() * value.element_size()  # a stride of 0 lets a few bytes claim to be any number of values
        if left < 0:
            raise CheckpointError(f"{path}: {name} claims shape {tuple(value.shape)}, more than the file holds.")
    return tensors


def _named(tensors: Mapping[str, Tensor], how: str) -> Foreign:
    """Tensors under torchvision's names or ours."""
    plain = {".".join(part for part in name.split(".") if part not in WRAPPERS): tensor for name, tensor in tensors.items()}
    if len(plain) < len(tensors):
        raise CheckpointError(f"some of its names differ in {' or '.join(WRAPPERS)} alone: which ones are meant?")
    if set(plain) & {f"{place}.weight" for place in PLACES}:
        renamed = {}
        for name, tensor in plain.items():
            place, _, kind = name.rpartition(".")
            renamed[f"{TO_OURS.get(place, place)}.{kind}"] = tensor
        return Foreign(f"torchvision ({how})", renamed, variant="torchvision")
    return Foreign(f"state_dict ({how})", plain)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
