"""Recipes: named, frozen, checked."""

import pytest

from alexnet import paper
from alexnet.errors import RecipeError
from alexnet.train import recipes


def test_names() -> None:
    assert set(recipes.RECIPES) == {"laptop", "small-photos", "paper-text", "paper-2012", "caffe", "modern"}
    for name in recipes.RECIPES:
        assert recipes.get(name).network(10).num_classes == 10


def test_paper_2012() -> None:
    recipe = recipes.get("paper-2012")
    assert (recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay) == (128, 0.01, 0.9, 5e-4)
    assert recipe.network(1000).parameters == 60_965_224
    assert recipe.epochs == paper.EPOCHS


def test_paper_2012_starts_as_the_code_did() -> None:
    """layers-145.cfg: initW 0.01, and 0.03 in conv3 to conv5; initB 1 in conv2, conv4, conv5, fc6 and fc7."""
    net = recipes.get("paper-2012").network(1000)
    assert net.init == "gaussian" and net.pixels == "mean-image"
    assert net.init_std == (0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01)
    assert net.init_bias == (0, 1, 0, 1, 1, 1, 1, 0)
    assert (net.bias_lr, net.bias_decay, net.bias_lr_drops) == (2, 0, False)


def test_paper_text() -> None:
    """Section 5: 0.01 in every layer, biases of 1 in conv2, conv4, conv5, fc6 and fc7, lowered when the error stops falling."""
    recipe = recipes.get("paper-text")
    net = recipe.network(1000)
    assert net.init == "gaussian" and net.pixels == "mean-image" and net.parameters == 60_965_224
    assert set(net.init_std) == {0.01}
    assert net.init_bias == (0, 1, 0, 1, 1, 1, 1, 0)
    assert (recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay, recipe.epochs) == (128, 0.01, 0.9, 5e-4, 90)
    assert (recipe.schedule, recipe.lr_factor, recipe.colour_noise, recipe.warmup) == ("plateau", 0.1, 0.1, 0)


def test_caffe() -> None:
    """models/bvlc_alexnet: solver.prototxt, and the fillers of train_val.prototxt."""
    recipe = recipes.get("caffe")
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
    recipe = recipes.get("modern")
    assert recipe.network(1000).parameters == 60_965_224
    assert recipe.epochs * 10 == recipes.get("paper-2012").epochs
    for name in set(recipes.RECIPES) - {"modern"}:
        older = recipes.get(name)
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
        ({"init_std": (0.01,) * 7 + (0.0,)}, r"init_std \(=.*\) must be above 0 and below 1e.12 for every layer"),
        ({"init_std": (0.01,) * 8, "init": "he"}, r"init_std \(=.*\) has no use: weights start as init \(=he\) says"),
        ({"label_smoothing": 1.0}, r"label_smoothing \(=1.0\) must be in \[0, 1\)"),
        ({"colour_noise": -0.1}, "colour_noise"),
        ({"seed": -1}, "seed"),
        ({"workers": 0}, "workers"),
        ({"checkpoint_minutes": -1.0}, "checkpoint_minutes"),
        ({"variant": "cafe"}, "did you mean 'caffe'"),
        ({"input_size": 40}, "smallest that works is 64"),
        ({"width": 0.3}, r"multiples of 1/16"),
        ({"learning_rat": 1}, "no field 'learning_rat'"),
        ({"epoch": 1}, "did you mean 'epochs'"),
    ],
)
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.get("laptop", **changes)


def test_unknown_recipe() -> None:
    with pytest.raises(RecipeError, match="'laptob': did you mean 'laptop'"):
        recipes.get("laptob")
