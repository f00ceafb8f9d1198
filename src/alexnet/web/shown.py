"""Which network the page shows, and what is to be said about it.

Without a name it is the best that is at hand: published weights in the cache, else the demo's run,
else the variant untrained. A file that holds the first layers alone is shown as far as it goes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from alexnet import run_folder
from alexnet.arithmetic import Op
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError
from alexnet.model import AlexNet
from alexnet.published import registry
from alexnet.published.registry import Published
from alexnet.run_folder import LATEST
from alexnet.train.result import weights_hash
from alexnet.trained import Trained
from alexnet.variants import LAYER_NAMES, Variant, get_variant, named
from alexnet.weights import check, importer

Source = Literal["run", "published", "demo", "fresh"]
DEMO_RUN = Path("demo/run")
SEED = 2012  # of an untrained network's weights: the page of one picture is the same each time


@dataclass(frozen=True)
class Shown:
    """A network to show.

    Attributes:
        model: on the CPU; parameters of `missing` layers are on the device "meta".
        classes: names in the order of the network's outputs.
        name: as the user names it: a path, or a published name.
        missing: layers without weights, in order.
        remarks: what was guessed, for the user.
    """

    model: AlexNet
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    name: str
    source: Source
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def variant(self) -> Variant:
        """The network's variant."""
        return self.model.variant

    @property
    def label(self) -> str:
        """In a few words: what it is called and which variant it is."""
        return self.name if self.source == "fresh" else f"{self.name} ({self.variant.label})"

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operations before the first missing layer."""
        names = [op.name for op in self.model.ops]
        return self.model.ops[: names.index(self.missing[0])] if self.missing else self.model.ops

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Those that are not missing, by name."""
        return {name: one for name, one in self.model.state_dict().items() if not one.is_meta}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the weights, see `weights_hash`."""
        return weights_hash(self.parameters)

    @cached_property
    def looks_trained(self) -> bool | None:
        """Whether the weights look trained; None where layers are missing and the others do not
        tell.
        """
        if self.source == "fresh":
            return False
        if self.missing:
            return check.tensors(self.parameters).looks_trained or None
        return check.network(self.model).looks_trained


@dataclass(frozen=True)
class Offer:
    """A network to choose from, which is read when it is wanted."""

    label: str
    source: Source
    load: Callable[[], Shown]


def usual(variant: str | None = None) -> Shown:
    """The best network at hand.

    Args:
        variant: take no other; paper if that is None and nothing else is found.
    """
    for entry in downloaded():
        if variant in (None, entry.variant):
            return of_published(entry)
    if (DEMO_RUN / LATEST).exists():
        demo = of_demo()
        if variant in (None, demo.variant.name):
            return demo
    return fresh(variant or "paper")


def offers(runs: Sequence[str] = ()) -> dict[str, Offer]:
    """The networks to choose from, by identifier: those named, or the usual one; then the published
    ones in the cache and every variant untrained.

    Raises:
        CheckpointError: one that is named does not exist.
    """
    for name in runs:
        if not _is_published(name):
            run_folder.find(name)
    found = {f"run-{number}": Offer(name, "run", partial(find, name)) for number, name in enumerate(runs, 1)}
    if not runs and (DEMO_RUN / LATEST).exists():
        found["demo"] = Offer(str(DEMO_RUN), "demo", of_demo)
    others = [entry for entry in downloaded() if entry.name not in runs]
    published = {f"published-{one.name}": Offer(one.name, "published", partial(of_published, one)) for one in others}
    untrained = {f"fresh-{name}": Offer(name, "fresh", partial(fresh, name)) for name in named()}
    return found | published | untrained if runs else published | found | untrained


def downloaded() -> list[Published]:
    """The published networks in the cache that can be used."""
    return [entry for entry in registry.REGISTRY if entry.variant and registry.cached(entry) and _companion_is_here(entry)]


def find(name: str | Path, variant: str | None = None) -> Shown:
    """A network by what the user names.

    Args:
        name: a run's folder, a file of weights in any format, or the name of published weights in
            the cache.
        variant: which AlexNet it is, where a file does not say.

    Raises:
        CheckpointError: not found, not readable, or without a layer that can be shown.
    """
    if _is_published(name):
        return of_published(registry.get_published(str(name)))
    return of_file(Path(name), variant)


def _is_published(name: str | Path) -> bool:
    return str(name) in registry.names() and not Path(name).exists()


def fresh(variant: str | Variant) -> Shown:
    """A variant with weights by chance, always the same."""
    chosen = get_variant(variant)
    model = AlexNet(chosen, torch.Generator().manual_seed(SEED)).requires_grad_(False).eval()
    return Shown(model, importer.default_classes(chosen), importer.published_preprocessing(chosen), chosen.label, "fresh")


def of_trained(trained: Trained, name: str, source: Source = "run") -> Shown:
    """A network in memory."""
    return Shown(trained.model, trained.classes, trained.preprocessing, name, source)


def of_demo() -> Shown:
    """The network that `alexnet demo` has trained in the working folder."""
    return replace(of_file(DEMO_RUN), source="demo")


def of_published(entry: Published) -> Shown:
    """Published weights that were downloaded before.

    Raises:
        CheckpointError: they are not in the cache, or not networks.
    """
    if entry.variant is None:
        raise CheckpointError(f"{entry.name} is not a network: choose one with a variant from `alexnet weights list`.")
    path, mean = registry.cached(entry), None
    if path is None or not _companion_is_here(entry):
        raise CheckpointError(f"{entry.name} has not been downloaded yet: alexnet weights pull {entry.name}")
    if entry.companion:
        mean = _unpacked(registry.get_published(entry.companion))
    trained, _ = importer.import_weights(path, entry.variant, mean=mean)
    return of_trained(trained, entry.name, "published")


def of_file(path: Path, variant: str | None = None) -> Shown:
    """A run's network after its latest epoch, or a file of weights.

    Raises:
        CheckpointError: as `find`.
    """
    try:
        trained, _ = importer.import_weights(path, variant, otherwise="paper")
    except CheckpointError as whole:
        shown = None if path.is_dir() else _partial(path, variant)
        if shown is None:
            raise whole from None
        return shown
    return of_trained(trained, str(path))


def _partial(path: Path, variant: str | None) -> Shown | None:
    """A file that holds the first layers of an AlexNet; None if it does not."""
    try:
        foreign = importer.read_beginning(path)
    except CheckpointError:
        return None
    own = foreign.variant
    chosen = own if isinstance(own, Variant) else _fitting(foreign.tensors, variant or own)
    if chosen is None:
        return None
    shapes = chosen.parameter_shapes()
    layers = [name for name in LAYER_NAMES if f"{name}.weight" in shapes]
    there = [
        name
        for name in layers
        if all(key in foreign.tensors and tuple(foreign.tensors[key].shape) == shapes[key] for key in _keys(name))
    ]
    missing = tuple(name for name in layers if name not in there)
    if "conv1" in missing or not missing:
        return None
    with torch.device("meta"):
        model = AlexNet(chosen)
    kept = {key: foreign.tensors[key] for name in there for key in _keys(name)}
    model.load_state_dict(kept, strict=False, assign=True)
    preprocessing = foreign.preprocessing or importer.published_preprocessing(chosen)
    model.requires_grad_(False).eval()
    guessed = f"{path} does not say which variant it is: taken for {chosen.name}; --variant names another"
    remarks = () if variant or foreign.variant else (guessed,)
    return Shown(model, importer.default_classes(chosen), preprocessing, str(path), "run", missing, remarks)


def _fitting(tensors: Mapping[str, Tensor], variant: str | None) -> Variant | None:
    """The variant that the user or the format names, else the first whose kernels a file holds."""
    for name in [variant] if variant else named():
        chosen = get_variant(name)
        shapes = chosen.parameter_shapes()
        held = [key for key in shapes if key.startswith("conv") and key in tensors]
        if "conv1.weight" in held and all(tuple(tensors[key].shape) == shapes[key] for key in held):
            return chosen
    return None


def _keys(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


def _companion_is_here(entry: Published) -> bool:
    return entry.companion is None or _unpacked(registry.get_published(entry.companion)) is not None


def _unpacked(entry: Published) -> Path | None:
    """The member of a published tar in the cache, where `pull` has unpacked it."""
    if entry.member is None:
        return registry.cached(entry)
    path = registry.cache_folder() / entry.member.file
    return path if path.is_file() else None
