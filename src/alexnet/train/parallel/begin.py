"""One beginning for all ranks: rank 0 opens the folder and begins or resumes the run, and the
others receive recipe, place, weights and velocity from it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.resample import resampled
from alexnet.data.store import Store
from alexnet.train.history import Config
from alexnet.train.parallel.ranks import Ranks
from alexnet.train.place import Place
from alexnet.train.recipes import Recipe
from alexnet.train.run import Run, RunElsewhere
from alexnet.train.start import Start
from alexnet.variants import Variant


@dataclass(frozen=True)
class Beginning:
    """What rank 0 begins with, but for weights and velocity."""

    recipe: Recipe
    config: Config
    resumed: bool
    variant: Variant
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    place: Place


def give(ranks: Ranks, run: Run, start: Start) -> None:
    """At rank 0: let the others begin as this one does."""
    ranks.wait_for_first()
    if ranks.several:
        preprocessing = start.preprocessing.to(torch.device("cpu"))
        trained = start.trained
        what = Beginning(start.recipe, run.config, run.resumed, start.variant, trained.classes, preprocessing, start.place)
        ranks.share(what)
        _spread(ranks, start)


def receive(ranks: Ranks, folder: Path, store: Store, device: torch.device) -> tuple[Run, Start, Store]:
    """At every other rank: what rank 0 gives.

    Args:
        folder: rank 0's; nothing is written into it here.
        store: as opened here; its pictures are resampled if rank 0's were.

    Returns:
        The run without a folder, its beginning, and the store in the size that is trained on.
    """
    ranks.wait_for_first()
    what: Beginning = ranks.share(None)  # type: ignore[assignment]
    store = resampled(store, what.preprocessing.stored_size)
    start = Start.of_another(what.recipe, store, device, what.variant, what.preprocessing, replace(what.place))
    _spread(ranks, start)
    return RunElsewhere(folder, what.resumed, what.config), start, store


def _spread(ranks: Ranks, start: Start) -> None:
    """Rank 0's weights and velocity to all."""
    for parameter in start.model.parameters():
        ranks.spread(parameter.data)
    for velocity in start.optimiser.velocity.values():
        ranks.spread(velocity)
