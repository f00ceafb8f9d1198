"""Which step a run trains by, where, and in which precision: `open_step`.

`plain.py` runs everywhere. `fused.py` is for NVIDIA's GPUs from compute capability 8.0 on: there
`auto` takes it, once `check.py` has held its gradients against float64. The loop sees a `Step`
(`step.py`) and does not ask which one.
"""

from contextlib import suppress

import torch
from torch import Tensor

from alexnet import kernels
from alexnet.console import say
from alexnet.data.store import Split
from alexnet.devices import lacks_bf16, pick_precision, set_precision
from alexnet.errors import RecipeError
from alexnet.fused import unknown
from alexnet.lanes import Lanes
from alexnet.memory import keep_freed
from alexnet.model import AlexNet
from alexnet.train.balance import class_weights
from alexnet.train.parallel.layout import Layout
from alexnet.train.parallel.part import Sharded
from alexnet.train.parallel.ranks import ALONE, Ranks
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.train.steps.check import disagreement
from alexnet.train.steps.fused import TYPES, FusedStep, open_fused_step
from alexnet.train.steps.plain import PlainStep, Scores, computing_in, loss_function
from alexnet.train.steps.ranked import RankedStep
from alexnet.train.steps.split import choose_lanes, choose_way, threads_each, too_coarse
from alexnet.train.steps.step import Step
from alexnet.variants import Variant


def open_step(
    start: Start,
    held_out: Split,
    *,
    fused: bool,
    precision: str,
    compiled: bool,
    lanes: int | None = None,
    ranks: Ranks = ALONE,
    compared: bool = False,
) -> tuple[Step, str]:
    """The step of a run, and a few words on it.

    Args:
        held_out: the pictures to test on.
        fused, precision: what `wants_fused` and `pick_precision` say.
        compiled: whether the plain step is.
        lanes: over how many a batch is split on a CPU; None to choose.
        ranks: that train together.
        compared: as in `loop.train`.

    Raises:
        UsageError: fewer lanes than one.
        RecipeError: the fused step was asked for, and its gradients are wrong here.
        TrainingError: the pictures do not fit where they were asked to be.
    """
    recipe, device = start.recipe, start.device
    if fused:
        precision = _distinguishing(start, precision)
        step = open_fused_step(start, held_out, precision)
        problem = _checked(step, device, (start.place.epoch, start.place.step))
        if not problem:
            return step, f"the fused step, {precision}"
        if recipe.fused == "on" or recipe.precision == "bf16":  # which no other step has
            asked = "fused (=on)" if recipe.fused == "on" else "precision (=bf16)"
            raise RecipeError(
                f"{asked} needs the fused step, which gives wrong results here: {problem}. Use auto, and please report it."
            )
        say(f"The fused step is not used, as it gives wrong results here: {problem}. Please report it.")
        precision = pick_precision(recipe.precision, device, False)
        set_precision(precision, device)
    if compiled and ranks.several and ranks.scheme != "data":
        say(f"With --parallel {ranks.scheme} the network runs uncompiled: its exchanges would cut the compiler's graph.")
        compiled = False
    if device.type == "cpu" and not (compiled or compared or ranks.several) and _leaves_precision(recipe):
        way = choose_way(start, lanes)
        precision, lanes = way.precision, way.lanes
    words = f"{precision}, compiled" if compiled else precision
    if ranks.several:
        return open_ranked_step(start, held_out, compiled, lanes, ranks, precision), words
    return open_plain_step(start, compiled, lanes, precision), words


def _distinguishing(start: Start, precision: str) -> str:
    """What the fused step computes in: if that is bfloat16 by choice of `auto`, a resumed run's
    own precision, and in a new run one that can tell its pictures apart.
    """
    if precision != "bf16" or start.recipe.precision != "auto":
        return precision
    before = start.place.trained_by[-1:]
    reason = None if before else too_coarse(start)
    if reason is None and (not before or "bf16" in before[0]):
        return precision
    precision = pick_precision("auto", start.device, False)
    set_precision(precision, start.device)
    if reason:
        say(f"Computing in {precision}: {reason}.")
    return precision


def _leaves_precision(recipe: Recipe) -> bool:
    """Whether a CPU may choose it. Weights that somebody trained are fine-tuned in float32, as
    nobody compared.
    """
    return recipe.precision == "auto" and recipe.tune is None and lacks_bf16() is None


def open_plain_step(start: Start, compiled: bool, lanes: int | None = None, precision: str = "fp32") -> PlainStep:
    """The plain step of a run; arguments as those of `open_step`."""
    network, split = _network(start, start.model, compiled, lanes, precision)
    loss = loss_function(network, compiled, start.recipe.label_smoothing, _class_weights(start))
    return PlainStep(start.model, loss, start.optimiser, start.loader, start.augmentation, split)


def open_ranked_step(
    start: Start, held_out: Split, compiled: bool, lanes: int | None, ranks: Ranks, precision: str = "fp32"
) -> RankedStep:
    """This rank's step of a run; arguments as those of `open_step`, one lane if not said."""
    layout = Layout.of(ranks, ranks.scheme, start.device)
    sharded = None if ranks.scheme == "data" else Sharded(start, layout, ranks.first)
    if layout.sharded_convolutions and lanes and lanes > 1:
        say(f"lanes (={lanes}) is for networks that are whole: using 1 lane.")
        lanes = 1
    network, split = _network(start, sharded.shard if sharded else start.model, compiled, lanes or 1, precision)
    size, smoothing = start.loader.batch_size, start.recipe.label_smoothing
    loss = loss_function(network, compiled, smoothing, _class_weights(start), size)
    return RankedStep(start, layout, sharded, loss, split, ranks, held_out)


def _network(start: Start, part: AlexNet, compiled: bool, lanes: int | None, precision: str) -> tuple[Scores, Lanes | None]:
    """What computes the logits, and on a CPU its lanes, if they are several; `part` is this
    process's part of the network.
    """
    dtype, split = TYPES[precision], None
    if start.device.type == "cpu":
        keep_freed(start.loader.batch_size * start.variant.largest_activation_bytes)
        count = 1 if compiled or lanes == 1 else choose_lanes(start, lanes, "bf16" if precision == "bf16" else "fp32")
        if compiled and lanes and lanes > 1:
            say(f"lanes (={lanes}) is for training without the compiler: using 1 lane.")
        split = Lanes(part, count, threads_each(count), dtype) if count > 1 else None
    return computing_in(dtype, split or part), split


def _class_weights(start: Start) -> Tensor | None:
    weights = class_weights(start.recipe, start.loader.split, start.variant.num_classes)
    return None if weights is None else weights.to(start.device)


def _checked(step: FusedStep, device: torch.device, at: tuple[int, int]) -> str | None:
    """What is wrong with the step, which is closed then."""
    problem = None
    try:
        problem = disagreement(step, *at) if must_be_checked(device) else None
    except BaseException:
        with suppress(RuntimeError):  # a GPU that no longer answers
            step.close()
        raise
    if problem:
        step.close()
    return problem


def wants_fused(recipe: Recipe, variant: Variant, device: torch.device, ranks: Ranks = ALONE) -> bool:
    """Whether a run takes the fused step; if a GPU does not, the reason is printed.

    Raises:
        RecipeError: it was asked for, and does not know this network or device.
    """
    if recipe.fused == "off":
        return False
    if ranks.several:
        if recipe.fused == "on":
            raise RecipeError(f"fused (=on) is for one process, and these are {ranks.count}: use auto.")
        if device.type != "cpu":
            say("The fused step is not used, as it is for one process: the plain step runs.")
        return False
    if recipe.tune or not recipe.even_rates:
        if recipe.fused == "on":
            raise RecipeError("fused (=on) has one learning rate for all layers: use auto.")
        if device.type != "cpu":
            say("The fused step is not used, as it has one learning rate for all layers: the plain step runs.")
        return False
    weighted = "its loss knows no class-weights" if recipe.class_weights else None
    if recipe.fused == "on":
        reason = weighted or unknown(variant) or (kernels.lacking(device) if device.type != "cpu" else None)
        if reason:
            raise RecipeError(f"fused (=on) cannot train this here ({reason}): use auto.")
        return True
    return weighted is None and pays(variant, device)


def pays(variant: Variant, device: torch.device) -> bool:
    """Whether the fused step is the fastest on a device; if a GPU cannot run it, the reason is
    printed.
    """
    if device.type == "cpu":  # where the plain step is faster
        return False
    reason = unknown(variant) or kernels.lacking(device)
    if reason:
        say(f"The fused step is not used ({reason}): the plain step runs on {device.type} in float32, which is slower.")
    return reason is None


def must_be_checked(device: torch.device) -> bool:
    """Where kernels run; elsewhere their reference does."""
    return device.type == "cuda"
