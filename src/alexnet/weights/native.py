"""Our own file format: a trained network with everything needed to use it.

One safetensors file holds the parameters under their names (conv1.weight ... fc8.bias), the mean
and scale of the pixels, and, as JSON in its header, the variant, the class names and the rest of
the preprocessing. The file alone is enough to predict; there is no second file to lose, and nothing
in it is executed. It is written under a temporary name and renamed, so it is never half written.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alexnet.arguments import as_path, expect_kind
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError
from alexnet.files import writing
from alexnet.model import AlexNet
from alexnet.run_folder import BEST, is_checkpoint
from alexnet.run_folder import find as find
from alexnet.trained import Trained as Trained
from alexnet.variants import Variant
from alexnet.weights.header import FORMAT, REMEDY, PreprocessingEntry, check_description, read_entry, read_variant
from alexnet.weights.match import check_finite, missing

MEAN, SCALE = "preprocessing.mean", "preprocessing.scale"


def save(path: str | Path, trained: Trained) -> None:
    """Write a file atomically.

    Raises:
        OutputError: no space, or the folder cannot be written; a file that was there stays.
        CheckpointError: arguments of other types.
    """
    path = as_path(path, "path")
    expect_kind(trained, "trained", Trained)
    header = {"format": FORMAT, "state": json.dumps(trained.state)}
    if trained.missing:
        header["missing"] = json.dumps(trained.missing)
    write(path, trained, {**trained.model.state_dict(), **trained.extra}, header)


def write(path: Path, trained: Trained, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors of a network with what describes it: variant, classes and preprocessing.

    Args:
        header: of the file, beside that.

    Raises:
        OutputError: as `save`.
    """
    preprocessing = trained.preprocessing
    sizes = {name: getattr(preprocessing, name) for name in ("stored_size", "input_size", "resize", "bgr")}
    tensors = {**tensors, MEAN: preprocessing.mean, SCALE: preprocessing.scale}
    header = {
        **header,
        "variant": json.dumps(asdict(trained.model.variant)),
        "classes": json.dumps(trained.classes),
        "preprocessing": json.dumps(sizes),
    }
    write_tensors(path, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header)


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file atomically.

    Raises:
        OutputError: as `save`.
    """
    with writing(path) as temporary:
        try:
            save_file(tensors, temporary, header)
        except SafetensorError as error:  # its way to report a full disk
            full = f"os error {errno.ENOSPC}" in str(error)
            raise (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else OSError(str(error))) from error
        temporary.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets the owner alone read it


def weights_hash(parameters: Mapping[str, Tensor]) -> str:
    """SHA-256 over every parameter's name, type, shape and bytes (N, C, H, W order,
    little-endian), sorted by name.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def is_ours(path: Path, kind: str = FORMAT) -> bool:
    """Whether a safetensors file has our header, of one kind of file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return (file.metadata() or {}).get("format") == kind
    except (OSError, SafetensorError):
        return False


def is_part(path: Path) -> bool:
    """Whether a file of ours holds a part of a network."""
    with safe_open(path, framework="pt", device="cpu") as file:
        return "missing" in (file.metadata() or {})


def goes_on(path: Path) -> bool:
    """Whether training can continue from a file of ours: it also holds the optimiser's state."""
    with safe_open(path, framework="pt", device="cpu") as file:
        return any(name.startswith("velocity.") for name in file.keys())  # noqa: SIM118 - not a dict


def load(path: str | Path, device: torch.device | str = "cpu", partial: bool = False) -> Trained:
    """Read a file, or the latest checkpoint of a run's folder.

    Args:
        partial: whether it may be a part of a network, see `Trained.missing`.

    Raises:
        CheckpointError: missing, damaged, no file of ours, or a part of a network.
    """
    path = find(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_unreadable(path, error)) from error
    kind, _, version = header.get("format", "").partition(" ")
    if kind == FORMAT.partition(" ")[0] and header["format"] != FORMAT and version.isdecimal():
        raise CheckpointError(
            f"{path} is of format {version}, but this version of alexnet reads format {FORMAT.partition(' ')[2]}: "
            "use the version that wrote it."
        )
    if header.get("format", "").startswith("alexnet trained"):
        raise CheckpointError(
            f"{path} holds only the layers that were trained: put them back onto their base with "
            f"`alexnet weights import {path} --base WEIGHTS`."
        )
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file that alexnet did not write: convert it with `alexnet weights import`."
        )
    variant = read_variant(read_entry(header, "variant", dict[str, Any], path), f"{path}'s variant")
    lacking = read_entry(header, "missing", tuple[str, ...], path) if "missing" in header else ()
    if lacking and not partial:
        raise CheckpointError(
            f"{path} holds a part of a network, without {', '.join(lacking)}, and cannot classify pictures yet: train what "
            f"is missing with `alexnet fit PHOTOS --from {quote(str(path))} --out run`, or import a whole file."
        )
    model = _network(path, variant, tensors, lacking)
    preprocessing = preprocessing_in(path, header, tensors)
    classes = read_entry(header, "classes", tuple[str, ...], path)
    state = read_entry(header, "state", dict[str, Any], path)
    check_description(model.variant, classes, preprocessing, str(path))
    for name, parameter in model.state_dict().items():
        check_finite(path, name, parameter)
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(model.eval(), classes, preprocessing.to(torch.device(device)), tensors, state, lacking)


def _unreadable(path: Path, error: Exception) -> str:
    """What to do about a file that is no safetensors file; a run's own checkpoint was one."""
    if not is_checkpoint(path):
        return (
            f"{path} is damaged or not a safetensors file ({error}). A whole network in another format is converted by "
            f"`alexnet weights import {quote(str(path))} -o weights.safetensors`, with --variant if the file does not say "
            f"which AlexNet it is; a part of one begins with `alexnet fit PHOTOS --from {quote(str(path))} --out run`."
        )
    best, lost = path.with_name(BEST), f"{path} is damaged ({error})."
    if path != best and is_ours(best):
        lost += f" {best} is whole: it holds the network with the lowest error so far, for `alexnet predict` and `evaluate`."
    return f"{lost} Restore {path.name} from a copy, or train again with --overwrite."


def preprocessing_in(path: Path, header: dict[str, str], tensors: dict[str, Tensor]) -> Preprocessing:
    """The preprocessing of a file that `write` wrote; its tensors are taken out of `tensors`.

    Raises:
        CheckpointError: it is damaged.
    """
    pictures = read_entry(header, "preprocessing", PreprocessingEntry, path)
    if MEAN not in tensors or SCALE not in tensors:
        raise CheckpointError(f"{path} is damaged: it lacks {MEAN} or {SCALE}. {REMEDY}")
    return Preprocessing(mean=tensors.pop(MEAN).clone(), scale=tensors.pop(SCALE).clone(), **vars(pictures))


def _network(path: Path, variant: Variant, tensors: dict[str, Tensor], lacking: tuple[str, ...]) -> AlexNet:
    """The variant around its parameters, which are taken out of `tensors`."""
    expected = {name: shape for name, shape in variant.parameter_shapes().items() if name.partition(".")[0] not in lacking}
    if lacking and (lacking != missing(variant, expected) or "conv1" in lacking):
        raise CheckpointError(f"{path} is damaged: its header says that {', '.join(lacking)} are missing. {REMEDY}")
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            problem = f"has {name} of shape {tuple(tensors[name].shape)}" if name in tensors else f"lacks {name}"
            raise CheckpointError(
                f"{path} is damaged: it {problem}, but its header describes a network in which that has shape {shape}. {REMEDY}"
            )
    # Copies: what safetensors gives is the file itself, and if that is cut while the network
    # computes, the process ends.
    parameters = {name: tensors.pop(name).clone() for name in expected}
    if not lacking:
        return AlexNet.holding(variant, parameters)
    model = AlexNet.beginning(variant, parameters)
    tensors |= {name: parameter for name, parameter in parameters.items() if name not in model.state_dict()}
    return model
