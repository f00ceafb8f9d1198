"""How all ranks begin alike: rank 0 opens the folder and begins or resumes the run, then broadcasts
recipe, place, weights and velocity.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.resample import resampled
from alexnet.data.store import Store
from alexnet.train.history import Config
from alexnet.train.parallel.ranks import Ranks
from alexnet.train.place import Place
from alexnet.train.recipes import Recipe
from alexnet.train.run import Run, SilentRun
from alexnet.train.start import Start
from alexnet.variants import Variant


@dataclass(frozen=True)
class Beginning:
    """What rank 0 begins with, except weights and velocity."""

    recipe: Recipe
    config: Config
    resumed: bool
    variant: Variant
    preprocessing: Preprocessing
    place: Place


def give(ranks: Ranks, run: Run, start: Start) -> None:
    """On rank 0: broadcast how the run begins."""
    ranks.wait_for_first()
    if ranks.several:
        preprocessing = start.preprocessing.to(torch.device("cpu"))
        what = Beginning(start.recipe, run.config, run.resumed, start.variant, preprocessing, start.place)
        ranks.broadcast_object(what)
        _broadcast(ranks, start)


def receive(ranks: Ranks, folder: Path, store: Store, device: torch.device) -> tuple[Run, Start, Store]:
    """On every other rank: begin as rank 0 does.

    Args:
        folder: rank 0's; this rank writes nothing to it.
        store: as opened here; resampled if rank 0's was.

    Returns:
        The run without its files, how it begins, and the store in the size that is trained on.
    """
    ranks.wait_for_first()
    what: Beginning = ranks.broadcast_object(None)  # type: ignore[assignment]
    store = resampled(store, what.preprocessing.stored_size)
    start = Start.of_another(what.recipe, store, device, what.variant, what.preprocessing, what.place)
    _broadcast(ranks, start)
    return SilentRun(folder, what.resumed, what.config), start, store


def _broadcast(ranks: Ranks, start: Start) -> None:
    """Broadcast rank 0's weights and velocity."""
    for parameter in start.model.parameters():
        ranks.broadcast(parameter.data)
    for velocity in start.optimiser.velocity.values():
        ranks.broadcast(velocity)
