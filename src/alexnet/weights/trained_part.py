"""The layers that a run trained, without those that it loaded: small enough to share.

A head on ImageNet's convolutions has 0.4 MB where the network has 10 to 240. The file names its
base by a hash of the layers that it lacks, and `join` puts it back onto that base and no other: on
another one it would compute something else, and nobody would notice.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet.errors import CheckpointError
from alexnet.model import AlexNet
from alexnet.trained import Trained
from alexnet.variants import Variant
from alexnet.weights import native
from alexnet.weights.header import REMEDY, check_description, read_entry, read_variant
from alexnet.weights.match import check_finite, check_shapes
from alexnet.weights.native import weights_hash

FORMAT = "alexnet trained layers 1"


def save(path: Path, trained: Trained, layers: tuple[str, ...]) -> int:
    """Write some layers of a network, atomically.

    Args:
        layers: those that were trained.

    Returns:
        The number of parameters in the file.

    Raises:
        CheckpointError: all layers were trained, so that there is no base.
        OutputError: the file cannot be written.
    """
    state = trained.model.state_dict()
    own = {name: tensor for name, tensor in state.items() if name.partition(".")[0] in layers}
    below = {name: tensor for name, tensor in state.items() if name not in own}
    if not below:
        raise CheckpointError("every layer was trained, so there is no base to leave out: export without --head-only.")
    native.write(path, trained, own, {"format": FORMAT, "base": json.dumps(weights_hash(below))})
    return sum(tensor.numel() for tensor in own.values())


def is_one(path: Path) -> bool:
    """Whether a file was written by `save`."""
    return native.is_ours(path, FORMAT)


def variant_of(path: Path) -> str:
    """The name of the variant whose layers a file holds.

    Raises:
        CheckpointError: the file is damaged.
    """
    return _variant(_read(path)[0], path).name


def join(path: Path, base: dict[str, Tensor], base_file: Path) -> Trained:
    """A network of trained layers and those of their base.

    Args:
        path: what `save` wrote.
        base: parameters by name; more than needed may be there.
        base_file: where they were read, for messages.

    Raises:
        CheckpointError: the file is damaged, or was trained on another base.
    """
    header, tensors = _read(path)
    variant = _variant(header, path)
    preprocessing = native.preprocessing_in(path, header, tensors)
    classes = read_entry(header, "classes", tuple[str, ...], path)
    check_description(variant, classes, preprocessing, str(path))
    below = {name: base[name] for name in variant.parameter_shapes() if name not in tensors and name in base}
    expected, actual = read_entry(header, "base", str, path), weights_hash(below)
    if actual != expected:
        raise CheckpointError(
            f"{path} was trained on another base than {base_file}: on layers with SHA-256 {expected}, and these have {actual}. "
            "Name the weights that the run was begun with."
        )
    parameters = {**below, **tensors}
    check_shapes(parameters, variant)
    if set(parameters) != set(variant.parameter_shapes()):
        raise CheckpointError(f"{path} is damaged: with its base it does not have every layer of its network. {REMEDY}")
    for name, parameter in tensors.items():
        check_finite(path, name, parameter)
    model = AlexNet.holding(variant, parameters)
    return Trained(model.requires_grad_(False).eval(), classes, preprocessing, {}, {})


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
            return file.metadata() or {}, tensors
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error}).") from error


def _variant(header: dict[str, str], path: Path) -> Variant:
    return read_variant(read_entry(header, "variant", dict[str, Any], path), f"{path}'s variant")
