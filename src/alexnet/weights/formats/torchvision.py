"""Read and write torchvision's `state_dict`, in .pth files that PyTorch wrote and in safetensors
without our header.

torchvision numbers its layers by their places in two `nn.Sequential`s: features.0, .3, .6, .8, .10
and classifier.1, .4, .6. People's files have them, or our own names, in many wrappings, which are
taken off: `module.` (`DataParallel`, which PyTorch's own examples wrap around `features`, and
`AveragedModel`) and `_orig_mod.` (`torch.compile`) anywhere, one prefix before all layers
(Lightning's `model.`, `net.`, `backbone.`), and any dictionary around them (`state_dict`, beside
an optimiser's). What is left out for it is said in a note. `torch_file.py` reads the files;
nothing in them is executed.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet.errors import CheckpointError
from alexnet.files import writing
from alexnet.variants import LAYER_NAMES, Variant
from alexnet.weights.formats import torch_file
from alexnet.weights.formats.pickled import Opaque
from alexnet.weights.formats.torch_file import Odd, Stored
from alexnet.weights.match import Foreign, same_structure

PLACES = (
    "features.0",
    "features.3",
    "features.6",
    "features.8",
    "features.10",
    "classifier.1",
    "classifier.4",
    "classifier.6",
)
TO_OURS = dict(zip(PLACES, LAYER_NAMES, strict=True))
TO_THEIRS = dict(zip(LAYER_NAMES, PLACES, strict=True))
WRAPPERS = ("module", "_orig_mod")  # DataParallel, torch.compile
#: Where a checkpoint has its network, the likeliest first; under any other
#: name it is found as well.
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
#: What one layer's weight is called, in torchvision's way and in ours.
FIRST = (f"{PLACES[0]}.weight", f"{LAYER_NAMES[0]}.weight")
DEEPEST = 4  # dictionaries in dictionaries
MOST_MODULES = 500  # in a module; an AlexNet has some 25
T = TypeVar("T")


def read(path: Path) -> Foreign:
    """Read a file that `torch.save` wrote.

    Raises:
        CheckpointError: it is damaged, wants to execute code, or holds no network.
    """
    with torch_file.opened(path) as file:
        state, notes = _state(file.content)
        averaged = [value for name, value in state.items() if _is_average(name) and isinstance(value, Stored)]
        named, more = _unwrapped(state)
        notes += more
        _check_claims(path, named, file.size)
        tensors = {name: file.tensor(stored) for name, stored in named.items()}
        if averaged and averaged[0].shape == ():
            notes.append(f"it is an average of {int(file.tensor(averaged[0]))} models (n_averaged)")
    return _foreign(tensors, "PyTorch", notes)


def read_safetensors(path: Path) -> Foreign:
    """Read safetensors that are not ours: torchvision's keys, or our own names without a header.

    Raises:
        CheckpointError: damaged, or no AlexNet.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error}).") from error
    try:
        named, notes = _unwrapped(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is refused: {error}.") from error
    return _foreign(named, "safetensors", notes)


def write(path: Path, variant: Variant, tensors: Mapping[str, Tensor]) -> None:
    """Write a `state_dict` that torchvision's `alexnet(num_classes=...)` loads.

    Raises:
        CheckpointError: torchvision has no such network.
        OutputError: the file cannot be written.
    """
    same_structure(variant, "torchvision", ("width", "kernels", "units"), "torchvision's alexnet")
    renamed = {f"{TO_THEIRS[layer]}.{kind}": tensors[f"{layer}.{kind}"] for layer in TO_THEIRS for kind in ("weight", "bias")}
    with writing(path) as temporary:
        torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in renamed.items()}, temporary)


def _state(content: Any) -> tuple[dict[str, Any], list[str]]:
    """The names and tensors of the network in a checkpoint, and notes on where it
    was and what was left out."""
    states = list(_states(content, (), DEEPEST, set()))
    if not states:
        if isinstance(content, Opaque):
            raise CheckpointError(f"it holds an object of {content.name} without parameters; expected a state_dict")
        raise CheckpointError(f"it holds a {type(content).__name__} without tensors; expected a state_dict (names and tensors)")
    networks = [
        (place, state) for place, state in states if any(_unwrapped_name(name).endswith(FIRST) for name in state)
    ] or states
    likely = {name: number for number, name in enumerate(NESTED)}
    networks.sort(key=lambda network: min((likely.get(key, len(NESTED)) for key in network[0]), default=-1))
    (place, state), *others = networks
    notes = []
    if place:
        beside = [str(name) for name in content if name != place[0]]
        left = f"; left out: {', '.join(beside)[:200]}" if beside else ""
        notes.append(f"the network was taken from {'.'.join(place)!r}{left}")
    for key in place:
        content = content[key]
    if isinstance(content, Opaque):
        notes.append(f"it is a whole module ({content.name}), whose code is ignored: only its tensors were read")
    if others:
        notes.append(f"there is a network too in {', '.join(repr('.'.join(other)) for other, _ in others)}")
    return state, notes


def _states(
    content: Any, place: tuple[str, ...], depth: int, seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every dictionary of tensors in what was saved, and every module, from the outside in.

    Each is visited once, as a pickle may hold itself a hundred times.
    """
    if isinstance(content, Opaque) and isinstance(content.state, dict) and "_modules" in content.state:
        content = dict(_module(content, "", set()))
    if not isinstance(content, dict) or id(content) in seen:
        return
    seen.add(id(content))
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    state = {
        name: value
        for name, value in named.items()
        if isinstance(value, Stored | Odd) or (isinstance(value, Opaque) and name.endswith(("weight", "bias")))
    }
    if any(isinstance(value, Stored | Odd) for value in state.values()):
        yield place, state
    for name, value in named.items() if depth else ():
        yield from _states(value, (*place, name), depth - 1, seen)


def _module(module: Opaque, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The names and tensors of a module that was saved whole, as its `state_dict` has them; a
    shared module has one name."""
    if id(module) in seen or len(seen) > MOST_MODULES:
        return
    seen.add(id(module))
    for kind in ("_parameters", "_buffers"):
        entries = module.state.get(kind)
        for name, value in entries.items() if isinstance(entries, dict) else ():
            if value is not None:
                yield f"{prefix}{name}", value
    inner = module.state.get("_modules")
    for name, value in inner.items() if isinstance(inner, dict) else ():
        if isinstance(value, Opaque) and isinstance(value.state, dict):
            yield from _module(value, f"{prefix}{name}.", seen)


def _check_claims(path: Path, named: Mapping[str, Any], left: int) -> None:
    """Check that every entry is a tensor of numbers, and that the file holds them all."""
    for name, value in named.items():
        if isinstance(value, Opaque):
            raise CheckpointError(f"{path}: {name} is an object of {value.name}, but a tensor was expected.")
        if isinstance(value, Odd):
            raise CheckpointError(f"{path}: {name} must be a plain tensor of numbers, not one {value.kind}.")
        left -= value.bytes  # a stride of 0 lets a few bytes claim to be any number of values
        if left < 0:
            raise CheckpointError(f"{path}: {name} claims shape {value.shape}, more than the file holds.")


def _unwrapped(state: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
    """The entries without what wraps their names, and notes on what was taken off or left out."""
    plain = {_unwrapped_name(name): value for name, value in state.items()}
    if len(plain) < len(state):
        raise CheckpointError(f"some of its names differ only in {' or '.join(WRAPPERS)}: save one network's state_dict only")
    plain = {name: value for name, value in plain.items() if not _is_average(name)}
    prefix = _prefix(plain)
    inside = {name.removeprefix(prefix): value for name, value in plain.items() if name.startswith(prefix)}
    outside = [name for name in plain if not name.startswith(prefix)]
    notes = [f"the prefix {prefix!r} was removed from its names"] * bool(prefix)
    if outside:
        notes.append(f"left out, as their names lack the prefix {prefix!r}: {', '.join(outside)[:200]}")
    return inside, notes


def _unwrapped_name(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _is_average(name: str) -> bool:
    """The count of models in PyTorch's `AveragedModel`."""
    return name.rpartition(".")[2] == "n_averaged"


def _prefix(names: Mapping[str, Any]) -> str:
    """What comes before every layer's name: of several, what comes before most layers.

    A residual block has layers called conv1 to conv3 as well: four must be there.
    """
    first = [name.removesuffix(end) for end in FIRST for name in names if name == end or name.endswith(f".{end}")]
    layers = (*PLACES, *LAYER_NAMES)
    counts = {prefix: sum(f"{prefix}{layer}.weight" in names for layer in layers) for prefix in first}
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    if len(best) > 1 and most == len(LAYER_NAMES):
        raise CheckpointError(
            f"it holds {len(best)} networks, under {' and '.join(map(repr, best))}: save the state_dict of one of them only"
        )
    return best[0] if most >= 4 else ""


def _foreign(tensors: Mapping[str, Tensor], how: str, notes: list[str]) -> Foreign:
    """Tensors under torchvision's names or ours."""
    if not set(tensors) & {f"{place}.weight" for place in PLACES}:
        return Foreign(f"state_dict ({how})", tensors, notes=tuple(notes))
    renamed = {}
    for name, tensor in tensors.items():
        place, _, kind = name.rpartition(".")
        renamed[f"{TO_OURS.get(place, place)}.{kind}"] = tensor
    return Foreign(f"torchvision ({how})", renamed, variant="torchvision", notes=tuple(notes))
