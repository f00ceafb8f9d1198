"""The paper's claims, each as a pair of recipes that differ in one thing:
`alexnet ablate NAME --data STORE --seeds N`.

An `Ablation` is data: what changes, what the paper says it is worth, and how it is measured.
`ablate.py` trains the pairs. The standard side is the recipe unchanged; the changed side has one
thing altered or removed, so a positive difference of errors means that it was worth
having. Ten views and five nets change no training, only how the standard networks are asked.

Readings where the paper leaves a choice:

* One tower of half width keeps conv5 and the fully connected layers at full width, as the paper's
  footnote to section 3.2 says: so both nets have about the same number of parameters.
* Pooling windows of 2 x 2, 2 apart, give the same 27, 13 and 6 without padding: (N - 2) // 2 + 1 =
  (N - 3) // 2 + 1 for odd N, and 55, 27 and 13 are odd. Where a smaller input makes one of them
  even, the pair would differ in fc6's inputs too: refused.
* Towers that never talk meet in fc6 first. In the standard net they meet in conv3 as well.
* A layer is taken out with its activation, normalisation and dropout; pooling stays, so heights
  and widths do. Without conv3, conv4 reads both towers in its place: otherwise the towers would
  not talk either, and two things would change at once. That is the network without conv4, layer
  for layer, as conv3 and conv4 have 384 kernels of 3 x 3 each; and what is left without fc6 is
  what is left without fc7. Without conv5, fc6 reads 384 maps instead of 256. The counts of
  parameters are reported.
* The text's start changes the weights of conv3 to conv5 alone; biases, rates and the order of
  layers stay the recipe's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from alexnet import paper
from alexnet.errors import RecipeError, nearest
from alexnet.train.recipes import NETWORK_FIELDS, Recipe, differences
from alexnet.variants import INIT_STD, REMOVABLE, Variant

Changes = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One claim and how to test it."""

    name: str
    """Of the ablation, and of its changed side."""
    change: Callable[[Variant], Changes] = lambda _: {}
    """Fields of the recipe on the changed side, given the standard network; empty if
    it has nothing to change.
    """
    both: Changes = field(default_factory=dict)
    """Fields of the recipe on both sides."""
    needs: str = ""
    """What the standard side must have, for the refusal."""
    claim: str
    """What the paper says, with its section."""
    points: tuple[float | None, float | None] = (None, None)
    """By how many points the change raises top-1 and top-5 error in the paper; None
    where it gives no number.
    """
    measure: Literal["error", "epochs"] = "error"
    """Held-out error after the last epoch, or epochs to a training error."""
    views: Literal[1, 10] = 1
    """Views of each picture on the changed side."""
    nets: int = 1
    """Networks averaged on the changed side."""
    same_shapes: bool = False
    """Whether every layer must keep its shape, or the pair would differ in more than it should."""

    @property
    def trains(self) -> bool:
        """Whether the changed side has networks of its own."""
        return self.views == 1 and self.nets == 1


def _lost(gain: str) -> tuple[float, float]:
    return paper.REPORTED_GAINS[gain]


def _difference(after: tuple[str, str], before: tuple[str, str]) -> tuple[float | None, float | None]:
    """Points between two of the paper's results: negative if the change helps."""
    new, old = paper.REPORTED_ERRORS[after], paper.REPORTED_ERRORS[before]
    return None if None in (new[0], old[0]) else round(new[0] - old[0], 1), round(new[1] - old[1], 1)  # type: ignore[operator]


def _no_lrn(network: Variant) -> Changes:
    blocks = {"block1": network.block1, "block2": network.block2}
    return {name: tuple(step for step in block if step != "norm") for name, block in blocks.items()}


def _half_tower(network: Variant) -> Changes:
    if network.towers != paper.TOWERS:
        return {}
    *halved, last = network.kernels
    return {"towers": 1, "kernels": (*(count // 2 for count in halved), last)}


def _never_talk(network: Variant) -> Changes:
    return {"sees_both_towers": (True, False, False, False, False)} if network.towers > 1 else {}


def _text_start(network: Variant) -> Changes:
    return {"init_std": INIT_STD} if network.init == "gaussian" else {}


def _without(layer: str) -> Callable[[Variant], Changes]:
    def change(network: Variant) -> Changes:
        if layer in network.removed:
            return {}
        changes: Changes = {"removed": (*network.removed, layer)}
        if layer == "conv3" and network.towers > 1:
            first, second, third, fourth, fifth = network.sees_both_towers
            changes["sees_both_towers"] = (first, second, third, third or fourth, fifth)
        return changes

    return change


_MIDDLE = ("conv2", "conv3", "conv4")


def _claim_on(layer: str) -> str:
    """What the paper says of a net without this layer."""
    if layer in _MIDDLE:
        return "removing any of the middle layers costs about 2 % top-1 (section 7)"
    if layer == "conv5":
        return "removing any convolutional layer makes it worse, no number given (section 1)"
    return "says nothing about a single fully connected layer"


_REMOVED = [
    Ablation(
        name=f"no-{layer}",
        change=_without(layer),
        needs=f"a net with {layer}",
        claim=_claim_on(layer),
        points=(paper.MIDDLE_LAYER_GAIN, None) if layer in _MIDDLE else (None, None),
    )
    for layer in REMOVABLE
]

ABLATIONS = {
    ablation.name: ablation
    for ablation in (
        Ablation(
            name="tanh",
            change=lambda _: {"activation": "tanh"},
            needs="a net with ReLUs",
            measure="epochs",
            both={"dropout": 0.0, "crop": False, "mirror": False, "colour_noise": 0.0, "weight_decay": 0.0},
            claim="with ReLUs a four-layer net reaches 25 % training error on CIFAR-10 six times faster, both without "
            "regularisation and with a learning rate of their own (figure 1, section 3.1)",
        ),
        Ablation(
            name="no-lrn",
            change=_no_lrn,
            needs="a net with local response normalisation",
            claim="local response normalisation lowers the errors by 1.4 and 1.2 points (section 3.3)",
            points=_lost("local response normalisation"),
        ),
        Ablation(
            name="non-overlapping",
            change=lambda _: {"pool_size": paper.POOL_STRIDE},
            same_shapes=True,
            needs="a net with overlapping pooling",
            claim="overlapping pooling lowers the errors by 0.4 and 0.3 points (section 3.4)",
            points=_lost("overlapping pooling"),
        ),
        Ablation(
            name="one-tower",
            change=_half_tower,
            needs="a net with two towers",
            claim="two towers lower the errors by 1.7 and 1.2 points against one with half the kernels (section 3.2)",
            points=_lost("two towers"),
        ),
        Ablation(
            name="never-talk",
            change=_never_talk,
            needs="a net with two towers",
            claim="nothing in the paper; the notes in the program of 2012 have 41.8 and 19.3 % against 40.7 and 18.2 %",
            points=(
                round(paper.NEVER_TALK_ERRORS[0] - paper.TALK_ERRORS[0], 1),
                round(paper.NEVER_TALK_ERRORS[1] - paper.TALK_ERRORS[1], 1),
            ),
        ),
        Ablation(
            name="no-dropout",
            change=lambda _: {"dropout": 0.0},
            needs="a recipe with dropout (--dropout 0.5)",
            claim="without dropout the net overfits substantially, no number given (section 4.2)",
        ),
        Ablation(
            name="no-augmentation",
            change=lambda _: {"crop": False, "mirror": False, "colour_noise": 0.0},
            needs="a recipe with crops, mirrors or colour noise",
            claim="without crops and mirrors the net overfits substantially, no number given (section 4.1)",
        ),
        Ablation(
            name="no-colour-noise",
            change=lambda _: {"colour_noise": 0.0},
            needs="a recipe with colour noise",
            claim="colour noise lowers the top-1 error by over 1 point (section 4.1)",
            points=(paper.COLOUR_NOISE_GAIN, None),
        ),
        Ablation(
            name="text-start",
            change=_text_start,
            needs="a start other than the paper's, such as paper-2012's",
            claim="its text starts all weights with 0.01 (section 5), its program conv3 to conv5 with 0.03; it says nothing "
            "of the difference",
        ),
        *_REMOVED,
        Ablation(
            name="ten-views",
            views=10,
            needs="a store with pictures larger than the net's input",
            claim="ten views lower the errors by 1.5 and 1.3 points (section 4.1)",
            points=_difference(("ILSVRC-2010 test", "1 CNN, ten views"), ("ILSVRC-2010 test", "1 CNN, centre crop")),
        ),
        Ablation(
            name="five-nets",
            nets=5,
            claim="averaging five nets lowers the errors by 2.6 and 1.8 points (table 2)",
            points=_difference(("ILSVRC-2012 validation", "5 CNNs"), ("ILSVRC-2012 validation", "1 CNN")),
        ),
    )
}


def get_ablation(name: str) -> Ablation:
    """An ablation by name.

    Raises:
        RecipeError: an unknown name; the message lists the known ones.
    """
    if name not in ABLATIONS:
        raise RecipeError(f"unknown ablation {name!r}: {nearest(name, ABLATIONS)}")
    return ABLATIONS[name]


def sides(ablation: Ablation, recipe: Recipe, other_lr: float | None = None) -> tuple[Recipe, Recipe]:
    """The standard and the changed recipe.

    Args:
        other_lr: learning rate of the changed side; the recipe's if not given.

    Raises:
        RecipeError: the ablation changes nothing in this recipe, or changes more than it should.
    """
    standard = replace(recipe, **ablation.both)
    if not ablation.trains:
        if other_lr is not None:
            raise RecipeError(
                f"other_lr (={other_lr:g}) has no effect, as {ablation.name} trains no networks of its own: drop it."
            )
        return standard, standard
    network = standard.network(num_classes=2)
    changed = replace(standard, **ablation.change(network))
    if _computes(changed) == _computes(standard):
        raise RecipeError(
            f"{ablation.name} does not apply to variant {recipe.variant} with these settings: it needs {ablation.needs}, "
            "and would train the same network twice."
        )
    if ablation.same_shapes:
        _check_same_shapes(network, changed.network(num_classes=2))
    return standard, changed if other_lr is None else replace(changed, lr=other_lr)


def _computes(recipe: Recipe) -> tuple[Variant, dict[str, Any]]:
    """What decides the result: a field that is None and one that says the same are equal here."""
    rest = {name: getattr(recipe, name) for name in Recipe.__dataclass_fields__ if name not in NETWORK_FIELDS}
    return recipe.network(num_classes=2), rest


def _check_same_shapes(first: Variant, second: Variant) -> None:
    if differing := _differing_shape(first, second, first.input_size):
        sizes = range(first.input_size + 1, 2 * first.input_size)
        fitting = next(size for size in sizes if not _differing_shape(first, second, size))
        raise RecipeError(
            f"input_size (={first.input_size}) gives {differing} on the changed one: the two nets would differ in more than "
            f"the windows. With --input-size {fitting} they do not."
        )


def _differing_shape(first: Variant, second: Variant, size: int) -> str:
    """The first layer whose shape differs at an input size, with both; empty if none does."""
    traces = (replace(variant, input_size=size).layers() for variant in (first, second))
    return next(
        (
            f"{one.name} shape {_plain(one.output)} on the standard side and {_plain(other.output)}"
            for one, other in zip(*traces, strict=True)
            if one.output != other.output
        ),
        "",
    )


def what_changes(standard: Recipe, changed: Recipe) -> list[str]:
    """The fields that differ, in words: "dropout: 0.5 → 0.0"."""
    return [
        f"{name.replace('_', '-')}: {_plain(_value(standard, name))} → {_plain(_value(changed, name))}"
        for name in differences(standard, changed)
    ]


def _value(recipe: Recipe, name: str) -> Any:
    value = getattr(recipe, name)
    return getattr(recipe.network(num_classes=2), name) if value is None and name in NETWORK_FIELDS else value


def _plain(value: Any) -> str:
    return (" ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
