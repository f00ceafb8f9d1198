"""What a run says as it begins or goes on, and what it notes for its record."""

from itertools import pairwise

import numpy as np

from alexnet.console import say
from alexnet.data.store import Split, Store
from alexnet.phrases import counted
from alexnet.run_folder import Environment, changes, environment, read_environment
from alexnet.train.optim import schedule, warmup
from alexnet.train.parallel.ranks import Ranks
from alexnet.train.place import Place
from alexnet.train.recipes import Recipe
from alexnet.train.run import Run
from alexnet.train.start import Start

#: Blocks with less than this share of the classes expected in random order are not in random order.
SHUFFLED = 0.8


def note_step(place: Place, kind: str) -> None:
    """Keep what trains; say so if it is another than before."""
    if place.trained_by[-1:] != [kind]:
        if place.trained_by:
            say(f"This run used {place.trained_by[-1]} until now and continues with {kind}: its results mix the two.")
        place.trained_by.append(kind)


def note_environment(place: Place, run: Run, lanes: int, ranks: Ranks) -> None:
    """Keep where it computes, and say so if a resumed run computes elsewhere.

    The same sums in another order have other bits.
    """
    if not place.environments and run.resumed:  # by a version that kept the first one only
        place.environments.append(read_environment(run.folder))
    here: Environment = environment() | {"lanes": lanes}
    if ranks.several:
        here |= {"ranks": ranks.count, "parallel": ranks.scheme}
    if place.environments:
        changed = changes(place.environments[-1], here)
        if not changed:
            return
        say(
            f"This run continues in another environment ({changed}): its weights "
            "will differ slightly from those of a run that was never stopped."
        )
    place.environments.append(here)


def note_draws(place: Place) -> None:
    """Keep what chance numbers its draws by; say so if a resumed run drew in another way."""
    if not place.drawn_by and place.epoch + place.step:
        place.drawn_by.append("step")  # by a version that does not say
        say(
            "This run drew crops, mirrors, colours and dropout by (seed, epoch, step) until now and "
            "continues by (seed, epoch, picture): its results mix the two."
        )
    if place.drawn_by[-1:] != ["picture"]:
        place.drawn_by.append("picture")


def announce(start: Start, store: Store, where: str, resumed: bool) -> None:
    """What is trained, on how much and where; and what of it is not as asked for."""
    recipe, variant, loader, place = start.recipe, start.variant, start.loader, start.place
    if loader.batch_size < recipe.batch_size:
        say(
            f"The store has only {counted(len(store.train), 'training picture')}: using batches of "
            f"{loader.batch_size} instead of {recipe.batch_size}."
        )
    if store.manifest["resize"] != variant.resize and not recipe.tune:  # said when the weights were read
        say(
            f"{variant.name} is meant for {variant.resize} pictures, and this store holds "
            f"{store.manifest['resize']} ones (see `alexnet prepare --resize`)."
        )
    if recipe.shuffle_blocks is not None:
        warn_unless_shuffled(recipe.shuffle_blocks, loader.split, store)
    say(
        f"{variant.label}, {variant.input_size} pixels, "
        f"{variant.parameters:,} parameters; {counted(len(store.train), 'picture')} of {len(store.classes)} classes; "
        f"{_epochs(recipe, loader.steps_per_epoch)} on {where}"
        f"{f'; resumed after {_reached(place)}' if resumed else ''}."
        f"{' The first step takes up to a minute.' if 'compiled' in where else ''}"
    )


def _reached(place: Place) -> str:
    """Where a run is, as its progress counts: "epoch 3", "step 20 of epoch 4"."""
    return f"step {place.step} of epoch {place.epoch + 1}" if place.step else f"epoch {place.epoch}"


def warn_unless_shuffled(blocks: int, split: Split, store: Store) -> None:
    """Warn if the blocks to shuffle have few classes each, as in the order of folders."""
    shares = np.bincount(split.labels) / len(split)
    starts = np.cumsum((0, *split.blocks))
    held = np.array([len(np.unique(split.labels[start:end])) for start, end in pairwise(starts)])
    expected = np.array([(1 - (1 - shares) ** count).sum() for count in split.blocks])  # in random order
    if blocks < len(split.blocks) and held.sum() < expected.sum() * SHUFFLED:
        say(
            f"Warning: the pictures of {store.address} are not in random order: a block has {held.mean():.1f} classes instead "
            f"of {expected.mean():.1f}, so with shuffle_blocks (={blocks}) each batch has only a part of the classes, and "
            "the network learns less. Prepare the store with --shuffle."
        )


def _epochs(recipe: Recipe, steps: int) -> str:
    if recipe.tune is None:
        return f"{counted(recipe.epochs, 'epoch')} of {counted(steps, 'step')}"
    if recipe.epochs == 1:
        return "a new last layer, fitted"
    return f"the new last layer is epoch 1; then {counted(recipe.epochs - 1, 'epoch')} of {counted(steps, 'step')}"


def extend(recipe: Recipe, run: Run, place: Place, steps_per_epoch: int) -> None:
    """Record that a run gets more epochs, and say what its learning rate does."""
    now, earlier = place.epoch + place.step / steps_per_epoch, run.config.recipe.epochs
    before, after = (recipe.lr * min(warmup(one, now), schedule(one, now, place.errors)) for one in (run.config.recipe, recipe))
    rate = f"the learning rate continues at {after:.2g}"
    if abs(after - before) > 1e-9:
        rate = (
            f"the learning rate changes from {before:.2g} to {after:.2g}, its value at this point in a run of "
            f"{recipe.epochs} epochs. The result differs from that of a run started with --epochs {recipe.epochs}"
        )
    say(f"{run.folder} now trains for {recipe.epochs} epochs instead of {earlier}. From epoch {now:g} on, {rate}.")
    run.extend(recipe, now)
