"""Recipes: named, frozen, checked."""

import json
import math
from dataclasses import asdict

import pytest

from alexnet import paper, schema
from alexnet.errors import RecipeError
from alexnet.train import recipes


def test_names() -> None:
    assert set(recipes.RECIPES) == {"laptop", "small-photos", "paper-text", "paper-2012", "caffe", "modern", "finetune"}
    for name in recipes.RECIPES:
        assert recipes.get_recipe(name).network(10).num_classes == 10


def test_paper_2012() -> None:
    recipe = recipes.get_recipe("paper-2012")
    assert (recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay) == (128, 0.01, 0.9, 5e-4)
    assert recipe.network(1000).parameters == 60_965_224
    assert recipe.epochs == paper.EPOCHS


def test_paper_2012_starts_as_the_code_did() -> None:
    """layers-145.cfg: initW 0.01, and 0.03 in conv3 to conv5; initB 1 in conv2,
    conv4, conv5, fc6 and fc7.
    """
    net = recipes.get_recipe("paper-2012").network(1000)
    assert net.init == "gaussian" and net.pixels == "mean-image"
    assert net.init_std == (0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01)
    assert net.init_bias == (0, 1, 0, 1, 1, 1, 1, 0)
    assert (net.bias_lr, net.bias_decay, net.bias_lr_drops) == (2, 0, False)


def test_paper_text() -> None:
    """Section 5: 0.01 in every layer, biases of 1 in conv2, conv4, conv5, fc6 and fc7, lowered when
    the error stops falling.
    """
    recipe = recipes.get_recipe("paper-text")
    net = recipe.network(1000)
    assert net.init == "gaussian" and net.pixels == "mean-image" and net.parameters == 60_965_224
    assert set(net.init_std) == {0.01}
    assert net.init_bias == (0, 1, 0, 1, 1, 1, 1, 0)
    assert (recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay, recipe.epochs) == (128, 0.01, 0.9, 5e-4, 90)
    assert (recipe.schedule, recipe.lr_factor, recipe.colour_noise, recipe.warmup) == ("plateau", 0.1, 0.1, 0)


def test_caffe() -> None:
    """models/bvlc_alexnet: solver.prototxt, and the fillers of train_val.prototxt."""
    recipe = recipes.get_recipe("caffe")
    net = recipe.network(1000)
    assert (recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay) == (256, 0.01, 0.9, 5e-4)
    assert (recipe.schedule, recipe.lr_factor, recipe.colour_noise) == ("step", 0.1, 0)
    updates = paper.TRAINING_IMAGES // 256  # in an epoch
    assert [round(drop * updates, -2) for drop in recipe.lr_drops] == [100_000, 200_000, 300_000, 400_000]
    assert recipe.epochs * updates == pytest.approx(450_000, rel=0.001)
    assert net.init_std == (0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01)
    assert net.init_bias == (0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0)
    assert (net.bias_lr, net.bias_decay, net.bias_lr_drops) == (2, 0, True)


def test_modern() -> None:
    """The paper's network and a tenth of its epochs; no older recipe has what is new in it."""
    recipe = recipes.get_recipe("modern")
    assert recipe.network(1000).parameters == 60_965_224
    assert recipe.epochs * 10 == recipes.get_recipe("paper-2012").epochs
    for name in set(recipes.RECIPES) - {"modern"}:
        older = recipes.get_recipe(name)
        assert (older.whiten, older.nesterov, older.label_smoothing) == (False, False, 0)


def test_every_field_has_a_rule_or_a_type_and_a_help_text() -> None:
    from pathlib import Path

    text = Path(recipes.__file__).read_text()
    for field in recipes.Recipe.__dataclass_fields__:
        assert f"    {field}:" in text
        after = text.split(f"    {field}:", 1)[1].split("\n")[1]
        assert after.startswith('    """'), field


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, r"epochs \(=0\) must be from 1 to 100,000"),
        ({"batch_size": 0}, r"batch_size \(=0\)"),
        ({"lr": 0.0}, r"lr \(=0.0\) must be above 0"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"lr_factor": 1.0}, "lr_factor"),
        ({"lr_drops": (5.0, 3.0)}, "lr_drops"),
        ({"patience": 0}, "patience"),
        ({"warmup": 1.0}, "warmup"),
        ({"init_std": (0.01,) * 7 + (0.0,)}, r"init_std \(=.*\) must be above 0 and below 1,000,000,000,000 for every layer"),
        ({"init_std": (0.01,) * 8, "init": "he"}, r"init_std \(=.*\) has no effect with init \(=he\)"),
        ({"label_smoothing": 1.0}, r"label_smoothing \(=1.0\) must be in \[0, 1\)"),
        ({"colour_noise": -0.1}, "colour_noise"),
        ({"seed": -1}, "seed"),
        ({"workers": 0}, "workers"),
        ({"checkpoint_minutes": -1.0}, "checkpoint_minutes"),
        ({"variant": "cafe"}, "did you mean 'caffe'"),
        ({"input_size": 40}, "smallest that works is 64"),
        ({"width": 0.3}, r"multiples of 1/16"),
        ({"learning_rat": 1}, "unknown field 'learning_rat' of a recipe"),
        ({"epoch": 1}, "did you mean 'epochs'"),
    ],
)
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.get_recipe("laptop", **changes)


def test_unknown_recipe() -> None:
    with pytest.raises(RecipeError, match="'laptob': did you mean 'laptop'"):
        recipes.get_recipe("laptob")


WRONG = (
    math.nan,
    math.inf,
    -math.inf,
    -1,
    0,
    10**9,
    10**30,
    -(10**400),
    1e308,
    "x",
    b"x",
    None,
    True,
    1.5,
    [],
    {},
    (),
    (1,),
    object(),
)


@pytest.mark.parametrize("field", recipes.Recipe.__dataclass_fields__)
def test_any_value_is_refused_in_words_or_can_be_recorded(field: str) -> None:
    """Types, NaN, infinity, too much: RecipeError names the field; what passes comes
    back from JSON as it was.
    """
    for wrong in WRONG:
        try:
            recipe = recipes.get_recipe("laptop", **{field: wrong})
        except RecipeError as error:
            assert field in str(error) or "keep" in str(error), wrong
            assert "\n" not in str(error)
            continue
        recorded = json.loads(json.dumps(asdict(recipe), allow_nan=False))
        assert schema.parse(recorded, recipes.Recipe, "it", RecipeError, "") == recipe, wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": "5"}, r"epochs \(='5'\) must be a whole number\."),
        ({"epochs": 3.0}, r"epochs \(=3.0\) must be a whole number\."),
        ({"epochs": True}, r"epochs \(=True\) must be a whole number\."),
        ({"lr": None}, r"lr \(=None\) must be a number\."),
        ({"lr_drops": [1.0]}, r"lr_drops \(=\[1.0\]\) must be a tuple, each entry a number\."),
        ({"kernels": (96, 256)}, r"kernels \(=\(96, 256\)\) must be a tuple of 5, each a whole number or None\."),
        ({"device": "gpu"}, r"device \(='gpu'\) must be 'auto' or 'cpu' or 'cuda' or 'mps'\."),
        ({"mirror": 1}, r"mirror \(=1\) must be True or False\."),
        ({"epochs": 10**9}, r"epochs \(=1000000000\) must be from 1 to 100,000\."),
        ({"batch_size": 10**9}, r"batch_size \(=1000000000\) must be from 1 to 65,536\."),
        ({"workers": 10_000}, r"workers \(=10000\) must be from 1 to 256\."),
        ({"lr": math.nan}, r"lr \(=nan\) must be above 0 and below 1,000,000,000,000\."),
        ({"width": math.inf}, r"width \(=inf\) must be above 0 and at most 16\."),
        ({"input_size": 10**6}, r"input_size \(=1000000\) must be from 1 to 4,096 pixels\."),
    ],
)
def test_types_and_limits(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.get_recipe("laptop", **changes)
