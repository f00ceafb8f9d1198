"""Which network the page shows, and what is to be said about it.

Without a name it is the best that is at hand: published weights in the cache, else the demo's run,
else the variant untrained. A file that holds the first layers alone is shown as far as it goes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import torch

from alexnet import run_folder
from alexnet.address import DOWNLOAD, not_here, was_address
from alexnet.arithmetic import Op
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError
from alexnet.model import AlexNet
from alexnet.published import registry
from alexnet.published.registry import Published, downloaded
from alexnet.run_folder import LATEST
from alexnet.variants import Variant, get_variant, named
from alexnet.weights import check, importer
from alexnet.weights.native import weights_hash

Source = Literal["run", "published", "demo", "fresh"]
DEMO_RUN = Path("demo/run")
GUESSED = "paper"  # the variant of a file that does not say
SEED = 2012  # of an untrained network's weights: the page of one picture is the same each time


@dataclass(frozen=True)
class Shown:
    """A network to show.

    Attributes:
        model: on the CPU; with `missing` layers, the network up to the first of them.
        classes: names in the order of the network's outputs.
        name: as the user names it: a path, or a published name.
        missing: layers without weights, in order.
        remarks: what was guessed or left out, for the user.
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
    def choice(self) -> str:
        """What is shown where no network was named, and why, in a sentence for the user."""
        why = {
            "published": "the published weights in the cache",
            "demo": "the demo's run",
            "fresh": f"untrained, as neither the cache of published weights nor {DEMO_RUN} has weights for it",
        }
        pull = " `alexnet weights pull torchvision` downloads trained weights." if self.source == "fresh" else ""
        return f"Showing {self.label}, {why[self.source]}. --run names another network.{pull}"

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operations before the first missing layer."""
        return self.model.ops

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the weights, see `weights_hash`."""
        return weights_hash(self.model.state_dict())

    @cached_property
    def looks_trained(self) -> bool | None:
        """Whether the weights look trained; None where layers are missing and the others do not
        tell.
        """
        if self.source == "fresh":
            return False
        if check.tensors(self.model.state_dict()).looks_trained:  # conv1 shows it, which takes no second
            return True
        return None if self.missing else check.network(self.model).looks_trained


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


def offers(runs: Sequence[str] = (), variant: str | None = None) -> dict[str, Offer]:
    """The networks to choose from, by identifier: those named, or the usual one; then the published
    ones in the cache and every variant untrained.

    Args:
        runs: as `find` takes them.
        variant: which AlexNet they are, where a file does not say.

    Raises:
        CheckpointError: one that is named does not exist.
    """
    for name in runs:
        if not _is_published(name):
            _check_exists(name)
            run_folder.find(name)
    found = {f"run-{number}": Offer(name, "run", partial(find, name, variant)) for number, name in enumerate(runs, 1)}
    if not runs and (DEMO_RUN / LATEST).exists():
        found["demo"] = Offer(str(DEMO_RUN), "demo", of_demo)
    others = [entry for entry in downloaded() if entry.name not in runs]
    published = {f"published-{one.name}": Offer(one.name, "published", partial(of_published, one)) for one in others}
    untrained = {f"fresh-{name}": Offer(name, "fresh", partial(fresh, name)) for name in named()}
    return found | published | untrained if runs else published | found | untrained


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
    _check_exists(name)
    return of_file(Path(name), variant)


def _is_published(name: str | Path) -> bool:
    return str(name) in registry.names() and not Path(name).exists()


def _check_exists(name: str | Path) -> None:
    if was_address(Path(name)) or not Path(name).exists():
        known = ", ".join(entry.name for entry in registry.networks())
        otherwise = f"name a run's folder, a file of weights, or published weights ({known}) that were pulled"
        raise CheckpointError(not_here(name, "runs and weights", DOWNLOAD, otherwise))


def fresh(variant: str | Variant) -> Shown:
    """A variant with weights by chance, always the same."""
    chosen = get_variant(variant)
    model = AlexNet(chosen, torch.Generator().manual_seed(SEED)).requires_grad_(False).eval()
    return Shown(model, importer.default_classes(chosen), importer.published_preprocessing(chosen), chosen.label, "fresh")


def of_demo() -> Shown:
    """The network that `alexnet demo` has trained in the working folder."""
    return replace(of_file(DEMO_RUN), source="demo")


def of_published(entry: Published) -> Shown:
    """Published weights that were downloaded before.

    Raises:
        CheckpointError: they are not in the cache, or not a network.
    """
    if entry.variant is None:
        raise CheckpointError(f"{entry.name} is not a network: choose one with a variant from `alexnet weights list`.")
    files = registry.usable(entry)
    if files is None:
        raise CheckpointError(f"{entry.name} is not in the cache yet: alexnet weights pull {entry.name}")
    path, mean = files
    trained, _ = importer.import_weights(path, entry.variant, mean=mean)
    return Shown(trained.model, trained.classes, trained.preprocessing, entry.name, "published")


def of_file(path: Path, variant: str | None = None) -> Shown:
    """A run's network after its latest epoch, or a file of weights, of which layers may be missing.

    Raises:
        CheckpointError: as `find`.
    """
    trained, foreign = importer.import_weights(path, variant, otherwise=GUESSED, partial=True)
    guessed = f"{path} does not say which variant it is: taken for {trained.model.variant.name}; --variant names another"
    unsure = variant is None and foreign.variant is None and foreign.ops is None
    remarks = (*(f"{path}: {note}" for note in foreign.notes), *([guessed] if unsure else []))
    return Shown(trained.model, trained.classes, trained.preprocessing, str(path), "run", trained.missing, remarks)
